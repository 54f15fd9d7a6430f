"""The service that the soak works on, which is killed now and then."""

import os
import pathlib
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
CACHE = pathlib.Path(os.environ.get("CARRACK_CACHE", ROOT / ".cache"))


class Server:
    """MinIO on a port of its own."""

    def __init__(self, work):
        self.work = work / "minio"
        (self.work / "data/bucket").mkdir(parents=True)
        # Kept, so that nobody else is given the port, also while the server is away. MinIO shares it.
        self.held = socket.socket()
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            self.held.setsockopt(socket.SOL_SOCKET, option, 1)
        self.held.bind(("127.0.0.1", 0))
        self.port = self.held.getsockname()[1]
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
        raise TimeoutError("MinIO does not start")

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
