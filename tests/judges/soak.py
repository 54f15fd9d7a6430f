#!/usr/bin/env python3
"""Two repositories, a directory and a bucket of a real MinIO, are worked on at random for as long as is asked: backups of a
tree and of an image, forgetting, pruning, checking, restoring, copying, reading of a mount and new generations of keys at
the same time; programs are killed, and the server too.

    tests/judges/soak.py [SECONDS]        default 60; make soak SOAK_HOURS=8

What must hold all the time: every restore, copy and mounted tree is what was backed up; what was committed stays visible until
it is forgotten; whatever was killed, the next run of the same succeeds; no program takes more memory or opens more files than
the bounds below. At the end, when everybody has stopped and prunes have run, nothing is left that nobody needs. It goes on
until each kind of work was done, and each kind of program was killed; that this takes too long is a failure, too.

CARRACK: the program (default: the development build). SOAK_SEED chooses what is done, though not when.
"""

import collections
import contextlib
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "golden"))
sys.dont_write_bytecode = True

import golden  # noqa: E402: found by the line above
from soak_server import Server  # noqa: E402: it stands with the others
from soak_source import MIB, Source, as_mounted, digest  # noqa: E402: it needs the same

PROGRAM = pathlib.Path(os.environ.get("CARRACK", HERE.parent.parent / "target/debug/carrack")).resolve()
# What programs are told to take, and what the operating system may count beyond: code, stacks, the allocator.
MEMORY, MEMORY_BEYOND = 96 * MIB, 48 * MIB
OPEN_FILES = 200
# How long a run may take before it counts as hanging.
HANGS = 300
KILLED = {-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, 130}
# A session that is overdue is shut out, and says so.
SHUT_OUT = 11
UNAVAILABLE = 12
# Whoever was at work while keys were changed may meet what it has no key for: it leaves that out and says so, or stops.
KEYS_CHANGED = {3, 11, 13}
# Of each repository: each generation makes every key longer.
GENERATIONS = 30
WORK = ("backups", "prunes", "checks", "restores compared", "copies compared", "mounted trees compared", "rotations")
DEATHS = ("backup killed", "prune killed", "restore killed", "copy killed", "rotate killed", "mount killed", "server killed")
# How long it may go on for something that has not happened yet.
LONGER = 240

Ran = collections.namedtuple("Ran", "code messages log keys_changed")


class Wrong(Exception):
    """What must hold does not."""


