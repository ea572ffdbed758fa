"""Cloud storage for tests: in memory, and an emulator of Google Cloud Storage in a process of its own."""

import json
import os
import pathlib
import subprocess
import sys
import urllib.parse
import urllib.request

import commands
from fsspec.implementations.memory import MemoryFileSystem

BUCKET = "bucket"


class InMemory(MemoryFileSystem):
    """A file system of fsspec that stands for gs:// and s3://, without a network."""

    store, pseudo_dirs = {}, [""]
    protocol = ("gs", "gcs", "s3")

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(os.fspath(path).removeprefix("gs://").removeprefix("s3://"))


def upload(folder: pathlib.Path, to) -> None:
    """Copy the files of a local folder."""
    for path in folder.rglob("*"):
        if path.is_file():
            (to / str(path.relative_to(folder))).write_bytes(path.read_bytes())


class Emulator:
    """gcp-storage-emulator with one bucket, in a process of its own; a context manager.

    Attributes:
      environment: variables with which gcsfs, google-cloud-storage and Orbax use it.
    """

    def __init__(self):
        self._port = commands.free_port()
        self._url = f"http://127.0.0.1:{self._port}"
        self.environment = {
            "STORAGE_EMULATOR_HOST": self._url,  # gcsfs and google-cloud-storage
            "TENSORSTORE_GCS_HTTP_URL": self._url,  # Orbax's driver
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none",  # no search for credentials on the network
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # would ask the real service, by gRPC
        }

    def __enter__(self):
        program = pathlib.Path(__file__).parent / "storage_emulator.py"
        command = [sys.executable, str(program), str(self._port), BUCKET]
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(command, stdout=quiet, stderr=quiet)
        commands.wait_until(lambda: self._request("GET", "") is not None, self._process)
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()

    def _request(self, method, path):
        request = urllib.request.Request(f"{self._url}/storage/v1/b/{BUCKET}{path}", method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return response.read()
        except OSError:  # not there, or not yet
            return None

    def read(self, name):
        """Content of an object; None if there is none."""
        return self._request("GET", f"/o/{urllib.parse.quote(name, safe='')}?alt=media")

    def delete(self, name):
        assert self._request("DELETE", f"/o/{urllib.parse.quote(name, safe='')}") is not None

    def names(self):
        """Names of all objects."""
        return [item["name"] for item in json.loads(self._request("GET", "/o"))["items"]]
