"""PNG files: checksums, and the values of 16-bit files, of which Pillow keeps the upper 8 bits."""

import io
import zlib
from typing import Any

import numpy as np

__all__ = ["bits", "check", "sixteen_bit_values"]

# Color types of PNG with 16 bits to the raw modes that give the upper and the lower bytes.
_RAW_MODES = {2: ("RGB;16B", "RGB;16L"), 6: ("RGBA;16B", "RGBA;16L")}
_GRAY_ALPHA = 4


def bits(content: bytes) -> int:
    """Bits of a value: 1, 2, 4, 8 or 16."""
    return content[24]


def check(content: bytes) -> None:
    """Raise unless the file is complete and its checksums are right, which decoders do not verify.

    Raises:
      ValueError: naming the chunk.
    """
    place, view = 8, memoryview(content)
    while place + 12 <= len(content):
        length, kind = int.from_bytes(view[place : place + 4]), bytes(view[place + 4 : place + 8])
        end = place + 8 + length
        if end + 4 > len(content):
            break
        # Programs that edit texts of a file do not always renew their checksums; no pixel depends on them.
        is_critical = not kind[:1].islower()
        if is_critical and zlib.crc32(view[place + 4 : end]) != int.from_bytes(view[end : end + 4]):
            raise ValueError(
                f"damaged: the checksum of its part {kind.decode('ascii', 'replace')} differs"
            )
        if kind == b"IEND":
            return
        place = end + 4
    raise ValueError("truncated: the file has no end")


def sixteen_bit_values(content: bytes, image: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """Decode a 16-bit PNG without loss.

    Args:
      content: of the file.
      image: the file opened by Pillow, not decoded yet.

    Returns:
      Colors uint16 ``(H, W, 1)`` or ``(H, W, 3)``, and opacity uint16 ``(H, W)``, None if all are opaque.
    """
    from PIL import Image

    color = content[25]
    if color in _RAW_MODES:
        high, low = _RAW_MODES[color]
        lower = Image.open(io.BytesIO(content), formats=("PNG",))
        values = _decoded(image, high).astype(np.uint16) << np.uint16(8)
        values |= _decoded(lower, low)
    elif color == _GRAY_ALPHA:
        # Two values of two bytes each, decoded as four values of one byte.
        pairs = _decoded(image, "RGBA").astype(np.uint16)
        values = pairs[..., ::2] << np.uint16(8) | pairs[..., 1::2]
    else:
        values = np.asarray(image).astype(np.uint16)[..., None]
    if values.shape[-1] in (2, 4):
        return values[..., :-1], values[..., -1]
    if (key := image.info.get("transparency")) is None:
        return values, None
    is_transparent = (values == np.asarray(key, np.uint16)).all(axis=-1)
    return values, np.where(is_transparent, np.uint16(0), np.uint16(0xFFFF))


def _decoded(image: Any, raw_mode: str) -> np.ndarray:
    image.tile = [tile._replace(args=raw_mode) for tile in image.tile]
    return np.asarray(image)
