"""Tests of the independent reader: golden vectors, the golden repositories, and a repository that the built `carrack`
has just written (CARRACK names the program)."""

import contextlib
import io
import json
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest

import read_repository as reader
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

HERE = pathlib.Path(__file__).resolve().parent
GOLDEN = HERE.parent / "golden"
sys.path.insert(0, str(GOLDEN))

import golden  # noqa: E402: found by the line above

PASSWORD = golden.PASSWORD.encode()


def run(*arguments):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = reader.main([str(each) for each in arguments])
    return code, out.getvalue()


class Vectors(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.vectors = json.loads((GOLDEN / "vectors.json").read_text())
        roots = [bytes.fromhex(root) for root in cls.vectors["roots"]]
        repository = reader.Repository.__new__(reader.Repository)
        repository.repository = bytes.fromhex(cls.vectors["repository"])
        repository.generations = [reader.Generation(root, repository.repository) for root in roots]
        repository.id_key = reader.derive(roots[0], "carrack v1 chunk ids", repository.repository)
        repository.sessions, repository.frames = {}, {}
        cls.repository = repository
        cls.session = cls.vectors["key_info"]["session"]

    def test_keys(self):
        info = self.vectors["key_info"]
        self.repository.learn_sessions([info])
        data, metadata, suite = self.repository.sessions[self.session]
        self.assertEqual(data.hex(), self.vectors["data_key"])
        self.assertEqual(metadata.hex(), self.vectors["metadata_key"])
        self.assertEqual(suite, 1)
        index = self.repository.index_key(self.session, info["generation"])
        self.assertEqual(index.hex(), self.vectors["index_key"])
        nothing = reader.blake3(b"", key=self.repository.id_key).hexdigest()
        self.assertEqual(nothing, self.vectors["chunk_id_of_nothing"])

    def test_names(self):
        self.assertEqual(reader.session_text(reader.session_bytes(self.session)), self.session)

    def test_sealed_object(self):
        key = bytes.fromhex(self.vectors["metadata_key"])
        sealed = bytes.fromhex(self.vectors["sealed_object"])
        plain = reader.unseal_object(key, 1, reader.RECORD, self.session, sealed)
        self.assertEqual(plain, b'{"a record":true}')
        with self.assertRaises(reader.Damage):
            reader.unseal_object(key, 1, reader.RECORD, self.session, sealed[:-1] + bytes([sealed[-1] ^ 1]))

    def test_signatures(self):
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(self.vectors["signing_public"]))
        body = bytes.fromhex(self.vectors["signature_of_message"]) + b"message"
        self.assertTrue(reader.signature_is_true(public, "end", body))
        self.assertFalse(reader.signature_is_true(public, "other", body))
        body = bytes.fromhex(self.vectors["maintenance_signature_of_message"]) + b"message"
        self.assertTrue(self.repository.maintenance_signed("forgotten", body))

    def test_frames(self):
        for vector in self.vectors["frames"]:
            place = reader.place_of_json(vector["place"])
            suite = reader.SUITES[vector["suite"]]
            data, metadata = (bytes.fromhex(self.vectors[name]) for name in ("data_key", "metadata_key"))
            self.repository.sessions[place.session] = (data, metadata, suite)
            self.repository.frames = reader.collections.OrderedDict()
            self.repository.stored_bytes = lambda _, sealed=vector["sealed"]: bytes.fromhex(sealed)
            reference = reader.Reference(place, 0, place.plain, bytes.fromhex(vector["chunk_id"]))
            self.assertEqual(self.repository.chunk(vector["kind"], reference).hex(), vector["plain"])

    def test_leaf(self):
        data = bytes.fromhex(self.vectors["leaf"]["bytes"])
        _, rows = reader.read_page(data, [reader.LEAF])
        self.assertEqual(len(rows), len(self.vectors["leaf"]["entries"]))
        for row, expected in zip(rows, self.vectors["leaf"]["entries"]):
            self.assertEqual(row["path"].hex(), expected["path"])
            for name in ("mode", "uid", "gid", "inode", "device", "links", "size", "flags"):
                self.assertEqual(row[name], expected[name], name)
            self.assertEqual([list(row["mtime"]), list(row["ctime"])], [expected["mtime"], expected["ctime"]])
            self.assertEqual([[name.hex(), value.hex()] for name, value in row["xattrs"]], expected["xattrs"])
            content = row.get("content", {"runs": [], "pages": []})
            found = [each if isinstance(each, int) else describe(each) for each in content["runs"]]
            found += [[describe(page), length] for page, length in content["pages"]]
            self.assertEqual(found, expected["content"])
        for length in range(len(data)):
            with self.assertRaises((reader.Damage, IndexError)):
                reader.read_page(data[:length], [reader.LEAF])

    def test_inner(self):
        vector = self.vectors["inner"]
        _, [row] = reader.read_page(bytes.fromhex(vector["bytes"]), [reader.INNER])
        self.assertEqual((row["first"].hex(), row["last"].hex()), (vector["first"], vector["last"]))
        self.assertEqual((row["entries"], row["bytes"]), (vector["entries"], vector["contents"]))

    def test_pack(self):
        vector = self.vectors["pack"]
        path, data = vector["name"], bytes.fromhex(vector["bytes"])
        with tempfile.TemporaryDirectory() as root:
            self.repository.root, self.repository.trailers = root, {}
            file = pathlib.Path(root) / path
            file.parent.mkdir(parents=True)
            file.write_bytes(data)
            self.assertEqual(self.repository.packs(), [path])
            with open(file, "rb") as opened:
                infos, frames = self.repository.footer_of(path, opened)
            self.assertEqual(infos, [self.vectors["key_info"]])
            found = [
                {"kind": domain, "place": describe_place(place), "chunks": [[offset, length, chunk.hex()] for offset, length, chunk in chunks]}
                for domain, place, chunks in frames
            ]
            self.assertEqual(found, vector["frames"])
            self.repository.check_pack(path)
            # Anything but padding, wherever it is changed.
            covered = {at for _, place, _ in frames for at in range(place.offset, place.offset + place.stored)}
            footer = len(data) - reader.TRAILER_LENGTH - self.repository.trailers[path].footer_length
            ignored = range(len(data) - 22, len(data) - 8)
            for at in range(len(data)):
                if (at in covered and at % 7) or (at not in covered and at < footer) or at in ignored:
                    continue
                file.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
                self.repository.trailers = {}
                with self.assertRaises(reader.Damage, msg=f"byte {at}"):
                    self.repository.check_pack(path)

    def test_cuts(self):
        seed = reader.derive(bytes.fromhex(self.vectors["roots"][0]), "carrack v1 chunker seed", self.repository.repository)
        for vector in self.vectors["cuts"]:
            lengths = list(cuts(seed, *vector["sizes"], cut_data(vector["bytes"])))
            self.assertEqual(lengths, vector["lengths"], vector["sizes"])


