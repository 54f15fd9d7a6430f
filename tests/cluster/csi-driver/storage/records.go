package storage

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Kind is how the bytes of a volume or snapshot are kept.
type Kind string

// The kinds: a btrfs subvolume, an image with a file system in it, an image without one (block mode).
const (
	Btrfs Kind = "btrfs"
	Ext4  Kind = "ext4"
	XFS   Kind = "xfs"
	Block Kind = "block"
)

// Volume is what is recorded of a volume.
type Volume struct {
	ID             string
	Name           string
	Kind           Kind
	Size           int64
	Sequence       int64 // order of creation: lists go by it, so that a page's end stays valid
	SourceVolume   string
	SourceSnapshot string
	Created        time.Time
}

// Snapshot is what is recorded of a snapshot.
type Snapshot struct {
	ID       string
	Name     string
	Volume   string
	Kind     Kind
	Size     int64
	Sequence int64
	Created  time.Time
}

// A record is what makes data a volume or snapshot: it is written last and removed first. Data without a record is
// the half of a call that was killed, and goes when the store is opened.

func newID(prefix string) string {
	random := make([]byte, 10)
	rand.Read(random)
	return prefix + hex.EncodeToString(random)
}

// writeRecord replaces a record by rename: a killed process leaves the old or the new one. There is no fsync: the state
// has to outlive this process, not the machine.
func writeRecord(directory, id string, record any) error {
	text, err := json.MarshalIndent(record, "", "  ")
	if err != nil {
		return err
	}
	half := filepath.Join(directory, id+".new")
	if err := os.WriteFile(half, text, 0o600); err != nil {
		return err
	}
	return os.Rename(half, filepath.Join(directory, id+".json"))
}

func removeRecord(directory, id string) error {
	return os.Remove(filepath.Join(directory, id+".json"))
}

func readRecords[T any](directory string, id func(T) string) (map[string]T, error) {
	entries, err := os.ReadDir(directory)
	if err != nil {
		return nil, err
	}
	records := map[string]T{}
	for _, entry := range entries {
		path := filepath.Join(directory, entry.Name())
		if strings.HasSuffix(entry.Name(), ".new") {
			if err := os.Remove(path); err != nil {
				return nil, err
			}
			continue
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		var record T
		if err := json.Unmarshal(text, &record); err != nil {
			return nil, fmt.Errorf("record %s cannot be read (%w); remove it to lose this one and go on", path, err)
		}
		records[id(record)] = record
	}
	return records, nil
}
