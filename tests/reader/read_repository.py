#!/usr/bin/env python3
"""Reads a Carrack repository in a local directory: lists snapshots, lists one with hashes, restores one, checks all packs.

Written from mover/docs/format.md alone and sharing no code with the engine, so that the document is known to be
complete. Section numbers below are those of the document. Restores into a new directory only.

  read_repository.py REPOSITORY snapshots
  read_repository.py REPOSITORY listing SNAPSHOT
  read_repository.py REPOSITORY restore SNAPSHOT TARGET
  read_repository.py REPOSITORY check

The password comes from CARRACK_PASSWORD or the file that CARRACK_PASSWORD_FILE names.
"""

import collections
import hashlib
import hmac
import json
import os
import stat
import struct
import sys

import zstandard
from argon2.low_level import Type, hash_secret_raw
from blake3 import blake3
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

# Section 15.
ATTEMPTS, DEPTH_LIMIT = 8, 12
FRAME_LIMIT = PAGE_LIMIT = 16 << 20
RECORD_LIMIT, FIELD_LIMIT, FOOTER_LIMIT = 64 << 20, 1 << 20, 16 << 20
CACHED_FRAMES = 16

SUITES = {"aes-256-gcm": 1, "chacha20-poly1305": 2}
DATA, METADATA, FOOTER, RECORD = 0, 1, 2, 3
FORMAT, KEY, SESSION, SNAPSHOT, RELOCATION, FENCED, FORGOTTEN, ABANDONED = 1, 2, 3, 4, 5, 6, 9, 13
ENDS = (SNAPSHOT, RELOCATION, FENCED, ABANDONED)


class Damage(Exception):
    """What is stored contradicts the format."""


def derive(key, context, material=b""):
    return blake3(key + material, derive_key_context=context).digest()


# --- 1 Generalities -------------------------------------------------------------------------------------------


class Cursor:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        if count > len(self.data) - self.at:
            raise Damage("a structure ends too early")
        self.at += count
        return self.data[self.at - count : self.at]

    def byte(self):
        return self.take(1)[0]

    def varint(self):
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value >= 1 << 64 or (byte == 0 and shift):
                    raise Damage("a number is too long")
                return value
            shift += 7
            if shift > 63:
                raise Damage("a number is too long")

    def signed(self):
        value = self.varint()
        return (value >> 1) ^ -(value & 1)

    def count(self):
        value = self.varint()
        if value > len(self.data) - self.at:
            raise Damage("a count is larger than what follows")
        return value

    def bytes(self, limit=FIELD_LIMIT):
        length = self.varint()
        if length > limit:
            raise Damage("a field is too long")
        return self.take(length)

    def finish(self):
        if self.at != len(self.data):
            raise Damage("something follows the end of a structure")


def wrap_signed(value):
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)


def unpack(compressed, limit):
    size = zstandard.frame_content_size(compressed)
    if size < 0 or size > limit:
        raise Damage("compressed bytes state no size or one that is too large")
    plain = zstandard.ZstdDecompressor().decompress(compressed, max_output_size=size) if size else b""
    if len(plain) != size:
        raise Damage("compressed bytes state a wrong size")
    return plain


# --- 4 Keys: HPKE (RFC 9180) with X25519, HKDF-SHA256, ChaCha20Poly1305 ---------------------------------------


def extract(suite, salt, label, secret):
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + secret, "sha256")


