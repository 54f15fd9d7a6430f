// Command carrack-test-csi is the CSI driver of the test bed: a real storage with real snapshots on one node.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"carrack.dev/tests/csi-driver/driver"
	"carrack.dev/tests/csi-driver/storage"
)

const defaultPoolSize = 20 << 30

func main() {
	log.SetFlags(log.LstdFlags | log.Lmicroseconds)
	if err := start(os.Args[1:]); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return
		}
		fmt.Fprintf(os.Stderr, "carrack-test-csi: %v\n", err)
		os.Exit(1)
	}
}

func start(arguments []string) error {
	flags := flag.NewFlagSet("carrack-test-csi", flag.ContinueOnError)
	endpoint := flags.String("endpoint", "", "socket of the CSI services, as unix:///PATH")
	state := flags.String("state", "", "directory that keeps the pool of all volumes and snapshots")
	node := flags.String("node", "", "name of this node, also its topology segment")
	name := flags.String("name", "test.csi.carrack.dev", "name of the driver")
	registration := flags.String("registration-dir", "", "kubelet's plugins_registry; registers nowhere if empty")
	faults := flags.String("faults", "", "JSON file that makes calls slow or fail; read at each call, may be absent")
	noSnapshots := flags.Bool("no-snapshots", false, "be a storage that has neither snapshots nor clones")
	size := flags.Int64("size", defaultPoolSize, "bytes of a new pool; its file is sparse")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	socket, isUnix := strings.CutPrefix(*endpoint, "unix://")
	switch {
	case flags.NArg() > 0:
		return fmt.Errorf("argument %q is not known; see --help", flags.Arg(0))
	case !isUnix || !filepath.IsAbs(socket):
		return fmt.Errorf("--endpoint is %q; give an absolute socket path as unix:///PATH", *endpoint)
	case *state == "" || *node == "" || *name == "":
		return errors.New("--state, --node and --name must be given")
	case os.Geteuid() != 0:
		return errors.New("mounting needs root: start it as root")
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	store, err := storage.Open(*state, *size, log.Printf)
	if err != nil {
		return err
	}
	served := driver.New(driver.Config{
		Name: *name, Node: *node, Endpoint: socket, RegistrationDir: *registration, FaultsFile: *faults,
		NoSnapshots: *noSnapshots, Logf: log.Printf,
	}, store).Serve(ctx)
	log.Printf("ending: unmounting and detaching")
	return errors.Join(served, store.Close())
}
