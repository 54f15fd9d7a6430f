# The commands of the project. Each installs what it needs and this machine lacks, or names the one command that
# does. Caches lie under CARRACK_CACHE (default .cache).

SHELL := /bin/bash
export CARRACK_CACHE ?= $(CURDIR)/.cache
export PATH := $(HOME)/.cargo/bin:$(PATH):/usr/local/go/bin
CARGO_DENY := $(CARRACK_CACHE)/tools/bin/cargo-deny
# Who is far away may not answer for a moment.
export CARGO_NET_RETRY ?= 10
# The demonstration as a test: small, but a real tree that every machine with a C compiler has.
TEST_TREE ?= /usr/include

# The scripts look for programs in target/; whoever builds elsewhere makes that a link.
unexport CARGO_TARGET_DIR

.PHONY: help build demo test setup-test fmt lint program unit reader deny advisories demo-small upgrade judges judges-short \
  soak soak-short bench bench-volumes fuzz crash mutants mutants-short coverage image cluster cluster-down chart csi clean

help:
	@printf '%s\n' 'make build       release build of carrack into target/release' \
	  'make demo        back up a real tree, change it, back up again, restore, compare' \
	  'make test        every check and test' \
	  'make bench       micro benchmarks and scenarios beside other tools' \
	  'make bench-volumes  volumes in two real clusters, beside Velero'"'"'s own data mover, as root' \
	  'make fuzz        every decoder under libFuzzer (FUZZ_SECONDS for each, 600 if nothing is said)' \
	  'make crash       the program killed, and the power cut, at every step of every verb, as root (CRASH=17 for step 17 alone)' \
	  'make mutants     change the engine in thousands of ways, each of which must fail a test (hours; MUTANTS=format/ for a part)' \
	  'make coverage    which lines of the engine its own tests and the simulation reach, file by file' \
	  'make judges      fsx, fio, PostgreSQL, e2fsck, xfs_repair and rsync judge what was restored, for half an hour' \
	  'make soak        work on two repositories at random for SOAK_HOURS (default 1), with everything that can be killed' \
	  'make cluster     real Kubernetes on this machine, as root (CLUSTERS=1|2, LEVEL=control-plane|full); prints what to export' \
	  'make cluster-down  end exactly that' \
	  'make csi         csi-sanity judges the storage driver of the test clusters, as root' \
	  'make chart       the chart, the kinds and the YAML of the operator guide at a real API server, as root' \
	  'make advisories  check dependencies against the public advisory database' \
	  'make clean       remove everything that was built or cached here'

build:
	@tests/setup.sh build
	cargo build --release --locked -p carrack-mover

demo:
	@tests/setup.sh demo
	cargo build --release --locked -p carrack-mover
	@CARRACK=target/release/carrack tests/demo.sh

# In the order of what fails fastest.
test: setup-test
	@tests/setup.sh judges
	$(MAKE) --no-print-directory fmt deny lint unit reader image chart csi upgrade demo-small judges-short soak-short mutants-short
	@echo 'make test: everything passed'

setup-test:
	@tests/setup.sh test

fmt:
	cargo fmt --all --check

deny:
	$(CARGO_DENY) --locked check licenses bans sources

advisories: setup-test
	$(CARGO_DENY) --locked check advisories

lint:
	cargo clippy --locked --workspace --all-targets --all-features -- -D warnings
	cargo check --locked -p carrack-mover --lib --no-default-features

# The black-box tests run the program, which cargo does not build for another package's tests. With the tests beside it,
# everything is compiled once, with one set of features.
program:
	cargo build --locked --workspace --bins --tests

# The simulation draws fresh seeds for this long, and says what it went through. Those seeds, those of
# changed inputs and of random trees, and the steps of crashes are drawn from the commit, and are the same in all its runs.
unit: export CARRACK_SIMULATION_SECONDS ?= 120
unit: export CARRACK_DRAW ?= $(shell git rev-parse --verify --quiet HEAD 2>/dev/null)
unit: program
	tests/side_by_side.sh

reader: program
	PYTHON=$(CARRACK_CACHE)/reader/bin/python tests/reader/run.sh

# What the builder of the image promises, of the development build.
image: program
	PYTHONDONTWRITEBYTECODE=1 python3 charts/image/test_build.py

