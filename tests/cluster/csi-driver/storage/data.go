package storage

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Sizes are whole pages: a loop device has no half sectors.
const sizeUnit = 4096

// RoundSize gives the size a volume of this kind really gets.
func RoundSize(kind Kind, size int64) int64 {
	return (max(size, smallest(kind)) + sizeUnit - 1) / sizeUnit * sizeUnit
}

// smallest is what mkfs accepts; mkfs.xfs refuses less than 300 MiB since version 5.19.
func smallest(kind Kind) int64 {
	switch kind {
	case XFS:
		return 300 << 20
	case Ext4:
		return 8 << 20
	default:
		return 1 << 20
	}
}

func (s *Store) volumeData(volume Volume) string {
	return s.path("volumes", volume.ID+suffix(volume.Kind))
}

func (s *Store) snapshotData(snapshot Snapshot) string {
	return s.path("snapshots", snapshot.ID+suffix(snapshot.Kind))
}

func suffix(kind Kind) string {
	if kind == Btrfs {
		return ""
	}
	return ".img"
}

// AddVolume makes an empty volume of the name, kind and size that volume says, or a copy of its source if it names one.
func (s *Store) AddVolume(volume Volume) (Volume, error) {
	volume.ID = newID("vol-")
	volume.Sequence = s.nextSequence()
	volume.Created = time.Now().UTC()
	if err := s.fill(volume); err != nil {
		return Volume{}, errors.Join(err, removeData(s.volumeData(volume)))
	}
	if err := s.putVolume(volume); err != nil {
		return Volume{}, errors.Join(err, removeData(s.volumeData(volume)))
	}
	return volume, nil
}

func (s *Store) fill(volume Volume) error {
	data := s.volumeData(volume)
	switch {
	case volume.SourceSnapshot != "":
		snapshot, found := s.Snapshot(volume.SourceSnapshot)
		if !found {
			return fmt.Errorf("snapshot %s does not exist", volume.SourceSnapshot)
		}
		return copyData(s.snapshotData(snapshot), data, volume)
	case volume.SourceVolume != "":
		source, found := s.Volume(volume.SourceVolume)
		if !found {
			return fmt.Errorf("volume %s does not exist", volume.SourceVolume)
		}
		return s.quiet(source, func() error { return copyData(s.volumeData(source), data, volume) })
	case volume.Kind == Btrfs:
		return run("btrfs", "subvolume", "create", data)
	}
	if err := makeSparse(data, volume.Size); err != nil {
		return err
	}
	switch volume.Kind {
	case Ext4:
		// Every inode table is written at once only where the kernel cannot do it later, behind the mount.
		return run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1,lazy_journal_init=1", data)
	case XFS:
		return run("mkfs.xfs", "-q", "-f", data)
	}
	return nil
}

// copyData shares the blocks of a source with a new volume. An image that must be larger than its source gets its size
// here; the file system in it grows when it is mounted.
func copyData(source, target string, volume Volume) error {
	if volume.Kind == Btrfs {
		return run("btrfs", "subvolume", "snapshot", source, target)
	}
	if err := reflink(source, target); err != nil {
		return err
	}
	return os.Truncate(target, volume.Size)
}

// RemoveVolume removes a volume that is not in use; snapshots and clones of it keep what they share.
func (s *Store) RemoveVolume(volume Volume) error {
	s.mutex.Lock()
	err := removeRecord(s.path("records/volumes"), volume.ID)
	if err == nil {
		delete(s.volumes, volume.ID)
	}
	s.mutex.Unlock()
	if err != nil {
		return err
	}
	return removeData(s.volumeData(volume))
}

// Grow makes a volume larger. Its loop device and file system follow with Node expansion, as they would on a storage
// that is not on the node.
func (s *Store) Grow(volume Volume, size int64) (Volume, error) {
	if volume.Kind != Btrfs {
		if err := os.Truncate(s.volumeData(volume), size); err != nil {
			return volume, err
		}
	}
	volume.Size = size
	return volume, s.putVolume(volume)
}

// ImageHolds tells which file system a snapshot's or volume's image holds, "" if none that is known.
func (s *Store) ImageHolds(sourceSnapshot, sourceVolume string) string {
	image := ""
	if snapshot, found := s.Snapshot(sourceSnapshot); found {
		image = s.snapshotData(snapshot)
	} else if volume, found := s.Volume(sourceVolume); found {
		image = s.volumeData(volume)
	}
	held, err := output("blkid", "--probe", "--match-tag", "TYPE", "--output", "value", image)
	if err != nil {
		return "" // blkid answers 2 for "nothing known in it"
	}
	return held
}

// removeData removes a subvolume or an image; that it is gone already is fine.
func removeData(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.IsDir() {
		return run("btrfs", "subvolume", "delete", path)
	}
	return os.Remove(path)
}

func makeSparse(path string, size int64) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(file.Truncate(size), file.Close())
}

// reflink makes a file that shares all its blocks with another.
func reflink(source, target string) error {
	from, err := os.Open(source)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.OpenFile(target, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer to.Close()
	if err := unix.IoctlFileClone(int(to.Fd()), int(from.Fd())); err != nil {
		return fmt.Errorf("reflink %s: %w", source, err)
	}
	return nil
}
