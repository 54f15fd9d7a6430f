#!/usr/bin/env python3
"""Two repositories, a directory and a bucket of a real MinIO, are worked on at random for as long as is asked: backups of a
tree and of an image, forgetting, pruning, checking and restoring at the same time; programs are killed, and the server too.

    tests/judges/soak.py [SECONDS]        default 60; make soak SOAK_HOURS=8

What must hold all the time: every restore is what was backed up; what was committed stays visible until it is forgotten;
whatever was killed, the next run of the same succeeds; no program takes more memory or opens more files than the bounds
below. At the end, when everybody has stopped and one prune has run, nothing is left that nobody needs.

CARRACK: the program (default: the development build). SOAK_SEED chooses what is done, though not when.
"""

import collections
import json
import os
import pathlib
import random
import shutil
import signal
import socket
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

ROOT = HERE.parent.parent
PROGRAM = pathlib.Path(os.environ.get("CARRACK", ROOT / "target/debug/carrack")).resolve()
CACHE = pathlib.Path(os.environ.get("CARRACK_CACHE", ROOT / ".cache"))
MIB = 1 << 20
# What programs are told to take, and what the operating system may count beyond: code, stacks, the allocator.
MEMORY, MEMORY_BEYOND = 96 * MIB, 48 * MIB
OPEN_FILES = 200
# How long a run may take before it counts as hanging.
HANGS = 300
KILLED = {-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, 130}
# A session that is overdue is shut out, and says so.
SHUT_OUT = 11
UNAVAILABLE = 12


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
        # By tag: what a source was. By session: its tag, of those that were committed and not forgotten.
        self.manifests, self.visible = {}, {}
        self.counts = collections.Counter()
        self.most = collections.Counter()
        self.killable_server = name == "bucket"

    def run(self, *words, kill=None):
        """Runs the program, killed after that many seconds by some signal if it still runs; gives code and messages."""
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
        code = self.watch(child, kill)
        lines = log.read_text(errors="replace").splitlines()
        messages = [json.loads(line) for line in lines if line.startswith('{"message_type"') and line.endswith("}")]
        if kill is None and code in KILLED:
            raise Wrong(f"nobody killed it: see {log}")
        if code in (70, 101) or (code < 0 and code not in KILLED):
            raise Wrong(f"exit code {code}: see {log}")
        return code, messages, log

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
                self.counts["kills"] += 1
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
            raise Wrong(f"{memory // MIB} MiB and {most_files} open files: {child.args}")
        return child.returncode

    def expect(self, *words, also=()):
        """Runs it to its end; a server that is killed now and then may be unavailable for too long."""
        while True:
            code, messages, log = self.run(*words)
            if code == 0 or code in also:
                return code, messages
            if code != UNAVAILABLE or not self.killable_server:
                raise Wrong(f"exit code {code}: see {log}")
            self.counts["unavailable"] += 1

    def snapshots(self):
        _, messages = self.expect("snapshots")
        return [row for row in messages if row["message_type"] == "snapshot"]

    # What is done, each by a thread of its own.

    def back_up(self, source):
        """Changes a source and backs it up, killed now and then; what it was is known by a tag whatever happens."""
        source.change()
        tag = f"{source.host}.{source.state}"
        with self.lock:
            self.manifests[tag] = source.describe()
        kill = self.rng.uniform(0, 1.5) if self.rng.random() < 0.4 else None
        words = ("backup", "--host", source.host, "--tag", tag, *source.words())
        code, messages, log = self.run(*words, kill=kill)
        if code == 0:
            session = golden.summary(messages)["session"]
            with self.lock:
                self.visible[session] = tag
                self.counts["backups"] += 1
        elif code == SHUT_OUT:
            self.counts["shut out"] += 1
        elif code == UNAVAILABLE and self.killable_server:
            self.counts["unavailable"] += 1
        elif code not in KILLED:
            raise Wrong(f"exit code {code}: see {log}")

    def maintain(self):
        """Looks whether all is there that was committed; forgets, prunes and checks."""
        with self.lock:
            wanted = set(self.visible)
        there = {row["session"] for row in self.snapshots()}
        if wanted - there:
            raise Wrong(f"committed and not forgotten, but not visible: {wanted - there}")
        keep = self.rng.randrange(2, 6)
        plan = self.expect("forget", "--keep-last", keep)[1]
        gone = {row["session"] for message in plan for row in message.get("decisions", []) if not row["reasons"]}
        with self.lock:
            self.visible = {session: tag for session, tag in self.visible.items() if session not in gone}
        how = ("--max-unused", self.rng.choice(("0", "5%")), "--fence-after", "30s", "--wait", self.rng.choice(("0", "1s")))
        kill = self.rng.uniform(0, 1.5) if self.rng.random() < 0.4 else None
        code, _, log = self.run("prune", *how, kill=kill)
        if code not in {0} | (KILLED if kill is not None else set()) | ({UNAVAILABLE} if self.killable_server else set()):
            raise Wrong(f"exit code {code}: see {log}")
        self.counts["prunes"] += code == 0
        self.expect("check", *self.rng.choice(((), ("--sizes",), ("--read-data", "--no-mark"))))
        self.counts["checks"] += 1

    def restore(self, every=False):
        rows = self.snapshots()
        for row in rows if every else self.rng.sample(rows, min(1, len(rows))):
            target = self.work / f"restored {threading.get_ident()}"
            shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
            what = row["id"] if row["source"] != "files" else f"{row['id']}:{row['paths'][0]}"
            # Whoever restores what is forgotten and pruned meanwhile may fail; nobody else.
            code, _, log = self.run("restore", what, "--target", target)
            if code != 0:
                if code == UNAVAILABLE and self.killable_server:
                    continue
                if row["session"] in {each["session"] for each in self.snapshots()}:
                    raise Wrong(f"exit code {code} of a restore: see {log}")
                self.counts["forgotten while restored"] += 1
                continue
            [tag] = row["tags"]
            if Source.describe_at(target) != self.manifests[tag]:
                raise Wrong(f"{tag} ({row['id']}) is not what was backed up; it lies at {target}")
            self.counts["restores compared"] += 1

    def finish(self):
        """Everybody has stopped: two prunes must leave what is needed and nothing else."""
        self.killable_server = False
        self.expect("forget", "--keep-last", "1")
        time.sleep(2)
        for _ in range(2):
            self.expect("prune", "--max-unused", "0", "--fence-after", "1s", "--wait", "0")
        self.expect("check", "--read-data")
        self.restore(every=True)
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


