"""Measure one GPU: convolutions, training steps, an epoch, several students; the same in PyTorch.

    make gpu                                      at most 9 minutes; run it again to complete the table
    python -m benchmarks.gpu --minutes=30         needs only jax, flax, optax, chex and NumPy

Writes <device>.json, .md and .png to --out. A row that fails is noted in the table. A run that is
interrupted, or out of time, is continued by the same command.
"""

import datetime
import os
import pathlib
import platform
from typing import Any

from absl import flags

from benchmarks import command

_OUT = flags.DEFINE_string("out", "results/gpu", "Folder of the results.")
_MINUTES = flags.DEFINE_float("minutes", 8.0, "No row begins after this time.", lower_bound=0)
_TINY = flags.DEFINE_bool("tiny", False, "Toy sizes, to test the program on any device.")


def main() -> None:
    """Measure the rows that the record lacks, and write the table."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch needs memory, too
    from benchmarks.gpu import plan, record, report

    results = record.Record(pathlib.Path(_OUT.value), _conditions())
    rows = plan.rows(plan.TINY if _TINY.value else plan.FULL)
    print(f"{len(rows)} rows; results in {results.path}", flush=True)
    try:
        left = record.run(results, rows, 60 * _MINUTES.value)
    except KeyboardInterrupt:
        left = [row for row in rows if not results.has(row)]
        print("\nInterrupted: run the same command to continue.")
    print(f"Table: {report.write(results, [f'{row.section}: {row.name}' for row in left])}")


def _conditions() -> dict[str, Any]:
    import flax
    import jax
    import jaxlib
    import optax

    from benchmarks.gpu import timing

    versions = {
        "python": platform.python_version(),
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "flax": flax.__version__,
        "optax": optax.__version__,
    }
    if timing.has_torch():
        import torch

        versions["torch"] = torch.__version__
    return {
        "device": jax.devices()[0].device_kind,
        "versions": versions,
        "date": datetime.date.today().isoformat(),
    }


if __name__ == "__main__":
    command.run(main)
