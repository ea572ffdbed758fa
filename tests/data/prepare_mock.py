"""Program of test_prepare_archives.py, for the environment with TensorFlow: prepare.py without checksums.

Arguments: path of prepare.py, and the arguments of its command line. The archives of --manual_dir are
accepted as they are; everything else is TFDS's own preparation.
"""

import dataclasses
import hashlib
import importlib.util
import pathlib
import sys

from tensorflow_datasets.core.download import checksums


def accept(directory):
    """Replace the sizes and checksums that TFDS expects by those of the files of a directory."""
    known = checksums.load_url_infos

    def load_url_infos(path):
        found = dict(known(path))
        for url, info in found.items():
            if info.filename and (archive := directory / info.filename).exists():
                content = archive.read_bytes()
                digest = hashlib.sha256(content).hexdigest()
                found[url] = dataclasses.replace(info, size=len(content), checksum=digest)
        return found

    checksums.load_url_infos = load_url_infos


if __name__ == "__main__":
    path, *arguments = sys.argv[1:]
    (directory,) = (a.partition("=")[2] for a in arguments if a.startswith("--manual_dir="))
    accept(pathlib.Path(directory))
    spec = importlib.util.spec_from_file_location("prepare", path)
    prepare = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(prepare)
    sys.exit(prepare.main(arguments))
