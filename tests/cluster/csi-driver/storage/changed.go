package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Extent is a range of bytes.
type Extent struct {
	Offset int64
	Size   int64
}

func (e Extent) end() int64 { return e.Offset + e.Size }

// Image is the open data of a snapshot. It can be read to its end even if the snapshot is removed meanwhile.
type Image struct {
	Snapshot Snapshot

	file *os.File
}

// ErrNoImage says that a snapshot is a subvolume, which has files and no blocks.
var ErrNoImage = errors.New("it is a btrfs subvolume and has no blocks")

// OpenImage opens what a snapshot holds.
func (s *Store) OpenImage(snapshot Snapshot) (*Image, error) {
	if snapshot.Kind == Btrfs {
		return nil, fmt.Errorf("snapshot %s: %w", snapshot.ID, ErrNoImage)
	}
	file, err := os.Open(s.snapshotData(snapshot))
	if err != nil {
		return nil, err
	}
	return &Image{Snapshot: snapshot, file: file}, nil
}

// Close ends reading.
func (i *Image) Close() error { return i.file.Close() }

// Allocated gives what was ever written from an offset on, in ascending order, until give fails.
func (i *Image) Allocated(from int64, give func(Extent) error) error {
	for {
		start, err := i.next(from, unix.SEEK_DATA)
		if err != nil || start == i.Snapshot.Size {
			return err
		}
		if from, err = i.next(start, unix.SEEK_HOLE); err != nil {
			return err
		}
		if err := give(Extent{Offset: start, Size: from - start}); err != nil {
			return err
		}
	}
}

// next finds where data or a hole begins at an offset or after it; the end of the image if there is none.
func (i *Image) next(from int64, what int) (int64, error) {
	found, err := unix.Seek(int(i.file.Fd()), from, what)
	if errors.Is(err, unix.ENXIO) {
		return i.Snapshot.Size, nil
	}
	if err != nil {
		return 0, fmt.Errorf("look for data in %s: %w", i.file.Name(), err)
	}
	return min(found, i.Snapshot.Size), nil
}

// Blocks of this size are compared; they begin at multiples of it.
const blockSize = 64 << 10

// ChangedSince gives what differs from an older image of the same volume, from an offset on, in ascending order, until
// give fails. What the volume has grown by counts as changed.
func (i *Image) ChangedSince(ctx context.Context, base *Image, from int64, give func(Extent) error) error {
	merged := merger{give: give}
	buffers := [2][]byte{make([]byte, blockSize), make([]byte, blockSize)}
	for from < base.Snapshot.Size {
		if err := ctx.Err(); err != nil {
			return err
		}
		start, err := i.nextInEither(base, from)
		if err != nil {
			return err
		}
		if start >= base.Snapshot.Size {
			break
		}
		start = max(from, start/blockSize*blockSize)
		from = min((start/blockSize+1)*blockSize, base.Snapshot.Size)
		same, err := i.equals(base, Extent{Offset: start, Size: from - start}, buffers)
		if err != nil {
			return err
		}
		if !same {
			if err := merged.add(start, from); err != nil {
				return err
			}
		}
	}
	if err := merged.add(max(from, base.Snapshot.Size), i.Snapshot.Size); err != nil {
		return err
	}
	return merged.flush()
}

// nextInEither finds where one of two images has data: what is a hole in both is the same in both.
func (i *Image) nextInEither(base *Image, from int64) (int64, error) {
	own, err := i.next(from, unix.SEEK_DATA)
	if err != nil {
		return 0, err
	}
	theirs, err := base.next(from, unix.SEEK_DATA)
	return min(own, theirs), err
}

func (i *Image) equals(base *Image, extent Extent, buffers [2][]byte) (bool, error) {
	for n, image := range []*Image{i, base} {
		if _, err := image.file.ReadAt(buffers[n][:extent.Size], extent.Offset); err != nil {
			return false, err
		}
	}
	return bytes.Equal(buffers[0][:extent.Size], buffers[1][:extent.Size]), nil
}

// merger makes one extent of neighbours.
type merger struct {
	give    func(Extent) error
	pending Extent
}

func (m *merger) add(start, end int64) error {
	switch {
	case start == end:
		return nil
	case start == m.pending.end():
		m.pending.Size += end - start
		return nil
	}
	err := m.flush()
	m.pending = Extent{Offset: start, Size: end - start}
	return err
}

func (m *merger) flush() error {
	if m.pending.Size == 0 {
		return nil
	}
	return m.give(m.pending)
}
