"""A profiler trace of some steps of a run."""

import pathlib
from typing import Any

import jax

from at_jax import processes
from at_jax.report import say

# Late enough to be compiled and warm, few enough to be read.
_FIRST, _STEPS = 10, 10


class Profiler:
    """Traces ten steps or three dispatches after the first ten of a start, for TensorBoard or Perfetto.

    Args:
      folder: where the trace goes, that of process 0.
      wanted: whether there is to be one at all.
    """

    def __init__(self, folder: pathlib.Path, *, wanted: bool):
        self._folder, self._wanted = folder, wanted and processes.is_primary()
        self._first: int | None = None
        self._until: int | None = None

    def before(self, step: int, steps: int, train_state: Any) -> None:
        """To be called before every dispatch.

        Args:
          step: steps done.
          steps: in the dispatch to come.
          train_state: waited for where a trace begins or ends, so that it holds what it is about.
        """
        if self._first is None:
            self._first = step + _FIRST
        if self._wanted and step >= self._first:
            jax.block_until_ready(train_state)
            self._wanted, self._until = False, step + max(_STEPS, 3 * steps)
            options = jax.profiler.ProfileOptions()
            # Without Python's own frames: they drown the device's, and tracing them while checkpoints are
            # written in threads has crashed the process.
            options.python_tracer_level = 0
            jax.profiler.start_trace(str(self._folder), profiler_options=options)
        elif self._until is not None and step >= self._until:
            jax.block_until_ready(train_state)
            self.close()

    def close(self) -> None:
        """End a trace that is running, and say where it is, or why there is none."""
        if self._until is not None:
            self._until = None
            jax.profiler.stop_trace()
            say(f"Profiler trace written to {self._folder}")
        elif self._wanted:
            self._wanted = False
            say(f"No profiler trace: no step was left after the first {_FIRST}")
