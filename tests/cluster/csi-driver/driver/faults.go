package driver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Fault is what one switch of the faults file does to a call.
type Fault struct {
	DelaySeconds float64 `json:"delaySeconds"`
	Fail         string  `json:"fail"`      // "CODE: words" of a gRPC status
	FailAfter    int     `json:"failAfter"` // messages that a stream sends before it fails
}

// Which switch acts on which call. snapshotReady acts on no call but on what is said of a snapshot.
var faultOfCall = map[string]string{
	"CreateVolume":           "createVolume",
	"DeleteVolume":           "deleteVolume",
	"CreateSnapshot":         "createSnapshot",
	"DeleteSnapshot":         "deleteSnapshot",
	"ListSnapshots":          "listSnapshots",
	"ControllerExpandVolume": "controllerExpand",
	"GetCapacity":            "getCapacity",
	"NodeStageVolume":        "nodeStage",
	"NodeUnstageVolume":      "nodeUnstage",
	"NodePublishVolume":      "nodePublish",
	"NodeUnpublishVolume":    "nodeUnpublish",
	"NodeExpandVolume":       "nodeExpand",
	"GetMetadataAllocated":   "getMetadataAllocated",
	"GetMetadataDelta":       "getMetadataDelta",
}

// Calls that are answered with a stream of messages.
var streams = []string{"getMetadataAllocated", "getMetadataDelta"}

const snapshotReady = "snapshotReady"

// readFaults reads the file anew for each call, so that a test can turn faults on and off. No file means no faults; a
// file that cannot be read fails the call, or a test would pass because its fault never came.
func readFaults(file string) (map[string]Fault, error) {
	if file == "" {
		return nil, nil
	}
	text, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) || err == nil && len(bytes.TrimSpace(text)) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	faults := map[string]Fault{}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&faults); err != nil {
		return nil, status.Errorf(codes.Internal, "faults file %s: %v (write it anew and rename it into place)", file, err)
	}
	known := []string{snapshotReady}
	for _, name := range faultOfCall {
		known = append(known, name)
	}
	slices.Sort(known)
	for name, fault := range faults {
		if !slices.Contains(known, name) {
			return nil, status.Errorf(codes.Internal, "faults file %s: no fault %q; there are: %s", file, name, strings.Join(known, " "))
		}
		if err := fault.check(name); err != nil {
			return nil, status.Errorf(codes.Internal, "faults file %s: %s: %v", file, name, err)
		}
	}
	return faults, nil
}

func (f Fault) check(name string) error {
	if name == snapshotReady && (f.Fail != "" || f.FailAfter != 0) {
		return errors.New("it takes delaySeconds only")
	}
	if f.FailAfter != 0 && !slices.Contains(streams, name) {
		return fmt.Errorf("it sends no stream: failAfter is for %s", strings.Join(streams, " "))
	}
	if f.FailAfter < 0 || f.FailAfter > 0 && f.Fail == "" {
		return errors.New("failAfter is a number of messages, and needs fail beside it")
	}
	_, _, err := f.parsed()
	return err
}

// failure gives the error that a fault asks for, nil if it asks for none.
func (f Fault) failure() error {
	code, words, err := f.parsed()
	if err != nil {
		return err
	}
	return status.Error(code, words)
}

// parsed gives the code and the words of an error, OK if none is asked for.
func (f Fault) parsed() (codes.Code, string, error) {
	if f.Fail == "" {
		return codes.OK, "", nil
	}
	name, words, found := strings.Cut(f.Fail, ":")
	var code codes.Code
	if !found || code.UnmarshalJSON([]byte(`"`+name+`"`)) != nil || code == codes.OK {
		return codes.OK, "", errors.New(`fail must be "CODE: words" with a gRPC code such as INTERNAL or UNAVAILABLE`)
	}
	return code, strings.TrimSpace(words), nil
}

// misbehave delays and fails a call as the faults file says, and gives the fault: what a stream fails with after some
// messages is still to come. A caller that gives up ends the delay.
func (d *Driver) misbehave(ctx context.Context, call string) (Fault, error) {
	name, known := faultOfCall[call]
	if !known {
		return Fault{}, nil
	}
	faults, err := readFaults(d.config.FaultsFile)
	if err != nil {
		return Fault{}, err
	}
	fault := faults[name]
	if fault.DelaySeconds > 0 {
		select {
		case <-time.After(seconds(fault.DelaySeconds)):
		case <-ctx.Done():
			return fault, status.FromContextError(ctx.Err()).Err()
		}
	}
	if fault.FailAfter > 0 {
		return fault, nil
	}
	return fault, fault.failure()
}

// readyAfter tells how long a snapshot is not yet ready to use after it was taken.
func (d *Driver) readyAfter() (time.Duration, error) {
	faults, err := readFaults(d.config.FaultsFile)
	return seconds(faults[snapshotReady].DelaySeconds), err
}

func seconds(count float64) time.Duration { return time.Duration(count * float64(time.Second)) }
