package driver

import (
	"context"
	"strconv"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"carrack.dev/tests/csi-driver/storage"
)

func (d *Driver) hasSnapshots() error {
	if d.config.NoSnapshots {
		return status.Error(codes.Unimplemented, "this driver was started with --no-snapshots")
	}
	return nil
}

// CreateSnapshot takes a snapshot, or answers with the one that was taken under this name.
func (d *Driver) CreateSnapshot(ctx context.Context, request *csi.CreateSnapshotRequest) (*csi.CreateSnapshotResponse, error) {
	if err := d.hasSnapshots(); err != nil {
		return nil, err
	}
	name := request.GetName()
	if name == "" {
		return nil, invalid("name is missing")
	}
	if len(name) > longestName {
		return nil, invalid("name has %d bytes, over the %d of the specification", len(name), longestName)
	}
	if request.GetSourceVolumeId() == "" {
		return nil, invalid("source volume id is missing")
	}
	if err := checkParameters(request.GetParameters()); err != nil {
		return nil, err
	}
	release, err := d.locks.acquire(ctx, "snapshot name "+name, request.GetSourceVolumeId())
	if err != nil {
		return nil, err
	}
	defer release()
	snapshot, found := d.store.SnapshotNamed(name)
	if found && snapshot.Volume != request.GetSourceVolumeId() {
		return nil, status.Errorf(codes.AlreadyExists, "snapshot %q exists as %s of another volume, %s", name, snapshot.ID, snapshot.Volume)
	}
	if !found {
		volume, found := d.store.Volume(request.GetSourceVolumeId())
		if !found {
			return nil, status.Errorf(codes.NotFound, "volume %q does not exist", request.GetSourceVolumeId())
		}
		if snapshot, err = d.store.AddSnapshot(name, volume); err != nil {
			return nil, err
		}
	}
	described, err := d.describeSnapshot(snapshot)
	if err != nil {
		return nil, err
	}
	return &csi.CreateSnapshotResponse{Snapshot: described}, nil
}

func (d *Driver) describeSnapshot(snapshot storage.Snapshot) (*csi.Snapshot, error) {
	wait, err := d.readyAfter()
	if err != nil {
		return nil, err
	}
	return &csi.Snapshot{
		SnapshotId:     snapshot.ID,
		SourceVolumeId: snapshot.Volume,
		SizeBytes:      snapshot.Size,
		CreationTime:   timestamppb.New(snapshot.Created),
		ReadyToUse:     time.Since(snapshot.Created) >= wait,
	}, nil
}

// DeleteSnapshot removes a snapshot; one that is gone already is removed.
func (d *Driver) DeleteSnapshot(ctx context.Context, request *csi.DeleteSnapshotRequest) (*csi.DeleteSnapshotResponse, error) {
	if err := d.hasSnapshots(); err != nil {
		return nil, err
	}
	id := request.GetSnapshotId()
	if id == "" {
		return nil, invalid("snapshot id is missing")
	}
	release, err := d.locks.acquire(ctx, id)
	if err != nil {
		return nil, err
	}
	defer release()
	snapshot, found := d.store.Snapshot(id)
	if !found {
		return &csi.DeleteSnapshotResponse{}, nil
	}
	return &csi.DeleteSnapshotResponse{}, d.store.RemoveSnapshot(snapshot)
}

// ListSnapshots lists snapshots in the order they were taken, all or those of one id or source volume.
func (d *Driver) ListSnapshots(_ context.Context, request *csi.ListSnapshotsRequest) (*csi.ListSnapshotsResponse, error) {
	if err := d.hasSnapshots(); err != nil {
		return nil, err
	}
	after, err := pageStart(request.GetStartingToken(), request.GetMaxEntries())
	if err != nil {
		return nil, err
	}
	response := &csi.ListSnapshotsResponse{}
	last := int64(0)
	for _, snapshot := range d.store.Snapshots() {
		if snapshot.Sequence <= after ||
			request.GetSnapshotId() != "" && snapshot.ID != request.GetSnapshotId() ||
			request.GetSourceVolumeId() != "" && snapshot.Volume != request.GetSourceVolumeId() {
			continue
		}
		if full(len(response.Entries), request.GetMaxEntries()) {
			response.NextToken = strconv.FormatInt(last, 10)
			break
		}
		last = snapshot.Sequence
		described, err := d.describeSnapshot(snapshot)
		if err != nil {
			return nil, err
		}
		response.Entries = append(response.Entries, &csi.ListSnapshotsResponse_Entry{Snapshot: described})
	}
	return response, nil
}
