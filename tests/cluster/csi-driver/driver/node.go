package driver

import (
	"context"
	"errors"
	"slices"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"carrack.dev/tests/csi-driver/storage"
)

// NodeGetInfo names the node and where it is.
func (d *Driver) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: d.config.Node, AccessibleTopology: d.topology()}, nil
}

// NodeGetCapabilities says what the node's part can do.
func (d *Driver) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	response := &csi.NodeGetCapabilitiesResponse{}
	for _, kind := range []csi.NodeServiceCapability_RPC_Type{
		csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME,
		csi.NodeServiceCapability_RPC_GET_VOLUME_STATS,
		csi.NodeServiceCapability_RPC_EXPAND_VOLUME,
		csi.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
	} {
		response.Capabilities = append(response.Capabilities, &csi.NodeServiceCapability{
			Type: &csi.NodeServiceCapability_Rpc{Rpc: &csi.NodeServiceCapability_RPC{Type: kind}},
		})
	}
	return response, nil
}

// NodeStageVolume attaches and mounts a volume on the node.
func (d *Driver) NodeStageVolume(ctx context.Context, request *csi.NodeStageVolumeRequest) (*csi.NodeStageVolumeResponse, error) {
	if request.GetStagingTargetPath() == "" {
		return nil, invalid("staging target path is missing")
	}
	capability := request.GetVolumeCapability()
	if err := checkCapability(capability); err != nil {
		return nil, err
	}
	volume, release, err := d.lockVolume(ctx, request.GetVolumeId())
	if err != nil {
		return nil, err
	}
	defer release()
	if err := matches(volume, capability); err != nil {
		return nil, err
	}
	err = d.store.Stage(volume, request.GetStagingTargetPath(), capability.GetMount().GetMountFlags(), readsOnly(capability))
	return &csi.NodeStageVolumeResponse{}, nodeError(err)
}

// nodeError gives the errors of storage their codes.
func nodeError(err error) error {
	switch {
	case errors.Is(err, storage.ErrIncompatible):
		return status.Error(codes.AlreadyExists, err.Error())
	case errors.Is(err, storage.ErrOption):
		return status.Error(codes.InvalidArgument, err.Error())
	case errors.Is(err, storage.ErrMounted):
		// Kubelet takes this code for "expand it when it is not in use".
		return status.Error(codes.FailedPrecondition, err.Error())
	}
	return err
}

// NodeUnstageVolume undoes NodeStageVolume.
func (d *Driver) NodeUnstageVolume(ctx context.Context, request *csi.NodeUnstageVolumeRequest) (*csi.NodeUnstageVolumeResponse, error) {
	if request.GetStagingTargetPath() == "" {
		return nil, invalid("staging target path is missing")
	}
	volume, release, err := d.lockVolume(ctx, request.GetVolumeId())
	if err != nil {
		return nil, err
	}
	defer release()
	return &csi.NodeUnstageVolumeResponse{}, d.store.Unstage(volume, request.GetStagingTargetPath())
}

// NodePublishVolume shows a staged volume to a pod.
func (d *Driver) NodePublishVolume(ctx context.Context, request *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	if request.GetTargetPath() == "" {
		return nil, invalid("target path is missing")
	}
	if request.GetStagingTargetPath() == "" {
		return nil, invalid("staging target path is missing")
	}
	capability := request.GetVolumeCapability()
	if err := checkCapability(capability); err != nil {
		return nil, err
	}
	volume, release, err := d.lockVolume(ctx, request.GetVolumeId())
	if err != nil {
		return nil, err
	}
	defer release()
	if err := matches(volume, capability); err != nil {
		return nil, err
	}
	staged, err := d.store.Staged(volume, request.GetStagingTargetPath())
	if err != nil {
		return nil, err
	}
	if !staged {
		return nil, status.Errorf(codes.FailedPrecondition, "volume %s is not staged at %s", volume.ID, request.GetStagingTargetPath())
	}
	if err := d.onlyWriter(volume, request); err != nil {
		return nil, err
	}
	err = d.store.Publish(volume, request.GetStagingTargetPath(), request.GetTargetPath(), request.GetReadonly() || readsOnly(capability))
	return &csi.NodePublishVolumeResponse{}, nodeError(err)
}

// onlyWriter refuses a second target to a volume for a single writer; the same target again is no second one.
func (d *Driver) onlyWriter(volume storage.Volume, request *csi.NodePublishVolumeRequest) error {
	if request.GetVolumeCapability().GetAccessMode().GetMode() != csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER {
		return nil
	}
	points, err := d.store.Published(volume, request.GetStagingTargetPath())
	if err != nil || len(points) == 0 || slices.Contains(points, request.GetTargetPath()) {
		return err
	}
	return status.Errorf(codes.FailedPrecondition, "volume %s is for a single writer and is published at %s already", volume.ID, points[0])
}

// NodeUnpublishVolume undoes NodePublishVolume.
func (d *Driver) NodeUnpublishVolume(ctx context.Context, request *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	if request.GetTargetPath() == "" {
		return nil, invalid("target path is missing")
	}
	_, release, err := d.lockVolume(ctx, request.GetVolumeId())
	if err != nil {
		return nil, err
	}
	defer release()
	return &csi.NodeUnpublishVolumeResponse{}, d.store.Unpublish(request.GetTargetPath())
}

// NodeExpandVolume lets the file system take the size that the controller gave the volume.
func (d *Driver) NodeExpandVolume(ctx context.Context, request *csi.NodeExpandVolumeRequest) (*csi.NodeExpandVolumeResponse, error) {
	volume, release, err := d.lockVolume(ctx, request.GetVolumeId())
	if err != nil {
		return nil, err
	}
	defer release()
	if request.GetVolumePath() == "" {
		return nil, invalid("volume path is missing")
	}
	if required := request.GetCapacityRange().GetRequiredBytes(); required > volume.Size {
		return nil, status.Errorf(codes.OutOfRange, "volume %s has %d bytes, less than the %d asked for: expand it with the controller first", volume.ID, volume.Size, required)
	}
	if err := d.store.Follow(volume); err != nil {
		return nil, nodeError(err)
	}
	return &csi.NodeExpandVolumeResponse{CapacityBytes: volume.Size}, nil
}

// NodeGetVolumeStats tells what a published volume holds.
func (d *Driver) NodeGetVolumeStats(_ context.Context, request *csi.NodeGetVolumeStatsRequest) (*csi.NodeGetVolumeStatsResponse, error) {
	if request.GetVolumeId() == "" || request.GetVolumePath() == "" {
		return nil, invalid("volume id or volume path is missing")
	}
	volume, found := d.store.Volume(request.GetVolumeId())
	if !found {
		return nil, status.Errorf(codes.NotFound, "volume %q does not exist", request.GetVolumeId())
	}
	usage, found, err := d.store.Usage(volume, request.GetVolumePath())
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, status.Errorf(codes.NotFound, "volume %s is not mounted at %s", volume.ID, request.GetVolumePath())
	}
	response := &csi.NodeGetVolumeStatsResponse{Usage: []*csi.VolumeUsage{{
		Unit: csi.VolumeUsage_BYTES, Total: usage.Bytes, Available: usage.BytesFree, Used: usage.BytesUsed,
	}}}
	if usage.Inodes > 0 {
		response.Usage = append(response.Usage, &csi.VolumeUsage{
			Unit: csi.VolumeUsage_INODES, Total: usage.Inodes, Available: usage.InodesFree, Used: usage.InodesUsed,
		})
	}
	return response, nil
}
