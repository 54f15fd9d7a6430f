package storage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// FIFREEZE and FITHAW of linux/fs.h, which x/sys does not have.
const (
	fiFreeze = 0xc0045877
	fiThaw   = 0xc0045878
)

// AddSnapshot takes a snapshot of a volume as it is now.
func (s *Store) AddSnapshot(name string, volume Volume) (Snapshot, error) {
	snapshot := Snapshot{
		ID: newID("snap-"), Name: name, Volume: volume.ID, Kind: volume.Kind, Size: volume.Size, Sequence: s.nextSequence(),
	}
	data := s.snapshotData(snapshot)
	err := s.quiet(volume, func() error {
		snapshot.Created = time.Now().UTC()
		if volume.Kind == Btrfs {
			return run("btrfs", "subvolume", "snapshot", "-r", s.volumeData(volume), data)
		}
		return reflink(s.volumeData(volume), data)
	})
	if err != nil {
		return Snapshot{}, errors.Join(err, removeData(data))
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if err := writeRecord(s.path("records/snapshots"), snapshot.ID, snapshot); err != nil {
		return Snapshot{}, errors.Join(err, removeData(data))
	}
	s.snapshots[snapshot.ID] = snapshot
	return snapshot, nil
}

// RemoveSnapshot removes a snapshot; volumes made from it keep what they share.
func (s *Store) RemoveSnapshot(snapshot Snapshot) error {
	s.mutex.Lock()
	err := removeRecord(s.path("records/snapshots"), snapshot.ID)
	if err == nil {
		delete(s.snapshots, snapshot.ID)
	}
	s.mutex.Unlock()
	if err != nil {
		return err
	}
	return removeData(s.snapshotData(snapshot))
}

// quiet runs a copy while the volume's data is as after a power cut: all that was synced is in it, and nothing is half
// there that the file system cannot put right.
func (s *Store) quiet(volume Volume, copy func() error) error {
	switch volume.Kind {
	case Btrfs:
		// The subvolume's snapshot is one transaction; what programs wrote without a sync goes in as well.
		if err := s.syncPool(); err != nil {
			return err
		}
		return copy()
	case Block:
		if err := s.flushImage(volume); err != nil {
			return err
		}
		return copy()
	}
	point, err := s.mountedAt(volume)
	if err != nil {
		return err
	}
	if point == "" {
		return copy()
	}
	return s.frozen(volume, point, copy)
}

func (s *Store) syncPool() error {
	pool, err := os.Open(s.path())
	if err != nil {
		return err
	}
	defer pool.Close()
	return unix.Syncfs(int(pool.Fd()))
}

// flushImage brings what is in the page cache of the loop device into the image. What is synced through the device
// was there before, so a reflink made now holds every synced write; it holds the image's writes up to one moment,
// because btrfs keeps writers out while it clones.
func (s *Store) flushImage(volume Volume) error {
	loops, err := loopsOf(s.volumeData(volume))
	if err != nil {
		return err
	}
	for _, loop := range loops {
		if err := flushDevice(loop.Device); err != nil {
			return err
		}
	}
	return nil
}

// frozen stops all writing to a mounted file system for the time of a copy. A note on disk tells the next start to thaw
// it, should this process be killed meanwhile: pods would hang in their writes for ever.
func (s *Store) frozen(volume Volume, point string, copy func() error) (err error) {
	directory, err := os.Open(point)
	if err != nil {
		return err
	}
	defer directory.Close()
	note := s.path("frozen", volume.ID)
	if err := os.WriteFile(note, []byte(point), 0o600); err != nil {
		return err
	}
	err = unix.IoctlSetInt(int(directory.Fd()), fiFreeze, 0)
	switch {
	case errors.Is(err, unix.EBUSY):
		// Frozen by somebody else (a hook in the pod), who thaws it.
		return errors.Join(copy(), os.Remove(note))
	case err != nil:
		return errors.Join(fmt.Errorf("freeze %s: %w", point, err), os.Remove(note))
	}
	defer func() {
		if thaw := unix.IoctlSetInt(int(directory.Fd()), fiThaw, 0); thaw != nil {
			err = errors.Join(err, fmt.Errorf("thaw %s: %w (try: fsfreeze --unfreeze %s)", point, thaw, point))
			return
		}
		err = errors.Join(err, os.Remove(note))
	}()
	return copy()
}

// thawForgotten thaws what a killed driver had frozen.
func (s *Store) thawForgotten() error {
	entries, err := os.ReadDir(s.path("frozen"))
	if err != nil {
		return err
	}
	for _, entry := range entries {
		note := s.path("frozen", entry.Name())
		point, err := os.ReadFile(note)
		if err != nil {
			return err
		}
		mount, err := mountAt(string(point))
		if err != nil {
			return err
		}
		if mount != nil && filepath.IsAbs(string(point)) {
			s.Logf("volume=%s thawing %s: the driver was killed in a snapshot", entry.Name(), point)
			if err := thaw(string(point)); err != nil {
				return err
			}
		}
		if err := os.Remove(note); err != nil {
			return err
		}
	}
	return nil
}

func thaw(point string) error {
	directory, err := os.Open(point)
	if err != nil {
		return err
	}
	defer directory.Close()
	err = unix.IoctlSetInt(int(directory.Fd()), fiThaw, 0)
	if err != nil && !errors.Is(err, unix.EINVAL) { // EINVAL: not frozen
		return fmt.Errorf("thaw %s: %w", point, err)
	}
	return nil
}

// mountedAt gives a path at which the file system of an image is mounted, "" if it is not.
func (s *Store) mountedAt(volume Volume) (string, error) {
	loops, err := loopsOf(s.volumeData(volume))
	if err != nil {
		return "", err
	}
	mounts, err := Mounts()
	if err != nil {
		return "", err
	}
	for _, loop := range loops {
		for _, mount := range mounts {
			if mount.Source == loop.Device && mount.Root == "/" && mount.Type == string(volume.Kind) {
				return mount.Point, nil
			}
		}
	}
	return "", nil
}