def expand(suite, key, label, info, length):
    info = struct.pack(">H", length) + b"HPKE-v1" + suite + label + info
    out = block = b""
    for index in range(1, length // 32 + 2):
        block = hmac.digest(key, block + info + bytes([index]), "sha256")
        out += block
    return out[:length]


KEM_SUITE = b"KEM\x00\x20"
HPKE_SUITE = b"HPKE\x00\x20\x00\x01\x00\x03"


def hpke_private_key(seed):
    return expand(KEM_SUITE, extract(KEM_SUITE, b"", b"dkp_prk", seed), b"sk", b"", 32)


def hpke_open(private, info, aad, sealed):
    if len(sealed) != 80:
        raise Damage("a sealed data key has a wrong length")
    key = X25519PrivateKey.from_private_bytes(private)
    shared = key.exchange(X25519PublicKey.from_public_bytes(sealed[:32]))
    prk = extract(KEM_SUITE, b"", b"eae_prk", shared)
    secret = expand(KEM_SUITE, prk, b"shared_secret", sealed[:32] + key.public_key().public_bytes_raw(), 32)
    empty, info = (extract(HPKE_SUITE, b"", label, value) for label, value in ((b"psk_id_hash", b""), (b"info_hash", info)))
    schedule = b"\x00" + empty + info
    secret = extract(HPKE_SUITE, secret, b"secret", b"")
    nonce = expand(HPKE_SUITE, secret, b"base_nonce", schedule, 12)
    return ChaCha20Poly1305(expand(HPKE_SUITE, secret, b"key", schedule, 32)).decrypt(nonce, sealed[32:], aad)


class Generation:
    def __init__(self, root, repository):
        self.private = hpke_private_key(derive(root, "carrack v1 data key pair", repository))
        self.metadata = derive(root, "carrack v1 metadata", repository)
        self.index = derive(root, "carrack v1 index", repository)
        seed = derive(root, "carrack v1 maintenance signature", repository)
        self.maintenance = Ed25519PrivateKey.from_private_bytes(seed).public_key()


# --- 3 Sessions -----------------------------------------------------------------------------------------------


def session_bytes(name):
    """Binary form of a session's name."""
    lineage, nonce = name[1:].split("-")
    if name[0] not in "br" or len(lineage) != 16 or len(nonce) != 32:
        raise Damage(f"{name!r} is not the name of a session")
    return name[0].encode() + bytes.fromhex(lineage) + bytes.fromhex(nonce)


def session_text(data):
    return f"{chr(data[0])}{data[1:9].hex()}-{data[9:].hex()}"


# --- 5 Sealing ------------------------------------------------------------------------------------------------


def unseal(key, suite, domain, counter, aad, sealed):
    cipher = {1: AESGCM, 2: ChaCha20Poly1305}[suite](derive(key, "carrack v1 sealing", bytes([suite])))
    try:
        return cipher.decrypt(bytes([domain, 0, 0, 0]) + struct.pack("<Q", counter), sealed, aad)
    except InvalidTag:
        raise Damage("a seal is broken") from None


def unseal_object(key, suite, domain, session, sealed, pack=b"", limit=RECORD_LIMIT):
    """A footer is bound to its pack, too."""
    (counter,) = struct.unpack("<Q", sealed[:8])
    padded = unseal(key, suite, domain, counter, bytes([domain]) + session_bytes(session) + pack, sealed[8:])
    frame = zstandard.ZstdDecompressor().decompressobj()
    plain = frame.decompress(padded)
    if any(frame.unused_data) or len(plain) != zstandard.frame_content_size(padded) or len(plain) > limit:
        raise Damage("a sealed object is not one compressed frame and padding")
    return plain


def signature_is_true(public, context, body):
    context = context.encode()
    try:
        public.verify(body[:64], struct.pack("<Q", len(context)) + context + body[64:])
        return True
    except InvalidSignature:
        return False


# --- The repository -------------------------------------------------------------------------------------------

# Where a frame lies and how it is opened, section 8.
Place = collections.namedtuple("Place", "session pack offset stored plain compression counter id")
# A chunk in a frame.
Reference = collections.namedtuple("Reference", "place offset length id")


class Repository:
    def __init__(self, root, password):
        self.root = root
        self.format = self.read_format()
        self.repository = bytes.fromhex(self.format["repository"])
        self.generations, first = self.open_keys(password)
        self.id_key = derive(first, "carrack v1 chunk ids", self.repository)
        self.sessions = {}  # name → (data key, metadata key, suite)
        self.frames = collections.OrderedDict()
        self.moved = None
        self.trailers = {}  # path → trailer

    def object(self, name):
        with open(os.path.join(self.root, name), "rb") as file:
            return file.read(RECORD_LIMIT + 1)

    def names(self, prefix):
        folder = os.path.join(self.root, prefix)
        return sorted(os.listdir(folder)) if os.path.isdir(folder) else []

    def record(self, name, *kinds):
        """Kind and body of a record, section 6."""
        data = self.object(name)
        if data[:4] != b"CRKR" or data[6:8] != b"\0\0" or len(data) > RECORD_LIMIT:
            raise Damage(f"{name} is not a record")
        if data[4] != 1:
            raise Damage(f"{name} was written by a newer program")
        if data[5] not in kinds:
            raise Damage(f"{name} is a record of kind {data[5]}")
        return data[5], data[8:]

    def read_format(self):
        body = self.record("format", FORMAT)[1]
        value = json.loads(body[64:])
        if value["version"] != 1 or value["read_features"]:
            raise Damage("the repository needs a newer reader")
        self.foundation = Ed25519PublicKey.from_public_bytes(bytes.fromhex(value["maintenance_public"]))
        if not signature_is_true(self.foundation, "format", body):
            raise Damage("the object format was changed")
        return value

    def open_keys(self, password):
        opened = []
        for name in self.names("keys"):
            body = self.record(f"keys/{name}", KEY)[1]
            if not signature_is_true(self.foundation, f"keys/{name}", body):
                continue
            value = json.loads(body[64:])
            # One of a later version is for later readers.
            if value["version"] != 1:
                continue
            roots = open_key_file(value, password, self.repository)
            opened = max(opened, roots or [], key=len)
        if opened:
            generations = [Generation(root, self.repository) for root in opened]
            if generations[0].maintenance.public_bytes_raw() != self.foundation.public_bytes_raw():
                raise Damage("the object format is of another repository")
            return generations, opened[0]
        raise SystemExit("no key file opens with this password")

    def generation(self, number):
        if number >= len(self.generations):
            raise Damage(f"there is no generation {number} of keys")
        return self.generations[number]

    def metadata_key(self, session, generation):
        lineage = session_bytes(session)[1:9]
        key = derive(self.generation(generation).metadata, "carrack v1 lineage metadata", lineage)
        return derive(key, "carrack v1 session metadata", session.encode())

    def index_key(self, session, generation):
        return derive(self.generation(generation).index, "carrack v1 session index", session.encode())

    def maintenance_signed(self, context, body):
        return any(signature_is_true(each.maintenance, context, body) for each in self.generations)

    # Sections 3, 11 and 14: ends, then markers, then sessions.
    def visible(self):
        ends = self.names("snapshots")
        forgotten = set()
        for name in self.names("forgotten"):
            body = self.record(f"forgotten/{name}", FORGOTTEN)[1]
            said = json.loads(body[64:])
            if said["session"] == name.split(".")[0] and self.maintenance_signed(f"forgotten/{name}", body):
                forgotten.add(said["session"])
        sessions = set(self.names("sessions"))
        return [name for name in ends if name in sessions and name not in forgotten]

    def snapshots(self):
        opened = (self.snapshot(name) for name in self.visible() if name.startswith("b"))
        return sorted((each for each in opened if each), key=lambda each: each["started"])

    def session_object(self, name):
        value = json.loads(self.record(f"sessions/{name}", SESSION)[1])
        if value["version"] != 1:
            raise Damage(f"the session object {name} needs a newer reader")
        if value["session"] != name:
            raise Damage(f"the session object {name} names another session")
        return value

    def snapshot(self, name):
        kind, body = self.record(f"snapshots/{name}", *ENDS)
        if kind != SNAPSHOT:
            return None
        session = self.session_object(name)
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(session["signing_public"]))
        if not signature_is_true(public, f"snapshots/{name}", body):
            raise Damage(f"the end of {name} is not signed by its session")
        key = self.metadata_key(name, session["generation"])
        snapshot = json.loads(unseal_object(key, SUITES[session["suite"]], RECORD, name, body[64:]))
        if snapshot["session"] != name:
            raise Damage(f"the snapshot {name} names another session")
        return snapshot

    def find(self, text):
        snapshots = self.snapshots()
        if text == "latest" and snapshots:
            return snapshots[-1]
        found = [each for each in snapshots if text in (each["session"], each["session"].split("-")[1][: len(text)])]
        if len(found) != 1:
            raise SystemExit(f"{len(found)} snapshots match {text}")
        return found[0]

    def learn_sessions(self, infos):
        for info in infos:
            name, generation = info["session"], info["generation"]
            sealed = bytes.fromhex(info["sealed_data_key"])
            private = self.generation(generation).private
            data = hpke_open(private, b"carrack v1 session data key", name.encode(), sealed)
            self.sessions[name] = (data, self.metadata_key(name, generation), SUITES[info["suite"]])

    # Section 8.
    def read_frame(self, domain, place):
        found = self.frames.get((domain, place))
        if found is not None:
            self.frames.move_to_end((domain, place))
            return found
        plain = self.open_frame(domain, place, self.stored_bytes(place))
        self.frames[(domain, place)] = plain
        if len(self.frames) > CACHED_FRAMES:
            self.frames.popitem(last=False)
        return plain

    def open_frame(self, domain, place, stored):
        if place.plain > FRAME_LIMIT or place.stored > FRAME_LIMIT + 4096:
            raise Damage("a frame is longer than allowed")
        data_key, metadata_key, suite = self.sessions[place.session]
        aad = bytes([domain]) + session_bytes(place.session) + struct.pack("<Q", place.counter) + place.id
        aad += struct.pack("<IB", place.plain, place.compression)
        key = data_key if domain == DATA else metadata_key
        plain = unseal(key, suite, domain, place.counter, aad, stored)
        if place.compression:
            plain = unpack(plain, place.plain)
        if len(plain) != place.plain:
            raise Damage("a frame has a wrong length")
        return plain

    def stored_bytes(self, place):
        found = self.pack_bytes(place.pack, place.offset, place.stored)
        if found is None:
            if self.moved is None:
                self.moved = self.read_relocations()
            pack, offset, followed = place.pack, place.offset, 0
            while found is None and (pack, offset) in self.moved and followed < 1000:
                pack, offset = self.moved[(pack, offset)]
                followed += 1
                found = self.pack_bytes(pack, offset, place.stored)
        if found is None:
            raise Damage(f"pack {place.pack.hex()} is gone")
        return found

    def pack_bytes(self, pack, offset, length):
        """Section 2: all attempts of a pack."""
        name = pack.hex()
        for attempt in range(ATTEMPTS):
            path = f"packs/{name[16:18]}/{name}" + (f".{attempt}" if attempt else "")
            try:
                with open(os.path.join(self.root, path), "rb") as file:
                    self.trailer_of(path, file)
                    file.seek(offset)
                    data = file.read(length)
            except FileNotFoundError:
                continue
            if len(data) != length:
                raise Damage(f"{path} is too short")
            return data
        return None

    # Section 7.
    def trailer_of(self, path, file):
        """Looked at once, before anything of a pack is believed."""
        if path not in self.trailers:
            length = file.seek(0, os.SEEK_END)
            file.seek(max(0, length - TRAILER_LENGTH))
            trailer = read_trailer(file.read(TRAILER_LENGTH))
            if session_bytes(trailer.session)[9:17] != pack_of(path)[:8]:
                raise Damage(f"{path} was written by another session than its name says")
            if trailer.footer_length > length - TRAILER_LENGTH:
                raise Damage(f"{path} is shorter than its footer")
            self.trailers[path] = trailer
        return self.trailers[path]

    def footer_of(self, path, file):
        """Key info of sessions, and frames, as the footer of a pack lists them."""
        trailer, pack = self.trailer_of(path, file), pack_of(path)
        frames_end = file.seek(-TRAILER_LENGTH - trailer.footer_length, os.SEEK_END)
        sealed = file.read(trailer.footer_length)
        if sealed[:8] != struct.pack("<Q", trailer.counter):
            raise Damage(f"{path} says two counters of its footer")
        key = self.index_key(trailer.session, trailer.generation)
        plain = unseal_object(key, trailer.suite, FOOTER, trailer.session, sealed, pack, FOOTER_LIMIT)
        infos, frames = read_footer(plain, pack, frames_end)
        own = infos[0] if infos else {}
        if (own.get("session"), own.get("generation")) != (trailer.session, trailer.generation):
            raise Damage(f"the footer of {path} is of another session than its trailer says")
        return infos, frames

    def check_pack(self, path):
        """Opens every frame, and compares every chunk that is listed; answers how many there are of both."""
        with open(os.path.join(self.root, path), "rb") as file:
            infos, frames = self.footer_of(path, file)
            self.learn_sessions(infos)
            for domain, place, chunks in frames:
                file.seek(place.offset)
                plain = self.open_frame(domain, place, file.read(place.stored))
                for offset, length, identity in chunks:
                    if blake3(plain[offset : offset + length], key=self.id_key).digest() != identity:
                        raise Damage(f"a chunk in {path} is not what its id says")
        return len(frames), sum(len(chunks) for _, _, chunks in frames)

    def packs(self):
        return [f"packs/{folder}/{name}" for folder in self.names("packs") for name in self.names(f"packs/{folder}")]

    # Section 13.
    def read_relocations(self):
        moved = {}
        for name in self.visible():
            kind, body = self.record(f"snapshots/{name}", *ENDS)
            if kind != RELOCATION or not self.maintenance_signed(f"snapshots/{name}", body):
                continue
            session = self.session_object(name)
            key = self.index_key(name, session["generation"])
            plain = unseal_object(key, SUITES[session["suite"]], RECORD, name, body[64:])
            for row in json.loads(plain):
                old = (bytes.fromhex(row["old_pack"]), row["old_offset"])
                # Names come in order: the lowest one counts.
                moved.setdefault(old, (bytes.fromhex(row["new_pack"]), row["new_offset"]))
        return moved

    def chunk(self, domain, reference):
        frame = self.read_frame(domain, reference.place)
        data = frame[reference.offset : reference.offset + reference.length]
        if blake3(data, key=self.id_key).digest() != reference.id:
            raise Damage("a chunk is not what its id says")
        return data

    def page(self, reference, kinds):
        return read_page(self.chunk(METADATA, reference), kinds)

    # Section 14.
    def entries(self, snapshot):
        self.learn_sessions(snapshot["sessions"])
        root = snapshot["root"]
        if root is None:
            return
        if not 1 <= snapshot["depth"] <= DEPTH_LIMIT:
            raise Damage("the tree is too deep")
        place = place_of_json(root["place"])
        yield from self.walk(Reference(place, 0, place.plain, bytes.fromhex(root["id"])), snapshot["depth"])

    def walk(self, reference, depth):
        _, rows = self.page(reference, [LEAF] if depth == 1 else [INNER])
        for row in rows:
            if depth == 1:
                yield row
            else:
                yield from self.walk(row["page"], depth - 1)

    def runs(self, content):
        if content["depth"] == 0:
            yield from content["runs"]
        yield from self.run_pages(content["pages"], content["depth"], True)

    def run_pages(self, pages, depth, is_end):
        """Runs of neighbouring pages, which are the end of a list or not."""
        for number, (page, length) in enumerate(pages, 1):
            yield from self.run_page(page, length, depth, is_end and number == len(pages))

    def run_page(self, page, length, depth, is_last):
        _, rows = self.page(page, [RUNS] if depth == 1 else [RUNS_INNER])
        if sum(run_length(row) if depth == 1 else row[1] for row in rows) != length:
            raise Damage("a page of runs is not as long as it should be")
        if depth > 1:
            yield from self.run_pages(rows, depth - 1, is_last)
        elif not is_last and all(is_hole(row) for row in rows):
            raise Damage("a page without a chunk is not the last of its list")
        else:
            yield from rows


