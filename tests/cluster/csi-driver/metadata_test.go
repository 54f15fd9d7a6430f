package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
)

const (
	blockSize  = 64 << 10
	volumeSize = 64 << 20
)

// received reads a stream to its end.
func received[Response any](stream grpc.ServerStreamingClient[Response], err error) ([]*Response, error) {
	var messages []*Response
	for err == nil {
		var message *Response
		if message, err = stream.Recv(); err == nil {
			messages = append(messages, message)
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return messages, err
}

func (p *process) delta(request *csi.GetMetadataDeltaRequest) ([]*csi.GetMetadataDeltaResponse, error) {
	return received(p.GetMetadataDelta(p.t.Context(), request))
}

func (p *process) blockVolume(name string) string {
	p.t.Helper()
	r := request(name, "")
	r.VolumeCapabilities[0].AccessType = &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}}
	response, err := p.CreateVolume(p.t.Context(), r)
	must(p.t, err)
	return response.GetVolume().GetVolumeId()
}

// changed writes into every second block of a volume from the first on.
func (p *process) changed(volume string, blocks int) {
	p.t.Helper()
	image, err := os.OpenFile(filepath.Join(p.path("state/pool/volumes"), volume+".img"), os.O_WRONLY, 0)
	must(p.t, err)
	defer image.Close()
	for block := range blocks {
		_, err := image.WriteAt(bytes.Repeat([]byte{1}, 4096), int64(block)*2*blockSize)
		must(p.t, err)
	}
}

// pair gives two snapshots of a volume; between them, every second one of the first blocks was changed.
func (p *process) pair(blocks int) *csi.GetMetadataDeltaRequest {
	p.t.Helper()
	volume := p.blockVolume("pair")
	base := p.snapshot("base", volume)
	p.changed(volume, blocks)
	target := p.snapshot("target", volume)
	return &csi.GetMetadataDeltaRequest{BaseSnapshotId: base.GetSnapshotId(), TargetSnapshotId: target.GetSnapshotId()}
}

func wantRange(t *testing.T, got *csi.BlockMetadata, offset, size int64) {
	t.Helper()
	if got.GetByteOffset() != offset || got.GetSizeBytes() != size {
		t.Fatalf("got %v, want %d bytes at %d", got, size, offset)
	}
}

func TestChangedAndAllocatedBlocksComeInSeveralMessages(t *testing.T) {
	p := launch(t)
	pair := p.pair(300)
	capabilities, err := p.GetPluginCapabilities(t.Context(), &csi.GetPluginCapabilitiesRequest{})
	must(t, err)
	if !strings.Contains(capabilities.String(), "SNAPSHOT_METADATA_SERVICE") {
		t.Errorf("the service is not offered: %s", capabilities)
	}
	for most, pages := range map[int32][]int{0: {256, 44}, 1000: {256, 44}, 128: {128, 128, 44}, 100: {100, 100, 100}} {
		pair.MaxResults = most
		messages, err := p.delta(pair)
		must(t, err)
		if len(messages) != len(pages) {
			t.Fatalf("%d messages for at most %d ranges each, want %v", len(messages), most, pages)
		}
		block := int64(0)
		for n, message := range messages {
			if message.GetBlockMetadataType() != csi.BlockMetadataType_VARIABLE_LENGTH || message.GetVolumeCapacityBytes() != volumeSize {
				t.Errorf("type %s, capacity %d", message.GetBlockMetadataType(), message.GetVolumeCapacityBytes())
			}
			if len(message.GetBlockMetadata()) != pages[n] {
				t.Errorf("message %d has %d ranges, want %v", n, len(message.GetBlockMetadata()), pages)
			}
			for _, changed := range message.GetBlockMetadata() {
				wantRange(t, changed, 2*block*blockSize, blockSize)
				block++
			}
		}
	}

	allocated := &csi.GetMetadataAllocatedRequest{SnapshotId: pair.TargetSnapshotId, StartingOffset: 2 * blockSize, MaxResults: 1}
	messages, err := received(p.GetMetadataAllocated(t.Context(), allocated))
	must(t, err)
	if len(messages) != 299 || messages[0].GetVolumeCapacityBytes() != volumeSize {
		t.Fatalf("%d messages", len(messages))
	}
	wantRange(t, messages[0].GetBlockMetadata()[0], 2*blockSize, 4096)
	allocated.SnapshotId = pair.BaseSnapshotId
	if messages, err := received(p.GetMetadataAllocated(t.Context(), allocated)); err != nil || len(messages) != 0 {
		t.Errorf("an empty volume has %v (%v)", messages, err)
	}
}

