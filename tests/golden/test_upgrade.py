"""Every golden repository of an earlier release serves today's program (CARRACK): a copy of it is read, checked, restored,
extended, copied, forgotten from and pruned, and what comes back is compared with what was written down when it was made.
And what a program does not know is refused in words, or leaves the repository read-only.

    CARRACK=target/debug/carrack PYTHON tests/golden/test_upgrade.py
"""

import fcntl
import json
import os
import pathlib
import shutil
import struct
import tempfile
import unittest

import golden
from golden import HERE, SOURCES, run, summary

import read_repository as reader  # golden says where it is
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PROGRAM = pathlib.Path(os.environ.get("CARRACK", HERE.parent.parent / "target/debug/carrack")).resolve()
# The first one was made before manifests were; the reader's tests compare it with its listing.
OLDEST = HERE / "v1"
FOLDERS = [folder for folder in sorted(HERE.glob("v*/")) if folder != OLDEST]
# Written days before segments were joined, and the format frozen: by then one was made anew under the name of the release.
BEFORE_JOINED = HERE / "v1-0.1.0-before-joined"
COMPLETE = [folder for folder in FOLDERS if folder != BEFORE_JOINED]
NEWER = 2


class Case(unittest.TestCase):
    def setUp(self):
        # Sources lie where they lay, and their path names them; two runs take turns.
        self.lock = open("/tmp/carrack-golden.lock", "w", encoding="ascii")
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        self.addCleanup(self.lock.close)
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="carrack-upgrade-"))
        self.addCleanup(shutil.rmtree, self.work)
        self.addCleanup(shutil.rmtree, SOURCES, ignore_errors=True)
        shutil.rmtree(SOURCES, ignore_errors=True)
        SOURCES.mkdir()
        self.repository = self.work / "repository"

    def take(self, folder):
        self.folder = folder
        shutil.rmtree(self.repository, ignore_errors=True)
        shutil.copytree(folder / "repository", self.repository)

    def run_it(self, *words, **options):
        return self.run_at(self.repository, *words, **options)

    def run_at(self, repository, *words, **options):
        # A password costs a second each time, on purpose; one test gives it.
        secret = {"CARRACK_KEY_FILE": str(self.folder / "secret")}
        return run(PROGRAM, repository, *words, "--json", **({"secret": secret} | options))

    def snapshots(self):
        return [row for row in self.run_it("snapshots") if row["message_type"] == "snapshot"]

    def compare(self, snapshot, repository=None):
        """Restores a snapshot and compares it with its manifest."""
        wanted = golden.read_manifest(self.folder / "manifests" / f"{snapshot['session']}.jsonl")
        target = self.work / "restored"
        shutil.rmtree(target, ignore_errors=True)
        target.unlink(missing_ok=True) if target.is_file() else None
        where, name = repository or self.repository, snapshot["id"]
        if snapshot["source"] == "files":
            [path] = snapshot["paths"]
            self.run_at(where, "restore", f"{name}:{path}", "--target", target)
            found = golden.describe(target)
        else:
            self.run_at(where, "restore", name, "--target", target)
            file = target if target.is_file() else next(path for path in target.rglob("*") if path.is_file())
            [row] = golden.describe(file)
            found = [{name: row[name] for name in ("size", "sha256")}]
            file.unlink()
        self.assertEqual(wanted, found, f"{name} of {self.folder.name}")


class Kept(unittest.TestCase):
    def test_no_golden_repository_was_ever_edited(self):
        """What an earlier release wrote is worth nothing once somebody has made it fit."""
        written, found = golden.read_sums(), golden.sums()
        folders = {path.split("/")[0] for path in found}
        self.assertTrue({folder.name for folder in [OLDEST, *FOLDERS]} <= folders)
        self.assertEqual(found, written)