def cut_data(length):
    """Noise with zeros in it; golden_vectors.rs makes the same."""
    state, data = 1, bytearray()
    for at in range(length):
        state = (state * 6364136223846793005 + 1442695040888963407) % (1 << 64)
        data.append(0 if 20_000 <= at < 110_000 else state >> 56)
    return bytes(data)


def cuts(seed, minimum, average, maximum, data):
    """Lengths of chunks, by section 9."""
    table = struct.unpack("<256Q", reader.blake3(b"gear table", key=seed).digest(length=2048))
    bits = average.bit_length() - 1
    early, late = (((1 << count) - 1) << (64 - count) for count in (bits + 2, bits - 2))
    while data:
        end = min(len(data), maximum)
        centre = min(end, max(minimum, average * 7 // 8))
        value, length = 0, end
        for at in range(minimum, end):
            value = (2 * value + table[data[at]]) % (1 << 64)
            if not value & (early if at < centre else late):
                length = at + 1
                break
        yield length
        data = data[length:]


def describe_place(place):
    compression = ["stored", "zstd"][place.compression]
    return dict(place._asdict(), pack=place.pack.hex(), id=place.id.hex(), compression=compression)


def describe(reference):
    place = describe_place(reference.place)
    return {"place": place, "offset": reference.offset, "length": reference.length, "id": reference.id.hex()}


class Runs(unittest.TestCase):
    """Pages that no program writes: section 10.3 calls them damage."""

    HOLE = bytes([0, 5])
    CHUNK = bytes([1, 0, 0, 9]) + bytes(32)
    # One session, one pack, and one frame of 100 bytes.
    TABLES = bytes([1]) + b"b" + bytes(24) + bytes([1]) + bytes(16) + bytes([1, 0, 0, 0, 0, 116, 100, 0]) + bytes(32)

    def setUp(self):
        self.pages = {}
        self.repository = reader.Repository.__new__(reader.Repository)
        self.repository.chunk = lambda _, reference: self.pages[reference.id]

    def keep(self, kind, *rows):
        """Makes a page; gives its id."""
        identity = len(self.pages).to_bytes(32, "little")
        self.pages[identity] = bytes([1, kind]) + self.TABLES + bytes([len(rows)]) + b"".join(rows)
        return identity

    def keep_above(self, *pages):
        return self.keep(reader.RUNS_INNER, *(bytes([length, 0, 0, 9]) + identity for identity, length in pages))

    def lengths(self, depth, *pages):
        """Of the runs of a list of pages, each with the bytes that it is said to have."""
        pages = [(reader.Reference(None, 0, 0, identity), length) for identity, length in pages]
        runs = self.repository.runs({"depth": depth, "runs": [], "pages": pages})
        return [reader.run_length(run) for run in runs]

    def test_no_hole_of_a_page_follows_a_hole(self):
        page = self.keep(reader.RUNS, self.HOLE, self.CHUNK, self.HOLE)
        self.assertEqual(self.lengths(1, (page, 19)), [5, 9, 5])
        for rows in ([self.HOLE, self.HOLE], [self.CHUNK, self.HOLE, self.HOLE]):
            page, length = self.keep(reader.RUNS, *rows), sum(9 if row == self.CHUNK else 5 for row in rows)
            with self.assertRaisesRegex(reader.Damage, "a hole follows a hole"):
                self.lengths(1, (page, length))
        # Those within an entry may be any.
        content = reader.read_content(reader.Cursor(bytes([0, 2]) + 2 * self.HOLE), None, 10)
        self.assertEqual(list(self.repository.runs(content)), [5, 5])

    def test_only_the_last_page_of_a_list_is_without_a_chunk(self):
        stored, hole = (self.keep(reader.RUNS, self.CHUNK), 9), (self.keep(reader.RUNS, self.HOLE), 5)
        self.assertEqual(self.lengths(1, stored, hole), [9, 5])
        above, ending = (self.keep_above(stored), 9), (self.keep_above(stored, hole), 14)
        self.assertEqual(self.lengths(2, above, ending), [9, 9, 5])
        for depth, pages in ((1, (hole, stored)), (1, (stored, hole, hole)), (2, (ending, above)), (2, (ending, ending))):
            with self.assertRaisesRegex(reader.Damage, "not the last of its list"):
                self.lengths(depth, *pages)

    def test_a_page_stands_for_the_bytes_that_are_said_of_it_and_for_some(self):
        page = self.keep(reader.RUNS, self.CHUNK)
        for depth, (identity, length) in ((1, (page, 8)), (2, (self.keep_above((page, 9)), 10)), (2, (self.keep_above((page, 8)), 8))):
            with self.assertRaisesRegex(reader.Damage, "not as long as it should be"):
                self.lengths(depth, (identity, length))
        nothing = self.keep_above((self.keep(reader.RUNS), 0), (page, 9))
        with self.assertRaisesRegex(reader.Damage, "of no bytes"):
            self.lengths(2, (nothing, 9))


class GoldenRepository(unittest.TestCase):
    """Repositories written by released versions, and what is in them."""

    def setUp(self):
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="carrack-reader-"))
        self.addCleanup(shutil.rmtree, self.work)
        self.folders = [folder for folder in sorted(GOLDEN.glob("v*/")) if folder.is_dir()]
        self.assertTrue(self.folders, "there is no golden repository")
        os.environb[b"CARRACK_PASSWORD"] = PASSWORD

    def test_every_snapshot_is_restored(self):
        compared = 0
        for folder in self.folders:
            repository = reader.Repository(folder / "repository", PASSWORD)
            snapshots = repository.snapshots()
            for snapshot in snapshots:
                with self.subTest(f"{snapshot['session']} of {folder.name}"):
                    target = self.work / snapshot["session"]
                    restore = reader.Restore(repository, target)
                    restore.run(snapshot)
                    self.assertEqual(restore.lost, 0)
                    if (folder / "manifests").is_dir():
                        self.compare_manifest(folder, snapshot, target)
                    elif snapshot is snapshots[-1]:
                        self.compare_listing(folder, target)
                    compared += 1
        self.assertGreater(compared, 10)

    def compare_manifest(self, folder, snapshot, target):
        """With what was written down of the source when it was backed up."""
        wanted = golden.read_manifest(folder / "manifests" / f"{snapshot['session']}.jsonl")
        if snapshot["source"] == "files":
            [path] = snapshot["paths"]
            self.assertEqual(golden.describe(f"{target}{path}"), wanted)
        else:
            [file] = [path for path in target.rglob("*") if path.is_file()]
            [row] = golden.describe(file)
            self.assertEqual([{name: row[name] for name in ("size", "sha256")}], wanted)

    def compare_listing(self, folder, target):
        """The first one was made before manifests were: of its last snapshot it has a listing that this reader wrote then."""
        found = {row["path"]: row for row in golden.describe(target)}
        listed = golden.read_manifest(folder / "listing.jsonl")
        self.assertEqual(len(found), len(listed) + 1)
        for row in listed:
            again = found[row["path"]]
            time = row["mtime"][0] * 10**9 + row["mtime"][1]
            self.assertEqual((int(again["mode"], 8) & 0o7777, again["mtime"]), (row["mode"], time), row["path"])
            for name in ("uid", "gid", "sha256", "target"):
                self.assertEqual(again.get(name), row.get(name), row["path"])
            self.assertEqual(again.get("xattrs", {}), row["xattrs"], row["path"])

    def test_listings(self):
        for folder in self.folders:
            if (folder / "listing.jsonl").exists():
                code, listed = run(folder / "repository", "listing", "latest")
                self.assertEqual((code, listed), (0, (folder / "listing.jsonl").read_text()), folder)

    def test_all_packs_are_whole(self):
        for folder in self.folders:
            packs = [name for name, kind in golden.objects(folder / "repository") if kind in ("pack", "attempt")]
            code, checked = run(folder / "repository", "check")
            self.assertEqual((code, [line.split()[0] for line in checked.splitlines()]), (0, packs))

    def test_what_it_is_proves_itself(self):
        os.environb[b"CARRACK_PASSWORD"] = PASSWORD
        with tempfile.TemporaryDirectory() as work:
            repository = pathlib.Path(work) / "repository"
            shutil.copytree(GOLDEN / "v1" / "repository", repository)
            genuine = (repository / "format").read_bytes()
            # A key file of somebody else is passed over, whatever it asks for.
            (repository / "keys" / ("0" * 32)).write_bytes(b"CRKR\x01\x02\0\0" + bytes(64) + b"{}")
            self.assertEqual(run(repository, "snapshots")[0], 0)
            for changed in (genuine.replace(b'"average":65536', b'"average":32768'), genuine[:8] + bytes(64) + genuine[72:]):
                self.assertNotEqual(changed, genuine)
                (repository / "format").write_bytes(changed)
                with self.assertRaises(reader.Damage):
                    reader.Repository(repository, PASSWORD)


