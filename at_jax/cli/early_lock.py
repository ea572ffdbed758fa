"""Lock on the workdir of ``at-jax train``, taken before jax is imported."""

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator

from at_jax.cli import config_flag
from at_jax.errors import UserError
from at_jax.training.files import workdir_lock

__all__ = ["held", "workdir_of"]

# Commands that train nothing.
_READS = re.compile(r"--?(evaluate(?!=(false|f|0)$)|help|helpfull|helpshort|h$)", re.IGNORECASE)
# Process 0 takes the lock for all processes of a run, and only once they are connected.
_SEVERAL = re.compile(r"--?(coordinator|process|processes(?!=1$))\b")
_CLUSTER = (
    "JAX_COORDINATOR_ADDRESS", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NODELIST", "TPU_PROCESS_ADDRESSES",
    "TPU_WORKER_HOSTNAMES",
)  # fmt: skip


@contextlib.contextmanager
def held(argv: list[str], default: Callable[[list[str]], str]) -> Iterator[None]:
    """Hold the lock of the workdir that a command line names, if it trains there in one process.

    If a run is alive in it, print who holds the lock and end the process with exit code 2.

    Args:
      argv: of ``at-jax train``.
      default: from the arguments, ``--config`` first, to the workdir of a command that names none.
    """
    with contextlib.ExitStack() as stack:
        try:
            if workdir := workdir_of(argv, default):
                stack.enter_context(workdir_lock.hold(workdir))
        except workdir_lock.InUse as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)
        except UserError:
            pass  # of the arguments: reported where they are used
        yield


def workdir_of(argv: list[str], default: Callable[[list[str]], str]) -> str:
    """Workdir of a command line that trains in one process; empty for any other.

    >>> workdir_of(["at-jax train", "--workdir=a", "--workdir", "b"], lambda argv: "c")
    'b'
    >>> workdir_of(["at-jax train", "--workdir=a", "--evaluate"], lambda argv: "c")
    ''
    """
    arguments = argv[1:]
    several = any(_SEVERAL.match(a) for a in arguments) or any(
        name in os.environ for name in _CLUSTER
    )
    if several or any(_READS.match(a) for a in arguments):
        return ""
    found = ""
    for flag, following in zip(arguments, [*arguments[1:], ""], strict=False):
        if match := re.fullmatch(r"--?workdir(=(.*))?", flag, re.DOTALL):
            found = following if match[1] is None else match[2]
    return found or default(config_flag.with_config_first(argv))