def place_of_json(value):
    compression = {"stored": 0, "zstd": 1}[value["compression"]]
    pack, identity = bytes.fromhex(value["pack"]), bytes.fromhex(value["id"])
    return Place(value["session"], pack, value["offset"], value["stored"], value["plain"], compression, value["counter"], identity)


def open_key_file(value, password, repository):
    """The root keys of a key file, or None if the password is another one. Section 4."""
    how = value["derivation"]
    if how["kind"] != "argon2id":
        return None
    if how["memory_kib"] > 1 << 20 or how["passes"] > 64 or how["lanes"] > 64:
        raise Damage("a key file asks for too much")
    salt = bytes.fromhex(how["salt"])
    wrapping = hash_secret_raw(password, salt, how["passes"], how["memory_kib"], how["lanes"], 32, Type.ID)
    if derive(wrapping, "carrack v1 key commitment", repository).hex() != value["commitment"]:
        return None
    sealed = bytes.fromhex(value["sealed_roots"])
    cipher = ChaCha20Poly1305(derive(wrapping, "carrack v1 key wrapping"))
    try:
        plain = cipher.decrypt(sealed[:12], sealed[12:], repository)
    except InvalidTag:
        raise Damage("the password fits, but the keys are damaged") from None
    if not plain or len(plain) % 32:
        raise Damage("a key file holds no whole keys")
    return [plain[at : at + 32] for at in range(0, len(plain), 32)]


