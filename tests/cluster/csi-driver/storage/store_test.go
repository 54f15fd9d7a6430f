package storage

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const mebibyte = 1 << 20

// open makes a store of its own, and checks at the end that it leaves nothing mounted or attached.
func open(t *testing.T) *Store {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("these tests mount: run them as root")
	}
	directory := t.TempDir()
	return reopen(t, directory)
}

func reopen(t *testing.T, directory string) *Store {
	t.Helper()
	s, err := Open(directory, 4<<30, t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		assertNothingLeft(t, directory)
	})
	return s
}

// The kernel puts the end of a device off while anybody has it open, and whoever watches the devices of a machine opens
// each that comes for a moment.
const letGoWithin = time.Minute

func assertNothingLeft(t *testing.T, directory string) {
	t.Helper()
	found := left(t, directory)
	for begin := time.Now(); len(found) > 0 && time.Since(begin) < letGoWithin; found = left(t, directory) {
		time.Sleep(50 * time.Millisecond)
	}
	for _, what := range found {
		t.Error(what)
	}
}

// left names what is mounted or attached below a directory.
func left(t *testing.T, directory string) []string {
	t.Helper()
	var found []string
	mounts, err := Mounts()
	must(t, err)
	for _, mount := range mounts {
		if strings.HasPrefix(mount.Point, directory+"/") {
			found = append(found, "still mounted: "+mount.Point)
		}
	}
	loops, err := Loops()
	must(t, err)
	for _, loop := range loops {
		if strings.HasPrefix(loop.Backing, directory+"/") {
			found = append(found, fmt.Sprintf("still attached: %s to %s", loop.Device, loop.Backing))
		}
	}
	return found
}

// killed leaves a store as SIGKILL does: the lock goes, mounts and loop devices stay.
func killed(s *Store) { s.lock.Close() }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func add(t *testing.T, s *Store, kind Kind, size int64) Volume {
	t.Helper()
	volume, err := s.AddVolume(Volume{Name: t.Name(), Kind: kind, Size: RoundSize(kind, size)})
	must(t, err)
	return volume
}

// published stages and publishes a volume and gives the path at which it can be used.
func published(t *testing.T, s *Store, volume Volume, readOnly bool) string {
	t.Helper()
	staging := filepath.Join(t.TempDir(), "staging")
	must(t, os.Mkdir(staging, 0o755))
	must(t, s.Stage(volume, staging, nil, false))
	target := filepath.Join(filepath.Dir(staging), "target")
	must(t, s.Publish(volume, staging, target, readOnly))
	t.Cleanup(func() { withdraw(t, s, volume, target) })
	return target
}

func withdraw(t *testing.T, s *Store, volume Volume, target string) {
	t.Helper()
	must(t, s.Unpublish(target))
	must(t, s.Unstage(volume, filepath.Join(filepath.Dir(target), "staging")))
}

func noise(size int) []byte {
	data := make([]byte, size)
	rand.Read(data)
	return data
}

func eachKind(t *testing.T, test func(*testing.T, Kind)) {
	for _, kind := range []Kind{Btrfs, Ext4, XFS, Block} {
		t.Run(string(kind), func(t *testing.T) { test(t, kind) })
	}
}

// contentFile is the file that a test writes to: one in the volume, or the device itself.
func contentFile(kind Kind, target string) string {
	if kind == Block {
		return target
	}
	return filepath.Join(target, "content")
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	must(t, err)
	defer file.Close()
	_, err = file.WriteAt(data, 0)
	must(t, err)
}

func read(t *testing.T, path string, size int) []byte {
	t.Helper()
	file, err := os.Open(path)
	must(t, err)
	defer file.Close()
	data := make([]byte, size)
	_, err = file.ReadAt(data, 0)
	must(t, err)
	return data
}

// What was written before a snapshot is in it without a sync, and later writes are not; a larger clone has the same
// content and the larger size.
func TestSnapshotsAndClonesHoldTheContentOfTheirTime(t *testing.T) {
	eachKind(t, func(t *testing.T, kind Kind) {
		s := open(t)
		volume := add(t, s, kind, 400*mebibyte)
		target := published(t, s, volume, false)
		before, after := noise(8*mebibyte+123), noise(8*mebibyte+123)
		write(t, contentFile(kind, target), before)
		snapshot, err := s.AddSnapshot("one", volume)
		must(t, err)
		write(t, contentFile(kind, target), after)
		clone, err := s.AddVolume(Volume{Name: "clone", Kind: kind, Size: volume.Size, SourceVolume: volume.ID})
		must(t, err)
		larger, err := s.AddVolume(Volume{Name: "larger", Kind: kind, Size: 2 * volume.Size, SourceSnapshot: snapshot.ID})
		must(t, err)

		cloned := published(t, s, clone, false)
		if !bytes.Equal(read(t, contentFile(kind, cloned), len(after)), after) {
			t.Error("the clone does not hold what the volume held")
		}
		restored := published(t, s, larger, true)
		if !bytes.Equal(read(t, contentFile(kind, restored), len(before)), before) {
			t.Error("the snapshot does not hold what the volume held then")
		}
		if kind != Btrfs {
			assertSize(t, kind, restored, larger.Size)
		}
		file, err := os.OpenFile(contentFile(kind, restored), os.O_RDWR, 0)
		if err == nil {
			_, err = file.WriteAt([]byte("x"), 0)
			file.Close()
		}
		if err == nil {
			t.Error("a volume that is published read-only could be written to")
		}
	})
}

