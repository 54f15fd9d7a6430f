package driver

import (
	"context"
	"strconv"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"carrack.dev/tests/csi-driver/storage"
)

// Spec's limit for names; longer ones could not be told apart by everyone who keeps them.
const longestName = 128

// CreateVolume makes an empty volume or one from a snapshot or volume.
func (d *Driver) CreateVolume(ctx context.Context, request *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	if request.GetName() == "" {
		return nil, invalid("name is missing")
	}
	if len(request.GetName()) > longestName {
		return nil, invalid("name has %d bytes, over the %d of the specification", len(request.GetName()), longestName)
	}
	if err := checkCapabilities(request.GetVolumeCapabilities()); err != nil {
		return nil, err
	}
	if err := checkParameters(request.GetParameters(), filesystemParameter); err != nil {
		return nil, err
	}
	if len(request.GetMutableParameters()) > 0 {
		return nil, invalid("this driver has no mutable parameters: remove the VolumeAttributesClass")
	}
	if err := d.reachable(request.GetAccessibilityRequirements()); err != nil {
		return nil, err
	}
	release, err := d.locks.acquire(ctx, "volume name "+request.GetName())
	if err != nil {
		return nil, err
	}
	defer release()
	wanted, held, err := d.sourceOf(request)
	if err != nil {
		return nil, err
	}
	wanted.Name = request.GetName()
	release, err = d.locks.acquire(ctx, held...)
	if err != nil {
		return nil, err
	}
	defer release()
	volume, err := d.addVolume(wanted, request)
	if err != nil {
		return nil, err
	}
	return &csi.CreateVolumeResponse{Volume: d.describe(volume)}, nil
}

// reachable refuses a volume that must be reached from other nodes only.
func (d *Driver) reachable(requirement *csi.TopologyRequirement) error {
	if len(requirement.GetRequisite()) == 0 {
		return nil
	}
	for _, topology := range requirement.GetRequisite() {
		if d.here(topology) {
			return nil
		}
	}
	return status.Errorf(codes.ResourceExhausted, "volumes can be had on %s=%s only", TopologyKey, d.config.Node)
}

func (d *Driver) here(topology *csi.Topology) bool {
	node, found := topology.GetSegments()[TopologyKey]
	return !found || node == d.config.Node
}

// sourceOf finds what a new volume is a copy of, with the keys to lock so that it does not go meanwhile. The volume it
// gives has the kind and size of the source.
func (d *Driver) sourceOf(request *csi.CreateVolumeRequest) (storage.Volume, []string, error) {
	none := storage.Volume{}
	source := request.GetVolumeContentSource()
	if source == nil {
		return none, nil, nil
	}
	// A caller that lost the first answer asks again, and the source may be gone by then.
	if made, found := d.store.VolumeNamed(request.GetName()); found &&
		made.SourceSnapshot == source.GetSnapshot().GetSnapshotId() && made.SourceVolume == source.GetVolume().GetVolumeId() {
		return made, nil, nil
	}
	if d.config.NoSnapshots {
		return none, nil, invalid("this driver was started with --no-snapshots: it copies neither snapshots nor volumes")
	}
	switch {
	case source.GetSnapshot() != nil:
		id := source.GetSnapshot().GetSnapshotId()
		snapshot, found := d.store.Snapshot(id)
		if !found {
			return none, nil, status.Errorf(codes.NotFound, "snapshot %q to restore does not exist", id)
		}
		described, err := d.describeSnapshot(snapshot)
		if err != nil {
			return none, nil, err
		}
		if !described.GetReadyToUse() {
			return none, nil, status.Errorf(codes.FailedPrecondition, "snapshot %s is not ready to use yet", id)
		}
		return storage.Volume{Kind: snapshot.Kind, Size: snapshot.Size, SourceSnapshot: id}, []string{id}, nil
	case source.GetVolume() != nil:
		id := source.GetVolume().GetVolumeId()
		volume, found := d.store.Volume(id)
		if !found {
			return none, nil, status.Errorf(codes.NotFound, "volume %q to clone does not exist", id)
		}
		return storage.Volume{Kind: volume.Kind, Size: volume.Size, SourceVolume: id}, []string{id}, nil
	}
	return none, nil, invalid("volume content source names neither a snapshot nor a volume")
}

// addVolume makes the volume unless it is there. wanted has the source's kind and size, both empty without a source.
func (d *Driver) addVolume(wanted storage.Volume, request *csi.CreateVolumeRequest) (storage.Volume, error) {
	kind, err := wantedKind(request.GetParameters(), request.GetVolumeCapabilities())
	if err != nil {
		return wanted, err
	}
	kind, err = d.copiedKind(kind, wanted)
	if err != nil {
		return wanted, err
	}
	sourceSize := wanted.Size
	wanted.Kind = kind
	if existing, found := d.store.VolumeNamed(wanted.Name); found {
		return existing, fulfils(existing, wanted, request.GetCapacityRange())
	}
	if wanted.Size, err = wantedSize(kind, request.GetCapacityRange(), sourceSize); err != nil {
		return wanted, err
	}
	if err := d.fits(wanted.Size); err != nil {
		return wanted, err
	}
	return d.store.AddVolume(wanted)
}

