"""Worker processes that decode images: their number, and what each does first."""

import importlib.util
import os
import pathlib
import sys
from typing import Any

import numpy as np

from at_jax.data import threads
from at_jax.data.batches import TrainBatches
from at_jax.errors import UserError, printable

__all__ = ["count", "prepare"]

# Starting worker processes takes seconds, in which threads decode as many images.
_FEW_IMAGES = 2000
_MOST_WORKERS = 64


def count(batches: TrainBatches, workers: int) -> int:
    """Number of processes that decode the images of a run; 0 for threads of this one.

    Args:
      batches: of the run.
      workers: processes; 0: automatic, -1: threads.

    Raises:
      UserError: if processes are asked for, to decode images, and Grain is not installed, or the program
        would run again in each of them.
    """
    if isinstance(batches.split.images, np.ndarray):
        return 0
    installed = _is_installed()
    if workers > 0 and not installed:
        raise UserError(
            f"data.workers={workers}: expected the package grain, which starts worker processes, got none: "
            "pip install grain, or set --config.data.workers=-1 to decode in threads"
        )
    unguarded, is_read = _unguarded_main()
    if workers > 0 and unguarded and is_read:
        raise UserError(
            f"data.workers={workers}: expected 'if __name__ == \"__main__\":' around the statements of "
            f"{printable(unguarded)}, which each worker process imports, got none: add it, or set "
            "data.workers=-1 to decode in threads"
        )
    if workers:
        return max(workers, 0)
    safe = getattr(batches.split.images, "picklable", False) and not unguarded
    if not (installed and safe and len(batches.split) > _FEW_IMAGES):
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(cores or 1, _MOST_WORKERS)


def _is_installed() -> bool:
    return importlib.util.find_spec("grain") is not None


def _unguarded_main() -> tuple[str, bool]:
    """The main file if each worker, which imports it, would run it again, or empty; whether it was read."""
    main: Any = sys.modules.get("__main__")
    path, spec = getattr(main, "__file__", None), getattr(main, "__spec__", None)
    # An interactive session is not imported, nor is the __main__ of a package, as in python -m PACKAGE.
    if path is None or (spec and spec.name.endswith(".__main__")):
        return "", True
    try:
        return "" if "__main__" in pathlib.Path(path).read_text(errors="ignore") else path, True
    except OSError:
        return path, False


def prepare(index: int, of: int) -> None:
    """Prepare a worker process.

    The worker ignores SIGINT, which the run handles. It exits with the run, even if that is killed, and
    decodes one image at a time, because there is a worker for each core.
    """
    import multiprocessing
    import signal
    import threading

    del index, of
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threads.use_one()

    def end_with_parent() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
