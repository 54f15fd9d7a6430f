"""Makes a tree of everything that is rare, and compares two trees by all that a file system can keep.

    tree.py make TOP ENTRIES
    tree.py compare ONE OTHER [--named MESSAGES [WITHOUT]]

With --named, OTHER was restored by somebody who may not keep everything: what differs, or is missing, must be named in
those messages of `carrack … --json`; contents that differ are never forgiven. With WITHOUT, they backed it up already, but
for that directory; what the kernel does not show them, `trusted.*`, they cannot name.

Paths are opened one name at a time, because whole ones are longer than the kernel takes.
"""

import array
import ctypes
import errno
import fcntl
import hashlib
import json
import os
import random
import socket
import stat
import struct
import sys

BLOCK = 4096
# Xfs takes room in advance, about as much as a file has, and fills holes with it.
TAKEN_IN_ADVANCE = 256 << 10
GETFLAGS, SETFLAGS = 0x80086601, 0x40086602
IMMUTABLE, APPEND, NODUMP, NOATIME, SYNC = 0x10, 0x20, 0x40, 0x80, 0x8
KEPT_FLAGS = IMMUTABLE | APPEND | NODUMP | NOATIME | SYNC
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NOATIME
# The last second that an ext4 inode of 256 bytes can keep.
LAST_SECOND = 15_032_385_535
HARD_LINKS = 10_000
libc = ctypes.CDLL(None, use_errno=True)


def write(path, contents=b""):
    with open(path, "wb") as file:
        file.write(contents)


def set_flags(path, flags):
    descriptor = os.open(path, os.O_RDONLY)
    now = array.array("L", [0])
    fcntl.ioctl(descriptor, GETFLAGS, now)
    now[0] |= flags
    fcntl.ioctl(descriptor, SETFLAGS, now)
    os.close(descriptor)


