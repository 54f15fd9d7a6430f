#!/usr/bin/env python3
"""The image builder: what it writes is an image that can be run, and the same bytes each time.

Needs the program (`cargo build -p carrack-mover`, or CARRACK=FILE), and root for running it in the image.
"""

import contextlib
import gzip
import hashlib
import io
import json
import os
import pathlib
import shutil
import subprocess
import tarfile
import tempfile
import unittest

import build

HERE = pathlib.Path(__file__).resolve().parent
BUILT = pathlib.Path(os.environ.get("CARRACK", HERE / "../../target/debug/carrack")).resolve()
# The same without what debuggers read: most of a development build, which takes long to compress.
BARE = tempfile.TemporaryDirectory()
PROGRAM = pathlib.Path(BARE.name, "carrack")
NAME = "docker.io/carrack/carrack:dev"


class Image(unittest.TestCase):
    """Everything that the builder promises."""

    @classmethod
    def setUpClass(cls):
        subprocess.run(["strip", "--strip-debug", "-o", PROGRAM, BUILT], check=True)
        cls.addClassCleanup(BARE.cleanup)

    def setUp(self):
        self.place = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

    def build(self, *more, binary=PROGRAM, name=NAME):
        out = self.place / "image.tar"
        with contextlib.redirect_stdout(io.StringIO()):
            build.main(["--name", name, "--binary", str(binary), "--out", str(out), *more])
        return out.read_bytes()

    def read(self, image):
        with tarfile.open(fileobj=io.BytesIO(image)) as archive:
            return {entry.name: archive.extractfile(entry).read() for entry in archive}

    def parts(self, image):
        """Manifest, configuration and unpacked layer, each compared with what names it."""
        files = self.read(image)

        def blob(descriptor):
            body = files.pop(build.path_of(descriptor["digest"]))
            self.assertEqual(len(body), descriptor["size"])
            self.assertEqual("sha256:" + hashlib.sha256(body).hexdigest(), descriptor["digest"])
            return body

        self.assertEqual(json.loads(files.pop("oci-layout")), {"imageLayoutVersion": "1.0.0"})
        index = json.loads(files.pop("index.json"))
        self.assertEqual(index["mediaType"], "application/vnd.oci.image.index.v1+json")
        [described] = index["manifests"]
        self.assertEqual(described["annotations"]["io.containerd.image.name"], NAME)
        manifest = json.loads(blob(described))
        self.assertEqual(described["mediaType"], manifest["mediaType"])
        self.assertEqual(manifest["mediaType"], "application/vnd.oci.image.manifest.v1+json")
        self.assertEqual(manifest["config"]["mediaType"], "application/vnd.oci.image.config.v1+json")
        [layer] = manifest["layers"]
        self.assertEqual(layer["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip")
        config = json.loads(blob(manifest["config"]))
        plain = gzip.decompress(blob(layer))
        self.assertEqual(config["rootfs"]["diff_ids"], ["sha256:" + hashlib.sha256(plain).hexdigest()])
        [docker] = json.loads(files.pop("manifest.json"))
        self.assertEqual(docker["RepoTags"], [NAME])
        self.assertEqual(docker["Layers"], [build.path_of(layer["digest"])])
        self.assertEqual(files, {}, "nothing is there that nothing names")
        return manifest, config, plain

    def test_the_layout_is_valid(self):
        _, config, plain = self.parts(self.build("--label", "a=b=c"))
        settings = config["config"]
        self.assertEqual(settings["User"], "65532:65532")
        self.assertEqual(settings["Entrypoint"], ["/usr/local/bin/carrack"])
        self.assertEqual(settings["Labels"]["a"], "b=c")
        self.assertEqual((config["os"], config["architecture"]), ("linux", build.architecture(PROGRAM)))
        with tarfile.open(fileobj=io.BytesIO(plain)) as layer:
            entries = layer.getmembers()
            names = [entry.name for entry in entries]
            self.assertEqual(names, sorted(names))
            for entry in entries:
                self.assertEqual((entry.mtime, entry.uid, entry.gid), (0, 0, 0), entry.name)
            modes = {entry.name: entry.mode for entry in entries}
            self.assertEqual(modes["usr/local/bin/carrack"], 0o755)
            self.assertEqual((modes["tmp"], modes["etc"]), (0o1777, 0o755))
            # Every directory comes before what is in it.
            for entry in entries:
                parent = str(pathlib.PurePosixPath(entry.name).parent)
                self.assertTrue(parent == "." or parent in modes, entry.name)
            self.assertIn(b"BEGIN CERTIFICATE", layer.extractfile(build.AUTHORITIES).read())

    def test_two_builds_are_the_same_bytes(self):
        first = self.build()
        copy = self.place / "elsewhere" / "carrack"
        copy.parent.mkdir()
        shutil.copy(PROGRAM, copy)
        os.utime(copy, (1, 1))
        copy.chmod(0o700)
        before = os.umask(0o077)
        self.addCleanup(os.umask, before)
        self.assertTrue(first == self.build(binary=copy), "the images differ")

    def test_several_programs_share_their_libraries(self):
        second = self.place / "carrack-controller"
        shutil.copy(PROGRAM, second)
        _, config, plain = self.parts(self.build("--binary", str(second), "--user", "7"))
        self.assertEqual(config["config"]["Entrypoint"], ["/usr/local/bin/carrack"])
        self.assertEqual(config["config"]["User"], "7:7")
        with tarfile.open(fileobj=io.BytesIO(plain)) as layer:
            names = layer.getnames()
        self.assertEqual(len(names), len(set(names)))
        self.assertIn("usr/local/bin/carrack-controller", names)

    @unittest.skipUnless(os.getuid() == 0, "chroot needs root")
    def test_the_program_runs_with_nothing_but_the_image(self):
        _, _, plain = self.parts(self.build())
        root = self.place / "root"
        with tarfile.open(fileobj=io.BytesIO(plain)) as layer:
            layer.extractall(root, filter="fully_trusted")
        self.place.chmod(0o755)

        def run(*words, code=0):
            done = subprocess.run(
                [shutil.which("chroot"), "--userspec=65532:65532", root, "/usr/local/bin/carrack", *words],
                capture_output=True, text=True, env={"CARRACK_PASSWORD": "correct"})
            self.assertEqual(done.returncode, code, done.stdout + done.stderr)
            return done.stdout

        self.assertTrue(run("--version").startswith("carrack "))
        run("-r", "/tmp/repository", "init")
        run("-r", "/tmp/repository", "backup", "--host", "pod", "/etc")
        snapshot = run("-r", "/tmp/repository", "snapshots", "--json").splitlines()[0]
        self.assertEqual(json.loads(snapshot)["username"], "carrack")
        run("-r", "/tmp/repository", "restore", "latest:/etc", "--target", "/tmp/back", "--verify", code=3)
        for name in ["passwd", "ssl/certs/ca-certificates.crt"]:
            self.assertEqual((root / "tmp/back" / name).read_bytes(), (root / "etc" / name).read_bytes())

    def test_what_is_wrong_is_told(self):
        text = self.place / "text"
        text.write_text("#!/bin/sh\n")
        with self.assertRaisesRegex(build.Refused, "not a program"):
            self.build(binary=text)
        with self.assertRaisesRegex(build.Refused, "full name"):
            self.build(name="carrack")
        with self.assertRaises(FileNotFoundError):
            self.build(binary=self.place / "absent")
        other = self.place / "other"
        head = bytearray(PROGRAM.read_bytes()[:64])
        head[18:20] = (183 if build.architecture(PROGRAM) == "amd64" else 62).to_bytes(2, "little")
        other.write_bytes(head)
        with self.assertRaisesRegex(build.Refused, "different processors"):
            self.build("--binary", str(other))


if __name__ == "__main__":
    unittest.main()
