package main

import (
	"context"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	registerapi "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// The tests start this program as a process of its own, which they can kill: the test's binary with this variable.
const asDriver = "CARRACK_TEST_CSI_RUN"

func TestMain(m *testing.M) {
	if os.Getenv(asDriver) == "" {
		os.Exit(m.Run())
	}
	if err := start(os.Args[1:]); err != nil {
		log.Fatal(err)
	}
}

// process is a running driver.
type process struct {
	*csiClients
	t         *testing.T
	directory string
	command   *exec.Cmd
}

type csiClients struct {
	csi.ControllerClient
	csi.NodeClient
	csi.IdentityClient
	csi.SnapshotMetadataClient
}

func launch(t *testing.T, options ...string) *process {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("these tests mount: run them as root")
	}
	// t.TempDir() holds the test's name, and a socket's path has at most 107 bytes.
	directory, err := os.MkdirTemp("", "csi")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(directory) })
	p := &process{t: t, directory: directory}
	p.start(options...)
	t.Cleanup(p.end)
	return p
}

func (p *process) start(options ...string) {
	p.t.Helper()
	p.command = exec.Command(os.Args[0], append([]string{
		"--endpoint", "unix://" + p.path("csi.sock"), "--state", p.path("state"), "--node", "here", "--name", "test.csi.carrack.dev",
		"--registration-dir", p.path("registry"), "--faults", p.path("faults.json"), "--size", "2147483648",
	}, options...)...)
	p.command.Env = append(os.Environ(), asDriver+"=1")
	p.command.Stderr = os.Stderr
	must(p.t, p.command.Start())
	connection, err := grpc.NewClient("unix:"+p.path("csi.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(p.t, err)
	p.t.Cleanup(func() { connection.Close() })
	p.csiClients = &csiClients{
		csi.NewControllerClient(connection), csi.NewNodeClient(connection), csi.NewIdentityClient(connection),
		csi.NewSnapshotMetadataClient(connection),
	}
	soon, cancel := context.WithTimeout(p.t.Context(), 20*time.Second)
	defer cancel()
	_, err = p.Probe(soon, &csi.ProbeRequest{}, grpc.WaitForReady(true))
	must(p.t, err)
}

func (p *process) path(name string) string { return filepath.Join(p.directory, name) }

// The kernel puts the end of a device off while anybody has it open, and whoever watches the devices of a machine opens
// each that comes for a moment.
const letGoWithin = time.Minute

// end stops the driver in the ordinary way and checks what it leaves.
func (p *process) end() {
	must(p.t, p.command.Process.Signal(syscall.SIGTERM))
	if err := p.command.Wait(); err != nil {
		p.t.Errorf("the driver ended with %v", err)
	}
	found := p.left()
	for begin := time.Now(); len(found) > 0 && time.Since(begin) < letGoWithin; found = p.left() {
		time.Sleep(50 * time.Millisecond)
	}
	for _, what := range found {
		p.t.Errorf("the driver left %s", what)
	}
}

// left names what is mounted or attached below the driver's directory.
func (p *process) left() []string {
	var found []string
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	must(p.t, err)
	if strings.Contains(string(mounts), p.directory) {
		found = append(found, "something mounted below "+p.directory)
	}
	backing, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	must(p.t, err)
	for _, file := range backing {
		if name, err := os.ReadFile(file); err == nil && strings.HasPrefix(string(name), p.directory) {
			found = append(found, strings.TrimSpace(string(name)))
		}
	}
	return found
}

func (p *process) faults(json string) {
	p.t.Helper()
	must(p.t, os.WriteFile(p.path("faults.new"), []byte(json), 0o600))
	must(p.t, os.Rename(p.path("faults.new"), p.path("faults.json")))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantCode(t *testing.T, err error, code codes.Code, words string) {
	t.Helper()
	if status.Code(err) != code || !strings.Contains(status.Convert(err).Message(), words) {
		t.Errorf("got %v, want %s with %q", err, code, words)
	}
}

func mounted() *csi.VolumeCapability {
	return &csi.VolumeCapability{
		AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{}},
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
	}
}

func request(name, filesystem string) *csi.CreateVolumeRequest {
	return &csi.CreateVolumeRequest{
		Name: name, VolumeCapabilities: []*csi.VolumeCapability{mounted()}, Parameters: map[string]string{"filesystem": filesystem},
		CapacityRange: &csi.CapacityRange{RequiredBytes: 64 << 20},
	}
}

func (p *process) volume(name, filesystem string) string {
	p.t.Helper()
	response, err := p.CreateVolume(p.t.Context(), request(name, filesystem))
	must(p.t, err)
	return response.GetVolume().GetVolumeId()
}

func (p *process) snapshot(name, volume string) *csi.Snapshot {
	p.t.Helper()
	response, err := p.CreateSnapshot(p.t.Context(), &csi.CreateSnapshotRequest{Name: name, SourceVolumeId: volume})
	must(p.t, err)
	return response.GetSnapshot()
}

func (p *process) stage(volume string, capability *csi.VolumeCapability) error {
	must(p.t, os.MkdirAll(p.path("staging-"+volume), 0o755))
	_, err := p.NodeStageVolume(p.t.Context(), &csi.NodeStageVolumeRequest{
		VolumeId: volume, StagingTargetPath: p.path("staging-" + volume), VolumeCapability: capability,
	})
	return err
}

func restoring(snapshot, name, filesystem string) *csi.CreateVolumeRequest {
	r := request(name, filesystem)
	r.VolumeContentSource = &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{
		Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: snapshot},
	}}
	return r
}