# --- 7 Packs --------------------------------------------------------------------------------------------------

TRAILER_LENGTH = 64
Trailer = collections.namedtuple("Trailer", "footer_length counter generation suite session")


def pack_of(path):
    """The id of a pack, of the name of any of its objects."""
    return bytes.fromhex(path.rpartition("/")[2].partition(".")[0])


def read_trailer(data):
    if data[60:] != b"CRKP":
        raise Damage("a pack does not end in a trailer")
    (version,) = struct.unpack("<I", data[56:60])
    if version != 1:
        raise Damage("a pack was written by a newer program")
    footer_length, counter, generation, suite = struct.unpack("<IQIB", data[:17])
    session = session_text(data[17:42])
    session_bytes(session)
    if suite not in SUITES.values() or footer_length > FOOTER_LIMIT:
        raise Damage("a trailer says what cannot be")
    return Trailer(footer_length, counter, generation, suite, session)


def read_key_info(data):
    (generation,) = struct.unpack("<I", data[25:29])
    suite = {code: name for name, code in SUITES.items()}.get(data[29])
    if suite is None:
        raise Damage("a key info of an unknown suite")
    return {"session": session_text(data[:25]), "generation": generation, "suite": suite, "sealed_data_key": data[30:].hex()}


def read_footer(plain, pack, frames_end):
    cursor = Cursor(plain)
    infos = [read_key_info(cursor.take(110)) for _ in range(cursor.count())]
    frames, end = [], 0
    for _ in range(cursor.count()):
        session, codes = cursor.varint(), cursor.byte()
        offset, stored, plain_length, counter = (cursor.varint() for _ in range(4))
        identity = bytes(cursor.take(32))
        domain, compression = codes & 15, codes >> 4
        if session >= len(infos) or domain not in (DATA, METADATA) or compression > 1:
            raise Damage("a footer lists an unknown kind of frame")
        if offset < end or offset + stored > frames_end:
            raise Damage("frames overlap, or lie outside of their pack")
        end = offset + stored
        place = Place(infos[session]["session"], pack, offset, stored, plain_length, compression, counter, identity)
        frames.append((domain, place, read_listed(cursor, plain_length)))
    cursor.finish()
    return infos, frames


