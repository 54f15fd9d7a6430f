package driver

import (
	"context"
	"path/filepath"

	"google.golang.org/grpc"
	registerapi "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// registration tells kubelet, which watches a directory for sockets, where the driver is.
type registration struct {
	registerapi.UnimplementedRegistrationServer
	driver *Driver
}

// register serves kubelet's registration socket. Kubelet forgets the driver when the socket goes.
func (d *Driver) register(failed chan<- error) (stop func(), err error) {
	if d.config.RegistrationDir == "" {
		return func() {}, nil
	}
	listener, err := listen(filepath.Join(d.config.RegistrationDir, d.config.Name+"-reg.sock"))
	if err != nil {
		return nil, err
	}
	server := grpc.NewServer()
	registerapi.RegisterRegistrationServer(server, &registration{driver: d})
	go func() { failed <- server.Serve(listener) }()
	return server.Stop, nil
}

// GetInfo answers kubelet's question what this socket is.
func (r *registration) GetInfo(context.Context, *registerapi.InfoRequest) (*registerapi.PluginInfo, error) {
	return &registerapi.PluginInfo{
		Type:              registerapi.CSIPlugin,
		Name:              r.driver.config.Name,
		Endpoint:          r.driver.config.Endpoint,
		SupportedVersions: []string{"1.0.0"},
	}, nil
}

// NotifyRegistrationStatus hears whether kubelet took the driver; kubelet tries again by itself.
func (r *registration) NotifyRegistrationStatus(_ context.Context, status *registerapi.RegistrationStatus) (*registerapi.RegistrationStatusResponse, error) {
	if status.GetPluginRegistered() {
		r.driver.config.Logf("kubelet registered %s", r.driver.config.Name)
	} else {
		r.driver.config.Logf("kubelet refused %s: %s", r.driver.config.Name, status.GetError())
	}
	return &registerapi.RegistrationStatusResponse{}, nil
}
