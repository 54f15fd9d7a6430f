#!/usr/bin/env python3
"""Makes a golden repository of today's program: once for each release, never edited afterwards.

    PYTHON tests/golden/make.py NAME        for example v1-0.2.0

PYTHON is the reader's environment (.cache/reader/bin/python), CARRACK the program (default: target/release/carrack).
Needs root, and a file system below tests/golden that keeps the flag *immutable* (ext4, xfs, btrfs).

The repository has an object of every kind that the format knows (golden.KINDS; without one it is not kept), in the states that
a life leaves behind: keys of several generations, both ciphers, relocations in chains, a collection that was stopped before its
final and one that was stopped after it, sessions that were shut out, that gave up, that never ended, segments of the index and
one that joins them. What each snapshot holds was written down from the source, not from the repository.
"""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import golden
from golden import HERE, SOURCES, run, summary

PROGRAM = pathlib.Path(os.environ.get("CARRACK", HERE.parent.parent / "target/release/carrack")).resolve()
# Backups after which one must have joined what the others left, whatever was there before: twelve segments are enough.
SMALL_BACKUPS = 16


class Maker:
    def __init__(self, name):
        self.home = HERE / name
        self.repository = self.home / "repository"
        self.manifests = self.home / "manifests"
        self.manifests.mkdir(parents=True)

    def run(self, *words, **options):
        return run(PROGRAM, self.repository, *words, "--json", **options)

    def backup(self, source, *words, **options):
        """Backs a tree up, and keeps what it was."""
        session = summary(self.run("backup", *words, source, **options))["session"]
        golden.write_manifest(self.manifests / f"{session}.jsonl", golden.describe(source))
        return session

    def backup_bytes(self, path, *words, **options):
        """An image or a stream: one entry, whose attributes are nobody's."""
        session = summary(self.run("backup", *words, **options))["session"]
        [row] = golden.describe(path)
        row = {name: row[name] for name in ("size", "sha256")}
        golden.write_manifest(self.manifests / f"{session}.jsonl", [row])
        return session

    def start(self, *words, **options):
        environment = {"PATH": os.environ["PATH"], "CARRACK_REPOSITORY": str(self.repository)}
        environment |= {"CARRACK_PASSWORD": golden.PASSWORD, "CARRACK_HOST": "golden"}
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return subprocess.Popen([PROGRAM, *map(str, words)], env=environment, **quiet, **options)

    def names(self, pattern):
        return set(self.repository.glob(pattern))

    def new(self, pattern, before):
        """Waits for an object that was not there."""
        for _ in range(600):
            if found := self.names(pattern) - before:
                return found
            time.sleep(0.1)
        sys.exit(f"golden: no new {pattern}")

    # Steps, in the order of a life.

    def first_generation(self):
        self.run("init")
        (self.home / "secret").write_text(golden.noise(5, 32).hex() + "\n")
        self.run("key", "add", "--label", "secret", "--new-key-file", self.home / "secret")
        files = golden.make_files()
        self.backup(files, "--tag", "first", "--cipher", "aes-256-gcm")
        with open(files / "deep/er/changed", "ab") as file:
            file.write(b"changed\n")
        self.backup(files, "--tag", "second", "--cipher", "chacha20-poly1305")
        self.backup(golden.make_many())
        image, changed = golden.make_image(0)
        self.backup_bytes(image, "--device", image, "--change-id", "one")
        golden.make_image(1)
        (SOURCES / "changed").write_text(changed)
        words = ("--device", image, "--changed-blocks", SOURCES / "changed", "--change-id", "two")
        self.backup_bytes(image, *words)
        self.bundle(0)

    def bundle(self, generation):
        bundle = self.run("key", "bundle", "--host", "golden", "--path", SOURCES / "bundle")
        (self.home / f"writer-{generation}.json").write_text(golden.json.dumps(summary(bundle)["bundle"]) + "\n")

    def stdin(self, state):
        path = SOURCES / "stream"
        path.write_bytes(golden.stream(state))
        with open(path, "rb") as file:
            self.backup_bytes(path, "--stdin", "--stdin-filename", "dump.sql", stdin=file)

    def with_bundle(self):
        top = SOURCES / "bundle"
        top.mkdir()
        (top / "file").write_bytes(golden.noise(8, 20_000))
        golden.age(top)
        self.backup(top, secret={"CARRACK_WRITER_BUNDLE": str(self.home / "writer-0.json")})

    def repack(self, keep_every):
        """Leaves packs mostly unused, moves what is needed of them, and keeps a snapshot that names the old places."""
        self.backup(golden.make_churn(lambda number: number % keep_every == 0), "--tag", f"every {keep_every}")
        forget = ["forget", "--path", SOURCES / "churn", "--keep-last", "1"]
        self.run(*forget)
        before = self.names("snapshots/r*")
        self.run("prune", "--max-unused", "0")
        assert self.names("snapshots/r*") - before, "nothing was moved"

    def copied(self):
        with tempfile.TemporaryDirectory() as place:
            other = pathlib.Path(place) / "other"
            top = SOURCES / "elsewhere"
            top.mkdir()
            (top / "file").write_bytes(golden.noise(9, 20_000))
            golden.age(top)
            run(PROGRAM, other, "init", "--json")
            run(PROGRAM, other, "backup", "--host", "elsewhere", top, "--json")
            copied = self.run("copy", "--from-repo", other, "--from-password-command", f"echo {golden.PASSWORD}")
            [session] = [message["session"] for message in copied if message["message_type"] == "copied"]
            golden.write_manifest(self.manifests / f"{session}.jsonl", golden.describe(top))

    def second_generation(self):
        self.run("key", "rotate")
        self.run("key", "add", "--label", "secret again", "--new-key-file", self.home / "secret")
        self.bundle(1)

    def stop_backup(self, number, host):
        """A backup that was interrupted and said so, or that was killed and never said anything again."""
        before = self.names("index/c*")
        slow = ("--limit-upload", "32KiB", "--checkpoint-interval", "0")
        child = self.start("backup", *slow, "--host", host, golden.make_slow())
        self.new("index/c*", before)
        child.send_signal(number)
        assert child.wait() in (130, -number), "it ended before it was stopped"

    def marks(self):
        """Verified and pinned; and a note of damage that was mended since."""
        self.run("check", "--read-data")
        [snapshot, *_] = [row for row in self.run("snapshots") if row["message_type"] == "snapshot"]
        self.run("forget", "--pin", snapshot["id"])
        pack = max(self.names("packs/*/*"), key=lambda path: path.stat().st_size)
        whole = pack.read_bytes()
        pack.chmod(0o600)
        pack.write_bytes(whole[:1000] + bytes([whole[1000] ^ 1]) + whole[1001:])
        self.run("check", "--read-data", codes=(14,))
        pack.write_bytes(whole)
        # As if the answer to its first sending had been lost.
        pack = min(self.names("packs/*/*"), key=lambda path: path.stat().st_size)
        pack.rename(f"{pack}.1")

    def collections(self):
        """A list without its final, and, of another collector, one with it that could not delete everything."""
        churn = golden.make_churn()
        self.backup(churn, "--tag", "to be collected", "--force")
        self.backup(golden.make_churn(lambda number: number == 39), "--tag", "last")
        for row in self.run("snapshots"):
            if row["message_type"] == "snapshot" and row["tags"] == ["to be collected"]:
                self.run("forget", row["id"])
        with tempfile.TemporaryDirectory() as place:
            beside = Maker.__new__(Maker)
            beside.repository = pathlib.Path(place) / "repository"
            shutil.copytree(self.repository, beside.repository)
            # A collector that waits for a session which goes on for ever.
            prune = beside.start("prune", "--wait", "10m")
            condemned = beside.new("gc/*.condemned", set())
            prune.kill()
            prune.wait()
            for path in condemned:
                at = self.repository / path.relative_to(beside.repository)
                kept = path.read_bytes()
        # One object that cannot be deleted stops the collector after its final.
        packs = self.names("packs/*/*")
        plan = [row for row in self.run("prune", "--dry-run") if row["message_type"] == "prune_plan"][-1]
        stuck = [path for path in packs if any(str(pack).split(".")[0] in path.name for pack in map(pack_name, plan["delete"]))]
        assert stuck, "nothing is to be deleted"
        subprocess.run(["chattr", "+i", *stuck], check=True)
        try:
            self.run("prune", "--fence-after", "1s", "--wait", "0", codes=(1, 12, 13))
        finally:
            subprocess.run(["chattr", "-i", *stuck], check=True)
        at.parent.mkdir(exist_ok=True)
        at.write_bytes(kept)

    def joined(self):
        """Small backups, the last of which puts a segment with the rows of the others beside its own."""
        for number in range(SMALL_BACKUPS):
            self.backup(golden.make_small(number), "--tag", "small")
            if self.names("index/*.joined"):
                return
        sys.exit(f"golden: {SMALL_BACKUPS} small backups joined nothing")


