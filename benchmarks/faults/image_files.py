"""Image files, with the pixels, the refusal or the reason for skipping that is right for each."""

import dataclasses
import io
import struct
import zlib

import numpy as np
from PIL import Image

__all__ = ["SIDE", "Case", "png_file", "saved"]

SIDE = 8  # pixels


@dataclasses.dataclass(frozen=True)
class Case:
    """A file.

    Attributes:
      content: of the file.
      suffix: of its name.
      pixels: uint8 (H, W, 3) that a data set contains; None if it is not read.
      tolerance: largest difference from them, in gray levels.
      refused: part of the error message; empty if it is no error.
      skipped: the reason in the note of the data set; empty if it is not skipped.
    """

    content: bytes
    suffix: str
    pixels: np.ndarray | None = None
    tolerance: int = 0
    refused: str = ""
    skipped: str = ""


def png_file(values: np.ndarray, color: int, bits: int, key: bytes = b"") -> bytes:
    """Encode a PNG file.

    Args:
      values: integers (H, W, C).
      color: color type of PNG: 0 gray, 2 RGB, 3 palette, 4 gray with opacity, 6 RGB with opacity.
      bits: of a value: 1, 2, 4, 8 or 16.
      key: body of tRNS, the value or color that is transparent; empty for none.
    """
    height, width, channels = values.shape
    rows = values.astype(">u2" if bits == 16 else np.uint8).reshape(height, width * channels)
    if bits < 8:  # several values in a byte
        shifts = np.arange(8 - bits, -1, -bits)
        rows = (rows.reshape(height, -1, 8 // bits) << shifts).sum(axis=-1).astype(np.uint8)
    data = b"".join(b"\0" + row.tobytes() for row in rows)
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0))]
    parts += [(b"tRNS", key)] if key else []
    parts += [(b"IDAT", zlib.compress(data)), (b"IEND", b"")]
    chunks = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    """Encode an image with Pillow."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
