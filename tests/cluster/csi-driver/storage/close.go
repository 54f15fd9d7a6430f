package storage

import (
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Close takes down everything this store has mounted and attached, also what is still staged or published: the driver
// was told to end, and the test bed must leave no mount behind. (A driver that is killed leaves all of it in place.)
func (s *Store) Close() error {
	defer s.lock.Close()
	pool, err := mountAt(s.path())
	if err != nil || pool == nil {
		return err
	}
	images, err := s.imageLoops()
	if err != nil {
		return err
	}
	devices := map[string]bool{}
	for _, loop := range images {
		devices[loop.Device] = true
	}
	mounts, err := Mounts()
	if err != nil {
		return err
	}
	for _, mount := range slices.Backward(mounts) {
		if mount.Point != pool.Point && ours(mount, *pool, devices) {
			s.Logf("still mounted, unmounting: %s", mount.Point)
			s.forceUnmount(mount.Point)
		}
	}
	for _, loop := range images {
		if err := detach(loop); err != nil {
			return err
		}
	}
	s.forceUnmount(pool.Point)
	return detachAll(s.poolFile())
}

func (s *Store) imageLoops() ([]Loop, error) {
	all, err := Loops()
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(loop Loop) bool {
		return !strings.HasPrefix(loop.Backing, s.path()+"/")
	}), nil
}

// forceUnmount takes a mount out of sight even if someone has files open in it: its file system goes with the last of
// them, and its loop device with that.
func (s *Store) forceUnmount(point string) {
	err := unmountOne(point)
	if err == nil {
		return
	}
	s.Logf("%v; it goes with its last user", err)
	if err := unix.Unmount(point, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
		s.Logf("detach %s: %v", point, err)
	}
}