def pack_name(value):
    return value["pack"] if isinstance(value, dict) else value


def main(name):
    maker = Maker(name)
    shutil.rmtree(SOURCES, ignore_errors=True)
    SOURCES.mkdir()
    os.umask(0o022)
    try:
        maker.first_generation()
        maker.stdin(0)
        maker.backup(golden.make_churn(), "--tag", "all")
        maker.repack(4)
        maker.second_generation()
        maker.with_bundle()
        maker.stdin(1)
        maker.repack(8)
        maker.copied()
        maker.marks()
        maker.stop_backup(signal.SIGKILL, "killed")
        maker.collections()
        # After the last prune, which would have merged them.
        maker.joined()
        # After them, so that what its checkpoint names is not condemned.
        maker.stop_backup(signal.SIGINT, "interrupted")
        visible = {row["session"] for row in maker.run("snapshots") if row["message_type"] == "snapshot"}
        for manifest in maker.manifests.iterdir():
            if manifest.stem not in visible:
                manifest.unlink()
    finally:
        shutil.rmtree(SOURCES, ignore_errors=True)
    kinds = {kind for _, kind in golden.objects(maker.repository)}
    if missing := golden.KINDS - kinds:
        shutil.rmtree(maker.home)
        sys.exit(f"golden: it has no object of the kinds {sorted(missing, key=str)}, so it is not kept")
    golden.write_sums(name)
    print(f"golden: {len(visible)} snapshots, objects of the kinds {sorted(kinds, key=str)}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    if (HERE / sys.argv[1]).exists():
        sys.exit(f"golden: {sys.argv[1]} exists, and golden repositories are never edited")
    main(sys.argv[1])