def read_listed(cursor, plain_length):
    chunks, end = [], 0
    for _ in range(cursor.count()):
        offset = end + cursor.varint()
        length = cursor.varint()
        end = offset + length
        if end > plain_length:
            raise Damage("a chunk lies outside its frame")
        chunks.append((offset, length, bytes(cursor.take(32))))
    return chunks


# --- 10 Pages -------------------------------------------------------------------------------------------------

LEAF, INNER, RUNS, RUNS_INNER = range(4)
FILE, DIRECTORY, SYMLINK, BLOCK, CHARACTER, PIPE, SOCKET, IMAGE = range(8)
KINDS = "file directory symlink block-device char-device fifo socket image".split()


class References:
    def __init__(self, cursor):
        self.cursor = cursor
        sessions = [session_text(cursor.take(25)) for _ in range(cursor.count())]
        packs = [bytes(cursor.take(16)) for _ in range(cursor.count())]
        self.frames = [self.frame(sessions, packs) for _ in range(cursor.count())]
        self.last, self.end = None, 0

    def frame(self, sessions, packs):
        cursor = self.cursor
        session, pack, compression = cursor.varint(), cursor.varint(), cursor.byte()
        offset, stored, plain, counter = (cursor.varint() for _ in range(4))
        if session >= len(sessions) or pack >= len(packs) or compression > 1:
            raise Damage("a frame refers to what is not listed")
        return Place(sessions[session], packs[pack], offset, stored, plain, compression, counter, bytes(cursor.take(32)))

    def read(self):
        index = self.cursor.varint()
        offset = self.cursor.signed() + (self.end if index == self.last else 0)
        length, identity = self.cursor.varint(), bytes(self.cursor.take(32))
        if index >= len(self.frames) or offset < 0 or offset + length > self.frames[index].plain:
            raise Damage("a chunk lies outside its frame")
        self.last, self.end = index, offset + length
        return Reference(self.frames[index], offset, length, identity)