class Live(unittest.TestCase):
    """What the program writes today."""

    def setUp(self):
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="carrack-reader-"))
        self.addCleanup(shutil.rmtree, self.work)
        self.repository = self.work / "repository"
        os.environ.update(CARRACK_PASSWORD="live", CARRACK_REPOSITORY=str(self.repository))

    def carrack(self, *arguments):
        program = os.environ["CARRACK"]
        done = subprocess.run([program, *map(str, arguments)], stdin=subprocess.DEVNULL, capture_output=True, check=False)
        self.assertEqual(done.returncode, 0, done.stderr.decode(errors="replace"))

    def test_restores_what_carrack_wrote(self):
        source = self.work / "source"
        make_tree(source)
        self.carrack("init")
        self.carrack("backup", source)
        with open(source / "deep/er/changed", "ab") as file:
            file.write(b"a new end")
        self.carrack("--cipher", "chacha20-poly1305", "backup", source)
        code, listed = run(self.repository, "snapshots")
        self.assertEqual((code, len(listed.splitlines())), (0, 2))
        code, _ = run(self.repository, "restore", "latest", self.work / "restored")
        self.assertEqual(code, 0)
        restored = f"{self.work}/restored{source}/"
        compare = ["rsync", "-nac", "--delete", "-HAXS", "--modify-window=-1", "--itemize-changes", f"{source}/", restored]
        self.assertEqual(subprocess.run(compare, capture_output=True, check=True).stdout.decode(), "")

    def test_checks_what_carrack_wrote(self):
        source = self.work / "source"
        make_tree(source)
        self.carrack("init")
        self.carrack("backup", source)
        code, checked = run(self.repository, "check")
        self.assertEqual(code, 0)
        self.assertRegex(checked, "[1-9][0-9]* frames, [1-9][0-9]* chunks listed")
        pack = next(self.repository.glob("packs/*/*"))
        data = pack.read_bytes()
        pack.chmod(0o600)
        # A trailer of another session, and a footer of another counter.
        for at in (len(data) - 64 + 17 + 9, len(data) - 64 + 4):
            pack.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
            with self.assertRaises(reader.Damage):
                run(self.repository, "check")

    def test_a_wrong_password_and_damage_are_seen(self):
        source = self.work / "source"
        source.mkdir()
        (source / "file").write_bytes(os.urandom(100_000))
        self.carrack("init")
        self.carrack("backup", source)
        os.environ["CARRACK_PASSWORD"] = "wrong"
        with self.assertRaises(SystemExit):
            run(self.repository, "listing", "latest")
        os.environ["CARRACK_PASSWORD"] = "live"
        for pack in self.repository.glob("packs/*/*"):
            data = bytearray(pack.read_bytes())
            data[10] ^= 1
            pack.chmod(0o600)
            pack.write_bytes(data)
        with self.assertRaises(reader.Damage):
            run(self.repository, "listing", "latest")


