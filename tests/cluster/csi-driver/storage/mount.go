package storage

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Mount is a line of /proc/self/mountinfo.
type Mount struct {
	Device   string // major:minor of the file system
	Root     string // what of the file system is mounted
	Point    string
	Type     string
	Source   string
	ReadOnly bool // for this mount; the file system below may still be writable
}

// Mounts lists what this process sees mounted, in the order of mounting.
func Mounts() ([]Mount, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var mounts []Mount
	for line := range strings.Lines(string(text)) {
		before, after, found := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !found || len(left) < 6 || len(right) < 2 {
			return nil, fmt.Errorf("/proc/self/mountinfo has a line that cannot be read: %q", line)
		}
		mounts = append(mounts, Mount{
			Device:   left[2],
			Root:     unescape(left[3]),
			Point:    unescape(left[4]),
			Type:     right[0],
			Source:   unescape(right[1]),
			ReadOnly: slices.Contains(strings.Split(left[5], ","), "ro"),
		})
	}
	return mounts, nil
}

// unescape undoes the octal escapes the kernel writes for blanks and backslashes.
func unescape(text string) string {
	var out strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] == '\\' && i+3 < len(text) {
			if code, err := strconv.ParseUint(text[i+1:i+4], 8, 8); err == nil {
				out.WriteByte(byte(code))
				i += 3
				continue
			}
		}
		out.WriteByte(text[i])
	}
	return out.String()
}

// mountAt gives the topmost mount on a path, nil if nothing is mounted there.
func mountAt(path string) (*Mount, error) {
	mounts, err := Mounts()
	if err != nil {
		return nil, err
	}
	path = resolved(path)
	for _, mount := range slices.Backward(mounts) {
		if mount.Point == path {
			return &mount, nil
		}
	}
	return nil, nil
}

// resolved follows symbolic links where the path exists; the kernel lists mounts by their real paths.
func resolved(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	return filepath.Clean(path)
}

// bind mounts one path on another, with options of the mount (not of the file system).
func bind(source, target string, options []string) error {
	arguments := []string{"--bind"}
	if len(options) > 0 {
		arguments = append(arguments, "-o", strings.Join(options, ","))
	}
	return run("mount", append(arguments, "--", source, target)...)
}

// unmount takes everything off a path; nothing mounted there is fine.
func unmount(path string) error {
	for {
		mount, err := mountAt(path)
		if err != nil || mount == nil {
			return err
		}
		if err := unmountOne(mount.Point); err != nil {
			return err
		}
	}
}

// unmountOne waits a moment for those who are about to close their last file.
func unmountOne(point string) error {
	var err error
	for range 20 {
		err = unix.Unmount(point, unix.UMOUNT_NOFOLLOW)
		if err == nil || errors.Is(err, unix.EINVAL) { // EINVAL: no longer mounted
			return nil
		}
		if !errors.Is(err, unix.EBUSY) {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("unmount %s: %w (see who holds it with: fuser -vm %s)", point, err, point)
}

// run starts a program and makes its words part of the error.
func run(name string, arguments ...string) error {
	_, err := output(name, arguments...)
	return err
}

func output(name string, arguments ...string) (string, error) {
	out, err := exec.Command(name, arguments...).CombinedOutput()
	text := strings.TrimSpace(string(out))
	if errors.Is(err, exec.ErrNotFound) {
		return text, fmt.Errorf("%s is missing; install btrfs-progs, xfsprogs, e2fsprogs and util-linux", name)
	}
	if err != nil {
		return text, fmt.Errorf("%s %s: %w: %s", name, strings.Join(arguments, " "), err, text)
	}
	return text, nil
}
