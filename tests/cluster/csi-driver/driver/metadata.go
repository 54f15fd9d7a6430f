package driver

import (
	"context"
	"errors"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"carrack.dev/tests/csi-driver/storage"
)

// A message has at most that many ranges, whatever is asked for, so that clients meet answers of several messages.
const longestPage = 256

// GetMetadataAllocated streams what was ever written to the volume of a snapshot.
func (d *Driver) GetMetadataAllocated(request *csi.GetMetadataAllocatedRequest, stream csi.SnapshotMetadata_GetMetadataAllocatedServer) error {
	if err := d.hasSnapshots(); err != nil {
		return err
	}
	image, err := d.openImage(stream.Context(), "snapshot", request.GetSnapshotId())
	if err != nil {
		return err
	}
	defer image.Close()
	ranges, err := newPager(image.Snapshot, request, func(page []*csi.BlockMetadata) error {
		return stream.Send(&csi.GetMetadataAllocatedResponse{
			BlockMetadataType: csi.BlockMetadataType_VARIABLE_LENGTH, VolumeCapacityBytes: image.Snapshot.Size, BlockMetadata: page,
		})
	})
	if err != nil {
		return err
	}
	if err := image.Allocated(request.GetStartingOffset(), ranges.add); err != nil {
		return err
	}
	return ranges.flush()
}

// GetMetadataDelta streams what has changed in a volume between two snapshots of it.
func (d *Driver) GetMetadataDelta(request *csi.GetMetadataDeltaRequest, stream csi.SnapshotMetadata_GetMetadataDeltaServer) error {
	if err := d.hasSnapshots(); err != nil {
		return err
	}
	base, err := d.openImage(stream.Context(), "base snapshot", request.GetBaseSnapshotId())
	if err != nil {
		return err
	}
	defer base.Close()
	target, err := d.openImage(stream.Context(), "target snapshot", request.GetTargetSnapshotId())
	if err != nil {
		return err
	}
	defer target.Close()
	if err := checkPair(base.Snapshot, target.Snapshot); err != nil {
		return err
	}
	ranges, err := newPager(target.Snapshot, request, func(page []*csi.BlockMetadata) error {
		return stream.Send(&csi.GetMetadataDeltaResponse{
			BlockMetadataType: csi.BlockMetadataType_VARIABLE_LENGTH, VolumeCapacityBytes: target.Snapshot.Size, BlockMetadata: page,
		})
	})
	if err != nil {
		return err
	}
	if err := target.ChangedSince(stream.Context(), base, request.GetStartingOffset(), ranges.add); err != nil {
		return err
	}
	return ranges.flush()
}

// openImage opens what a snapshot holds; what is the snapshot's part in the call.
func (d *Driver) openImage(ctx context.Context, what, id string) (*storage.Image, error) {
	if id == "" {
		return nil, invalid("%s id is missing", what)
	}
	release, err := d.locks.acquire(ctx, id)
	if err != nil {
		return nil, err
	}
	defer release()
	snapshot, found := d.store.Snapshot(id)
	if !found {
		return nil, status.Errorf(codes.NotFound, "%s %q does not exist", what, id)
	}
	described, err := d.describeSnapshot(snapshot)
	if err != nil {
		return nil, err
	}
	if !described.GetReadyToUse() {
		return nil, status.Errorf(codes.Unavailable, "%s %s is not ready to use yet", what, id)
	}
	image, err := d.store.OpenImage(snapshot)
	if errors.Is(err, storage.ErrNoImage) {
		return nil, invalid("%v: use a volume of ext4, of xfs or in block mode", err)
	}
	return image, err
}

func checkPair(base, target storage.Snapshot) error {
	if base.Volume != target.Volume {
		return invalid("base snapshot %s is of volume %s and target snapshot %s of volume %s: only those of one volume are compared",
			base.ID, base.Volume, target.ID, target.Volume)
	}
	if base.Sequence >= target.Sequence {
		return invalid("base snapshot %s is not older than target snapshot %s", base.ID, target.ID)
	}
	return nil
}

// pager sends ranges in messages of a limited length.
type pager struct {
	most int
	send func(page []*csi.BlockMetadata) error
	page []*csi.BlockMetadata
}

// section is what both calls say of the part of an answer that is wanted.
type section interface {
	GetStartingOffset() int64
	GetMaxResults() int32
}

func newPager(snapshot storage.Snapshot, wanted section, send func([]*csi.BlockMetadata) error) (*pager, error) {
	if offset := wanted.GetStartingOffset(); offset < 0 || offset > snapshot.Size {
		return nil, status.Errorf(codes.OutOfRange, "starting offset %d is not within the %d bytes of snapshot %s", offset, snapshot.Size, snapshot.ID)
	}
	most := int(wanted.GetMaxResults())
	if most < 0 {
		return nil, invalid("max results is %d and cannot be negative", most)
	}
	if most == 0 || most > longestPage {
		most = longestPage
	}
	return &pager{most: most, send: send}, nil
}

func (p *pager) add(extent storage.Extent) error {
	p.page = append(p.page, &csi.BlockMetadata{ByteOffset: extent.Offset, SizeBytes: extent.Size})
	if len(p.page) < p.most {
		return nil
	}
	return p.flush()
}

// flush sends what is left. Where there is nothing, nothing is sent, as other drivers do it: clients then do not hear
// how large the volume is.
func (p *pager) flush() error {
	if len(p.page) == 0 {
		return nil
	}
	page := p.page
	p.page = nil
	return p.send(page)
}