func TestADriverThatIsKilledGoesOnWithAllItHas(t *testing.T) {
	p := launch(t)
	volume := p.volume("one", "ext4")
	must(t, p.stage(volume, mounted()))
	content := filepath.Join(p.path("staging-"+volume), "content")
	must(t, os.WriteFile(content, []byte("before"), 0o600))
	snapshot := p.snapshot("snapshot", volume)
	must(t, p.command.Process.Kill())
	p.command.Wait()
	must(t, os.WriteFile(content, []byte("meanwhile"), 0o600))

	p.start()
	if again := p.volume("one", "ext4"); again != volume {
		t.Errorf("the volume's name gives %s after the restart, want %s", again, volume)
	}
	if again := p.snapshot("snapshot", volume); again.GetSnapshotId() != snapshot.GetSnapshotId() {
		t.Errorf("the snapshot's name gives %s after the restart, want %s", again, snapshot)
	}
	restored, err := p.CreateVolume(t.Context(), restoring(snapshot.GetSnapshotId(), "restored", "ext4"))
	must(t, err)
	readOnly := mounted()
	readOnly.AccessMode.Mode = csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY
	id := restored.GetVolume().GetVolumeId()
	must(t, p.stage(id, readOnly))
	text, err := os.ReadFile(filepath.Join(p.path("staging-"+id), "content"))
	if err != nil || string(text) != "before" {
		t.Errorf("restored content is %q (%v), want %q", text, err, "before")
	}
	if err := os.WriteFile(filepath.Join(p.path("staging-"+id), "content"), nil, 0o600); err == nil {
		t.Error("a volume for readers only could be written to")
	}
	_, err = p.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: volume})
	wantCode(t, err, codes.FailedPrecondition, "in use")
}

func TestFaultSwitchesDelayAndFailCallsWhileTheFileSaysSo(t *testing.T) {
	p := launch(t)
	p.faults(`{"createVolume": {"fail": "RESOURCE_EXHAUSTED: pool is on holiday"}, "nodeStage": {"fail": "INTERNAL: no"},
		"snapshotReady": {"delaySeconds": 1}, "createSnapshot": {"delaySeconds": 0.5}}`)
	_, err := p.CreateVolume(t.Context(), request("one", "btrfs"))
	wantCode(t, err, codes.ResourceExhausted, "pool is on holiday")
	must(t, os.Remove(p.path("faults.json")))
	volume := p.volume("one", "btrfs")

	// So long that it is not ready at the next call either, however late that comes.
	p.faults(`{"snapshotReady": {"delaySeconds": 600}, "createSnapshot": {"delaySeconds": 0.5}, "nodeStage": {"fail": "INTERNAL: no"}}`)
	wantCode(t, p.stage(volume, mounted()), codes.Internal, "no")
	begin := time.Now()
	snapshot := p.snapshot("one", volume)
	if took := time.Since(begin); took < 500*time.Millisecond {
		t.Errorf("CreateSnapshot took %s, want half a second", took)
	}
	if snapshot.GetReadyToUse() {
		t.Error("the snapshot is ready at once")
	}
	_, err = p.CreateVolume(t.Context(), restoring(snapshot.GetSnapshotId(), "restored", "btrfs"))
	wantCode(t, err, codes.FailedPrecondition, "not ready")
	p.faults(`{"snapshotReady": {"delaySeconds": 1}, "createSnapshot": {"delaySeconds": 0.5}}`)
	time.Sleep(time.Until(snapshot.GetCreationTime().AsTime().Add(1100 * time.Millisecond)))
	list, err := p.ListSnapshots(t.Context(), &csi.ListSnapshotsRequest{SnapshotId: snapshot.GetSnapshotId()})
	must(t, err)
	if len(list.GetEntries()) != 1 || !list.GetEntries()[0].GetSnapshot().GetReadyToUse() {
		t.Errorf("the snapshot is not ready after its time: %v", list)
	}
	hurried, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err = p.CreateSnapshot(hurried, &csi.CreateSnapshotRequest{Name: "two", SourceVolumeId: volume})
	wantCode(t, err, codes.DeadlineExceeded, "")
}

// A test must not pass because the fault it asked for never came.
func TestAFaultsFileThatIsWrongFailsCalls(t *testing.T) {
	p := launch(t)
	for text, words := range map[string]string{
		`{"createvolume": {}}`:                                       `no fault "createvolume"`,
		`{"createVolume": {"delay": 3}}`:                             "delay",
		`{"createVolume": {"fail": "words without code"}}`:           "CODE: words",
		`{"snapshotReady": {"fail": "INTERNAL: no"}}`:                "delaySeconds only",
		`{"createVolume": {"fail": "INTERNAL: no", "failAfter": 1}}`: "it sends no stream",
		`{"getMetadataDelta": {"failAfter": 1}}`:                     "needs fail",
		`{`:                                                          "faults file",
	} {
		p.faults(text)
		_, err := p.CreateVolume(t.Context(), request("one", "btrfs"))
		wantCode(t, err, codes.Internal, words)
	}
}