class Source:
    """A tree or an image that changes."""

    def __init__(self, host, path, rng, image):
        self.host, self.path, self.rng, self.image, self.state = host, path, rng, image, 0
        if image:
            with open(path, "wb") as file:
                file.truncate(24 * MIB)
                file.write(rng.randbytes(8 * MIB))
            return
        for number in range(150):
            folder = path / f"{number % 12}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"file {number}").write_bytes(rng.randbytes(int(rng.paretovariate(0.6) * 500) % (2 * MIB)))

    def words(self):
        return ("--device", self.path) if self.image else (self.path,)

    def length(self):
        paths = [self.path] if self.image else [path for path in self.path.rglob("*") if path.is_file()]
        return sum(path.stat().st_size for path in paths)

    def describe(self):
        return self.describe_at(self.path)

    @staticmethod
    def describe_at(path):
        if path.is_dir():
            # The top belongs to whoever made it.
            return golden.describe(path)[1:]
        [row] = golden.describe(path)
        return [row["size"], row["sha256"]]

    def change(self):
        self.state += 1
        for _ in range(self.rng.randrange(1, 12)):
            self.change_image() if self.image else self.change_tree()

    def change_image(self):
        with open(self.path, "r+b") as file:
            file.seek(self.rng.randrange(23 * MIB))
            file.write(self.rng.choice((self.rng.randbytes(self.rng.randrange(1, 300_000)), bytes(300_000))))

    def change_tree(self):
        files = [path for path in sorted(self.path.rglob("*")) if path.is_file() and not path.is_symlink()]
        path, new = self.rng.choice(files), self.path / f"{self.rng.randrange(12)}" / f"new {self.state} {self.rng.randrange(10**9)}"
        match self.rng.randrange(7):
            case 0 if len(files) > 100:
                path.unlink()
            case 1:
                path.rename(new)
            case 2:
                with open(path, "r+b") as file:
                    file.seek(self.rng.randrange(max(1, path.stat().st_size)))
                    file.write(self.rng.randbytes(5000))
            case 3 if len(files) < 250:
                new.write_bytes(self.rng.randbytes(self.rng.randrange(400_000)))
            case 4 if len(files) < 250:
                os.link(path, new)
            case 5:
                path.chmod(self.rng.choice((0o600, 0o644, 0o4755)))
            case _:
                with open(path, "ab") as file:
                    file.write(self.rng.randbytes(self.rng.randrange(2000)))
                os.truncate(path, min(path.stat().st_size, 3 * MIB))