class Upgrade(Case):
    def test_every_kind_of_object_is_there(self):
        self.assertTrue(COMPLETE, "there is no golden repository with manifests")
        for folder in FOLDERS:
            kinds = {kind for _, kind in golden.objects(folder / "repository")}
            wanted = golden.KINDS - ({"joined"} if folder == BEFORE_JOINED else set())
            self.assertEqual(kinds, wanted, folder)

    def test_all_of_it_is_read(self):
        for folder in FOLDERS:
            with self.subTest(folder.name):
                self.take(folder)
                snapshots = self.snapshots()
                self.assertEqual({row["session"] for row in snapshots}, {path.stem for path in (folder / "manifests").iterdir()})
                self.assertTrue(any(row["pinned"] for row in snapshots))
                self.assertTrue(any(row["verified"] for row in snapshots))
                self.run_it("check", "--read-data", "--no-mark")
                for snapshot in snapshots:
                    self.compare(snapshot)
                # The other way in.
                self.assertEqual(len(snapshots), summary(self.run_it("snapshots", secret=None))["snapshots"])

    def test_the_oldest_is_read_extended_and_pruned(self):
        self.take(OLDEST)
        for words in (
            ("check", "--read-data"),
            ("backup", golden.make_files()),
            ("forget", "--keep-last", "1", "--group-by", "host"),
            ("prune", "--max-unused", "0"),
            ("check", "--read-data"),
        ):
            self.run_it(*words, secret=None)
        told = summary(self.run_it("snapshots", secret=None))
        # The one that is new, and the last verified one of the other source.
        self.assertEqual(told["snapshots"], 2)

    def test_it_is_extended_and_little_is_stored_again(self):
        for folder in FOLDERS:
            with self.subTest(folder.name):
                self.take(folder)
                before = {row["session"] for row in self.snapshots()}
                for source in (golden.make_many(), golden.make_churn()):
                    told = summary(self.run_it("backup", source, "--ignore-ctime", "--ignore-inode"))
                    self.assertLess(told["data_added"], 300_000, told)
                # What is as it was is not even read.
                told = summary(self.run_it("backup", golden.make_many(), "--ignore-ctime", "--ignore-inode"))
                self.assertEqual((told["bytes_read"], told["files_unmodified"]), (0, 3_000), told)
                image, _ = golden.make_image(1)
                told = summary(self.run_it("backup", "--device", image))
                self.assertEqual(told["data_added"], 0, "the grid is another one, or the ids are")
                self.goes_on("interrupted")
                self.bundle_writes()
                self.run_it("check", "--read-data")
                self.assertTrue(before < {row["session"] for row in self.snapshots()})
                for snapshot in self.snapshots():
                    if snapshot["session"] in before:
                        self.compare(snapshot)

    def test_a_joined_segment_leads_to_what_those_that_it_joins_have(self):
        for folder in COMPLETE:
            with self.subTest(folder.name):
                stored = [self.stored_again(folder, keeps) for keeps in (".joined", "nothing")]
                self.assertEqual(stored, [0, 5_000])

    def stored_again(self, folder, keeps):
        """Bytes that another host stores of what one of the small backups stored, with no segments but such ones."""
        self.take(folder)
        for path in self.repository.glob("index/s-*"):
            if not path.name.endswith(keeps):
                path.unlink()
        return summary(self.run_it("backup", golden.make_small(0), "--host", "another"))["data_added"]

    def goes_on(self, host):
        """From the checkpoint of a backup that was stopped."""
        words = ("--host", host, "--ignore-ctime", "--ignore-inode")
        told = summary(self.run_it("backup", golden.make_slow(), *words))
        self.assertIsNotNone(told["continued_from"], told)
        self.assertGreater(told["continued_files"], 0, told)

    def bundle_writes(self):
        top = SOURCES / "bundle"
        top.mkdir(exist_ok=True)
        (top / "file").write_bytes(golden.noise(8, 20_000) + b"more")
        secret = {"CARRACK_WRITER_BUNDLE": str(self.folder / "writer-1.json")}
        told = summary(self.run_it("backup", top, secret=secret))
        self.assertEqual((told["files_new"] + told["files_changed"], told["problems"]), (1, 0), told)
        # From before the rotation: data was moved since, by a key that this bundle does not know.
        secret = {"CARRACK_WRITER_BUNDLE": str(self.folder / "writer-0.json")}
        told = self.run_it("backup", top, secret=secret, codes=(3,))
        self.assertIn("everything is stored again", json.dumps(told))

    def test_it_is_copied(self):
        for folder in FOLDERS:
            with self.subTest(folder.name):
                self.take(folder)
                other = self.work / f"copy of {folder.name}"
                self.run_at(other, "init")
                words = ("copy", "--from-repo", self.repository, "--from-key-file", folder / "secret")
                copied = [row for row in self.run_at(other, *words) if row["message_type"] == "copied"]
                self.assertEqual(len(copied), len(self.snapshots()))
                originals = {row["id"]: row for row in self.snapshots()}
                for row in copied:
                    [original] = [each for each in originals.values() if each["session"] == row["from"]]
                    self.compare({**original, "id": row["snapshot_id"]}, other)

    def test_it_is_forgotten_from_and_pruned(self):
        for folder in FOLDERS:
            with self.subTest(folder.name):
                self.take(folder)
                self.run_it("forget", "--keep-last", "1")
                # What the collectors before left is finished first; what never ended is overdue by now.
                for _ in range(2):
                    self.run_it("prune", "--max-unused", "0", "--fence-after", "1s", "--wait", "0")
                self.run_it("check", "--read-data")
                left = {kind for _, kind in golden.objects(self.repository)}
                # Fences and ends of those that gave up, 6 and 13, stay for 30 days after their sessions.
                self.assertFalse({7, 8, 9, "joined"} & left, f"something stays for ever: {left}")
                snapshots = self.snapshots()
                self.assertGreaterEqual(len(snapshots), 6)
                for snapshot in snapshots:
                    self.compare(snapshot)