func TestCopiesKeepTheFileSystemOfTheirSource(t *testing.T) {
	p := launch(t)
	snapshot := p.snapshot("one", p.volume("one", "ext4")).GetSnapshotId()
	_, err := p.CreateVolume(t.Context(), restoring(snapshot, "other", "btrfs"))
	wantCode(t, err, codes.InvalidArgument, "cannot become btrfs")
	unsaid := restoring(snapshot, "same", "")
	restored, err := p.CreateVolume(t.Context(), unsaid)
	must(t, err)
	if kind := restored.GetVolume().GetVolumeContext()["filesystem"]; kind != "ext4" {
		t.Errorf("a copy without the parameter became %s", kind)
	}
	_, err = p.DeleteSnapshot(t.Context(), &csi.DeleteSnapshotRequest{SnapshotId: snapshot})
	must(t, err)
	again, err := p.CreateVolume(t.Context(), unsaid)
	must(t, err)
	if again.GetVolume().GetVolumeId() != restored.GetVolume().GetVolumeId() {
		t.Errorf("asked again, it gave %v, not %v", again, restored)
	}
	_, err = p.CreateVolume(t.Context(), restoring(snapshot, "late", "ext4"))
	wantCode(t, err, codes.NotFound, "does not exist")
}

func TestImagesChangeBetweenMountedAndBlock(t *testing.T) {
	p := launch(t)
	snapshot := p.snapshot("one", p.volume("one", "ext4")).GetSnapshotId()
	_, err := p.CreateVolume(t.Context(), request("zfs", "zfs"))
	wantCode(t, err, codes.InvalidArgument, "btrfs, ext4 or xfs")
	raw := restoring(snapshot, "raw", "ext4")
	raw.VolumeCapabilities[0].AccessType = &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}}
	block, err := p.CreateVolume(t.Context(), raw)
	must(t, err)
	blockSnapshot := p.snapshot("raw", block.GetVolume().GetVolumeId()).GetSnapshotId()
	_, err = p.CreateVolume(t.Context(), restoring(blockSnapshot, "back", "ext4"))
	must(t, err)
	_, err = p.CreateVolume(t.Context(), restoring(blockSnapshot, "wrong", "xfs"))
	wantCode(t, err, codes.InvalidArgument, `holds "ext4"`)
	smaller := restoring(snapshot, "smaller", "ext4")
	smaller.CapacityRange.RequiredBytes = 32 << 20
	_, err = p.CreateVolume(t.Context(), smaller)
	wantCode(t, err, codes.OutOfRange, "less than the source")
}

func TestAStorageWithoutSnapshots(t *testing.T) {
	p := launch(t, "--no-snapshots")
	volume := p.volume("one", "btrfs")
	_, err := p.CreateSnapshot(t.Context(), &csi.CreateSnapshotRequest{Name: "one", SourceVolumeId: volume})
	wantCode(t, err, codes.Unimplemented, "--no-snapshots")
	capabilities, err := p.ControllerGetCapabilities(t.Context(), &csi.ControllerGetCapabilitiesRequest{})
	must(t, err)
	if strings.Contains(capabilities.String(), "SNAPSHOT") {
		t.Errorf("snapshots are offered: %s", capabilities)
	}
	_, err = received(p.GetMetadataAllocated(t.Context(), &csi.GetMetadataAllocatedRequest{SnapshotId: "none"}))
	wantCode(t, err, codes.Unimplemented, "--no-snapshots")
	plugin, err := p.GetPluginCapabilities(t.Context(), &csi.GetPluginCapabilitiesRequest{})
	must(t, err)
	if strings.Contains(plugin.String(), "SNAPSHOT") {
		t.Errorf("snapshots are offered: %s", plugin)
	}
}

func TestKubeletIsToldWhereTheDriverIs(t *testing.T) {
	p := launch(t)
	connection, err := grpc.NewClient("unix:"+p.path("registry/test.csi.carrack.dev-reg.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	defer connection.Close()
	info, err := registerapi.NewRegistrationClient(connection).GetInfo(t.Context(), &registerapi.InfoRequest{}, grpc.WaitForReady(true))
	must(t, err)
	if info.GetType() != registerapi.CSIPlugin || info.GetName() != "test.csi.carrack.dev" || info.GetEndpoint() != p.path("csi.sock") {
		t.Errorf("kubelet is told %v", info)
	}
	node, err := p.NodeGetInfo(t.Context(), &csi.NodeGetInfoRequest{})
	must(t, err)
	if node.GetAccessibleTopology().GetSegments()["topology.csi.carrack.dev/node"] != "here" {
		t.Errorf("the node is at %v", node.GetAccessibleTopology())
	}
}
