"""Saving the states of runs before an error ends them: of an image, or of a callback."""

import contextlib
from collections.abc import Callable, Iterator, Sequence

from at_jax.distributed import processes
from at_jax.errors import UserError
from at_jax.training.run_log import RunLog
from at_jax.training.state import TrainState

__all__ = ["call_callbacks", "saved_on_error"]


@contextlib.contextmanager
def saved_on_error(
    logs: Sequence[RunLog],
    states: Sequence[TrainState],
    collect: Callable[[], None] = lambda: None,
) -> Iterator[None]:
    """Save the states of runs if a UserError is raised, and add that to its message.

    Images are read before training, but a file may be deleted or damaged while it lasts. Of several
    processes one alone cannot save: the error ends the run.

    Args:
      logs: of the runs.
      states: of the runs.
      collect: adds metrics that are still on the device.
    """
    try:
        yield
    except UserError as error:
        if processes.is_multiprocess():
            raise
        collect()
        for log, state in zip(logs, states, strict=True):
            log.save_unless_saved(state)
        raise UserError(
            f"{error} (saved after step {int(states[0].step)}: run the same command to resume)"
        ) from error


def call_callbacks(
    called: Sequence[RunLog], logs: Sequence[RunLog], states: Sequence[TrainState]
) -> None:
    """Call the callbacks at the end of an epoch; if one raises, the states of all runs are saved first.

    Args:
      called: logs of runs that have finished the epoch.
      logs: of all runs.
      states: of all runs.
    """
    try:
        for log in called:
            log.call_callbacks()
    except BaseException:
        if not processes.is_multiprocess():  # one process alone cannot save
            for log, state in zip(logs, states, strict=True):
                log.save_unless_saved(state)
        raise
