package driver

import (
	"context"
	"strconv"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// ControllerGetCapabilities says what the controller can do; without snapshots there are no clones either.
func (d *Driver) ControllerGetCapabilities(context.Context, *csi.ControllerGetCapabilitiesRequest) (*csi.ControllerGetCapabilitiesResponse, error) {
	kinds := []csi.ControllerServiceCapability_RPC_Type{
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME,
		csi.ControllerServiceCapability_RPC_LIST_VOLUMES,
		csi.ControllerServiceCapability_RPC_GET_CAPACITY,
		csi.ControllerServiceCapability_RPC_EXPAND_VOLUME,
		csi.ControllerServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
	}
	if !d.config.NoSnapshots {
		kinds = append(kinds,
			csi.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT,
			csi.ControllerServiceCapability_RPC_LIST_SNAPSHOTS,
			csi.ControllerServiceCapability_RPC_CLONE_VOLUME)
	}
	response := &csi.ControllerGetCapabilitiesResponse{}
	for _, kind := range kinds {
		response.Capabilities = append(response.Capabilities, &csi.ControllerServiceCapability{
			Type: &csi.ControllerServiceCapability_Rpc{Rpc: &csi.ControllerServiceCapability_RPC{Type: kind}},
		})
	}
	return response, nil
}

// ValidateVolumeCapabilities confirms what a volume can do.
func (d *Driver) ValidateVolumeCapabilities(_ context.Context, request *csi.ValidateVolumeCapabilitiesRequest) (*csi.ValidateVolumeCapabilitiesResponse, error) {
	if request.GetVolumeId() == "" {
		return nil, invalid("volume id is missing")
	}
	if err := checkCapabilities(request.GetVolumeCapabilities()); err != nil {
		return nil, err
	}
	volume, found := d.store.Volume(request.GetVolumeId())
	if !found {
		return nil, status.Errorf(codes.NotFound, "volume %q does not exist", request.GetVolumeId())
	}
	for _, capability := range request.GetVolumeCapabilities() {
		if err := matches(volume, capability); err != nil {
			return &csi.ValidateVolumeCapabilitiesResponse{Message: status.Convert(err).Message()}, nil
		}
	}
	return &csi.ValidateVolumeCapabilitiesResponse{Confirmed: &csi.ValidateVolumeCapabilitiesResponse_Confirmed{
		VolumeContext:      request.GetVolumeContext(),
		VolumeCapabilities: request.GetVolumeCapabilities(),
		Parameters:         request.GetParameters(),
	}}, nil
}

// GetCapacity tells the room in the pool.
func (d *Driver) GetCapacity(_ context.Context, request *csi.GetCapacityRequest) (*csi.GetCapacityResponse, error) {
	if topology := request.GetAccessibleTopology(); topology != nil && !d.here(topology) {
		return &csi.GetCapacityResponse{}, nil
	}
	free, _, err := d.store.Room()
	if err != nil {
		return nil, err
	}
	return &csi.GetCapacityResponse{AvailableCapacity: free}, nil
}

// ListVolumes lists volumes in the order of their creation.
func (d *Driver) ListVolumes(_ context.Context, request *csi.ListVolumesRequest) (*csi.ListVolumesResponse, error) {
	after, err := pageStart(request.GetStartingToken(), request.GetMaxEntries())
	if err != nil {
		return nil, err
	}
	response := &csi.ListVolumesResponse{}
	last := int64(0)
	for _, volume := range d.store.Volumes() {
		if volume.Sequence <= after {
			continue
		}
		if full(len(response.Entries), request.GetMaxEntries()) {
			response.NextToken = strconv.FormatInt(last, 10)
			break
		}
		last = volume.Sequence
		response.Entries = append(response.Entries, &csi.ListVolumesResponse_Entry{Volume: d.describe(volume)})
	}
	return response, nil
}

// pageStart reads a token: the sequence number of the last entry of the page before. Entries that come or go between
// two pages do not shift it.
func pageStart(token string, most int32) (int64, error) {
	if most < 0 {
		return 0, invalid("max entries is %d and cannot be negative", most)
	}
	if token == "" {
		return 0, nil
	}
	after, err := strconv.ParseInt(token, 10, 64)
	if err != nil || after < 0 {
		return 0, status.Errorf(codes.Aborted, "starting token %q was not given by this driver: start again without one", token)
	}
	return after, nil
}

func full(entries int, most int32) bool { return most > 0 && entries >= int(most) }
