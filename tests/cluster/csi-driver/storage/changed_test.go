package storage

import (
	"bytes"
	"context"
	"errors"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

const kibibyte = 1 << 10

func writeAt(t *testing.T, path string, offset int64, data []byte) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer file.Close()
	_, err = file.WriteAt(data, offset)
	must(t, err)
}

func discard(t *testing.T, device string, extent Extent) {
	t.Helper()
	file, err := os.OpenFile(device, os.O_RDWR, 0)
	must(t, err)
	defer file.Close()
	must(t, unix.Fallocate(int(file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, extent.Offset, extent.Size))
}

// snapshotted takes a snapshot and opens it.
func snapshotted(t *testing.T, s *Store, volume Volume) *Image {
	t.Helper()
	snapshot, err := s.AddSnapshot(t.Name(), volume)
	must(t, err)
	image, err := s.OpenImage(snapshot)
	must(t, err)
	t.Cleanup(func() { image.Close() })
	return image
}

func allocated(t *testing.T, image *Image, from int64) []Extent {
	t.Helper()
	var extents []Extent
	must(t, image.Allocated(from, func(extent Extent) error {
		extents = append(extents, extent)
		return nil
	}))
	return extents
}

func changed(t *testing.T, image, base *Image, from int64) []Extent {
	t.Helper()
	var extents []Extent
	must(t, image.ChangedSince(t.Context(), base, from, func(extent Extent) error {
		extents = append(extents, extent)
		return nil
	}))
	return extents
}

func wantExtents(t *testing.T, got []Extent, want ...Extent) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestAllocatedIsWhatWasWritten(t *testing.T) {
	s := open(t)
	volume := add(t, s, Block, 4*mebibyte)
	wantExtents(t, allocated(t, snapshotted(t, s, volume), 0))
	device := published(t, s, volume, false)
	writeAt(t, device, 0, noise(4*kibibyte))
	writeAt(t, device, mebibyte, noise(8*kibibyte))
	writeAt(t, device, mebibyte+8*kibibyte, noise(4*kibibyte))
	writeAt(t, device, volume.Size-4*kibibyte, noise(4*kibibyte))
	image := snapshotted(t, s, volume)
	writeAt(t, device, 2*mebibyte, noise(mebibyte))

	first, last := Extent{0, 4 * kibibyte}, Extent{volume.Size - 4*kibibyte, 4 * kibibyte}
	wantExtents(t, allocated(t, image, 0), first, Extent{mebibyte, 12 * kibibyte}, last)
	wantExtents(t, allocated(t, image, mebibyte+5000), Extent{mebibyte + 5000, 12*kibibyte - 5000}, last)
	wantExtents(t, allocated(t, image, last.Offset), last)
	wantExtents(t, allocated(t, image, volume.Size))
}

func TestChangedAreTheBlocksThatDiffer(t *testing.T) {
	s := open(t)
	volume := add(t, s, Block, 4*mebibyte)
	device := published(t, s, volume, false)
	data := noise(mebibyte)
	writeAt(t, device, 0, data)
	base := snapshotted(t, s, volume)
	wantExtents(t, changed(t, snapshotted(t, s, volume), base, 0))

	writeAt(t, device, 0, data)
	writeAt(t, device, 3*mebibyte, make([]byte, mebibyte/2))
	wantExtents(t, changed(t, snapshotted(t, s, volume), base, 0))

	writeAt(t, device, 2*blockSize-1, []byte{^data[2*blockSize-1], ^data[2*blockSize]})
	discard(t, device, Extent{5 * blockSize, 4 * kibibyte})
	writeAt(t, device, volume.Size-1, []byte{1})
	image := snapshotted(t, s, volume)
	two, one, last := Extent{blockSize, 2 * blockSize}, Extent{5 * blockSize, blockSize}, Extent{volume.Size - blockSize, blockSize}
	wantExtents(t, changed(t, image, base, 0), two, one, last)
	wantExtents(t, changed(t, image, base, two.end()), one, last)
	wantExtents(t, changed(t, image, base, one.Offset+kibibyte), Extent{one.Offset + kibibyte, blockSize - kibibyte}, last)
	wantExtents(t, changed(t, image, base, volume.Size))
}

func TestWhatAVolumeHasGrownByIsChanged(t *testing.T) {
	s := open(t)
	small := int64(mebibyte + 4*kibibyte)
	volume := add(t, s, Block, small)
	base := snapshotted(t, s, volume)
	volume, err := s.Grow(volume, 2*mebibyte)
	must(t, err)
	grown := Extent{small, 2*mebibyte - small}
	wantExtents(t, changed(t, snapshotted(t, s, volume), base, 0), grown)
	wantExtents(t, changed(t, snapshotted(t, s, volume), base, small+mebibyte/2), Extent{small + mebibyte/2, grown.Size - mebibyte/2})
	writeAt(t, s.volumeData(volume), mebibyte, noise(4*kibibyte))
	wantExtents(t, changed(t, snapshotted(t, s, volume), base, 0), Extent{mebibyte, mebibyte})
}

// With what has changed, a copy of the older snapshot becomes the newer one; with what is allocated, an empty one does.
func TestChangedAndAllocatedMakeTheNewerSnapshot(t *testing.T) {
	for _, kind := range []Kind{Ext4, Block} {
		t.Run(string(kind), func(t *testing.T) {
			s := open(t)
			volume := add(t, s, kind, 64*mebibyte)
			content := contentFile(kind, published(t, s, volume, false))
			write(t, content, noise(8*mebibyte))
			base := snapshotted(t, s, volume)
			for i := range int64(50) {
				writeAt(t, content, i*i*3001, noise(int(i)*97))
			}
			image := snapshotted(t, s, volume)
			must(t, s.RemoveSnapshot(image.Snapshot))

			want := readImage(t, image)
			copied := readImage(t, base)
			if bytes.Equal(copied, want) {
				t.Fatal("nothing has changed")
			}
			overwrite(t, copied, want, changed(t, image, base, 0))
			if !bytes.Equal(copied, want) {
				t.Error("the changed ranges lack something that has changed")
			}
			empty := make([]byte, volume.Size)
			overwrite(t, empty, want, allocated(t, image, 0))
			if !bytes.Equal(empty, want) {
				t.Error("the allocated ranges lack something that was written")
			}
		})
	}
}

func readImage(t *testing.T, image *Image) []byte {
	t.Helper()
	data := make([]byte, image.Snapshot.Size)
	_, err := image.file.ReadAt(data, 0)
	must(t, err)
	return data
}

func overwrite(t *testing.T, target, source []byte, extents []Extent) {
	t.Helper()
	end := int64(0)
	for _, extent := range extents {
		if extent.Offset < end || extent.Size <= 0 {
			t.Fatalf("%v are not in order", extents)
		}
		end = extent.end()
		copy(target[extent.Offset:end], source[extent.Offset:end])
	}
}

func TestReadingOfChangesEnds(t *testing.T) {
	s := open(t)
	volume := add(t, s, Block, 4*mebibyte)
	base := snapshotted(t, s, volume)
	writeAt(t, s.volumeData(volume), 0, noise(4*kibibyte))
	image := snapshotted(t, s, volume)
	full := errors.New("full")
	give := func(Extent) error { return full }
	if err := image.Allocated(0, give); !errors.Is(err, full) {
		t.Errorf("got %v, want %v", err, full)
	}
	if err := image.ChangedSince(t.Context(), base, 0, give); !errors.Is(err, full) {
		t.Errorf("got %v, want %v", err, full)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if err := image.ChangedSince(ended, base, 0, give); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
	subvolume := add(t, s, Btrfs, mebibyte)
	snapshot, err := s.AddSnapshot("subvolume", subvolume)
	must(t, err)
	if _, err := s.OpenImage(snapshot); !errors.Is(err, ErrNoImage) {
		t.Errorf("got %v, want %v", err, ErrNoImage)
	}
}