// copiedKind says of what kind a volume becomes. Data is not converted, so a copy is what its source is; but the image
// of a file system can be had as a block device, and the other way round if it holds that file system.
func (d *Driver) copiedKind(kind storage.Kind, wanted storage.Volume) (storage.Kind, error) {
	source := wanted.Kind
	switch {
	case source == "" && kind == "":
		return storage.Btrfs, nil
	case source == "" || kind == source:
		return kind, nil
	case kind == "" && source != storage.Block:
		return source, nil
	case kind == storage.Block && source != storage.Btrfs:
		return kind, nil
	}
	from := wanted.SourceSnapshot + wanted.SourceVolume
	if source == storage.Block && kind != storage.Btrfs {
		held := d.store.ImageHolds(wanted.SourceSnapshot, wanted.SourceVolume)
		if storage.Kind(held) == kind || kind == "" && (held == string(storage.Ext4) || held == string(storage.XFS)) {
			return storage.Kind(held), nil
		}
		return "", invalid("%s was a block volume and holds %q, no file system to mount as %q: ask for a block volume", from, held, kind)
	}
	return "", invalid("%s is of kind %s and cannot become %s: use a storage class with %s: %s", from, source, kind, filesystemParameter, source)
}

// fulfils tells whether an existing volume of the name is what is asked for again.
func fulfils(existing, wanted storage.Volume, size *csi.CapacityRange) error {
	differs := ""
	switch {
	case existing.Kind != wanted.Kind:
		differs = "its kind is " + string(existing.Kind)
	case existing.SourceSnapshot != wanted.SourceSnapshot || existing.SourceVolume != wanted.SourceVolume:
		differs = "it has another source"
	case existing.Size < size.GetRequiredBytes() || size.GetLimitBytes() > 0 && existing.Size > size.GetLimitBytes():
		differs = "its size is " + strconv.FormatInt(existing.Size, 10)
	default:
		return nil
	}
	return status.Errorf(codes.AlreadyExists, "volume %q exists as %s and is another one: %s", wanted.Name, existing.ID, differs)
}

func (d *Driver) describe(volume storage.Volume) *csi.Volume {
	described := &csi.Volume{
		VolumeId:           volume.ID,
		CapacityBytes:      volume.Size,
		VolumeContext:      map[string]string{filesystemParameter: string(volume.Kind)},
		AccessibleTopology: []*csi.Topology{d.topology()},
	}
	switch {
	case volume.SourceSnapshot != "":
		described.ContentSource = &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{
			Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: volume.SourceSnapshot},
		}}
	case volume.SourceVolume != "":
		described.ContentSource = &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Volume{
			Volume: &csi.VolumeContentSource_VolumeSource{VolumeId: volume.SourceVolume},
		}}
	}
	return described
}

func (d *Driver) topology() *csi.Topology {
	return &csi.Topology{Segments: map[string]string{TopologyKey: d.config.Node}}
}

// DeleteVolume removes a volume; one that is gone already is removed.
func (d *Driver) DeleteVolume(ctx context.Context, request *csi.DeleteVolumeRequest) (*csi.DeleteVolumeResponse, error) {
	id := request.GetVolumeId()
	if id == "" {
		return nil, invalid("volume id is missing")
	}
	release, err := d.locks.acquire(ctx, id)
	if err != nil {
		return nil, err
	}
	defer release()
	volume, found := d.store.Volume(id)
	if !found {
		return &csi.DeleteVolumeResponse{}, nil
	}
	if place, err := d.store.InUse(volume); err != nil {
		return nil, err
	} else if place != "" {
		return nil, status.Errorf(codes.FailedPrecondition, "volume %s is still in use at %s: end the pods that use it", id, place)
	}
	return &csi.DeleteVolumeResponse{}, d.store.RemoveVolume(volume)
}

// ControllerExpandVolume makes a volume larger; the node's part follows.
func (d *Driver) ControllerExpandVolume(ctx context.Context, request *csi.ControllerExpandVolumeRequest) (*csi.ControllerExpandVolumeResponse, error) {
	volume, release, err := d.lockVolume(ctx, request.GetVolumeId())
	if err != nil {
		return nil, err
	}
	defer release()
	if request.GetCapacityRange() == nil {
		return nil, invalid("capacity range is missing")
	}
	// A wish for less than there is, is fulfilled already.
	size, err := wantedSize(volume.Kind, request.GetCapacityRange(), 0)
	if err != nil {
		return nil, err
	}
	if limit := request.GetCapacityRange().GetLimitBytes(); limit > 0 && volume.Size > limit {
		return nil, status.Errorf(codes.OutOfRange, "volume %s has %d bytes, over the limit of %d; volumes do not shrink", volume.ID, volume.Size, limit)
	}
	if size > volume.Size {
		if err := d.fits(size); err != nil {
			return nil, err
		}
		if volume, err = d.store.Grow(volume, size); err != nil {
			return nil, err
		}
	}
	return &csi.ControllerExpandVolumeResponse{CapacityBytes: volume.Size, NodeExpansionRequired: volume.Kind != storage.Btrfs}, nil
}

// lockVolume finds a volume and keeps others from it until release.
func (d *Driver) lockVolume(ctx context.Context, id string) (storage.Volume, func(), error) {
	if id == "" {
		return storage.Volume{}, nil, invalid("volume id is missing")
	}
	release, err := d.locks.acquire(ctx, id)
	if err != nil {
		return storage.Volume{}, nil, err
	}
	volume, found := d.store.Volume(id)
	if !found {
		release()
		return storage.Volume{}, nil, status.Errorf(codes.NotFound, "volume %q does not exist", id)
	}
	return volume, release, nil
}