def read_page(data, kinds):
    cursor = Cursor(data)
    if cursor.byte() != 1:
        raise Damage("a page was written by a newer program")
    kind = cursor.byte()
    if kind not in kinds:
        raise Damage(f"a page of kind {kind} where it does not belong")
    references = References(cursor)
    count = cursor.count()
    if kind == LEAF:
        rows = read_leaf(cursor, references, count)
    elif kind == INNER:
        rows = [read_child(cursor, references) for _ in range(count)]
    elif kind == RUNS:
        rows = [read_run(cursor, references) for _ in range(count)]
        if any(is_hole(first) and is_hole(second) for first, second in zip(rows, rows[1:])):
            raise Damage("a hole follows a hole")
    else:
        rows = [read_runs_page(cursor, references) for _ in range(count)]
    cursor.finish()
    return kind, rows


def read_child(cursor, references):
    first, last, entries, size = cursor.bytes(), cursor.bytes(), cursor.varint(), cursor.varint()
    return {"first": first, "last": last, "entries": entries, "bytes": size, "page": references.read()}


def read_run(cursor, references):
    """A number of zero bytes, or a reference."""
    kind = cursor.byte()
    if kind > 1:
        raise Damage("an unknown kind of run")
    return references.read() if kind else cursor.varint()


def is_hole(run):
    return isinstance(run, int)


