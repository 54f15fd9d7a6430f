package storage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrIncompatible says that the volume is there already, and otherwise than it is asked for now.
var ErrIncompatible = errors.New("mounted in another way")

// ErrOption says that a mount option does not fit.
var ErrOption = errors.New("mount option")

// A subvolume is mounted by bind, which knows only these; mount(8) drops all others without a word.
var bindOptions = []string{"rw", "noatime", "relatime", "nodiratime", "nodev", "nosuid", "noexec"}

// Stage makes a volume ready on the node: attached, and mounted at path unless it is a block volume.
func (s *Store) Stage(volume Volume, path string, options []string, readOnly bool) error {
	if volume.Kind == Block {
		_, err := attach(s.volumeData(volume), readOnly)
		return err
	}
	readOnly = readOnly || slices.Contains(options, "ro")
	options = slices.DeleteFunc(slices.Clone(options), func(option string) bool { return option == "ro" })
	if mount, err := mountAt(path); err != nil {
		return err
	} else if mount != nil {
		return s.same(volume, mount, readOnly)
	}
	if err := os.MkdirAll(path, 0o750); err != nil {
		return err
	}
	if volume.Kind == Btrfs {
		for _, option := range options {
			if !slices.Contains(bindOptions, option) {
				return fmt.Errorf("%w %q cannot be had on a btrfs subvolume; these can: ro %s", ErrOption, option, strings.Join(bindOptions, " "))
			}
		}
		if readOnly {
			options = append(options, "ro")
		}
		return bind(s.volumeData(volume), path, options)
	}
	return s.stageImage(volume, path, options, readOnly)
}

// stageImage mounts an image and lets its file system fill it: a clone may be larger than its source. XFS grows only
// when it is mounted writable, so a read-only mount becomes so afterwards.
func (s *Store) stageImage(volume Volume, path string, options []string, readOnly bool) error {
	device, err := attach(s.volumeData(volume), false)
	if err != nil {
		return err
	}
	if err := grown(device); err != nil {
		return err
	}
	if volume.Kind == Ext4 {
		if err := growUnmounted(device, volume.Size); err != nil {
			return errors.Join(err, detachAll(s.volumeData(volume)))
		}
	}
	if volume.Kind == XFS {
		options = append(options, "nouuid") // a clone has the UUID of its source
	}
	arguments := []string{"-t", string(volume.Kind)}
	if len(options) > 0 {
		arguments = append(arguments, "-o", strings.Join(options, ","))
	}
	if err := run("mount", append(arguments, "--", device, path)...); err != nil {
		return errors.Join(err, detachAll(s.volumeData(volume)))
	}
	if volume.Kind == XFS {
		err = run("xfs_growfs", path)
	}
	if err == nil && readOnly {
		err = run("mount", "-o", "remount,ro", "--", path)
	}
	if err != nil {
		return errors.Join(err, s.Unstage(volume, path))
	}
	return nil
}

// same checks that what is mounted is this volume, in the way it is asked for.
func (s *Store) same(volume Volume, mount *Mount, readOnly bool) error {
	shown, err := s.shows(volume, *mount)
	if err != nil {
		return err
	}
	if !shown {
		return fmt.Errorf("%w: %s on %s is not volume %s", ErrIncompatible, mount.Source, mount.Point, volume.ID)
	}
	if mount.ReadOnly != readOnly {
		return fmt.Errorf("%w: %s is mounted read-only=%t, asked for read-only=%t", ErrIncompatible, mount.Point, mount.ReadOnly, readOnly)
	}
	return nil
}

// shows tells whether a mount shows data of this volume.
func (s *Store) shows(volume Volume, mount Mount) (bool, error) {
	if volume.Kind == Btrfs {
		pool, err := mountAt(s.path())
		if err != nil || pool == nil {
			return false, err
		}
		root := "/volumes/" + volume.ID
		return mount.Device == pool.Device && (mount.Root == root || strings.HasPrefix(mount.Root, root+"/")), nil
	}
	loops, err := loopsOf(s.volumeData(volume))
	if err != nil {
		return false, err
	}
	for _, loop := range loops {
		if mount.Source == loop.Device || (strings.HasSuffix(mount.Type, "tmpfs") && mount.Root == strings.TrimPrefix(loop.Device, "/dev")) {
			return true, nil
		}
	}
	return false, nil
}

// Published lists where a volume is mounted besides its staging path. A copy that somebody else made by bind counts:
// it reaches the same data.
func (s *Store) Published(volume Volume, staging string) ([]string, error) {
	mounts, err := Mounts()
	if err != nil {
		return nil, err
	}
	staging = resolved(staging)
	var points []string
	for _, mount := range mounts {
		if mount.Point == staging {
			continue
		}
		if shown, err := s.shows(volume, mount); err != nil {
			return nil, err
		} else if shown {
			points = append(points, mount.Point)
		}
	}
	return points, nil
}

