"""Writes constraints-X.Y.txt: the exact versions that are installed. `make constraints` runs it.

Started by the Python of a fresh environment that has all requirements; the file is for its version.
"""

import pathlib
import re
import subprocess
import sys

_HEADER = """\
# Exact versions of the tested set, for Python {version}: every package of requirements/ but prepare.txt.
# Written by `make constraints`; the Makefile installs with it. By hand: pip install -c {name} -r ...
"""
_PIN = re.compile(r"[A-Za-z0-9][\w.-]*==[\w.!+-]+")


def constraints(frozen: str, version: str, name: str) -> str:
    """Content of the file from the output of ``pip freeze``.

    Raises:
      ValueError: if a package is not pinned to a version, such as one installed from a folder.
    """
    lines = [line for line in frozen.splitlines() if line]
    others = [line for line in lines if not _PIN.fullmatch(line)]
    if others or not lines:
        raise ValueError(f"expected lines of name==version, got {others[:5]}")
    return _HEADER.format(version=version, name=name) + "".join(f"{line}\n" for line in lines)


def main() -> None:
    """Write the file of the running Python."""
    version = "{}.{}".format(*sys.version_info)
    path = pathlib.Path(__file__).with_name(f"constraints-{version}.txt")
    command = [sys.executable, "-m", "pip", "freeze", "--exclude-editable"]
    frozen = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    path.write_text(constraints(frozen, version, f"requirements/{path.name}"))
    print(path)


if __name__ == "__main__":
    main()
