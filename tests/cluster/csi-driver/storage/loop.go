package storage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Loop is a loop device that is attached to a file.
type Loop struct {
	Device   string
	Backing  string
	ReadOnly bool
}

// The kernel offers a free number and someone else may take it before we do; that many times we ask again.
const attachAttempts = 100

// Loops lists the attached loop devices of the whole machine. The kernel is asked each time: what this process
// remembers would be wrong after it was killed.
func Loops() ([]Loop, error) {
	names, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return nil, err
	}
	var loops []Loop
	for _, name := range names {
		backing, err := os.ReadFile(name)
		if err != nil {
			continue // detached since the listing
		}
		block := filepath.Dir(filepath.Dir(name))
		readOnly, err := os.ReadFile(filepath.Join(block, "ro"))
		if err != nil {
			continue
		}
		loops = append(loops, Loop{
			Device:   "/dev/" + filepath.Base(block),
			Backing:  strings.TrimSuffix(string(backing), "\n"),
			ReadOnly: strings.TrimSpace(string(readOnly)) == "1",
		})
	}
	return loops, nil
}

// loopsOf lists the devices attached to one file.
func loopsOf(image string) ([]Loop, error) {
	all, err := Loops()
	if err != nil {
		return nil, err
	}
	var found []Loop
	for _, loop := range all {
		if loop.Backing == image {
			found = append(found, loop)
		}
	}
	return found, nil
}

// attach gives the loop device of a file, a new one if there is none yet.
func attach(image string, readOnly bool) (string, error) {
	loops, err := loopsOf(image)
	if err != nil {
		return "", err
	}
	for _, loop := range loops {
		if loop.ReadOnly == readOnly {
			return loop.Device, nil
		}
	}
	mode := os.O_RDWR
	if readOnly {
		mode = os.O_RDONLY
	}
	file, err := os.OpenFile(image, mode, 0)
	if err != nil {
		return "", err
	}
	defer file.Close()
	for range attachAttempts {
		device, err := attachFree(file, mode)
		if err == nil {
			return device, nil
		}
		if !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENXIO) {
			return "", fmt.Errorf("attach %s to a loop device: %w", image, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
	return "", fmt.Errorf("attach %s: others took the free loop device %d times; is /dev a devtmpfs?", image, attachAttempts)
}

func attachFree(file *os.File, mode int) (string, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	defer control.Close()
	number, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil {
		return "", err
	}
	name := fmt.Sprintf("/dev/loop%d", number)
	device, err := os.OpenFile(name, mode, 0)
	if err != nil {
		return "", err
	}
	defer device.Close()
	// Past the page cache of the file: what the file system above caches is not cached and copied a second time.
	config := unix.LoopConfig{Fd: uint32(file.Fd())}
	config.Info.Flags = unix.LO_FLAGS_DIRECT_IO
	if mode == os.O_RDONLY {
		config.Info.Flags |= unix.LO_FLAGS_READ_ONLY
	}
	copy(config.Info.File_name[:len(config.Info.File_name)-1], file.Name())
	return name, unix.IoctlLoopConfigure(int(device.Fd()), &config)
}

// detachAll frees every loop device of a file.
func detachAll(image string) error {
	loops, err := loopsOf(image)
	if err != nil {
		return err
	}
	for _, loop := range loops {
		if err := detach(loop); err != nil {
			return err
		}
	}
	return nil
}

// detach frees a device. The kernel puts it off when someone else has it open (kubelet puts a loop device of its own
// on a published block volume); it then goes with the last user, so that is no error.
func detach(loop Loop) error {
	device, err := os.Open(loop.Device)
	if err != nil {
		return err
	}
	err = unix.IoctlSetInt(int(device.Fd()), unix.LOOP_CLR_FD, 0)
	device.Close()
	if err != nil && !errors.Is(err, unix.ENXIO) {
		return fmt.Errorf("detach %s from %s: %w", loop.Device, loop.Backing, err)
	}
	return nil
}

// grown tells a loop device that its file is larger now.
func grown(device string) error {
	file, err := os.Open(device)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := unix.IoctlSetInt(int(file.Fd()), unix.LOOP_SET_CAPACITY, 0); err != nil {
		return fmt.Errorf("tell %s its new size: %w", device, err)
	}
	return nil
}

// flushDevice writes what the device's own page cache holds into its file.
func flushDevice(device string) error {
	file, err := os.Open(device)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := file.Sync(); err != nil {
		return fmt.Errorf("flush %s: %w", device, err)
	}
	return nil
}
