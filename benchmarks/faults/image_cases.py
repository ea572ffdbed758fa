"""Kinds of hostile image files."""

import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image

from benchmarks.faults.image_files import SIDE, Case, png_file, saved

__all__ = ["CASES"]

_EXIF_TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: np.rot90(x, 2).swapaxes(0, 1),
    8: lambda x: np.rot90(x),
}


def _smooth(rng: np.random.Generator) -> np.ndarray:
    """A picture that JPEG keeps, with a different level in each corner: uint8 (SIDE, SIDE, 3)."""
    corners = rng.permutation([20, 90, 160, 230]).reshape(2, 2)
    return (
        np.kron(corners, np.ones((SIDE // 2, SIDE // 2)))[..., None].repeat(3, -1).astype(np.uint8)
    )


def _noise(rng: np.random.Generator, channels: int = 3, bits: int = 8) -> np.ndarray:
    return rng.integers(0, 2**bits, (SIDE, SIDE, channels))


def _rgb(pixels: np.ndarray) -> np.ndarray:
    return np.broadcast_to(pixels, (*pixels.shape[:2], 3)).astype(np.uint8)


def _over_white(colors: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    share = opacity[..., None] / 255
    return np.round(_rgb(colors) * share + 255 * (1 - share)).astype(np.uint8)


def _plain(kind: str, suffix: str, **options: object) -> Callable[[np.random.Generator], Case]:
    def build(rng: np.random.Generator) -> Case:
        pixels = _smooth(rng)
        tolerance = 0 if kind != "JPEG" else 6
        return Case(saved(Image.fromarray(pixels), kind, **options), suffix, pixels, tolerance)

    return build


def _animated(kind: str, suffix: str, **options: object) -> Callable[[np.random.Generator], Case]:
    def build(rng: np.random.Generator) -> Case:
        first, second = _smooth(rng), 255 - _smooth(rng)
        frames = {"save_all": True, "append_images": [Image.fromarray(second)], **options}
        return Case(
            saved(Image.fromarray(first), kind, **frames), suffix, first, 6 if kind == "MPO" else 0
        )

    return build


def _exif(tag: int, kind: str, **options: object) -> Callable[[np.random.Generator], Case]:
    def build(rng: np.random.Generator) -> Case:
        exif = Image.Exif()
        exif[0x0112] = tag
        stored = _smooth(rng)
        content = saved(Image.fromarray(stored), kind, exif=exif, **options)
        return Case(
            content, f".{kind.lower()}", _EXIF_TURNS[tag](stored), 6 if kind == "JPEG" else 0
        )

    return build


def _with_opacity(mode: str) -> Callable[[np.random.Generator], Case]:
    def build(rng: np.random.Generator) -> Case:
        values = _noise(rng, len(mode)).astype(np.uint8)
        content = saved(Image.fromarray(values, mode), "PNG")
        return Case(content, ".png", _over_white(values[..., :-1], values[..., -1]), 1)

    return build


def _transparent_color(color: int, bits: int) -> Callable[[np.random.Generator], Case]:
    """One gray value or color is transparent."""

    def build(rng: np.random.Generator) -> Case:
        channels = 3 if color == 2 else 1
        values = rng.integers(0, 2 ** min(bits, 2), (SIDE, SIDE, channels))
        values[0, 0, 0] = 2**bits - 1  # the range of a 16-bit file
        chosen = values[3, 4]
        key = struct.pack(f">{channels}H", *chosen)
        wide = values >> 8 if bits == 16 else values * 255 // (2**bits - 1)
        opacity = np.where((values == chosen).all(axis=-1), 0, 255)
        return Case(png_file(values, color, bits, key), ".png", _over_white(wide, opacity))

    return build


def _sixteen(color: int, channels: int, bits: int) -> Callable[[np.random.Generator], Case]:
    """16-bit values of which only some bits are used."""

    def build(rng: np.random.Generator) -> Case:
        values = _noise(rng, channels, bits)
        values[0, 0, 0] = 2**bits - 1
        narrow = values >> (bits - 8)
        if color in (4, 6):
            values[..., -1] = 0xFFFF  # opaque
            narrow = narrow[..., :-1]
        return Case(png_file(values, color, 16), ".png", _rgb(narrow))

    return build


def _palette(rng: np.random.Generator) -> Case:
    image = Image.fromarray(_smooth(rng)).quantize(4)
    opacity = bytes([0, 100, 255, 255])
    index = np.asarray(image)
    colors = np.asarray(image.convert("RGB"))
    content = saved(image, "PNG", transparency=opacity)
    return Case(content, ".png", _over_white(colors, np.frombuffer(opacity, np.uint8)[index]), 1)


def _one_bit(rng: np.random.Generator) -> Case:
    values = _noise(rng, 1, 1)
    return Case(png_file(values, 0, 1), ".png", _rgb(values * 255))


def _cmyk(rng: np.random.Generator) -> Case:
    image = Image.fromarray(_smooth(rng)).convert("CMYK")
    return Case(saved(image, "JPEG", quality=95), ".jpg", np.asarray(image.convert("RGB")), 8)


def _long(width: int, height: int) -> Callable[[np.random.Generator], Case]:
    def build(rng: np.random.Generator) -> Case:
        level = int(rng.integers(256))
        content = saved(Image.new("L", (width, height), level), "PNG")
        return Case(content, ".png", np.full((SIDE, SIDE, 3), level, np.uint8))

    return build


def _cut(kind: str, **options: object) -> Callable[[np.random.Generator], Case]:
    def build(rng: np.random.Generator) -> Case:
        whole = saved(Image.fromarray(_noise(rng).astype(np.uint8)), kind, **options)
        size = int(rng.integers(1, len(whole) - 1))
        return Case(whole[:size], f".{kind.lower()}", refused="expected a readable JPEG")

    return build


def _flipped_png(rng: np.random.Generator) -> Case:
    content = bytearray(png_file(_noise(rng), 2, 8))
    content[int(rng.integers(8, len(content)))] ^= 1 << int(rng.integers(8))
    return Case(bytes(content), ".png", refused="expected ")


def _without_palette(rng: np.random.Generator) -> Case:
    return Case(png_file(_noise(rng, 1), 3, 8), ".png", refused="expected a readable JPEG")


def _bomb(rng: np.random.Generator) -> Case:
    content = bytearray(png_file(_noise(rng), 2, 8))
    content[16:24] = struct.pack(">II", 60_000, int(rng.integers(10_000, 2**31)))
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return Case(bytes(content), ".png", refused="expected at most 178,956,970 pixels")


def _other(content: bytes, suffix: str, reason: str) -> Callable[[np.random.Generator], Case]:
    if suffix in (".jpg", ".png", ".gif"):
        return lambda _: Case(content, suffix, refused=f"got a file that is {reason}")
    return lambda _: Case(content, suffix, skipped=f"is {reason}")


def _tiff(mode: str) -> bytes:
    return saved(Image.new(mode, (SIDE, SIDE)), "TIFF")


def _with_tail(rng: np.random.Generator) -> Case:
    """A PNG that is a ZIP and an EPS for programs that search for them."""
    values = _noise(rng)
    content = png_file(values, 2, 8) + b"%!PS-Adobe-3.0 EPSF-3.0\nPK\x03\x04"
    return Case(content, ".eps", _rgb(values))


_EPS = saved(Image.new("RGB", (SIDE, SIDE)), "EPS")
CASES: dict[str, Callable[[np.random.Generator], Case]] = {
    "PNG": _plain("PNG", ".png"),
    "PNG named .jpg": _plain("PNG", ".jpg"),
    "PNG without a suffix": _plain("PNG", ""),
    "JPEG": _plain("JPEG", ".JPG", quality=95),
    "progressive JPEG named .txt": _plain("JPEG", ".txt", quality=95, progressive=True),
    "WebP": _plain("WEBP", ".webp", lossless=True),
    "WebP named .jpg": _plain("WEBP", ".jpg", lossless=True),
    "BMP": _plain("BMP", ".bmp"),
    "GIF": _plain("GIF", ".gif"),
    "animated GIF": _animated("GIF", ".gif"),
    "animated WebP": _animated("WEBP", ".webp", lossless=True),
    "APNG": _animated("PNG", ".png"),
    "MPO": _animated("MPO", ".jpg", quality=95),
    "CMYK JPEG": _cmyk,
    "1-bit PNG": _one_bit,
    "palette with transparency": _palette,
    "LA": _with_opacity("LA"),
    "RGBA": _with_opacity("RGBA"),
    **{
        f"transparent color {color} of {bits} bits": _transparent_color(color, bits)
        for color, bits in ((0, 1), (0, 2), (0, 4), (0, 8), (2, 8), (0, 16), (2, 16))
    },
    **{
        f"16-bit PNG of color {color} with {bits} bits": _sixteen(color, channels, bits)
        for color, channels in ((0, 1), (2, 3), (4, 2), (6, 4))
        for bits in (8, 12, 16)
    },
    **{f"EXIF {tag} in JPEG": _exif(tag, "JPEG", quality=95) for tag in _EXIF_TURNS},
    **{f"EXIF {tag} in PNG": _exif(tag, "PNG") for tag in _EXIF_TURNS},
    **{f"EXIF {tag} in WebP": _exif(tag, "WEBP", lossless=True) for tag in (3, 6)},
    "65000x1": _long(65_000, 1),
    "1x65000": _long(1, 65_000),
    **{f"cut {kind}": _cut(kind) for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP")},
    "PNG with a flipped bit": _flipped_png,
    "PNG without its palette": _without_palette,
    "decompression bomb": _bomb,
    "PNG with a tail": _with_tail,
    "empty": _other(b"", ".png", "empty"),
    "HTML named .jpg": _other(b"<!DOCTYPE html><p>404", ".jpg", "HTML"),
    "EPS named .png": _other(_EPS, ".png", "EPS"),
    "EPS": _other(_EPS, ".eps", "EPS"),
    "TIFF": _other(_tiff("RGB"), ".tif", "TIFF"),
    "TIFF of floats named .jpg": _other(_tiff("F"), ".jpg", "TIFF"),
    "text": _other(b"BM is no bitmap\n", ".txt", "text"),
    "GIF that is a script": lambda _: Case(
        b"GIF89a/*" + bytes(40) + b"*/=1;alert(1)", ".gif", refused="expected a readable JPEG"
    ),
}
