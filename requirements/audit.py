"""Checks the exact versions in constraints-*.txt against a database of advisories. `make audit` runs it.

Exit code 0: every version was looked up, and has no known advisory. 1: some have. 3: nothing was checked,
because the database cannot be reached or does not answer as it should. Needs only the standard library.

A database that knows nothing answers as one that knows no advisory. The request therefore includes a
version with known advisories; without them in the answer, the rest of it counts for nothing.
"""

import argparse
import json
import pathlib
import re
import sys
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from typing import Any

# The batch query of OSV, and the same of a mirror.
_DATABASE = "https://api.osv.dev/v1/querybatch"
_KNOWN_BAD = ("jinja2", "2.4.1")
_QUERIES_PER_REQUEST = 500
_SECONDS = 30
NONE, FOUND, NOT_CHECKED = 0, 1, 3

Pin = tuple[str, str]
Ask = Callable[[dict[str, Any]], Any]


class NotCheckedError(Exception):
    """The database gave no answer that can be relied on."""


def pins(paths: Iterable[pathlib.Path]) -> list[Pin]:
    """Names and versions in constraints files, each once.

    Raises:
      NotCheckedError: for a line that is no ``name==version``, or if there is none.
    """
    found: set[Pin] = set()
    for path in paths:
        for line in path.read_text().splitlines():
            text = line.partition("#")[0].strip()
            name, equal, version = text.partition("==")
            if equal and name and version:
                found.add((re.sub(r"[-_.]+", "-", name).lower(), version))
            elif text:
                raise NotCheckedError(f"{path}: expected name==version, got {text!r}")
    if not found:
        raise NotCheckedError("no version is pinned in the files")
    return sorted(found)


def advisories(pinned: Sequence[Pin], ask: Ask) -> dict[Pin, list[str]]:
    """Advisories of each version that has any.

    Args:
      pinned: names and versions.
      ask: sends a request, and returns the answer of the database.

    Raises:
      NotCheckedError: if an answer is missing, or the database does not know an old advisory.
    """
    found: dict[Pin, list[str]] = {}
    for start in range(0, len(pinned), _QUERIES_PER_REQUEST):
        part = [_KNOWN_BAD, *pinned[start : start + _QUERIES_PER_REQUEST]]
        queries = [
            {"package": {"name": name, "ecosystem": "PyPI"}, "version": version}
            for name, version in part
        ]
        answer = ask({"queries": queries})
        results = answer.get("results") if isinstance(answer, dict) else None
        if not isinstance(results, list) or len(results) != len(part):
            raise NotCheckedError("the answer does not have one result for each version")
        known, *others = [_names(result) for result in results]
        if not known:
            raise NotCheckedError(
                f"the database knows no advisory of {'=='.join(_KNOWN_BAD)}, which has some"
            )
        found |= {pin: names for pin, names in zip(part[1:], others, strict=True) if names}
    return found


def _names(result: Any) -> list[str]:
    try:
        return [entry["id"] for entry in (result or {}).get("vulns", [])]
    except (AttributeError, KeyError, TypeError) as error:
        raise NotCheckedError(f"a result cannot be read: {str(result)[:80]}") from error


def _ask(database: str) -> Ask:
    def ask(request: dict[str, Any]) -> Any:
        data, headers = json.dumps(request).encode(), {"Content-Type": "application/json"}
        try:
            message = urllib.request.Request(database, data, headers)
            with urllib.request.urlopen(message, timeout=_SECONDS) as answer:
                return json.load(answer)
        except (OSError, ValueError) as error:
            raise NotCheckedError(f"{database}: {error}") from error

    return ask


def main(argv: Sequence[str] | None = None, ask: Ask | None = None) -> int:
    """Print what was found, and what was not checked; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "files", nargs="*", type=pathlib.Path, help="default: all constraints-*.txt"
    )
    parser.add_argument(
        "--database", default=_DATABASE, help="URL of OSV's batch query, or a mirror"
    )
    options = parser.parse_args(argv)
    files = options.files or sorted(pathlib.Path(__file__).parent.glob("constraints-*.txt"))
    try:
        pinned = pins(files)
        found = advisories(pinned, ask or _ask(options.database))
    except (NotCheckedError, OSError) as error:
        print(f"NOT CHECKED: no version was compared with an advisory ({error})", file=sys.stderr)
        return NOT_CHECKED
    for (name, version), names in found.items():
        print(f"{name} {version}: {', '.join(names)}")
    print(f"{len(pinned)} versions checked, {len(found)} with advisories ({options.database})")
    return FOUND if found else NONE


if __name__ == "__main__":
    sys.exit(main())
