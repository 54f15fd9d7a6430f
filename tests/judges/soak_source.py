"""What the soak backs up: a tree or an image that changes at random, and what must come back of it."""

import collections
import hashlib
import json
import os

import golden

MIB = 1 << 20
# What must come back: where it is restored, and where it is mounted.
Manifest = collections.namedtuple("Manifest", "restored mounted")


def as_mounted(rows):
    """There, each name is an inode of its own."""
    return [{**row, "first": None} for row in rows]


def digest(rows):
    """What is kept of a description: in an hour there are thousands, and what this process holds counts for its children."""
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).digest()


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

    def manifest(self):
        rows = self.describe_at(self.path)
        return Manifest(digest(rows), None if self.image else digest(as_mounted(rows)))

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
