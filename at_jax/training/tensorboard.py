"""TensorBoard events of a run, written with tensorboardX."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from at_jax.distributed import processes

__all__ = ["EventFile", "write_image"]

_TAGS = {"train_error": "train/error", "test_error": "eval/error"}


class EventFile:
    """Event file in the directory of a run.

    The methods do nothing if tensorboardX is not installed, and in processes other than process 0.

    Args:
      workdir: directory of the file.
      first: steps done before this start; TensorBoard discards later events of earlier starts.
      config_text: config of the run, written as a code block; empty to omit it.
    """

    def __init__(self, workdir: pathlib.Path, *, first: int, config_text: str = ""):
        self._writer = _open(workdir, purge_step=first + 1)
        if self._writer is not None and config_text:
            self._writer.add_text("config", f"```\n{config_text}\n```", first)

    def scalars(self, line: Mapping[str, Any]) -> None:
        """Write the metrics of an epoch under ``train/`` and ``eval/``.

        Args:
          line: metrics of the epoch, as in metrics.jsonl; ``step`` is their step.
        """
        if self._writer is None:
            return
        for name, value in line.items():
            if name not in ("epoch", "step") and value is not None:
                self._writer.add_scalar(_tag(name), value, line["step"])
        self._writer.flush()

    def close(self) -> None:
        """Write buffered events and close the file."""
        if self._writer is not None:
            self._writer.close()


def write_image(workdir: pathlib.Path, tag: str, path: pathlib.Path, step: int) -> None:
    """Write an image file as an event, in an event file of its own.

    Use it after the run's own event file is closed.

    Args:
      workdir: directory of the run.
      tag: name in TensorBoard, for example ``"eval/attention"``.
      path: image file, for example a PNG.
      step: training step.
    """
    # The suffix keeps the name distinct from a file that was opened in the same second.
    writer = _open(workdir, filename_suffix=".image")
    if writer is not None:
        writer.add_image(tag, _pixels(path), step, dataformats="HWC")
        writer.close()


def _open(workdir: pathlib.Path, **options: Any) -> Any:
    if not processes.is_primary():
        return None
    try:
        from tensorboardX import SummaryWriter
    except ModuleNotFoundError:
        return None
    return SummaryWriter(str(workdir), **options)


def _tag(name: str) -> str:
    """Map a key of metrics.jsonl to its TensorBoard tag.

    >>> [_tag(name) for name in ("loss/at", "train_error", "test_error")]
    ['train/loss/at', 'train/error', 'eval/error']
    """
    return _TAGS.get(name, f"train/{name}")


def _pixels(path: pathlib.Path) -> np.ndarray:
    """Decode an image file to (H, W, 3) uint8."""
    from PIL import Image

    with path.open("rb") as file, Image.open(file) as image:
        return np.asarray(image.convert("RGB"))
