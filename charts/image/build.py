#!/usr/bin/env python3
"""Builds a container image from programs that are there, without a registry, a daemon or root.

    build.py --name docker.io/carrack/carrack:dev --binary target/release/carrack --out carrack.tar

The image is an OCI layout in a tar file, which `ctr images import`, `docker load` and `skopeo copy oci-archive:` read. It
holds the programs in /usr/local/bin, the shared libraries and the loader that they name, certificate authorities, the names
of two users, and an empty /tmp: no shell, and nothing else. The same programs on the same system give the same bytes.

Programs are linked dynamically on purpose. With musl, allocation from many threads at once is slow; a static glibc looks
host names up only beside the very glibc that it was built with. Three libraries and a loader are what that costs.
"""

import argparse
import gzip
import hashlib
import io
import json
import os
import pathlib
import re
import struct
import subprocess
import sys
import tarfile

PROGRAMS = "usr/local/bin"
AUTHORITIES = "etc/ssl/certs/ca-certificates.crt"
USERS = "root:x:0:0:root:/:/sbin/nologin\ncarrack:x:65532:65532:carrack:/tmp:/sbin/nologin\n"
GROUPS = "root:x:0:\ncarrack:x:65532:\n"
# Without it, glibc asks the network before it looks into the hosts file.
NAMES = "passwd: files\ngroup: files\nhosts: files dns\n"
# Numbers of ELF, names of OCI.
MACHINES = {62: "amd64", 183: "arm64"}


class Refused(Exception):
    """What is wrong, for a person."""


def architecture(program):
    """The processor that a program is for."""
    with open(program, "rb") as file:
        head = file.read(20)
    if len(head) < 20 or head[:4] != b"\x7fELF":
        raise Refused(f"{program} is not a program for Linux: build one first, cargo build --release -p carrack-mover")
    machine = struct.unpack("<H", head[18:20])[0]
    if machine not in MACHINES:
        raise Refused(f"{program} is for processor {machine} of ELF, and only amd64 and arm64 are known")
    return MACHINES[machine]


def libraries(program):
    """Shared libraries and loader of a program, as it will look for them; none if it is static."""
    done = subprocess.run(["ldd", program], capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})
    if done.returncode != 0:
        if "not a dynamic executable" in done.stderr + done.stdout:
            return []
        raise Refused(f"ldd {program}: {done.stderr.strip() or done.stdout.strip()}")
    if "statically linked" in done.stdout:
        return []
    missing = re.findall(r"(\S+) => not found", done.stdout)
    if missing:
        raise Refused(f"{program} needs {', '.join(missing)}, which this system does not have: install it")
    return re.findall(r"(?:=> |^\s*)(/\S+) \(0x", done.stdout, flags=re.MULTILINE)


def contents(programs, authorities):
    """Every file of the image: path, mode and bytes."""
    files = {
        "etc/passwd": (0o644, USERS.encode()),
        "etc/group": (0o644, GROUPS.encode()),
        "etc/nsswitch.conf": (0o644, NAMES.encode()),
        AUTHORITIES: (0o644, pathlib.Path(authorities).read_bytes()),
    }
    for program in programs:
        files[f"{PROGRAMS}/{program.name}"] = (0o755, program.read_bytes())
        for library in libraries(program):
            files[library.lstrip("/")] = (0o755, pathlib.Path(library).read_bytes())
    return files


def directories(files):
    """Directories above files, and /tmp, with their modes."""
    above = {"tmp": 0o1777}
    for path in files:
        for parent in pathlib.PurePosixPath(path).parents:
            if str(parent) != ".":
                above.setdefault(str(parent), 0o755)
    return above


