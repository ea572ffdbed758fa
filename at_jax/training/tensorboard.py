"""TensorBoard events of a run, written with tensorboardX.

Its SummaryWriter is not used: it writes from a thread, where a full disk would block the run.
"""

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

__all__ = ["EventFile", "write_image"]

_PREFIX = "events.out.tfevents"
_TAGS = {
    "train_error": "train/error",
    "test_error": "eval/error",
    "train_top5_error": "train/top5_error",
    "test_top5_error": "eval/top5_error",
}


class EventFile:
    """Event file in the directory of a run.

    The methods do nothing if tensorboardX is not installed, and in processes other than process 0.

    Args:
      workdir: directory of the file.
      first: steps done before this start; TensorBoard discards later events of earlier starts.
      config_text: config of the run, written as a code block; empty to omit it.
    """

    def __init__(self, workdir: pathlib.Path, *, first: int, config_text: str = ""):
        self._writer = _open(workdir)
        if self._writer is None:
            return
        self._writer.purge(first + 1)
        if config_text:
            from tensorboardX import summary

            self._writer.add(summary.text("config", f"```\n{config_text}\n```"), first)

    def scalars(self, line: Mapping[str, Any]) -> None:
        """Write the metrics of an epoch under ``train/`` and ``eval/``.

        Args:
          line: metrics of the epoch, as in metrics.jsonl; ``step`` is their step.
        """
        if self._writer is None:
            return
        from tensorboardX import summary

        for name, value in line.items():
            if name not in ("epoch", "step") and value is not None:
                self._writer.add(summary.scalar(_tag(name), value), line["step"])
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
    writer = _open(workdir, suffix=".image")
    if writer is not None:
        from tensorboardX import summary

        writer.add(summary.image(tag, _pixels(path), dataformats="HWC"), step)
        writer.close()


def _open(workdir: pathlib.Path, suffix: str = "") -> "_Writer | None":
    if not processes.is_primary():
        return None
    try:
        import tensorboardX  # noqa: F401
    except ModuleNotFoundError:
        return None
    return _Writer(workdir, suffix)


class _Writer:
    """Event file in TFRecord framing, after those that the workdir has."""

    def __init__(self, workdir: pathlib.Path, suffix: str):
        from tensorboardX import record_writer
        from tensorboardX.proto import event_pb2

        self._crc, self._event = record_writer.masked_crc32c, event_pb2.Event
        self._start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        if not paths.scheme(workdir):
            workdir.mkdir(parents=True, exist_ok=True)
        name = f"{_PREFIX}.{_time_of_name(workdir)}.{socket.gethostname()}{suffix}"
        self._file: Any = record_writer.open_file(str(workdir / name))
        self._write(file_version="brain.Event:2")

    def purge(self, step: int) -> None:
        """Have TensorBoard discard what earlier files hold from this step on."""
        self._write(step=step, session_log=self._start)

    def add(self, summary: Any, step: int) -> None:
        self._write(step=step, summary=summary)

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def _write(self, **fields: Any) -> None:
        data = self._event(wall_time=time.time(), **fields).SerializeToString()
        size = struct.pack("<Q", len(data))
        checksums = [struct.pack("<I", self._crc(each)) for each in (size, data)]
        self._file.write(size + checksums[0] + data + checksums[1])


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