func TestWrongQuestionsForChangedBlocks(t *testing.T) {
	p := launch(t)
	pair := p.pair(1)
	base, target := pair.GetBaseSnapshotId(), pair.GetTargetSnapshotId()
	other := p.snapshot("other", p.blockVolume("other")).GetSnapshotId()
	subvolume := p.snapshot("subvolume", p.volume("subvolume", "btrfs")).GetSnapshotId()
	for _, wrong := range []struct {
		request *csi.GetMetadataDeltaRequest
		code    codes.Code
		words   string
	}{
		{&csi.GetMetadataDeltaRequest{TargetSnapshotId: target}, codes.InvalidArgument, "base snapshot id is missing"},
		{&csi.GetMetadataDeltaRequest{BaseSnapshotId: base}, codes.InvalidArgument, "target snapshot id is missing"},
		{&csi.GetMetadataDeltaRequest{BaseSnapshotId: "gone", TargetSnapshotId: target}, codes.NotFound, `base snapshot "gone"`},
		{&csi.GetMetadataDeltaRequest{BaseSnapshotId: base, TargetSnapshotId: "gone"}, codes.NotFound, `target snapshot "gone"`},
		{&csi.GetMetadataDeltaRequest{BaseSnapshotId: target, TargetSnapshotId: base}, codes.InvalidArgument, "not older"},
		{&csi.GetMetadataDeltaRequest{BaseSnapshotId: base, TargetSnapshotId: base}, codes.InvalidArgument, "not older"},
		{&csi.GetMetadataDeltaRequest{BaseSnapshotId: base, TargetSnapshotId: other}, codes.InvalidArgument, "of one volume"},
		{&csi.GetMetadataDeltaRequest{BaseSnapshotId: base, TargetSnapshotId: subvolume}, codes.InvalidArgument, "btrfs subvolume"},
		{&csi.GetMetadataDeltaRequest{BaseSnapshotId: base, TargetSnapshotId: target, StartingOffset: -1}, codes.OutOfRange, "-1"},
		{&csi.GetMetadataDeltaRequest{BaseSnapshotId: base, TargetSnapshotId: target, StartingOffset: volumeSize + 1}, codes.OutOfRange, "67108865"},
		{&csi.GetMetadataDeltaRequest{BaseSnapshotId: base, TargetSnapshotId: target, MaxResults: -1}, codes.InvalidArgument, "negative"},
	} {
		_, err := p.delta(wrong.request)
		wantCode(t, err, wrong.code, wrong.words)
	}
	_, err := received(p.GetMetadataAllocated(t.Context(), &csi.GetMetadataAllocatedRequest{SnapshotId: "gone"}))
	wantCode(t, err, codes.NotFound, `snapshot "gone"`)
	p.faults(`{"snapshotReady": {"delaySeconds": 60}}`)
	_, err = p.delta(pair)
	wantCode(t, err, codes.Unavailable, "not ready")
}

func TestFaultSwitchesFailStreamsBeforeTheFirstMessageOrLater(t *testing.T) {
	p := launch(t)
	pair := p.pair(300)
	pair.MaxResults = 100
	for text, before := range map[string]int{
		`{"getMetadataDelta": {"delaySeconds": 0.5, "fail": "INTERNAL: out of order"}}`:                 0,
		`{"getMetadataDelta": {"delaySeconds": 0.5, "fail": "INTERNAL: out of order", "failAfter": 2}}`: 2,
		`{"getMetadataDelta": {"delaySeconds": 0.5, "fail": "INTERNAL: out of order", "failAfter": 9}}`: 3,
	} {
		p.faults(text)
		begin := time.Now()
		messages, err := p.delta(pair)
		wantCode(t, err, codes.Internal, "out of order")
		if len(messages) != before {
			t.Errorf("%s: %d messages came, want %d", text, len(messages), before)
		}
		if took := time.Since(begin); took < 500*time.Millisecond {
			t.Errorf("%s: it took %s, want half a second", text, took)
		}
	}
	_, err := received(p.GetMetadataAllocated(t.Context(), &csi.GetMetadataAllocatedRequest{SnapshotId: pair.TargetSnapshotId}))
	must(t, err)
	p.faults(`{"getMetadataAllocated": {"fail": "UNAVAILABLE: later"}}`)
	_, err = received(p.GetMetadataAllocated(t.Context(), &csi.GetMetadataAllocatedRequest{SnapshotId: pair.TargetSnapshotId}))
	wantCode(t, err, codes.Unavailable, "later")
	_, err = p.delta(pair)
	must(t, err)
}
