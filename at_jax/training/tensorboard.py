"""TensorBoard events of a run, written with tensorboardX.

Its SummaryWriter is not used: it writes from a thread, where a full disk would block the run.
"""

import importlib.util
import pathlib
import re
import socket
import struct
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from at_jax import paths
from at_jax.distributed import processes

__all__ = ["EventFile", "is_available", "write_image"]

_PREFIX = "events.out.tfevents"
_TAGS = {
    "train_error": "train/error",
    "test_error": "eval/error",
    "train_top5_error": "train/top5_error",
    "test_top5_error": "eval/top5_error",
}


class EventFile:
    """Event file of a run in TFRecord framing, named after those that the workdir has.

    Create it only where :func:`is_available`.

    Args:
      workdir: directory of the file.
      suffix: end of its name.
    """

    def __init__(self, workdir: pathlib.Path, suffix: str = ""):
        from tensorboardX import record_writer, summary
        from tensorboardX.proto import event_pb2

        self._crc, self._events, self._summary = record_writer.masked_crc32c, event_pb2, summary
        if not paths.scheme(workdir):
            workdir.mkdir(parents=True, exist_ok=True)
        name = f"{_PREFIX}.{_time_of_name(workdir)}.{socket.gethostname()}{suffix}"
        self._file: Any = record_writer.open_file(str(workdir / name))
        self._write(file_version="brain.Event:2")

    def start(self, first: int, config_text: str = "") -> None:
        """Begin a period of training: TensorBoard discards later events of earlier files.

        Args:
          first: steps done before this start.
          config_text: config of the run, written as a code block; empty to omit it.
        """
        session = self._events.SessionLog(status=self._events.SessionLog.START)
        self._write(step=first + 1, session_log=session)
        if config_text:
            text = self._summary.text("config", f"```\n{config_text}\n```")
            self._write(step=first, summary=text)

    def scalars(self, line: Mapping[str, Any]) -> None:
        """Write the metrics of an epoch under ``train/`` and ``eval/``.

        Args:
          line: metrics of the epoch, as in metrics.jsonl; ``step`` is their step.
        """
        for name, value in line.items():
            if name not in ("epoch", "step") and value is not None:
                self._write(step=line["step"], summary=self._summary.scalar(_tag(name), value))
        self._file.flush()

    def image(self, tag: str, pixels: np.ndarray, step: int) -> None:
        """Write an image, uint8 (H, W, 3)."""
        self._write(step=step, summary=self._summary.image(tag, pixels, dataformats="HWC"))

    def close(self) -> None:
        """Write buffered events and close the file."""
        self._file.close()

    def _write(self, **fields: Any) -> None:
        data = self._events.Event(wall_time=time.time(), **fields).SerializeToString()
        size = struct.pack("<Q", len(data))
        checksums = [struct.pack("<I", self._crc(each)) for each in (size, data)]
        self._file.write(size + checksums[0] + data + checksums[1])


def is_available() -> bool:
    """Whether this process can write events: it is process 0, and tensorboardX is installed."""
    return processes.is_primary() and importlib.util.find_spec("tensorboardX") is not None


def write_image(workdir: pathlib.Path, tag: str, path: pathlib.Path, step: int) -> None:
    """Write an image file as an event, in an event file of its own, where :func:`is_available`.

    Use it after the run's own event file is closed.

    Args:
      workdir: directory of the run.
      tag: name in TensorBoard, for example ``"eval/attention"``.
      path: image file, for example a PNG.
      step: training step.
    """
    if is_available():
        events = EventFile(workdir, suffix=".image")
        events.image(tag, _pixels(path), step)
        events.close()


def _time_of_name(workdir: pathlib.Path) -> int:
    """Time for the name of a new file: TensorBoard reads files in the order of their names.

    The clock may have gone back since the last one was named, and a second may hold two starts.
    """
    earlier = [
        int(match[1])
        for name in (paths.names(workdir) if workdir.exists() else [])
        if (match := re.match(rf"{re.escape(_PREFIX)}\.(\d+)\.", name))
    ]
    return max([int(time.time()), *(each + 1 for each in earlier)])


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