class Server:
    """MinIO on a port of its own."""

    def __init__(self, work):
        self.work = work / "minio"
        (self.work / "data/bucket").mkdir(parents=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        [self.program, *_] = sorted(CACHE.glob("servers/minio-*/minio")) or [None]
        if self.program is None:
            sys.exit("soak: MinIO is not built; run: tests/setup.sh test")
        self.start()

    def start(self):
        environment = {"HOME": str(self.work), "MINIO_ROOT_USER": "carrack-test", "MINIO_ROOT_PASSWORD": "carrack-test-secret"}
        environment |= {"MINIO_BROWSER": "off", "MINIO_UPDATE": "off"}
        command = [self.program, "server", "--quiet", "--address", f"127.0.0.1:{self.port}", self.work / "data"]
        with open(self.work / "log", "ab") as log:
            self.child = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        for _ in range(600):
            with socket.socket() as knock:
                if knock.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.1)
        raise Wrong("MinIO does not start")

    def stop(self):
        self.child.kill()
        self.child.wait()

    def environment(self):
        return {
            "CARRACK_REPOSITORY": "s3://bucket/soak",
            "CARRACK_S3_ENDPOINT": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": "carrack-test",
            "AWS_SECRET_ACCESS_KEY": "carrack-test-secret",
            "AWS_REGION": "us-east-1",
        }


class Soak:
    def __init__(self, seconds):
        self.seed = int(os.environ.get("SOAK_SEED", random.SystemRandom().randrange(2**32)))
        self.rng = random.Random(self.seed)
        self.until = time.monotonic() + seconds
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="carrack-soak-"))
        self.failure = None

    def again_and_again(self, work, *arguments):
        try:
            while time.monotonic() < self.until and self.failure is None:
                work(*arguments)
        except BaseException as failure:  # noqa: BLE001: whatever it is, the others must stop and it must be told
            traceback.print_exc()
            self.failure = failure

    def restart(self, server):
        time.sleep(self.rng.uniform(5, 25))
        if time.monotonic() < self.until:
            server.stop()
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
            threads = [(self.restart, server)]
            for place in places:
                tree = Source("tree", place.work / "tree", self.fork(), image=False)
                image = Source("image", place.work / "image", self.fork(), image=True)
                place.sources = [tree, image]
                place.expect("init")
                threads += [(place.back_up, tree), (place.back_up, image), (place.maintain,), (place.restore,)]
            running = [threading.Thread(target=self.again_and_again, args=each) for each in threads]
            for thread in running:
                thread.start()
            for thread in running:
                thread.join()
            for place in places if self.failure is None else []:
                place.finish()
                print(f"soak: {place.name}: {told(place.counts)}; at most {told(place.most)}", flush=True)
        finally:
            server.stop()
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