def acl(entries):
    """As the kernel keeps lists of rights: version 2, then tag, rights, id of each."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def long_acl(count):
    nobody = 0xFFFFFFFF
    users = [(2, number % 8, 10_000 + number) for number in range(count)]
    return acl([(1, 7, nobody), *users, (4, 5, nobody), (8, 3, 77), (16, 7, nobody), (32, 4, nobody)])


def many(top, count, chance):
    """One directory with this many entries: files, directories, links, of all times and with names of all bytes."""
    os.mkdir(top)
    os.chdir(top)
    rare = bytes(byte for byte in range(1, 256) if byte != 0x2F)
    for number in range(count):
        name = b"%d" % number
        if number % 16 == 1:
            name += b"n" * (255 - len(name))
        elif number % 16 == 2:
            name += bytes(chance.choices(rare, k=chance.randrange(1, 200)))
        elif number % 16 == 3:
            name += "é€😀".encode() * chance.randrange(1, 10)
        kind = number % 10
        if kind == 0:
            os.symlink(b"to " + name[:200], name)
        elif kind == 1:
            os.mkdir(name)
        elif kind == 2:
            write(name)
        else:
            write(name, b"contents of %d" % number)
        if number % 3:
            when = chance.randrange(-(2**31), LAST_SECOND) * 10**9 + chance.randrange(10**9)
            os.utime(name, ns=(when, when), follow_symlinks=False)
    os.chdir("/")


def links(top):
    os.mkdir(top)
    os.chdir(top)
    write("first", b"one file of many names")
    for number in range(HARD_LINKS - 1):
        folder = f"{number // 500}"
        if number % 500 == 0:
            os.mkdir(folder)
        os.link("first", f"{folder}/{number}")
    os.symlink("first", "link")
    os.link("link", "link again", follow_symlinks=False)
    os.chdir("/")


def modes(top):
    """Every mode there is, for files, and for directories of one mode each with something in it."""
    os.mkdir(top)
    for mode in range(0o10000):
        path = os.path.join(top, f"{mode:04o}")
        write(path, b"%o" % mode)
        os.chown(path, (0, 65534, 1000, 2**32 - 2)[mode % 4], (0, 65534, 2**32 - 2)[mode % 3])
        os.chmod(path, mode)
    for mode in (0, 0o111, 0o222, 0o444, 0o555, 0o700, 0o1777, 0o2755, 0o4755, 0o7777):
        path = os.path.join(top, f"d{mode:04o}")
        os.mkdir(path)
        write(os.path.join(path, "inside"), b"%o" % mode)
        os.chown(path, 65534 if mode % 2 else 0, 65534)
        os.chmod(path, mode)


def attributes(top):
    os.mkdir(top)
    chance = random.Random(2)
    paths = [os.path.join(top, name) for name in ("file", "directory", "large", "several", "acl", "acls", "able", "able too")]
    for path in paths:
        os.mkdir(path) if path.endswith(("directory", "acls")) else write(path, b"attributes")
    file, directory, large, several, listed, lists, able, able_too = paths
    for path in (file, directory):
        for name in ("user.empty", "trusted.one", "security.carrack", "user.\udcff\udcfe", "user." + "n" * 250):
            os.setxattr(path, os.fsencode(name), b"" if "empty" in name else os.fsencode(name))
    os.setxattr(large, "user.large", chance.randbytes(65536))
    for number in range(40):
        os.setxattr(several, f"user.{number}", chance.randbytes(number * 3))
    os.setxattr(listed, "system.posix_acl_access", long_acl(20))
    os.setxattr(lists, "system.posix_acl_access", long_acl(3))
    os.setxattr(lists, "system.posix_acl_default", long_acl(15))
    write(os.path.join(lists, "inherits"))
    os.mkdir(os.path.join(lists, "inherits too"))
    os.chown(able, 1000, 1000)
    os.chmod(able, 0o6755)
    # Capabilities of version 2, and of version 3 with the root of a user namespace.
    os.setxattr(able, "security.capability", struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0))
    os.setxattr(able_too, "security.capability", struct.pack("<6I", 0x03000001, 1 << 13, 1 << 12, 0, 0, 100_000))


def flags(top):
    os.mkdir(top)
    for name, value in (("immutable", IMMUTABLE), ("append", APPEND), ("both", IMMUTABLE | APPEND), ("others", NODUMP | NOATIME | SYNC)):
        file, directory = os.path.join(top, name), os.path.join(top, name + " directory")
        write(file, b"flags")
        os.link(file, file + " again")
        os.mkdir(directory)
        write(os.path.join(directory, "inside"), b"inside")
        for path in (file, directory):
            os.setxattr(path, "user.beside", b"flags")
            set_flags(path, value)


def sparse(top, chance):
    """Holes of every size; files whose length is far beyond what lies in them; room that was asked for and not used."""
    os.mkdir(top)
    for number in range(40):
        with open(os.path.join(top, f"{number}"), "wb") as file:
            at = 0
            for _ in range(chance.randrange(1, 12)):
                at += chance.choice((0, 1, 4095, 4096, 65536, 1 << 20, (1 << 20) + 1, 50 << 20)) * chance.randrange(3)
                file.seek(at)
                data = chance.randbytes(chance.randrange(1, 100_000))
                file.write(data)
                at += len(data)
            file.truncate(at + chance.choice((0, 1, 4096, 10 << 20)))
    with open(os.path.join(top, "tebibytes"), "wb") as file:
        for at in (0, 1 << 31, 1 << 32, (3 << 40) + 12345):
            file.seek(at)
            file.write(b"far from each other")
        file.truncate(4 << 40)
    with open(os.path.join(top, "asked for"), "wb") as file:
        file.write(b"begins")
        os.posix_fallocate(file.fileno(), 0, 5 << 20)
        # FALLOC_FL_KEEP_SIZE
        if libc.fallocate(file.fileno(), 1, ctypes.c_long(8 << 20), ctypes.c_long(4 << 20)):
            raise OSError(ctypes.get_errno(), "fallocate")


def deep(top):
    os.mkdir(top)
    directory = os.open(top, DIRECTORY)
    for level in range(40):
        name = (b"%d" % level) * 255
        os.mkdir(name[:255], 0o750, dir_fd=directory)
        below = os.open(name[:255], DIRECTORY, dir_fd=directory)
        os.close(directory)
        directory = below
        file = os.open("file", os.O_CREAT | os.O_WRONLY, 0o640, dir_fd=directory)
        os.write(file, b"%d" % level)
        os.close(file)
        os.symlink(b"l" * 1000, "link", dir_fd=directory)
    os.link("file", "file again", src_dir_fd=directory, dst_dir_fd=directory)
    os.close(directory)


def nodes(top):
    os.mkdir(top)
    for name, kind, device in (
        ("pipe", stat.S_IFIFO, 0),
        ("null", stat.S_IFCHR, os.makedev(1, 3)),
        ("character", stat.S_IFCHR, os.makedev(511, (1 << 18) - 1)),
        ("block", stat.S_IFBLK, os.makedev(259, 70_000)),
    ):
        path = os.path.join(top, name)
        os.mknod(path, kind | 0o640, device)
        os.link(path, path + " again")
        os.setxattr(path, "trusted.of a node", b"kept")
    os.chdir(top)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket")
    os.symlink("nowhere", "dangling")
    os.chown("dangling", 5, 6, follow_symlinks=False)
    os.setxattr("dangling", "trusted.of a link", b"kept", follow_symlinks=False)
    os.chdir("/")


def make(top, count):
    os.umask(0o022)
    chance = random.Random(1)
    os.mkdir(top)
    many(os.path.join(top, "many"), count, chance)
    links(os.path.join(top, "links"))
    modes(os.path.join(top, "modes"))
    attributes(os.path.join(top, "attributes"))
    flags(os.path.join(top, "flags"))
    sparse(os.path.join(top, "sparse"), chance)
    deep(os.path.join(top, "deep"))
    nodes(os.path.join(top, "nodes"))


class Reader:
    """All that is to be kept, by path."""

    def __init__(self, top):
        self.entries, self.first = {}, {}
        self.entry(os.open(top, DIRECTORY), b".", b"")

    def entry(self, above, name, path):
        found = os.stat(name, dir_fd=above, follow_symlinks=False)
        kind = stat.S_IFMT(found.st_mode)
        row = {
            "kind": kind,
            "mode": stat.S_IMODE(found.st_mode),
            "owner": (found.st_uid, found.st_gid),
            "mtime": found.st_mtime_ns,
            "device": found.st_rdev,
        }
        self.entries[path] = row
        if kind != stat.S_IFDIR:
            row["names"] = found.st_nlink
            row["first name"] = self.first.setdefault((found.st_dev, found.st_ino), path)
        if kind == stat.S_IFLNK:
            row["target"] = os.readlink(name, dir_fd=above)
        # An inode without opening it: links are not followed, devices not touched.
        inode = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=above)
        row["attributes"] = attributes_of(f"/proc/self/fd/{inode}")
        os.close(inode)
        if kind == stat.S_IFREG:
            file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NOATIME, dir_fd=above)
            row["flags"] = flags_of(file)
            row["contents"], row["layout"] = contents(file, found.st_size)
            # Where all of its room was asked for, no room is saved by a hole.
            if found.st_blocks * 512 >= found.st_size:
                row["layout"] = [(0, found.st_size)]
            os.close(file)
        elif kind == stat.S_IFDIR:
            directory = os.open(name, DIRECTORY, dir_fd=above)
            row["flags"] = flags_of(directory)
            for below in sorted(os.fsencode(each) for each in os.listdir(directory)):
                self.entry(directory, below, path + b"/" + below if path else below)
            os.close(directory)


def flags_of(descriptor):
    now = array.array("L", [0])
    try:
        fcntl.ioctl(descriptor, GETFLAGS, now)
    except OSError:
        return 0
    return now[0] & KEPT_FLAGS


def attributes_of(path):
    # XFS shows lists of rights a second time under a name of its own.
    names = [name for name in os.listxattr(path) if not name.startswith("trusted.SGI_ACL_")]
    return {name: os.getxattr(path, name) for name in sorted(names)}


def contents(file, size):
    """Length and a hash of all that is not zeros; and where the file says that it has data."""
    hashed, layout, at = hashlib.blake2b(b"%d" % size), [], 0
    while at < size:
        try:
            at = os.lseek(file, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                break
            raise
        end = os.lseek(file, at, os.SEEK_HOLE)
        layout.append((at, end))
        # Whole blocks, so that the same zeros are passed over wherever data begins.
        start = at - at % BLOCK
        while start < end:
            data = os.pread(file, min(1 << 20, end - start), start)
            for offset in range(0, len(data), BLOCK):
                block = data[offset : offset + BLOCK]
                if block.count(0) != len(block):
                    hashed.update(b"%d " % (start + offset))
                    hashed.update(block)
            start += len(data)
        at = end
    return hashed.hexdigest(), layout


def keeps_holes(found, wanted):
    """Whether there are as many holes as there were, but for what a file system takes in advance."""

    def length(layout):
        return sum(end - start for start, end in layout)

    inside = sum(max(0, min(end, last) - max(start, first)) for start, end in found for first, last in wanted)
    return length(found) - inside <= max(TAKEN_IN_ADVANCE, length(wanted))


def differences(one, other):
    """Pairs of path and what differs."""
    for path, row in one.items():
        found = other.get(path)
        if found is None:
            yield path, ["missing"]
            continue
        differs = [name for name in row if name != "layout" and row[name] != found.get(name)]
        if "layout" in row and not keeps_holes(found.get("layout", []), row["layout"]):
            differs.append("layout")
        if differs:
            yield path, differs
    for path in other.keys() - one.keys():
        yield path, ["was not there"]


def shown(path):
    """As messages write it."""
    text = path.decode("utf-8", "surrogateescape").replace("\\", "\\\\")
    return "".join(f"\\x{ord(each) - 0xDC00:02x}" if 0xDC80 <= ord(each) <= 0xDCFF else each for each in text)


def messages(path):
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith("{"):
                yield json.loads(line)


def compare(one, other, named=None, without=None):
    left, right = Reader(one).entries, Reader(other).entries
    if without:
        skipped = (without.encode(), without.encode() + b"/")
        left = {path: row for path, row in left.items() if path != skipped[0] and not path.startswith(skipped[1])}
        for row in left.values():
            row["attributes"] = {name: value for name, value in row["attributes"].items() if not name.startswith("trusted.")}
    found = dict(differences(left, right))
    # The top belongs to whoever made it.
    found.pop(b"", None)
    if named:
        found = unnamed(left, right, found, named)
    for path, differs in list(found.items())[:20]:
        was, now = left.get(path, {}), right.get(path, {})
        text = ", ".join(f"{name} {was.get(name)!r:.200} became {now.get(name)!r:.200}" for name in differs)
        print(f"{path[-300:]!r}: {text}", file=sys.stderr)
    if found:
        sys.exit(f"{len(found)} of {len(left)} entries differ")
    print(f"{len(left)} entries are the same" if not named else "all that differs is named")


def unnamed(left, right, found, named):
    """What differs and was not named, neither itself nor its file by another name nor a directory above; or may not
    differ at all."""
    told = list(messages(named))
    # A backup names whole paths, a restore those below its target.
    items = {message["item"].partition("/tree/")[2] or message["item"] for message in told if message["message_type"] == "error"}
    [summary] = [message for message in told if message["message_type"] == "summary"]
    print(f"{len(found)} entries differ; {summary['problems']} problems are counted, of {len(items)} paths")

    def is_named(path):
        parts = shown(path).split("/")
        return any("/".join(parts[:count]) in items for count in range(1, len(parts) + 1))

    def file_of(path):
        return left.get(path, {}).get("first name", path)

    # What lies below a directory that could not be read is one problem.
    read = {path.rpartition(b"/")[0] for path in right}
    seen = {path for path, differs in found.items() if differs != ["missing"] or path.rpartition(b"/")[0] in read}
    if summary["problems"] < len(set(map(file_of, seen))):
        sys.exit("fewer problems are counted than files differ")
    # Beyond a thousand, problems are counted and no longer named; which they are is not known then.
    if "more problems" in items:
        items = {shown(path) for path in left}
    files = {file_of(path) for path in left if is_named(path)}
    never = {"contents", "target", "layout", "was not there"}
    return {path: differs for path, differs in found.items() if set(differs) & never or file_of(path) not in files}


def main(arguments):
    sys.setrecursionlimit(10_000)
    match arguments:
        case ["make", top, count]:
            make(top, int(count))
        case ["compare", one, other]:
            compare(one, other)
        case ["compare", one, other, "--named", file, *without]:
            compare(one, other, file, *without)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