// assertSize allows a file system what it needs for itself.
func assertSize(t *testing.T, kind Kind, target string, size int64) {
	t.Helper()
	if kind == Block {
		file, err := os.Open(target)
		must(t, err)
		defer file.Close()
		end, err := file.Seek(0, 2)
		must(t, err)
		if end != size {
			t.Errorf("device has %d bytes, want %d", end, size)
		}
		return
	}
	var stat unix.Statfs_t
	must(t, unix.Statfs(target, &stat))
	if total := int64(stat.Blocks) * stat.Bsize; total < size*8/10 {
		t.Errorf("file system has %d bytes, want nearly %d", total, size)
	}
}

func TestExpansionInUse(t *testing.T) {
	for _, kind := range []Kind{Ext4, XFS, Block} {
		t.Run(string(kind), func(t *testing.T) {
			s := open(t)
			volume := add(t, s, kind, 400*mebibyte)
			target := published(t, s, volume, false)
			data := noise(mebibyte)
			write(t, contentFile(kind, target), data)
			volume, err := s.Grow(volume, 2*volume.Size)
			must(t, err)
			err = s.Follow(volume)
			if kind == Ext4 && !hasResourceCapability() {
				if !errors.Is(err, ErrMounted) {
					t.Fatalf("without CAP_SYS_RESOURCE: %v, want %v", err, ErrMounted)
				}
				withdraw(t, s, volume, target)
				target = published(t, s, volume, false)
			} else {
				must(t, err)
			}
			assertSize(t, kind, target, volume.Size)
			if !bytes.Equal(read(t, contentFile(kind, target), len(data)), data) {
				t.Error("the content changed")
			}
		})
	}
}

// A writer syncs each record to one file before it writes the record to a second one. A snapshot as after a power cut
// therefore never holds a record in the second file that is not in the first.
func TestSnapshotsUnderAWriterAreCrashConsistentAndStay(t *testing.T) {
	for _, kind := range []Kind{Btrfs, Ext4, XFS} {
		t.Run(string(kind), func(t *testing.T) {
			s := open(t)
			volume := add(t, s, kind, 400*mebibyte)
			stop := startWriter(t, published(t, s, volume, false))
			var restored []string
			var copies []Volume
			for i := range 3 {
				snapshot, err := s.AddSnapshot(fmt.Sprint("snapshot ", i), volume)
				must(t, err)
				copied, err := s.AddVolume(Volume{Name: fmt.Sprint("copy ", i), Kind: kind, Size: volume.Size, SourceSnapshot: snapshot.ID})
				must(t, err)
				copies = append(copies, copied)
				restored = append(restored, published(t, s, copied, true))
			}
			sums := map[string][32]byte{}
			for _, target := range restored {
				sums[target] = assertOrdered(t, target)
			}
			if written := stop(); written == 0 {
				t.Error("the writer wrote nothing")
			}
			for i, target := range restored {
				if assertOrdered(t, target) != sums[target] {
					t.Error("a snapshot changed while the volume was written to")
				}
				withdraw(t, s, copies[i], target)
				assertClean(t, kind, s.volumeData(copies[i]))
			}
		})
	}
}

const recordSize = 5000

func startWriter(t *testing.T, target string) (stop func() int) {
	t.Helper()
	first, err := os.Create(filepath.Join(target, "first"))
	must(t, err)
	second, err := os.Create(filepath.Join(target, "second"))
	must(t, err)
	ended, done := make(chan struct{}), make(chan int)
	go func() {
		defer first.Close()
		defer second.Close()
		for i := 0; ; i++ {
			record := bytes.Repeat([]byte{byte(i%255 + 1)}, recordSize)
			select {
			case <-ended:
				done <- i
				return
			default:
			}
			_, err1 := first.Write(record)
			err2 := first.Sync()
			_, err3 := second.Write(record)
			if err := errors.Join(err1, err2, err3, second.Sync()); err != nil {
				t.Error(err)
				done <- i
				return
			}
		}
	}()
	return func() int { close(ended); return <-done }
}

// assertOrdered gives the sum of both files.
func assertOrdered(t *testing.T, target string) [32]byte {
	t.Helper()
	first, err := os.ReadFile(filepath.Join(target, "first"))
	must(t, err)
	second, err := os.ReadFile(filepath.Join(target, "second"))
	must(t, err)
	if !bytes.HasPrefix(first, second) {
		t.Errorf("second file has %d bytes that are not the beginning of the first one's %d", len(second), len(first))
	}
	return sha256.Sum256(append(first, second...))
}

