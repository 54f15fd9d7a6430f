package driver

import (
	"slices"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"carrack.dev/tests/csi-driver/storage"
)

func invalid(format string, arguments ...any) error {
	return status.Errorf(codes.InvalidArgument, format, arguments...)
}

const filesystemParameter = "filesystem"

// Parameters with this prefix are the sidecars' own: names of the claim, its namespace and the volume.
const sidecarPrefix = "csi.storage.k8s.io/"

func checkParameters(parameters map[string]string, known ...string) error {
	for name := range parameters {
		if !slices.Contains(known, name) && !strings.HasPrefix(name, sidecarPrefix) {
			return invalid("parameter %q is not known; these are: %q", name, known)
		}
	}
	return nil
}

// checkCapability refuses what a capability leaves open or no volume of this driver can do.
func checkCapability(capability *csi.VolumeCapability) error {
	if capability == nil {
		return invalid("volume capability is missing")
	}
	if capability.GetBlock() == nil && capability.GetMount() == nil {
		return invalid("volume capability names neither block nor mount as access type")
	}
	if capability.GetAccessMode().GetMode() == csi.VolumeCapability_AccessMode_UNKNOWN {
		return invalid("volume capability names no access mode")
	}
	return nil
}

func checkCapabilities(capabilities []*csi.VolumeCapability) error {
	if len(capabilities) == 0 {
		return invalid("volume capabilities are missing")
	}
	for _, capability := range capabilities {
		if err := checkCapability(capability); err != nil {
			return err
		}
		if (capability.GetBlock() != nil) != (capabilities[0].GetBlock() != nil) {
			return invalid("one volume cannot be both a block device and mounted")
		}
	}
	return nil
}

// readsOnly tells whether an access mode leaves no writer.
func readsOnly(capability *csi.VolumeCapability) bool {
	switch capability.GetAccessMode().GetMode() {
	case csi.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY, csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY:
		return true
	}
	return false
}

// wantedKind says what kind of volume is asked for, "" if the request leaves it open. Block volumes hold no file system
// of ours: a storage class may serve both modes, so its `filesystem` does not matter for them.
func wantedKind(parameters map[string]string, capabilities []*csi.VolumeCapability) (storage.Kind, error) {
	kind := storage.Kind("")
	set := func(name, from string) error {
		switch wanted := storage.Kind(name); {
		case name == "":
		case wanted != storage.Btrfs && wanted != storage.Ext4 && wanted != storage.XFS:
			return invalid("%s is %q; it can be btrfs, ext4 or xfs", from, name)
		case kind != "" && kind != wanted:
			return invalid("%s is %q and parameter %s is %q: make them equal or leave one out", from, name, filesystemParameter, kind)
		default:
			kind = wanted
		}
		return nil
	}
	if err := set(parameters[filesystemParameter], "parameter "+filesystemParameter); err != nil {
		return "", err
	}
	for _, capability := range capabilities {
		if capability.GetBlock() != nil {
			return storage.Block, nil
		}
		if err := set(capability.GetMount().GetFsType(), "fsType"); err != nil {
			return "", err
		}
	}
	return kind, nil
}

// matches refuses a capability that a volume of this kind does not have.
func matches(volume storage.Volume, capability *csi.VolumeCapability) error {
	if err := checkCapability(capability); err != nil {
		return err
	}
	if (capability.GetBlock() != nil) != (volume.Kind == storage.Block) {
		return invalid("volume %s is of kind %s: it cannot be used as block=%t", volume.ID, volume.Kind, capability.GetBlock() != nil)
	}
	if wanted := capability.GetMount().GetFsType(); wanted != "" && wanted != string(volume.Kind) {
		return invalid("volume %s holds %s and not %s", volume.ID, volume.Kind, wanted)
	}
	return nil
}

// Volumes that name no size get this one.
const defaultSize = 1 << 30

// wantedSize gives the size for a range, at least as large as the source.
func wantedSize(kind storage.Kind, wanted *csi.CapacityRange, source int64) (int64, error) {
	required, limit := wanted.GetRequiredBytes(), wanted.GetLimitBytes()
	if required < 0 || limit < 0 {
		return 0, status.Errorf(codes.OutOfRange, "sizes cannot be negative: required %d, limit %d", required, limit)
	}
	if limit > 0 && required > limit {
		return 0, status.Errorf(codes.OutOfRange, "required size %d is over the limit of %d", required, limit)
	}
	if required > 0 && required < source {
		return 0, status.Errorf(codes.OutOfRange, "required size %d is less than the source's %d", required, source)
	}
	size := required
	if size == 0 {
		size = source
	}
	if size == 0 {
		size = defaultSize
		if limit > 0 {
			size = min(size, limit)
		}
	}
	size = storage.RoundSize(kind, size)
	if limit > 0 && size > limit {
		return 0, status.Errorf(codes.OutOfRange, "a %s volume for required size %d has %d bytes, over the limit of %d", kind, required, size, limit)
	}
	return size, nil
}

// fits refuses what could never be filled. Volumes are thin: together they may be larger than the pool.
func (d *Driver) fits(size int64) error {
	_, total, err := d.store.Room()
	if err == nil && size > total {
		err = status.Errorf(codes.OutOfRange, "size %d is over the pool's %d bytes: ask for less or start the driver with a larger --size", size, total)
	}
	return err
}
