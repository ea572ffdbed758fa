"""Crops: the part of a picture that is resized to the image that a network receives.

Training photographs are cropped at random while they are decoded. A JPEG is then decoded at the scale that
the crop needs, and pixels outside the crop are never resized.
"""

import dataclasses
import math
from typing import Any, NamedTuple, Protocol

import numpy as np

__all__ = [
    "SCALE", "Box", "CenterCrop", "Crop", "RandomResizedCrop", "as_array", "crop_array", "cut",
    "decoded_size", "to_square",
]  # fmt: skip

SCALE = (0.08, 1.0)  # of the area
_RATIO = (3 / 4, 4 / 3)  # width to height
_LOG_RATIO = (math.log(_RATIO[0]), math.log(_RATIO[1]))
_TRIES = 10


class Box(NamedTuple):
    """A part of a picture, in its pixels; edges may be between pixels."""

    left: float
    top: float
    right: float
    bottom: float


class Crop(Protocol):
    """Chooses a part of a picture, and the size that it is resized to."""

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the result."""

    def box(self, width: int, height: int) -> Box:
        """The part of an upright picture of this size; always the same one."""


@dataclasses.dataclass(frozen=True)
class CenterCrop:
    """The center square of a picture whose shorter side is resized first.

    Attributes:
      size: side of the result, in pixels.
      resize: pixels of the shorter side before the center is cropped, at least `size`; 0: `size`.

    >>> CenterCrop(224, 256).box(512, 256)
    Box(left=144.0, top=16.0, right=368.0, bottom=240.0)
    """

    size: int
    resize: int = 0

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the result."""
        return self.size, self.size

    def box(self, width: int, height: int) -> Box:
        """The part of a picture, as if all of it were resized, to whole pixels, and then cropped."""
        resize = self.resize or self.size
        short = min(width, height)
        edges = []
        for side in (width, height):
            resized = max(resize, round(side * resize / short))
            start = (resized - self.size) // 2
            end = min(float(side), (start + self.size) * side / resized)
            edges.append((start * side / resized, end))
        (left, right), (top, bottom) = edges
        return Box(left, top, right, bottom)


@dataclasses.dataclass(frozen=True)
class RandomResizedCrop:
    """A random part of a picture, chosen as in torchvision's RandomResizedCrop.

    The area is uniform in 8 to 100 % of the picture's, and the logarithm of width / height uniform in log
    3/4 to log 4/3. The position is uniform. After ten tries that do not fit, the center is cropped.

    Attributes:
      shape: height and width of the result.
      key: non-negative integers; the crop is a function of them and of the picture's size.

    >>> RandomResizedCrop((224, 224), (0, 1)).box(500, 375)
    Box(left=49, top=1, right=495, bottom=344)
    """

    shape: tuple[int, int]
    key: tuple[int, ...]

    def box(self, width: int, height: int) -> Box:
        """The part of a picture of this size."""
        rng = np.random.default_rng(self.key)
        area = width * height
        for _ in range(_TRIES):
            target = area * rng.uniform(*SCALE)
            ratio = math.exp(rng.uniform(*_LOG_RATIO))
            w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
            if 0 < w <= width and 0 < h <= height:
                left, top = (int(rng.integers(0, room + 1)) for room in (width - w, height - h))
                return Box(left, top, left + w, top + h)
        low, high = _RATIO
        w, h = width, height
        if width / height < low:
            h = max(1, round(width / low))
        elif width / height > high:
            w = max(1, round(height * high))
        left, top = (width - w) // 2, (height - h) // 2
        return Box(left, top, left + w, top + h)


def decoded_size(crop: Crop, box: Box, width: int, height: int) -> tuple[int, int]:
    """Smallest (width, height) of a whole picture in which the crop has the pixels of its result."""
    rows, columns = crop.shape
    return (
        max(1, math.ceil(width * columns / (box.right - box.left))),
        max(1, math.ceil(height * rows / (box.bottom - box.top))),
    )


def cut(picture: Any, crop: Crop, box: Box) -> Any:
    """Resize a part of a PIL image (bilinear, with antialiasing where it shrinks)."""
    from PIL import Image

    if tuple(box) == (0, 0, *picture.size) and crop.shape == picture.size[::-1]:
        return picture
    return picture.resize(crop.shape[::-1], Image.Resampling.BILINEAR, box=tuple(box))


def to_square(image: Any, size: int, resize: int = 0) -> Any:
    """Resize the center square of a PIL image to `size` x `size` pixels.

    Pixels outside of the square are not computed: a picture of 65000x1 pixels would become one of 65000
    squares.

    Args:
      image: PIL image.
      size: side of the result in pixels.
      resize: see :class:`CenterCrop`.

    Returns:
      PIL image of size x size pixels (bilinear, with antialiasing where it shrinks).
    """
    crop = CenterCrop(size, resize)
    return cut(image, crop, crop.box(*image.size))


def crop_array(image: np.ndarray, crop: Crop) -> np.ndarray:
    """Cut a crop out of an image in memory.

    Args:
      image: uint8 ``(H, W, C)``.
      crop: to cut.

    Returns:
      uint8, of the crop's shape and C channels.
    """
    from PIL import Image

    channels = [image] if image.shape[-1] == 3 else np.moveaxis(image, -1, 0)
    pictures = [Image.fromarray(np.ascontiguousarray(each)) for each in channels]
    parts = [as_array(cut(each, crop, crop.box(*each.size))) for each in pictures]
    return np.concatenate(parts, axis=-1)


def as_array(image: Any) -> np.ndarray:
    """Convert a PIL image to uint8 ``(H, W, C)``, with C = 1 for gray."""
    array = np.asarray(image, np.uint8)
    return array if array.ndim == 3 else array[..., None]
