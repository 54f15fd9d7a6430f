// Package storage keeps volumes and snapshots in a btrfs file system that lies in one sparse file.
//
// A volume is a subvolume (btrfs) or an image file behind a loop device (ext4, xfs, block). Snapshots and clones share
// their blocks with the source: subvolume snapshots, or reflinks of the image. Nothing about mounts and loop devices is
// remembered: the kernel is asked, so a killed driver goes on where it was.
package storage

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Store is an open, mounted state directory.
type Store struct {
	Logf func(format string, arguments ...any)

	directory string
	lock      *os.File

	mutex     sync.Mutex
	sequence  int64
	volumes   map[string]Volume
	snapshots map[string]Snapshot
}

// Open mounts the pool below a directory, makes it on first use, and clears up after a killed driver.
func Open(directory string, size int64, logf func(string, ...any)) (*Store, error) {
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return nil, err
	}
	directory, err := filepath.EvalSymlinks(directory)
	if err != nil {
		return nil, err
	}
	if directory, err = filepath.Abs(directory); err != nil {
		return nil, err
	}
	s := &Store{Logf: logf, directory: directory}
	if err := s.takeLock(); err != nil {
		return nil, err
	}
	if err := s.open(size); err != nil {
		return nil, errors.Join(err, s.lock.Close())
	}
	return s, nil
}

func (s *Store) open(size int64) error {
	if err := s.makePool(size); err != nil {
		return err
	}
	if err := s.mountPool(); err != nil {
		return err
	}
	for _, name := range []string{"volumes", "snapshots", "records/volumes", "records/snapshots", "frozen"} {
		if err := os.MkdirAll(s.path(name), 0o700); err != nil {
			return err
		}
	}
	if err := s.load(); err != nil {
		return err
	}
	if err := s.thawForgotten(); err != nil {
		return err
	}
	return s.removeOrphans()
}

// takeLock keeps a second driver from the same state: both would hand out the same volumes.
func (s *Store) takeLock() error {
	lock, err := os.OpenFile(filepath.Join(s.directory, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		return fmt.Errorf("another driver uses %s: end it or give another --state", s.directory)
	}
	s.lock = lock
	return nil
}

func (s *Store) path(parts ...string) string {
	return filepath.Join(append([]string{s.directory, "pool"}, parts...)...)
}

func (s *Store) poolFile() string { return filepath.Join(s.directory, "pool.img") }

// makePool formats under another name, so that a killed start leaves no file that looks like a pool.
func (s *Store) makePool(size int64) error {
	if info, err := os.Stat(s.poolFile()); err == nil {
		if info.Size() != size {
			s.Logf("pool %s has %d bytes already; the size asked for, %d, has no effect", s.poolFile(), info.Size(), size)
		}
		return nil
	} else if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	half := s.poolFile() + ".new"
	if err := makeSparse(half, size); err != nil {
		return err
	}
	if err := run("mkfs.btrfs", "--quiet", "--force", "--metadata", "single", half); err != nil {
		return err
	}
	return os.Rename(half, s.poolFile())
}

// mountPool finds the pool still mounted after the driver was killed, and mounts it after a reboot. Discards are passed
// on, so that the pool's file gives back the room of what is deleted.
func (s *Store) mountPool() error {
	if err := os.MkdirAll(s.path(), 0o700); err != nil {
		return err
	}
	device, err := attach(s.poolFile(), false)
	if err != nil {
		return err
	}
	mount, err := mountAt(s.path())
	if err != nil {
		return err
	}
	if mount == nil {
		return run("mount", "-t", "btrfs", "-o", "discard=async", "--", device, s.path())
	}
	if mount.Source != device {
		return fmt.Errorf("%s is mounted on %s where the pool belongs: unmount it", mount.Source, s.path())
	}
	s.Logf("pool was still mounted at %s", s.path())
	return nil
}

func (s *Store) load() error {
	var err error
	if s.volumes, err = readRecords(s.path("records/volumes"), func(v Volume) string { return v.ID }); err != nil {
		return err
	}
	if s.snapshots, err = readRecords(s.path("records/snapshots"), func(p Snapshot) string { return p.ID }); err != nil {
		return err
	}
	for _, volume := range s.volumes {
		s.sequence = max(s.sequence, volume.Sequence)
		if err := s.loadVolume(volume); err != nil {
			return err
		}
	}
	for _, snapshot := range s.snapshots {
		s.sequence = max(s.sequence, snapshot.Sequence)
		if _, err := os.Stat(s.snapshotData(snapshot)); err != nil {
			return fmt.Errorf("snapshot %s is recorded in records/snapshots and its data is gone: %w", snapshot.ID, err)
		}
	}
	s.Logf("state: volumes=%d snapshots=%d", len(s.volumes), len(s.snapshots))
	return nil
}

// loadVolume also finishes an expansion that was killed between the image and its record.
func (s *Store) loadVolume(volume Volume) error {
	info, err := os.Stat(s.volumeData(volume))
	if err != nil {
		return fmt.Errorf("volume %s is recorded in records/volumes and its data is gone: %w", volume.ID, err)
	}
	if volume.Kind == Btrfs || info.Size() == volume.Size {
		return nil
	}
	s.Logf("volume=%s its image has %d bytes, its record said %d: corrected", volume.ID, info.Size(), volume.Size)
	volume.Size = info.Size()
	return s.putVolume(volume)
}

// removeOrphans removes data without a record: the rest of calls that were killed.
func (s *Store) removeOrphans() error {
	known := map[string]bool{}
	for _, volume := range s.volumes {
		known[s.volumeData(volume)] = true
	}
	for _, snapshot := range s.snapshots {
		known[s.snapshotData(snapshot)] = true
	}
	for _, directory := range []string{"volumes", "snapshots"} {
		entries, err := os.ReadDir(s.path(directory))
		if err != nil {
			return err
		}
		for _, entry := range entries {
			path := s.path(directory, entry.Name())
			if known[path] {
				continue
			}
			s.Logf("removing %s: the rest of a call that was killed", path)
			if err := removeData(path); err != nil {
				s.Logf("%v; it takes up room until the next start", err)
			}
		}
	}
	return nil
}

// Volume finds a volume by its id.
func (s *Store) Volume(id string) (Volume, bool) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	volume, found := s.volumes[id]
	return volume, found
}

