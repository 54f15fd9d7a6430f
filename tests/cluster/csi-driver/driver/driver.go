// Package driver answers the CSI calls of one node's storage, and registers it with kubelet.
package driver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"carrack.dev/tests/csi-driver/storage"
)

// TopologyKey is the label under which a volume's node is told to the cluster.
const TopologyKey = "topology.csi.carrack.dev/node"

// Config is what the command line says.
type Config struct {
	Name            string
	Node            string
	Endpoint        string // path of the CSI socket
	RegistrationDir string // "" registers nowhere
	FaultsFile      string // "" never fails on purpose
	NoSnapshots     bool
	Logf            func(format string, arguments ...any)
}

// Driver serves the CSI identity, controller, node and snapshot metadata services.
type Driver struct {
	csi.UnimplementedIdentityServer
	csi.UnimplementedControllerServer
	csi.UnimplementedNodeServer
	csi.UnimplementedSnapshotMetadataServer

	config Config
	store  *storage.Store
	locks  locks
}

// New makes a driver on an open store.
func New(config Config, store *storage.Store) *Driver {
	return &Driver{config: config, store: store, locks: locks{held: map[string]chan struct{}{}}}
}

// Serve answers calls until the context ends, and then finishes those that run.
func (d *Driver) Serve(ctx context.Context) error {
	server := grpc.NewServer(grpc.UnaryInterceptor(d.intercept), grpc.StreamInterceptor(d.interceptStream))
	csi.RegisterIdentityServer(server, d)
	csi.RegisterControllerServer(server, d)
	csi.RegisterNodeServer(server, d)
	csi.RegisterSnapshotMetadataServer(server, d)
	listener, err := listen(d.config.Endpoint)
	if err != nil {
		return err
	}
	failed := make(chan error, 2)
	go func() { failed <- server.Serve(listener) }()
	stopRegistration, err := d.register(failed)
	if err != nil {
		server.Stop()
		return err
	}
	d.config.Logf("serving %s on %s", d.config.Name, d.config.Endpoint)
	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	stopRegistration()
	stopSoon(server)
	return err
}

// stopSoon lets running calls finish, but not those that wait in a fault's delay for minutes.
func stopSoon(server *grpc.Server) {
	timer := time.AfterFunc(5*time.Second, server.Stop)
	defer timer.Stop()
	server.GracefulStop()
}

// listen makes a socket; one that a killed driver left behind is in the way and goes. (The lock on the state keeps a
// second driver away.)
func listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s (a socket's path has at most 107 bytes): %w", path, err)
	}
	return listener, nil
}

// intercept applies the fault switches and logs each call with what it is about and how it ended.
func (d *Driver) intercept(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	call := callOf(info.FullMethod)
	start := time.Now()
	_, err := d.misbehave(ctx, call)
	var response any
	if err == nil {
		response, err = handler(ctx, request)
	}
	return response, d.ended(call, about(request, response), start, err)
}

func callOf(method string) string { return method[strings.LastIndexByte(method, '/')+1:] }

// ended logs a call and gives the error that its caller gets.
func (d *Driver) ended(call, about string, start time.Time, err error) error {
	// What has no code yet is an error of the machine: a program or system call that failed.
	if _, coded := status.FromError(err); !coded {
		err = status.Error(codes.Internal, err.Error())
	}
	words := ""
	if err != nil {
		words = fmt.Sprintf(" message=%q", status.Convert(err).Message())
	}
	d.config.Logf("call=%s%s outcome=%s took=%s%s", call, about, status.Code(err), time.Since(start).Round(time.Millisecond), words)
	return err
}

// about names the volume or snapshot of a call.
func about(request, response any) string {
	var out strings.Builder
	add := func(key, value string) {
		if value != "" {
			fmt.Fprintf(&out, " %s=%s", key, value)
		}
	}
	if r, ok := request.(interface{ GetName() string }); ok {
		add("name", r.GetName())
	}
	if r, ok := request.(interface{ GetVolumeId() string }); ok {
		add("volume", r.GetVolumeId())
	}
	if r, ok := request.(interface{ GetSourceVolumeId() string }); ok {
		add("volume", r.GetSourceVolumeId())
	}
	if r, ok := request.(interface{ GetSnapshotId() string }); ok {
		add("snapshot", r.GetSnapshotId())
	}
	if r, ok := request.(interface{ GetBaseSnapshotId() string }); ok {
		add("base", r.GetBaseSnapshotId())
	}
	if r, ok := request.(interface{ GetTargetSnapshotId() string }); ok {
		add("snapshot", r.GetTargetSnapshotId())
	}
	if r, ok := request.(interface{ GetTargetPath() string }); ok {
		add("target", r.GetTargetPath())
	}
	switch r := response.(type) {
	case *csi.CreateVolumeResponse:
		add("volume", r.GetVolume().GetVolumeId())
	case *csi.CreateSnapshotResponse:
		add("snapshot", r.GetSnapshot().GetSnapshotId())
	}
	return out.String()
}