class Unknown(Case):
    """What a later version may have written."""

    def setUp(self):
        super().setUp()
        self.take(COMPLETE[-1])
        self.source = SOURCES / "source"
        self.source.mkdir()
        (self.source / "file").write_bytes(b"a file")
        self.key = next((self.repository / "keys").iterdir()).name

    def change_format(self, **fields):
        path = self.repository / "format"
        record = path.read_bytes()
        path.chmod(0o600)
        text = json.dumps(json.loads(record[72:]) | fields).encode()
        name = struct.pack("<Q", len("format")) + b"format"
        path.write_bytes(record[:8] + self.foundation().sign(name + text) + text)

    def foundation(self):
        """The key that signs what says what the repository is: nobody else's word for it is taken."""
        identity = bytes.fromhex(json.loads((self.repository / "format").read_bytes()[72:])["repository"])
        for path in (self.repository / "keys").iterdir():
            value = json.loads(path.read_bytes()[72:])
            roots = reader.open_key_file(value, golden.PASSWORD.encode(), identity)
            if roots:
                seed = reader.derive(roots[0], "carrack v1 maintenance signature", identity)
                return Ed25519PrivateKey.from_private_bytes(seed)
        raise AssertionError("the password opens no key")

    def names(self):
        return {name for name, _ in golden.objects(self.repository)}

    def refused(self, *words, word):
        before = self.names()
        told = self.run_it(*words, codes=(2,))[-1]
        self.assertIn(word, told["message"])
        self.assertIn("use a newer carrack", told["next"])
        self.assertEqual(self.names(), before, "something was written")

    def writes(self):
        return [("backup", self.source), ("backup", "--dry-run", self.source)]

    def maintains(self):
        snapshot = next((self.folder / "manifests").iterdir()).stem
        key = ("key", "add", "--new-key-file", self.folder / "secret")
        keys = [key, ("key", "rotate"), ("key", "remove", self.key)]
        forgets = [("forget", snapshot), ("forget", "--pin", snapshot), ("forget", "--unpin", snapshot)]
        return [*keys, *forgets, ("prune",), ("repo", "repair-index"), ("repo", "merge-index")]

    def reads(self):
        first = self.snapshots()[0]
        self.run_it("check")
        self.run_it("ls", first["id"])
        self.compare(first)

    def test_fields_that_may_be_ignored_are(self):
        self.change_format(colour="blue", shapes=[{"of": "things"}])
        self.reads()
        self.run_it("backup", self.source)
        self.run_it("prune", "--fence-after", "1s")

    def test_a_feature_for_maintenance_leaves_reading_and_writing(self):
        self.change_format(maintain_features=["regions"])
        self.reads()
        self.run_it("backup", self.source)
        for words in self.maintains():
            self.refused(*words, word="to maintain this repository a program must know `regions`")

    def test_a_feature_for_writing_leaves_reading(self):
        self.change_format(write_features=["rings"])
        self.reads()
        for words in self.writes() + self.maintains():
            self.refused(*words, word="to write this repository a program must know `rings`")
        # A check that reads all of it says that it cannot mark what it found.
        told = summary(self.run_it("check", "--read-data"))
        self.assertIn("rings", told["mark_problem"])

    def test_a_feature_for_reading_refuses_everything(self):
        self.change_format(read_features=["riddles"])
        for words in (("snapshots",), ("check",), *self.writes(), *self.maintains()):
            self.refused(*words, word="to read this repository a program must know `riddles`")

    def test_a_newer_format_refuses_everything(self):
        self.change_format(version=NEWER)
        for words in (("snapshots",), ("check",), *self.writes(), *self.maintains()):
            self.refused(*words, word=f"format version {NEWER}")

    def test_newer_records_are_named_and_nothing_of_theirs_is_deleted(self):
        """Sessions and ends decide what is needed, so nothing is pruned without them, and a check names them; what takes
        something out of view or condemns it counts for nothing, because anybody can write such a version."""
        packs = {name for name in self.names() if name.startswith("packs/")}
        prune = ("prune", "--fence-after", "1s", "--wait", "0")
        for folder, check_codes, prune_codes in (
            ("sessions", (14,), (2,)),
            ("snapshots", (14,), (2,)),
            ("gc", (3,), (3,)),
            ("forgotten", (3, 14), (3, 14)),
            ("marks", (3,), (3,)),
        ):
            with self.subTest(folder):
                self.take(COMPLETE[-1])
                self.make_newer(folder)
                said = json.dumps([self.run_it(*words, codes=codes) for words, codes in (
                    (("snapshots",), (0, 3)), (("check",), check_codes), (prune, prune_codes)
                )])
                self.assertIn("which this program does not know", said)
                if prune_codes == (2,):
                    self.assertEqual(packs - self.names(), set(), f"packs of newer {folder} were deleted")

    def make_newer(self, folder):
        for path in self.repository.glob(f"{folder}/**/*"):
            if path.is_file():
                record = bytearray(path.read_bytes())
                record[4] = NEWER
                path.chmod(0o600)
                path.write_bytes(record)

    def test_objects_of_unknown_names_are_passed_over(self):
        """A folder of its own is nobody's business. What lies among the hints helps nobody: a check that reads hints names it,
        and where segments lie the next merge takes it away."""
        beside, hint, segment = "later/thing", "index/later", f"index/s-{'0' * 32}.later"
        for name in (beside, hint, segment):
            path = self.repository / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(golden.MAGIC + b"\x01\x0f\0\0of a kind that there is not")
        self.reads()
        self.run_it("backup", self.source)
        said = json.dumps(self.run_it("check", "--sizes", "--no-mark", codes=(14,)))
        self.assertEqual([name in said for name in (beside, hint, segment)], [False, True, True], said)
        # There is a joined segment, so segments are merged.
        self.run_it("prune", "--fence-after", "1s", "--wait", "0")
        self.assertEqual(self.names() & {beside, hint, segment}, {beside, hint})

    def test_newer_packs_are_called_so(self):
        for path in self.repository.glob("packs/*/*"):
            data = bytearray(path.read_bytes())
            data[-8:-4] = struct.pack("<I", NEWER)
            path.chmod(0o600)
            path.write_bytes(data)
        said = json.dumps(self.run_it("check", "--sizes", "--no-mark", codes=(14,)))
        self.assertIn("which this program does not know", said)


if __name__ == "__main__":
    unittest.main()
