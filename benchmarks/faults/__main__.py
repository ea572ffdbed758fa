"""Inject faults, and write a table of what failed.

    python -m benchmarks.faults --kills 30 --damages 341 --configs 475
    python -m benchmarks.faults --damages 20 --seed 1

--kills       SIGKILL of a run, and the same command again
--damages     damage to one file of a finished run
--configs     configurations drawn at random
--images      hostile image files
--numbers     arrays of extreme scale, against float64 NumPy
Each takes the number of cases; --seed draws others. The table is OUT/faults.md. Exit code 1 if a case
failed.
"""

import datetime
import importlib
import pathlib
import platform
import sys
import tempfile
import time

from absl import flags

from at_jax.errors import UserError
from benchmarks import command
from benchmarks.faults.row import Row

_MODULES = {
    "kills": "kills",
    "damages": "damages",
    "configs": "configurations",
    "images": "images",
    "numbers": "numbers",
}
_COUNTS = {
    name: flags.DEFINE_integer(name, 0, f"Number of cases of {module}.", lower_bound=0)
    for name, module in _MODULES.items()
}
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the cases.")
_OUT = flags.DEFINE_string("out", "results/faults", "Folder of the table.")


def main() -> None:
    """Run the kinds that have a count, and write the table."""
    wanted = {name: flag.value for name, flag in _COUNTS.items() if flag.value}
    if not wanted:
        raise UserError(
            "name at least one kind of fault, got none: for example --kills 3 --damages 20"
        )
    timed = []
    for name, count in wanted.items():
        began = time.monotonic()
        module = importlib.import_module(f"benchmarks.faults.{_MODULES[name]}")
        with tempfile.TemporaryDirectory(prefix="at_jax-faults-") as folder:
            row = module.run(count, pathlib.Path(folder), _SEED.value)
        timed.append((row, time.monotonic() - began))
        print(f"{row.check}: {len(row.failures)} of {row.tried} failed", flush=True)
    path = pathlib.Path(_OUT.value) / "faults.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(table(timed))
    print(f"Table: {path}")
    if any(row.failures for row, _ in timed):
        sys.exit(1)


def table(timed: list[tuple[Row, float]]) -> str:
    """Markdown of the rows, with the seconds that each took."""
    lines = ["# Injected faults", "", _conditions(), ""]
    lines += ["| check | tried | failed | seconds |", "|---|---:|---:|---:|"]
    lines += [
        f"| {row.check} | {row.tried} | {len(row.failures)} | {seconds:.0f} |"
        for row, seconds in timed
    ]
    failed = [failure for row, _ in timed for failure in row.failures]
    if failed:
        lines += ["", "Failed:", "", *(f"- {' '.join(failure.split())}" for failure in failed)]
    return "\n".join(lines) + "\n"


def _conditions() -> str:
    import jax

    from at_jax.training.files import provenance

    versions = ", ".join(f"{name} {version}" for name, version in provenance.versions().items())
    device = jax.devices()[0].device_kind
    commit = provenance.commit() or "unknown"
    return (
        f"{device}, {platform.system()} {platform.machine()}; {versions}; commit {commit}; "
        f"{datetime.date.today().isoformat()}; seed {_SEED.value}."
    )


if __name__ == "__main__":
    command.run(main)
