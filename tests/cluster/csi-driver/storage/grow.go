package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
)

// ErrMounted says that something can be done only while the volume is not mounted.
var ErrMounted = errors.New("volume is mounted")

// Follow lets the loop devices and the file system of a volume take its new size.
func (s *Store) Follow(volume Volume) error {
	if volume.Kind == Btrfs {
		return nil
	}
	loops, err := loopsOf(s.volumeData(volume))
	if err != nil {
		return err
	}
	for _, loop := range loops {
		if err := grown(loop.Device); err != nil {
			return err
		}
	}
	point, err := s.mountedAt(volume)
	if err != nil || point == "" {
		return err
	}
	for _, loop := range loops {
		if !loop.ReadOnly {
			return growFileSystem(volume.Kind, loop.Device, point)
		}
	}
	return nil
}

// growFileSystem lets a mounted file system fill its device.
func growFileSystem(kind Kind, device, path string) error {
	switch kind {
	case Ext4:
		err := run("resize2fs", device)
		if err != nil && !hasResourceCapability() {
			return fmt.Errorf("%w: ext4 grows in use only with CAP_SYS_RESOURCE, which this machine does not give; end the pods that use it, "+
				"it grows when it is staged again (%w)", ErrMounted, err)
		}
		return err
	case XFS:
		return run("xfs_growfs", path)
	}
	return nil
}

// growUnmounted lets an ext4 that is smaller than its device fill it, before it is mounted: growing it mounted needs a
// capability that containers lack. resize2fs wants a full check before, which also replays the journal.
func growUnmounted(device string, size int64) error {
	held, err := ext4Size(device)
	if err != nil || held >= size {
		return err
	}
	out, err := exec.Command("e2fsck", "-f", "-p", device).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !(errors.As(err, &exit) && exit.ExitCode() == 1) { // 1: errors were corrected
		return fmt.Errorf("e2fsck %s: %w: %s", device, err, strings.TrimSpace(string(out)))
	}
	return run("resize2fs", device)
}

// ext4Size reads from the superblock how large the file system believes to be.
func ext4Size(device string) (int64, error) {
	file, err := os.Open(device)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	block := make([]byte, 1024)
	if _, err := file.ReadAt(block, 1024); err != nil {
		return 0, err
	}
	if binary.LittleEndian.Uint16(block[0x38:]) != 0xef53 {
		return 0, fmt.Errorf("%s holds no ext4: the volume was written to as a block device, or is damaged", device)
	}
	blocks := int64(binary.LittleEndian.Uint32(block[4:])) | int64(binary.LittleEndian.Uint32(block[0x150:]))<<32
	return blocks << (10 + binary.LittleEndian.Uint32(block[0x18:])), nil
}

// hasResourceCapability tells whether this process has CAP_SYS_RESOURCE.
func hasResourceCapability() bool {
	const bit = 24
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(text)) {
		if mask, found := strings.CutPrefix(line, "CapEff:"); found {
			set, err := strconv.ParseUint(strings.TrimSpace(mask), 16, 64)
			return err == nil && set&(1<<bit) != 0
		}
	}
	return false
}