def run_length(run):
    return run if is_hole(run) else run.length


def read_runs_page(cursor, references):
    length = cursor.varint()
    if not length:
        raise Damage("a page of runs of no bytes")
    return references.read(), length


def read_leaf(cursor, references, count):
    directory, seconds, changed, inode, device = b"", 0, 0, 0, 0
    rows, before = [], None
    for _ in range(count):
        code = cursor.byte()
        if not code & 0x80:
            directory = bytes(cursor.bytes())
        name = bytes(cursor.bytes())
        path = directory + b"/" + name if directory else name
        if b"/" in name or any(part in (b"", b".", b"..") or b"\0" in part for part in path.split(b"/")):
            raise Damage("a path that no tree can hold")
        row = {"path": path, "kind": code & 0x7F}
        row["mode"], row["uid"], row["gid"] = cursor.varint(), cursor.varint(), cursor.varint()
        seconds = wrap_signed(seconds + cursor.signed())
        row["mtime"] = (seconds, cursor.varint())
        changed = wrap_signed(changed + cursor.signed())
        row["ctime"] = (changed, cursor.varint())
        inode = (inode + cursor.signed()) % (1 << 64)
        device = (device + cursor.signed()) % (1 << 64)
        row["inode"], row["device"] = inode, device
        row["links"], row["size"], row["flags"] = cursor.varint(), cursor.varint(), cursor.varint()
        row["xattrs"] = [(bytes(cursor.bytes()), bytes(cursor.bytes())) for _ in range(cursor.count())]
        read_kind(cursor, references, row)
        if before is not None and not tree_order(before) < tree_order(path):
            raise Damage("entries are not in order")
        before = path
        rows.append(row)
    return rows


def tree_order(path):
    """Sorts as section 10.1 says: in each directory, names before what is below names."""
    parts = path.split(b"/")
    return [(index + 1 < len(parts), part) for index, part in enumerate(parts)]


def read_kind(cursor, references, row):
    kind = row["kind"]
    if kind in (FILE, IMAGE):
        row["content"] = read_content(cursor, references, row["size"])
    elif kind == SYMLINK:
        row["target"] = bytes(cursor.bytes())
    elif kind in (BLOCK, CHARACTER):
        row["device_number"] = (cursor.varint(), cursor.varint())
    elif kind not in (DIRECTORY, PIPE, SOCKET):
        raise Damage("an unknown kind of entry")


def read_content(cursor, references, size):
    depth = cursor.byte()
    if depth > DEPTH_LIMIT:
        raise Damage("pages are nested too deep")
    count = cursor.count()
    if depth == 0:
        runs, pages = [read_run(cursor, references) for _ in range(count)], []
        lengths = [run_length(run) for run in runs]
    else:
        runs, pages = [], [read_runs_page(cursor, references) for _ in range(count)]
        lengths = [length for _, length in pages]
    if sum(lengths) != size:
        raise Damage("contents are not as long as the entry says")
    return {"depth": depth, "runs": runs, "pages": pages}


# --- What a person sees ---------------------------------------------------------------------------------------


def escaped(path):
    return path.decode("utf-8", "backslashreplace")