def make_tree(root):
    """Something of every kind; the golden repository was made from it too."""
    (root / "deep/er").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "small").write_bytes(b"a few bytes\n")
    (root / "nothing").write_bytes(b"")
    text = b"".join(b"%d lines that repeat\n" % (number % 1000) for number in range(100_000))
    (root / "deep/er/changed").write_bytes(text)
    state, noise = 1, bytearray()
    for _ in range(60_000):
        state = state * 6364136223846793005 % (1 << 64) + 1
        noise += state.to_bytes(8, "little")
    (root / "noise").write_bytes(noise)
    (root / "twice").write_bytes(noise)
    with open(root / "sparse", "wb") as file:
        file.seek(5_000_000)
        file.write(b"after the hole")
        file.truncate(9_000_000)
    os.link(root / "small", root / "deep/second name")
    os.symlink("../nowhere", root / "link")
    os.mkfifo(root / "pipe")
    (root / "executable").write_bytes(b"#!/bin/sh\n")
    os.chmod(root / "executable", 0o4755)
    with open(os.fsencode(root) + b"/not\xffutf8", "wb") as file:
        file.write(b"x")
    for number in range(500):
        (root / "deep" / f"file {number}").write_bytes(b"%d" % number)
    for folder, folders, files in os.walk(os.fsencode(root), topdown=False):
        for name in folders + files + [b""]:
            path = os.path.join(folder, name)
            os.utime(path, ns=(10**18, -1_234_567_890_123_456_789 if name == b"small" else 10**18 + 1), follow_symlinks=False)


if __name__ == "__main__":
    unittest.main(verbosity=1)
