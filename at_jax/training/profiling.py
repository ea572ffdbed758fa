"""Profiler trace of a few training steps."""

import pathlib
from typing import Any

import jax

from at_jax import paths
from at_jax.distributed import processes
from at_jax.errors import UserError
from at_jax.training.console import log

__all__ = ["Profiler", "check_can_trace"]

# Skip compilation and warm-up; keep the trace small enough to read.
_SKIPPED_STEPS, _TRACED_STEPS = 10, 10


def check_can_trace(workdir: pathlib.Path, wanted: bool) -> None:
    """Raise if a trace is wanted in cloud storage: JAX's profiler writes to local directories only.

    Raises:
      UserError: naming the workdir.
    """
    if wanted and paths.scheme(workdir):
        raise UserError(
            f"--profile: JAX writes traces to local directories only, got {workdir}: leave --profile out, "
            "or choose a local --workdir"
        )


class Profiler:
    """Traces ten steps, or three dispatches if those are more, after the first ten steps of a start.

    Args:
      folder: output directory of the trace, which process 0 writes.
      wanted: False makes every method do nothing.
    """

    def __init__(self, folder: pathlib.Path, *, wanted: bool):
        self._folder, self._wanted = folder, wanted and processes.is_primary()
        self._first: int | None = None
        self._until: int | None = None

    def before(self, step: int, steps: int, train_state: Any) -> None:
        """Start or stop the trace if it is due; call this before every dispatch.

        Args:
          step: steps done so far.
          steps: steps in the next dispatch.
          train_state: waited for before the trace starts or stops, so that it contains exactly the
            traced steps.
        """
        if self._first is None:
            self._first = step + _SKIPPED_STEPS
        if self._wanted and step >= self._first:
            jax.block_until_ready(train_state)
            self._wanted, self._until = False, step + max(_TRACED_STEPS, 3 * steps)
            options = jax.profiler.ProfileOptions()
            # Python frames would hide the device's events, and tracing them while threads write
            # checkpoints has crashed the process.
            options.python_tracer_level = 0
            jax.profiler.start_trace(str(self._folder), profiler_options=options)
        elif self._until is not None and step >= self._until:
            jax.block_until_ready(train_state)
            self.close()

    def close(self) -> None:
        """Stop a running trace and print its path, or print why there is no trace."""
        if self._until is not None:
            self._until = None
            jax.profiler.stop_trace()
            log(
                f"Profiler trace written to {self._folder}. To open it: pip install xprof tensorboard, "
                f"then tensorboard --logdir {self._folder}"
            )
        elif self._wanted:
            self._wanted = False
            why = f"the run ended within its first {_SKIPPED_STEPS} steps"
            if self._first is None:
                why = "nothing was trained"
            log(f"No profiler trace: {why}")
