"""What making a golden repository and judging a later program by it have in common.

Nothing here knows the format: trees are described by what the operating system says of them.
"""

import hashlib
import json
import os
import pathlib
import random
import stat
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "reader"))
sys.dont_write_bytecode = True

PASSWORD = "golden"
# Where the sources lay, which is part of what names them.
SOURCES = pathlib.Path("/tmp/carrack-golden")
# Bytes of the image, most of them zeros; each block of the grid is different, so its list of chunks has pages.
IMAGE_BYTES, IMAGE_BLOCK = 96 << 20, 64 << 10
MAGIC = b"CRKR"
# Kinds of objects that the format knows: of records by number, and what has none, or one for two.
KINDS = set(range(1, 15)) | {"pack", "attempt", "joined"}
# What golden repositories are, file by file, as `sha256sum` writes it: each is written down when it is made, and never again.
SUMS = HERE / "SHA256SUMS"


def run(program, repository, *words, codes=(0,), secret=None, **options):
    """Runs the program on a repository; gives its messages."""
    environment = {"PATH": os.environ["PATH"], "CARRACK_REPOSITORY": str(repository), "CARRACK_HOST": "golden"}
    environment |= {"CARRACK_PASSWORD": PASSWORD} if secret is None else secret
    command = [str(program), *map(str, words)]
    options = {"stdin": subprocess.DEVNULL} | options
    done = subprocess.run(command, env=environment, capture_output=True, check=False, **options)
    if done.returncode not in codes:
        said = (done.stdout + done.stderr).decode(errors="replace")
        raise AssertionError(f"exit code {done.returncode} of {' '.join(command)}:\n{said}")
    lines = (done.stdout + done.stderr).decode(errors="replace").splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def summary(messages):
    return [message for message in messages if message["message_type"] == "summary"][-1]


def objects(repository):
    """Name and kind of every object; packs have no kind, their attempts are told apart, and joined segments from others."""
    for path in sorted(repository.rglob("*")):
        name = str(path.relative_to(repository))
        # What a killed writer left there is no object; it is swept after a day.
        if path.is_file() and not name.startswith("tmp/"):
            head = path.read_bytes()[:6]
            kind = head[5] if head[:4] == MAGIC else "attempt" if "." in path.name else "pack"
            kind = "joined" if name.endswith(".joined") else kind
            yield name, kind


def refuse(error):
    raise error


def describe(top):
    """Every entry below `top`, with all that must come back."""
    top = os.fsencode(top)
    paths = [b""]
    for folder, folders, files in os.walk(top, onerror=refuse) if os.path.isdir(top) else ():
        paths += [os.path.relpath(os.path.join(folder, name), top) for name in folders + files]
    first, rows = {}, []
    for path in sorted(paths):
        full = os.path.join(top, path) if path else top
        found = os.lstat(full)
        row = {"path": path.decode("utf-8", "backslashreplace"), "mode": oct(found.st_mode), "mtime": found.st_mtime_ns}
        row |= {"uid": found.st_uid, "gid": found.st_gid}
        if stat.S_ISREG(found.st_mode):
            with open(full, "rb") as file:
                row |= {"size": found.st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
        if stat.S_ISLNK(found.st_mode):
            row["target"] = os.fsdecode(os.readlink(full))
        if not stat.S_ISDIR(found.st_mode):
            row["first"] = first.setdefault((found.st_dev, found.st_ino), row["path"])
        if attributes := os.listxattr(full, follow_symlinks=False):
            row["xattrs"] = {name: os.getxattr(full, name, follow_symlinks=False).hex() for name in sorted(attributes)}
        rows.append(row)
    return rows


def write_manifest(path, rows):
    path.write_text("".join(json.dumps(row, sort_keys=True) + "\n" for row in rows))


def read_manifest(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def sums():
    """Of every file of every golden repository, by its path."""
    paths = [path for folder in HERE.glob("v*") if folder.is_dir() for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(HERE)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(paths)}


def read_sums():
    rows = (line.split("  ", 1) for line in SUMS.read_text().splitlines())
    return {path: digest for digest, path in rows}


def write_sums(name):
    """Adds those of a new one."""
    with open(SUMS, "a", encoding="utf-8") as file:
        file.writelines(f"{digest}  {path}\n" for path, digest in sums().items() if path.startswith(f"{name}/"))


def noise(seed, length):
    return random.Random(seed).randbytes(length)


def age(top):
    """Times of long ago: what was written just now would be read again, and the manifest has them."""
    for folder, folders, files in os.walk(top, topdown=False):
        for name in [*folders, *files, "."]:
            os.utime(os.path.join(folder, name), ns=(10**18, 10**18 + 7), follow_symlinks=False)


def make_files():
    """Something of every kind."""
    # What it imports is in the reader's environment only.
    from test_reader import make_tree

    top = SOURCES / "files"
    make_tree(top)
    os.setxattr(top / "small", "user.golden", b"kept")
    os.setxattr(top / "small", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
    os.mknod(top / "null", stat.S_IFCHR | 0o640, os.makedev(1, 3))
    return top


def make_many():
    """Enough entries for a tree of several levels."""
    top = SOURCES / "many"
    for number in range(3_000):
        folder = top / f"{number % 7}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"entry {number}").write_bytes(b"%d" % number)
    age(top)
    return top


def make_churn(kept=None):
    """Files that do not compress; of the 40, those that `kept` says."""
    top = SOURCES / "churn"
    top.mkdir(exist_ok=True)
    for number in range(40):
        path = top / f"{number}"
        if kept is None or kept(number):
            path.write_bytes(noise(number, 12_000))
        else:
            path.unlink(missing_ok=True)
    age(top)
    return top


def make_small(number):
    """One file, other each time, and just long enough that an index names it."""
    top = SOURCES / "small"
    top.mkdir(exist_ok=True)
    (top / "file").write_bytes(noise(2000 + number, 5_000))
    age(top)
    return top


def make_slow():
    """Files of a backup that is stopped in the middle."""
    top = SOURCES / "slow"
    top.mkdir(parents=True, exist_ok=True)
    for number in range(60):
        (top / f"{number:03}").write_bytes(noise(1000 + number, 12_000))
    age(top)
    return top


def make_image(state):
    """An image in its first (0) or second (1) state; gives the path and the list of what is new in the second."""
    path = SOURCES / "image"
    with open(path, "wb") as file:
        for block in range(0, IMAGE_BYTES // IMAGE_BLOCK, 2):
            file.seek(block * IMAGE_BLOCK)
            file.write(b"block %7d\n" % block * 4000)
        file.truncate(IMAGE_BYTES)
        if state:
            file.seek(10 << 20)
            file.write(noise(77, 30_000))
    os.utime(path, ns=(10**18, 10**18 + state))
    return path, f"{10 << 20} 30000\n"


def stream(state):
    return b"".join(b"row %d of the dump\n" % (number * (state + 1)) for number in range(20_000))