# What earlier releases wrote serves today's program.
upgrade: program
	CARRACK=target/debug/carrack $(CARRACK_CACHE)/reader/bin/python tests/golden/test_upgrade.py

# The development build: what the tests above have built already.
demo-small: program
	CARRACK=target/debug/carrack DEMO_TREE=$(TEST_TREE) tests/demo.sh

# Programs of others say whether what was restored is what was there; each runs alone too, and tests/judges/lib.sh says
# how. With the development build a fixed share, with the release build all.
judges-short: program
	for judge in fsx fio images postgres tree snapshots; do tests/judges/$$judge.sh || exit 1; done

# The last of them lets an early commit of this repository and today's program work in turn.
judges:
	cargo build --release --locked -p carrack-mover
	for judge in fsx fio images postgres tree snapshots two_versions; do \
	  CARRACK=target/release/carrack JUDGES_SIZE=full tests/judges/$$judge.sh || exit 1; done

SOAK_HOURS ?= 1
soak:
	@tests/setup.sh test
	cargo build --release --locked -p carrack-mover
	CARRACK=target/release/carrack python3 tests/judges/soak.py $$(( $(SOAK_HOURS) * 3600 ))

soak-short: program
	python3 tests/judges/soak.py 40

# Hours on a small machine; benches/README.md says what makes it shorter. Broken off, it goes on where it was.
bench:
	@tests/setup.sh test
	benches/run.sh

# Volumes in two real clusters, with Velero's own data mover beside them: five minutes, on a machine that does nothing else.
bench-volumes:
	@tests/setup.sh bench-volumes
	cargo build --release --locked -p carrack-mover -p carrack-controller -p carrack-volume-tests
	CARRACK=target/release/carrack CARRACK_CONTROLLER=target/release/carrack-controller target/release/volumes-bench

# Hours if FUZZ_SECONDS says so; tests/fuzz/run.sh has the other variables. What each test run does of it is in `unit`.
fuzz:
	@tests/setup.sh build
	tests/fuzz/run.sh

# Every step, where `unit` takes some: more than a quarter of an hour. The whole workspace is asked for, as there: what its tests
# use is compiled already.
CRASH ?= all
crash: setup-test program
	CARRACK_CRASH=$(CRASH) cargo test --locked --workspace --test crash -- --nocapture

# All are compiled into one engine, which takes minutes; then each is tried by the tests that come to it. Broken off, it goes on
# where it was. What is examined and what is explained: tests/mutants.
MUTANTS ?= format/,pipeline/,reader/,repack/,repo/,restore/
mutants:
	@tests/setup.sh build
	cargo run --locked -p carrack-mutants -- --parts $(MUTANTS)

# A fixed share of it: every fourth change of the format, which no unit test may pass over. What is built already is not built
# once more but for the engine itself.
mutants-short: program
	@mkdir -p target/mutants-short/target
	@rsync -a --exclude '*carrack*' --exclude incremental target/debug target/mutants-short/target/
	cargo run --locked -p carrack-mutants -- --parts format/ --every 4 --outside '' --work target/mutants-short

# Tests of the engine in one process; what tests of the program reach beyond that is not counted.
coverage:
	@tests/setup.sh coverage
	PATH=$(CARRACK_CACHE)/cargo-llvm-cov/bin:$$PATH cargo llvm-cov --locked -p carrack-mover -p carrack-tests --lib \
	  --test simulation --test simulated_year --test damage_matrix --summary-only \
	  --ignore-filename-regex '/tests?[/.]|testing.rs|^/rustc|registry'

# Real clusters, to look into or to run single tests against; tests/cluster/README.md has more.
CLUSTERS ?= 1
LEVEL ?= full
CLUSTER_DIRECTORY ?= /tmp/carrack-cluster
cluster:
	@tests/setup.sh cluster
	@cargo run -q --locked -p carrack-cluster --bin cluster -- up $(CLUSTER_DIRECTORY) --clusters $(CLUSTERS) --level $(LEVEL)

cluster-down:
	@cargo run -q --locked -p carrack-cluster --bin cluster -- down $(CLUSTER_DIRECTORY)

# charts/test.sh says what else it takes.
chart: setup-test program
	charts/test.sh

# The judge of storage drivers, and the tests of the driver that the clusters of the tests have.
csi: setup-test
	tests/cluster/csi-sanity.sh
	cd tests/cluster/csi-driver && go test ./...

clean:
	cargo clean
	rm -rf .cache