// InUse tells where a volume is mounted or attached, "" if nowhere.
func (s *Store) InUse(volume Volume) (string, error) {
	if volume.Kind != Btrfs {
		loops, err := loopsOf(s.volumeData(volume))
		if err != nil || len(loops) == 0 {
			return "", err
		}
		return loops[0].Device, nil
	}
	mounts, err := Mounts()
	if err != nil {
		return "", err
	}
	for _, mount := range mounts {
		if shown, err := s.shows(volume, mount); err != nil || shown {
			return mount.Point, err
		}
	}
	return "", nil
}

// Unstage undoes Stage.
func (s *Store) Unstage(volume Volume, path string) error {
	if err := unmount(path); err != nil {
		return err
	}
	if volume.Kind == Btrfs {
		return nil
	}
	return detachAll(s.volumeData(volume))
}

// Publish shows a staged volume at target: a directory, or a device file for a block volume.
func (s *Store) Publish(volume Volume, staging, target string, readOnly bool) error {
	if mount, err := mountAt(target); err != nil {
		return err
	} else if mount != nil {
		return s.samePublished(volume, mount, readOnly)
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o750); err != nil {
		return err
	}
	if volume.Kind == Block {
		return s.publishDevice(volume, target, readOnly)
	}
	if err := os.Mkdir(target, 0o750); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	var options []string
	if readOnly {
		options = append(options, "ro")
	}
	return bind(staging, target, options)
}

// publishDevice shows a read-only volume through a device of its own: a read-only mount would not keep anybody from
// writing to the device it shows.
func (s *Store) publishDevice(volume Volume, target string, readOnly bool) error {
	device, err := attach(s.volumeData(volume), readOnly)
	if err != nil {
		return err
	}
	if err := grown(device); err != nil {
		return err
	}
	file, err := os.OpenFile(target, os.O_CREATE|os.O_RDONLY, 0o660)
	if err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	return bind(device, target, nil)
}

func (s *Store) samePublished(volume Volume, mount *Mount, readOnly bool) error {
	if volume.Kind != Block {
		return s.same(volume, mount, readOnly || mount.ReadOnly && s.stagedReadOnly(volume))
	}
	if err := s.same(volume, mount, mount.ReadOnly); err != nil {
		return err
	}
	loops, err := loopsOf(s.volumeData(volume))
	if err != nil {
		return err
	}
	for _, loop := range loops {
		if loop.ReadOnly == readOnly && "/dev"+mount.Root == loop.Device {
			return nil
		}
	}
	return fmt.Errorf("%w: %s is not published read-only=%t", ErrIncompatible, mount.Point, readOnly)
}

// stagedReadOnly tells whether all mounts of a volume are read-only: then every published one is, asked for or not.
func (s *Store) stagedReadOnly(volume Volume) bool {
	mounts, err := Mounts()
	if err != nil {
		return false
	}
	for _, mount := range mounts {
		if shown, err := s.shows(volume, mount); err != nil || shown && !mount.ReadOnly {
			return false
		}
	}
	return true
}

// Unpublish takes a volume off its target and removes the target.
func (s *Store) Unpublish(target string) error {
	if err := unmount(target); err != nil {
		return err
	}
	if err := os.Remove(target); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// Usage is what a mounted volume holds.
type Usage struct {
	Bytes, BytesFree, BytesUsed    int64
	Inodes, InodesFree, InodesUsed int64 // zero where the file system does not count them
}

// Usage reads what the volume mounted at path holds; false if it is not mounted there. A btrfs volume has no limit of
// its own and shows the whole pool.
func (s *Store) Usage(volume Volume, path string) (Usage, bool, error) {
	mount, err := mountAt(path)
	if err != nil || mount == nil {
		return Usage{}, false, err
	}
	if shown, err := s.shows(volume, *mount); err != nil || !shown {
		return Usage{}, false, err
	}
	if volume.Kind == Block {
		return Usage{Bytes: volume.Size}, true, nil
	}
	var stat unix.Statfs_t
	if err := unix.Statfs(path, &stat); err != nil {
		return Usage{}, false, err
	}
	return Usage{
		Bytes:     int64(stat.Blocks) * stat.Bsize,
		BytesFree: int64(stat.Bavail) * stat.Bsize,
		BytesUsed: int64(stat.Blocks-stat.Bfree) * stat.Bsize,
		Inodes:    int64(stat.Files), InodesFree: int64(stat.Ffree), InodesUsed: int64(stat.Files - stat.Ffree),
	}, true, nil
}

// Staged tells whether a volume is staged at path.
func (s *Store) Staged(volume Volume, path string) (bool, error) {
	if volume.Kind == Block {
		loops, err := loopsOf(s.volumeData(volume))
		return len(loops) > 0, err
	}
	mount, err := mountAt(path)
	if err != nil || mount == nil {
		return false, err
	}
	return s.shows(volume, *mount)
}