def pack(files, folders=None):
    """A tar file whose bytes say nothing of when, where or by whom it was made."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path in sorted({**files, **(folders or {})}):
            entry = tarfile.TarInfo(path)
            entry.mtime, entry.uname, entry.gname = 0, "", ""
            if path in files:
                entry.mode, body = files[path]
                entry.size = len(body)
                archive.addfile(entry, io.BytesIO(body))
            else:
                entry.type, entry.mode = tarfile.DIRTYPE, folders[path]
                archive.addfile(entry)
    return out.getvalue()


def digest(body):
    return "sha256:" + hashlib.sha256(body).hexdigest()


def build(name, programs, authorities, user, labels):
    """The whole image, as bytes."""
    machines = {architecture(program) for program in programs}
    if len(machines) != 1:
        raise Refused(f"the programs are for different processors: {', '.join(sorted(machines))}")
    files = contents(programs, authorities)
    layer = pack(files, directories(files))
    packed = gzip.compress(layer, compresslevel=6, mtime=0)
    config = {
        "architecture": machines.pop(),
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {
            "User": f"{user}:{user}",
            "Env": ["PATH=/usr/local/bin"],
            "Entrypoint": [f"/{PROGRAMS}/{programs[0].name}"],
            "WorkingDir": "/",
            "Labels": labels,
        },
        "rootfs": {"type": "layers", "diff_ids": [digest(layer)]},
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "charts/image/build.py"}],
    }
    blobs = {}

    def blob(body, media_type, **more):
        blobs[digest(body)] = body
        return {"mediaType": media_type, "digest": digest(body), "size": len(body), **more}

    def as_json(value):
        return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()

    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob(as_json(config), "application/vnd.oci.image.config.v1+json"),
        "layers": [blob(packed, "application/vnd.oci.image.layer.v1.tar+gzip")],
    }
    named = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name.rpartition(":")[2]}
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [blob(as_json(manifest), manifest["mediaType"], annotations=named)],
    }
    layout = {
        "oci-layout": as_json({"imageLayoutVersion": "1.0.0"}),
        "index.json": as_json(index),
        # What `docker load` of earlier versions looks for.
        "manifest.json": as_json([{
            "Config": path_of(manifest["config"]["digest"]),
            "RepoTags": [name],
            "Layers": [path_of(manifest["layers"][0]["digest"])],
        }]),
        **{path_of(key): body for key, body in blobs.items()},
    }
    return pack({path: (0o644, body) for path, body in layout.items()})


def path_of(key):
    """Where a blob lies in a layout."""
    return "blobs/" + key.replace(":", "/")


def arguments(words):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--name", required=True, metavar="REGISTRY/NAME:TAG")
    parser.add_argument("--binary", required=True, action="append", type=pathlib.Path, metavar="FILE",
                        help="a program (repeatable; the first one is what a container starts)")
    parser.add_argument("--out", required=True, type=pathlib.Path, metavar="FILE")
    parser.add_argument("--authorities", default=f"/{AUTHORITIES}", metavar="FILE",
                        help="PEM file with the certificate authorities to trust [%(default)s]")
    parser.add_argument("--user", default=65532, type=int, metavar="NUMBER", help="user and group [%(default)s]")
    parser.add_argument("--label", default=[], action="append", metavar="NAME=TEXT")
    return parser.parse_args(words)


def main(words):
    typed = arguments(words)
    labels = {
        "org.opencontainers.image.title": typed.binary[0].name,
        "org.opencontainers.image.licenses": "Apache-2.0",
        "org.opencontainers.image.source": "https://github.com/carrack-dev/carrack",
        **dict(label.partition("=")[::2] for label in typed.label),
    }
    if not re.fullmatch(r"[^\s:]+(:\d+)?/[^\s:]+:[^\s:/]+", typed.name):
        raise Refused(f"{typed.name!r} is not a full name: write it as docker.io/carrack/carrack:dev")
    image = build(typed.name, typed.binary, typed.authorities, typed.user, labels)
    typed.out.write_bytes(image)
    print(f"{typed.out}: {typed.name}, {len(image)} bytes, {digest(image)}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (Refused, OSError) as error:
        sys.exit(f"build.py: {error}")