// assertClean lets the file system's own checker judge an image that was mounted, and its log replayed with that.
func assertClean(t *testing.T, kind Kind, image string) {
	t.Helper()
	var command *exec.Cmd
	switch kind {
	case Ext4:
		command = exec.Command("e2fsck", "-f", "-n", image)
	case XFS:
		command = exec.Command("xfs_repair", "-n", "-f", image)
	default:
		return
	}
	if out, err := command.CombinedOutput(); err != nil {
		t.Errorf("%v: %v\n%s", command.Args, err, out)
	}
}

func TestAKilledDriverGoesOn(t *testing.T) {
	eachKind(t, func(t *testing.T, kind Kind) {
		directory := t.TempDir()
		s := reopen(t, directory)
		volume := add(t, s, kind, 400*mebibyte)
		target := published(t, s, volume, false)
		data := noise(mebibyte)
		write(t, contentFile(kind, target), data)
		snapshot, err := s.AddSnapshot("one", volume)
		must(t, err)
		if _, err := Open(directory, 4<<30, t.Logf); err == nil {
			t.Fatal("a second driver opened the state that the first one has")
		}
		halfMade := s.path("volumes", "vol-half.img")
		must(t, os.WriteFile(halfMade, data, 0o600))
		must(t, run("btrfs", "subvolume", "create", s.path("snapshots", "snap-half")))
		killed(s)

		s = reopen(t, directory)
		if found, ok := s.Volume(volume.ID); !ok || found != volume {
			t.Fatalf("volume after the restart: %+v, want %+v", found, volume)
		}
		if found, ok := s.Snapshot(snapshot.ID); !ok || found != snapshot {
			t.Fatalf("snapshot after the restart: %+v, want %+v", found, snapshot)
		}
		for _, path := range []string{halfMade, s.path("snapshots", "snap-half")} {
			if _, err := os.Stat(path); err == nil {
				t.Errorf("%s is still there", path)
			}
		}
		if !bytes.Equal(read(t, contentFile(kind, target), len(data)), data) {
			t.Error("the volume lost its content")
		}
		must(t, s.Publish(volume, filepath.Join(filepath.Dir(target), "staging"), target, false))
		second, err := s.AddSnapshot("two", volume)
		must(t, err)
		if second.Sequence <= snapshot.Sequence {
			t.Errorf("sequence %d was given again after %d", second.Sequence, snapshot.Sequence)
		}
		withdraw(t, s, volume, target)
		must(t, s.RemoveVolume(volume))
		must(t, s.RemoveSnapshot(snapshot))
	})
}

// Pods would hang for ever in a file system that nobody thaws.
func TestARestartThawsWhatAKilledSnapshotFroze(t *testing.T) {
	for _, kind := range []Kind{Ext4, XFS} {
		t.Run(string(kind), func(t *testing.T) {
			directory := t.TempDir()
			s := reopen(t, directory)
			volume := add(t, s, kind, 400*mebibyte)
			target := published(t, s, volume, false)
			point, err := s.mountedAt(volume)
			must(t, err)
			must(t, os.WriteFile(s.path("frozen", volume.ID), []byte(point), 0o600))
			must(t, run("fsfreeze", "--freeze", point))
			killed(s)

			s = reopen(t, directory)
			err = run("fsfreeze", "--unfreeze", point)
			if err == nil {
				t.Fatal("the file system was still frozen")
			}
			write(t, contentFile(kind, target), noise(mebibyte))
			if entries, err := os.ReadDir(s.path("frozen")); err != nil || len(entries) != 0 {
				t.Errorf("notes of freezes are left: %v %v", entries, err)
			}
		})
	}
}

// After a reboot nothing is mounted, and after a kill between image and record the image says how large it is.
func TestARebootAndAHalfDoneExpansion(t *testing.T) {
	directory := t.TempDir()
	s := reopen(t, directory)
	volume := add(t, s, XFS, 400*mebibyte)
	must(t, os.Truncate(s.volumeData(volume), 2*volume.Size))
	must(t, s.Close())

	s = reopen(t, directory)
	found, ok := s.Volume(volume.ID)
	if !ok || found.Size != 2*volume.Size {
		t.Fatalf("volume after the restart: %+v, want size %d", found, 2*volume.Size)
	}
	assertSize(t, XFS, published(t, s, found, false), found.Size)
}

func TestMountOptionsThatCannotBeHadAreNamed(t *testing.T) {
	s := open(t)
	volume := add(t, s, Btrfs, mebibyte)
	staging := t.TempDir()
	if err := s.Stage(volume, staging, []string{"compress=zstd"}, false); !errors.Is(err, ErrOption) {
		t.Errorf("got %v, want %v", err, ErrOption)
	}
	must(t, s.Stage(volume, staging, []string{"noatime", "ro"}, false))
	if err := s.Stage(volume, staging, nil, false); !errors.Is(err, ErrIncompatible) {
		t.Errorf("staged again writable: %v, want %v", err, ErrIncompatible)
	}
	must(t, s.Unstage(volume, staging))
}