class Place:
    """A repository, and what is known of it."""

    def __init__(self, name, work, environment, rng):
        self.name, self.work, self.rng = name, work / name, rng
        for folder in ("tmp", "logs"):
            (self.work / folder).mkdir(parents=True)
        secret = self.work / "secret"
        secret.write_text(rng.randbytes(32).hex())
        self.environment = {"PATH": os.environ["PATH"], "TMPDIR": str(self.work / "tmp"), "CARRACK_KEY_FILE": str(secret)}
        self.environment |= environment
        self.lock = threading.Lock()
        # By tag: what a source was, as digests. By session: its tag, of those that were committed and not forgotten.
        self.manifests, self.visible = {}, {}
        self.counts = collections.Counter()
        self.most = collections.Counter()
        self.killable_server = name == "bucket"
        # Rotations that were begun, and those that ended: odd while one is at work.
        self.rotations = 0
        self.copied = self.work / "copied"
        self.mounted = self.work / "mounted"
        self.mounted.mkdir()

    def when_to_kill(self, kind, often, longest):
        """Seconds after which a run is killed, or None; until one of this kind was, all are tried."""
        if self.counts[f"{kind} killed"] and self.rng.random() > often:
            return None
        return self.rng.uniform(0, longest)

    def run(self, *words, kill=None, kind=None):
        """Runs the program, killed after that many seconds by some signal if it still runs."""
        rotations = self.rotations
        child, log = self.start(words)
        code = self.watch(child, kill)
        lines = log.read_text(errors="replace").splitlines()
        messages = [json.loads(line) for line in lines if line.startswith('{"message_type"') and line.endswith("}")]
        if kill is None and code in KILLED:
            raise Wrong(f"nobody killed it: see {log}")
        if code in (70, 101) or (code < 0 and code not in KILLED):
            raise Wrong(f"exit code {code}: see {log}")
        if code in KILLED:
            self.counts[f"{kind or words[0]} killed"] += 1
        return Ran(code, messages, log, self.keys_changed_since(rotations))

    def keys_changed_since(self, rotations):
        return rotations % 2 == 1 or rotations != self.rotations

    def start(self, words):
        with self.lock:
            self.counts["runs"] += 1
            log = self.work / "logs" / f"{self.counts['runs'] % 500}"
        command = [PROGRAM, *map(str, words), "--memory", str(MEMORY), "--json"]
        with open(log, "wb") as output:
            output.write(f"{' '.join(map(str, command))}\n".encode())
            output.flush()
            child = subprocess.Popen(
                command, env=self.environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )
        return child, log

    def watch(self, child, kill):
        began, most_files = time.monotonic(), 0
        number = self.rng.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT))
        while True:
            pid, status, usage = os.wait4(child.pid, os.WNOHANG)
            if pid:
                break
            passed = time.monotonic() - began
            if kill is not None and passed >= kill:
                # Not by the object, which would take the end of one that has just ended for itself.
                os.kill(child.pid, number)
                kill, number = kill + 10, signal.SIGKILL
            if passed > HANGS:
                os.kill(child.pid, signal.SIGKILL)
                os.waitpid(child.pid, 0)
                child.returncode = 0
                raise Wrong(f"it hangs: {child.args}")
            try:
                most_files = max(most_files, len(os.listdir(f"/proc/{child.pid}/fd")))
            except OSError:
                pass  # It has just ended.
            time.sleep(0.02)
        child.returncode = os.waitstatus_to_exitcode(status)
        memory = usage.ru_maxrss * 1024
        with self.lock:
            self.most["memory"] = max(self.most["memory"], memory)
            self.most["open files"] = max(self.most["open files"], most_files)
        if memory > MEMORY + MEMORY_BEYOND or most_files > OPEN_FILES:
            # A child shares the memory of this process until it becomes another program, and that counts.
            own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            raise Wrong(f"{memory // MIB} MiB ({own // MIB} the soak) and {most_files} open files: {child.args}")
        return child.returncode

    def may_fail(self, ran):
        """Whether a run may have ended so because its server was away or its keys were changed; it is counted then."""
        if ran.code == UNAVAILABLE and self.killable_server:
            self.counts["unavailable"] += 1
        elif ran.code in KEYS_CHANGED and ran.keys_changed:
            self.counts["keys changed meanwhile"] += 1
        else:
            return False
        return True

    def expect(self, *words, kind=None):
        """Runs it until it succeeds; gives its messages."""
        while True:
            ran = self.run(*words, kind=kind)
            if ran.code == 0:
                return ran.messages
            if not self.may_fail(ran):
                raise Wrong(f"exit code {ran.code}: see {ran.log}")

    def snapshots(self, *where):
        return [row for row in self.expect(*where, "snapshots") if row["message_type"] == "snapshot"]

    def is_visible(self, row):
        return row["session"] in {each["session"] for each in self.snapshots()}

    # What is done, each by a thread of its own.

    def back_up(self, source):
        """Changes a source and backs it up, killed now and then; what it was is known by a tag whatever happens."""
        source.change()
        tag, manifest = f"{source.host}.{source.state}", source.manifest()
        with self.lock:
            self.manifests[tag] = manifest
        words = ("backup", "--host", source.host, "--tag", tag, *source.words())
        ran = self.run(*words, kill=self.when_to_kill("backup", 0.4, 1.5))
        if ran.code == 0 or (ran.code == 3 and ran.keys_changed):
            session = golden.summary(ran.messages)["session"]
            with self.lock:
                self.visible[session] = tag
                self.counts["backups"] += 1
        elif ran.code == SHUT_OUT:
            self.counts["shut out"] += 1
        elif ran.code not in KILLED and not self.may_fail(ran):
            raise Wrong(f"exit code {ran.code}: see {ran.log}")

    def maintain(self):
        """Looks whether all is there that was committed; forgets, prunes and checks."""
        with self.lock:
            wanted = set(self.visible)
        there = {row["session"] for row in self.snapshots()}
        if wanted - there:
            raise Wrong(f"committed and not forgotten, but not visible: {wanted - there}")
        self.forget(self.rng.randrange(2, 6))
        how = ("--max-unused", self.rng.choice(("0", "5%")), "--fence-after", "30s", "--wait", self.rng.choice(("0", "1s")))
        ran = self.run("prune", *how, kill=self.when_to_kill("prune", 0.4, 1.5))
        if ran.code not in KILLED | {0} and not self.may_fail(ran):
            raise Wrong(f"exit code {ran.code}: see {ran.log}")
        self.counts["prunes"] += ran.code == 0
        self.expect("check", *self.rng.choice(((), ("--sizes",), ("--read-data", "--no-mark"))))
        self.counts["checks"] += 1

    def forget(self, keep):
        """What a run that was broken off had decided may be gone as well: the next one no longer speaks of it."""
        while True:
            ran = self.run("forget", "--keep-last", keep)
            gone = {row["session"] for message in ran.messages for row in message.get("decisions", []) if not row["reasons"]}
            with self.lock:
                self.visible = {session: tag for session, tag in self.visible.items() if session not in gone}
            if ran.code == 0:
                return
            if not self.may_fail(ran):
                raise Wrong(f"exit code {ran.code}: see {ran.log}")

    def restore(self, every=False):
        rows = self.snapshots()
        for row in rows if every else self.rng.sample(rows, min(1, len(rows))):
            self.compare(row, (), None if every else self.when_to_kill("restore", 0.3, 0.6), "restores compared")

    def compare(self, row, where, kill, counted):
        """Restores a snapshot, once more into the same place if it was killed, and compares it with what its source was."""
        target = self.work / f"restored {threading.get_ident()}"
        shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
        what = row["id"] if row["source"] != "files" else f"{row['id']}:{row['paths'][0]}"
        ran = self.run(*where, "restore", what, "--target", target, kill=kill, kind="restore")
        if ran.code in KILLED:
            ran = self.run(*where, "restore", what, "--target", target, kind="restore")
        if ran.code != 0:
            # Whoever restores what is forgotten and pruned meanwhile may fail; nobody else, and no copy: it lies in a directory
            # whose keys nobody changes.
            if where or not self.may_fail(ran):
                if where or self.is_visible(row):
                    raise Wrong(f"exit code {ran.code} of a restore: see {ran.log}")
                self.counts["forgotten while restored"] += 1
            return
        [tag] = row["tags"]
        if digest(Source.describe_at(target)) != self.manifests[tag].restored:
            raise Wrong(f"{tag} ({row['id']}) is not what was backed up; it lies at {target}")
        self.counts[counted] += 1

    def copy(self):
        """Copies a snapshot into another repository, and looks at what came there."""
        rows = self.snapshots()
        if not rows:
            time.sleep(0.5)
            return
        row = self.rng.choice(rows)
        where = ("-r", self.copied)
        secret = self.environment["CARRACK_KEY_FILE"]
        words = ("copy", row["id"], "--from-repo", self.environment["CARRACK_REPOSITORY"], "--from-key-file", secret)
        ran = self.run(*where, *words, kill=self.when_to_kill("copy", 0.4, 1.0), kind="copy")
        if ran.code in KILLED or self.may_fail(ran):
            return
        if ran.code != 0:
            if self.is_visible(row):
                raise Wrong(f"exit code {ran.code} of a copy: see {ran.log}")
            self.counts["forgotten while copied"] += 1
            return
        copied = {message["session"] for message in ran.messages if message["message_type"] == "copied"}
        for there in self.snapshots(*where):
            if there["session"] in copied:
                self.compare(there, where, None, "copies compared")
        self.expect(*where, "forget", "--keep-last", "2", "--prune", "--wait", "0")

    def rotate(self):
        """Begins a new generation of keys under the same secret, while all others are at work."""
        time.sleep(self.rng.uniform(1, 6))
        if self.rotations // 2 >= GENERATIONS:
            return
        kill = self.when_to_kill("rotate", 0.4, 0.15)
        self.rotations += 1
        ran = self.run("key", "rotate", kill=kill, kind="rotate")
        if ran.code in KILLED:
            # What it was sending to a bucket may come there yet.
            time.sleep(2)
        self.rotations += 1
        if ran.code == 0:
            self.counts["rotations"] += 1
        elif ran.code not in KILLED and not (ran.code == UNAVAILABLE and self.killable_server):
            raise Wrong(f"exit code {ran.code}: see {ran.log}")

    def look(self):
        """Mounts all snapshots and reads one, while others forget and prune; the mount is killed now and then."""
        rows = [row for row in self.snapshots() if row["source"] == "files"]
        if not rows:
            time.sleep(0.5)
            return
        row, kill = self.rng.choice(rows), self.when_to_kill("mount", 0.3, 2)
        rotations = self.rotations
        child, log = self.start(("mount", self.mounted))
        failures = []
        reader = threading.Thread(target=self.read_mounted, args=(child, row, kill is not None, rotations, failures))
        reader.start()
        code = self.watch(child, kill)
        reader.join()
        self.unmount()
        if failures:
            raise failures[0]
        self.counts["mount killed"] += kill is not None and code in KILLED
        ran = Ran(code, [], log, self.keys_changed_since(rotations))
        if code not in KILLED | {0} and not self.may_fail(ran):
            raise Wrong(f"exit code {code} of a mount: see {log}")

    def read_mounted(self, child, row, is_killed, rotations, failures):
        """Ends the mount when it has read a tree; gives what is wrong in a list, because a thread can raise nothing."""
        try:
            while child.returncode is None and not os.path.ismount(self.mounted):
                time.sleep(0.02)
            nonce = row["session"].split("-")[1]
            names = [name for name in os.listdir(self.mounted) if nonce.startswith(name)]
            if names:
                tree = golden.describe(f"{self.mounted}/{names[0]}{row['paths'][0]}")[1:]
                if digest(as_mounted(tree)) != self.manifests[row["tags"][0]].mounted:
                    failures.append(Wrong(f"{row['id']} is not what was backed up where it is mounted"))
                self.counts["mounted trees compared"] += 1
        except OSError as error:
            # What a prune has moved under newer keys, a mount of before does not believe.
            if self.keys_changed_since(rotations):
                self.counts["keys changed meanwhile"] += 1
            elif not is_killed and not self.killable_server and self.is_visible(row):
                failures.append(Wrong(f"{row['id']} cannot be read where it is mounted: {error}"))
            self.counts["mounted trees not read"] += 1
        except Wrong as wrong:
            failures.append(wrong)
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGTERM)

    def unmount(self):
        """What the kernel keeps of a mount that was killed. Whether there is one is not asked: a dead mount fails the question."""
        subprocess.run(["fusermount3", "-u", "-z", self.mounted], stderr=subprocess.DEVNULL, check=False)

    def finish(self):
        """Everybody has stopped: two prunes must leave what is needed and nothing else."""
        self.killable_server = False
        self.expect("forget", "--keep-last", "1")
        time.sleep(2)
        for _ in range(2):
            self.expect("prune", "--max-unused", "0", "--fence-after", "1s", "--wait", "0")
        self.expect("check", "--read-data")
        self.expect("-r", self.copied, "check", "--read-data")
        self.restore(every=True)
        keys = sum(message["message_type"] == "key" for message in self.expect("key", "list"))
        if keys != 1:
            raise Wrong(f"{keys} keys are left of one")
        if leftovers := [path for path in (self.work / "tmp").rglob("*") if path.is_file()]:
            raise Wrong(f"temporary files stay: {leftovers}")
        repository = pathlib.Path(self.environment["CARRACK_REPOSITORY"])
        if self.name != "directory":
            return
        rows = list(golden.objects(repository))
        kinds = collections.Counter(kind for _, kind in rows)
        # Fences and ends of those that gave up, 6 and 13, stay for 30 days.
        if forever := {7, 8, 9} & set(kinds):
            raise Wrong(f"objects of the kinds {forever} stay for ever")
        needed = sum(source.length() for source in self.sources)
        bytes_there = sum((repository / name).stat().st_size for name, _ in rows)
        if bytes_there > 2 * needed + 8 * MIB:
            raise Wrong(f"{bytes_there} bytes are left for sources of {needed}")