// VolumeNamed finds a volume by the name it was asked for with.
func (s *Store) VolumeNamed(name string) (Volume, bool) {
	for _, volume := range s.Volumes() {
		if volume.Name == name {
			return volume, true
		}
	}
	return Volume{}, false
}

// Volumes lists all volumes in the order of their creation.
func (s *Store) Volumes() []Volume {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return sorted(s.volumes, func(v Volume) int64 { return v.Sequence })
}

// Snapshot finds a snapshot by its id.
func (s *Store) Snapshot(id string) (Snapshot, bool) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	snapshot, found := s.snapshots[id]
	return snapshot, found
}

// SnapshotNamed finds a snapshot by the name it was asked for with.
func (s *Store) SnapshotNamed(name string) (Snapshot, bool) {
	for _, snapshot := range s.Snapshots() {
		if snapshot.Name == name {
			return snapshot, true
		}
	}
	return Snapshot{}, false
}

// Snapshots lists all snapshots in the order of their creation.
func (s *Store) Snapshots() []Snapshot {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return sorted(s.snapshots, func(p Snapshot) int64 { return p.Sequence })
}

func sorted[T any](records map[string]T, sequence func(T) int64) []T {
	list := make([]T, 0, len(records))
	for _, record := range records {
		list = append(list, record)
	}
	slices.SortFunc(list, func(a, b T) int { return cmp.Compare(sequence(a), sequence(b)) })
	return list
}

func (s *Store) nextSequence() int64 {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.sequence++
	return s.sequence
}

func (s *Store) putVolume(volume Volume) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if err := writeRecord(s.path("records/volumes"), volume.ID, volume); err != nil {
		return err
	}
	s.volumes[volume.ID] = volume
	return nil
}

// Room tells the bytes that are free in the pool, and its whole size.
func (s *Store) Room() (free, total int64, err error) {
	var stat unix.Statfs_t
	if err := unix.Statfs(s.path(), &stat); err != nil {
		return 0, 0, err
	}
	return int64(stat.Bavail) * stat.Bsize, int64(stat.Blocks) * stat.Bsize, nil
}

// ours tells whether a mount shows data of this store. pool is the pool's own mount.
func ours(mount, pool Mount, devices map[string]bool) bool {
	node := mount.Root
	return mount.Device == pool.Device || devices[mount.Source] ||
		(strings.HasSuffix(mount.Type, "tmpfs") && devices["/dev"+node])
}