def listing(repository, snapshot, out):
    """One JSON line per entry, with the SHA-256 of contents."""
    for row in repository.entries(snapshot):
        line = {key: row[key] for key in ("mode", "uid", "gid", "mtime", "size", "links", "flags")}
        line["path"], line["kind"] = escaped(row["path"]), KINDS[row["kind"]]
        line["xattrs"] = {escaped(name): value.hex() for name, value in row["xattrs"]}
        if "content" in row:
            digest = hashlib.sha256()
            for run in repository.runs(row["content"]):
                digest.update(bytes(run) if is_hole(run) else repository.chunk(DATA, run))
            line["sha256"] = digest.hexdigest()
        if "target" in row:
            line["target"] = escaped(row["target"])
        print(json.dumps(line, sort_keys=True), file=out)


class Restore:
    def __init__(self, repository, target):
        os.makedirs(target, exist_ok=True)
        if os.listdir(target):
            raise SystemExit(f"{target} is not empty")
        self.repository, self.target = repository, os.fsencode(os.path.abspath(target))
        self.directories, self.names, self.made, self.lost = [], {}, {b""}, 0

    def run(self, snapshot):
        for row in self.repository.entries(snapshot):
            parent = row["path"].rpartition(b"/")[0]
            if parent not in self.made:
                # Directories above the roots are not part of the snapshot.
                self.make_parents(parent)
            self.entry(row, os.path.join(self.target, row["path"]))
        for row, path in reversed(self.directories):
            self.attributes(row, path)

    def make_parents(self, path):
        parent = path.rpartition(b"/")[0]
        if parent not in self.made:
            self.make_parents(parent)
        os.mkdir(os.path.join(self.target, path))  # fails on anything that is there, links included
        self.made.add(path)

    def entry(self, row, path):
        kind, group = row["kind"], (row["device"], row["inode"])
        if kind == DIRECTORY:
            os.mkdir(path, 0o700)
            self.made.add(row["path"])
            self.directories.append((row, path))
            return
        if row["links"] > 1 and group in self.names:
            os.link(self.names[group], path, follow_symlinks=False)
            return
        if kind in (FILE, IMAGE):
            self.contents(row, path)
        elif kind == SYMLINK:
            os.symlink(row["target"], path)
        elif kind in (BLOCK, CHARACTER):
            os.mknod(path, 0o600 | (stat.S_IFBLK if kind == BLOCK else stat.S_IFCHR), os.makedev(*row["device_number"]))
        elif kind in (PIPE, SOCKET):
            os.mknod(path, 0o600 | (stat.S_IFIFO if kind == PIPE else stat.S_IFSOCK))
        if row["links"] > 1:
            self.names[group] = path
        self.attributes(row, path)

    def contents(self, row, path):
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as file:
            for run in self.repository.runs(row["content"]):
                if is_hole(run):
                    file.seek(run, os.SEEK_CUR)
                else:
                    file.write(self.repository.chunk(DATA, run))
            file.truncate(row["size"])

    def attributes(self, row, path):
        if os.geteuid() == 0:
            os.chown(path, row["uid"], row["gid"], follow_symlinks=False)
        for name, value in row["xattrs"]:
            try:
                os.setxattr(path, name, value, follow_symlinks=False)
            except OSError as error:
                self.lost += 1
                print(f"{escaped(path)}: {escaped(name)}: {error.strerror}", file=sys.stderr)
        if row["kind"] != SYMLINK:
            os.chmod(path, row["mode"])
        times = tuple(row["mtime"][0] * 10**9 + row["mtime"][1] for _ in range(2))
        os.utime(path, ns=times, follow_symlinks=False)


def read_password():
    if "CARRACK_PASSWORD" in os.environ:
        return os.environb[b"CARRACK_PASSWORD"]
    with open(os.environ["CARRACK_PASSWORD_FILE"], "rb") as file:
        return file.read().rstrip(b"\r\n")


def main(arguments):
    if len(arguments) < 2 or len(arguments) != {"snapshots": 2, "check": 2, "listing": 3, "restore": 4}.get(arguments[1]):
        raise SystemExit(__doc__)
    repository = Repository(arguments[0], read_password())
    if arguments[1] == "snapshots":
        for each in repository.snapshots():
            print(each["session"], each["started"], each["host"], *each["paths"])
        return 0
    if arguments[1] == "check":
        for path in repository.packs():
            print(path, "{} frames, {} chunks listed".format(*repository.check_pack(path)))
        return 0
    snapshot = repository.find(arguments[2])
    if arguments[1] == "listing":
        listing(repository, snapshot, sys.stdout)
        return 0
    restore = Restore(repository, arguments[3])
    restore.run(snapshot)
    return 3 if restore.lost else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