class Soak:
    def __init__(self, seconds):
        self.seed = int(os.environ.get("SOAK_SEED", random.SystemRandom().randrange(2**32)))
        self.rng = random.Random(self.seed)
        self.until = time.monotonic() + seconds
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="carrack-soak-"))
        self.places, self.failure = [], None
        self.counts = collections.Counter()

    def missing(self):
        """What should have happened and has not."""
        all_counts = [self.counts, *(place.counts for place in self.places)]
        return [kind for kind in (*WORK, *DEATHS) if not any(counts[kind] for counts in all_counts)]

    def goes_on(self):
        late = time.monotonic() - self.until
        return self.failure is None and (late < 0 or (late < LONGER and self.missing()))

    def again_and_again(self, work, *arguments):
        try:
            while self.goes_on():
                work(*arguments)
        except BaseException as failure:  # noqa: BLE001: whatever it is, the others must stop and it must be told
            traceback.print_exc()
            self.failure = failure

    def restart(self, server):
        time.sleep(self.rng.uniform(5, 25))
        if self.goes_on():
            server.stop()
            self.counts["server killed"] += 1
            time.sleep(self.rng.uniform(0, 2))
            server.start()

    def run(self):
        print(f"soak: seed {self.seed}", flush=True)
        server = Server(self.work)
        try:
            places = [
                Place("directory", self.work, {"CARRACK_REPOSITORY": str(self.work / "repository")}, self.fork()),
                Place("bucket", self.work, server.environment(), self.fork()),
            ]
            self.places = places
            threads = [(self.restart, server)]
            for place in places:
                tree = Source("tree", place.work / "tree", self.fork(), image=False)
                image = Source("image", place.work / "image", self.fork(), image=True)
                place.sources = [tree, image]
                place.expect("init")
                place.expect("-r", place.copied, "init")
                threads += [(place.back_up, tree), (place.back_up, image), (place.maintain,), (place.restore,)]
                threads += [(place.copy,), (place.rotate,), (place.look,)]
            running = [threading.Thread(target=self.again_and_again, args=each) for each in threads]
            for thread in running:
                thread.start()
            for thread in running:
                thread.join()
            for place in places if self.failure is None else []:
                place.finish()
                print(f"soak: {place.name}: {told(place.counts)}; at most {told(place.most)}", flush=True)
            print(f"soak: {told(self.counts)}", flush=True)
            if self.failure is None and (missing := self.missing()):
                self.failure = Wrong(f"what should have happened has not: {', '.join(missing)}")
                print(self.failure, file=sys.stderr)
        finally:
            server.stop()
            for place in self.places:
                place.unmount()
        if self.failure is not None:
            sys.exit(f"soak: failed, seed {self.seed}; all of it lies in {self.work}")
        shutil.rmtree(self.work)

    def fork(self):
        return random.Random(self.rng.randrange(2**32))


def told(counts):
    amount = {"memory": lambda value: f"{value // MIB} MiB of memory"}
    return ", ".join(amount.get(name, lambda value, name=name: f"{value} {name}")(value) for name, value in counts.items())


if __name__ == "__main__":
    Soak(float(sys.argv[1]) if len(sys.argv) > 1 else 60).run()
