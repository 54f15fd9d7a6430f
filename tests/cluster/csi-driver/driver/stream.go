package driver

import (
	"fmt"
	"time"

	"google.golang.org/grpc"
)

// stream is the answer to a call in several messages, with the faults of that call.
type stream struct {
	grpc.ServerStream

	driver  *Driver
	call    string
	request any
	fault   Fault
	sent    int
}

// interceptStream is intercept for calls that are answered with a stream.
func (d *Driver) interceptStream(server any, inner grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	s := &stream{ServerStream: inner, driver: d, call: callOf(info.FullMethod)}
	start := time.Now()
	err := handler(server, s)
	if err == nil && s.fault.FailAfter > 0 {
		// It had fewer messages than that; a test must not pass because its fault never came.
		err = s.fault.failure()
	}
	return d.ended(s.call, fmt.Sprintf("%s messages=%d", about(s.request, nil), s.sent), start, err)
}

// RecvMsg gives the request, of which each call has one, once the faults that come before an answer are over.
func (s *stream) RecvMsg(message any) error {
	if err := s.ServerStream.RecvMsg(message); err != nil {
		return err
	}
	s.request = message
	var err error
	s.fault, err = s.driver.misbehave(s.Context(), s.call)
	return err
}

// SendMsg sends a message, unless so many were sent that the call is to fail now.
func (s *stream) SendMsg(message any) error {
	if s.fault.FailAfter > 0 && s.sent == s.fault.FailAfter {
		return s.fault.failure()
	}
	s.sent++
	return s.ServerStream.SendMsg(message)
}
