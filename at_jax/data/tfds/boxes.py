"""Bounding boxes of a TFDS set: images are cropped to them."""

from typing import Any

import numpy as np

from at_jax.errors import UserError, listed

__all__ = ["check_box", "cut_box"]


def check_box(builder: Any, name: str, feature: str) -> None:
    """Raise unless a feature of a set is a bounding box, or none is named.

    Args:
      builder: of the set.
      name: of the set, for the message.
      feature: its name; empty for none.

    Raises:
      UserError: naming the features that are bounding boxes.
    """
    if not feature:
        return
    import tensorflow_datasets as tfds

    boxes = [
        k for k, v in builder.info.features.items() if isinstance(v, tfds.features.BBoxFeature)
    ]
    if feature not in boxes:
        raise UserError(
            f"data set {name!r}: data.crop must name a bounding box of its examples ({listed(boxes)}), got "
            f"{feature!r}: leave it empty, or choose another set"
        )


def cut_box(image: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Cut a box out of an image: the pixels that it touches, at least one.

    Args:
      image: ``(H, W, C)``.
      box: its top, left, bottom and right, as shares of H and W.

    Returns:
      ``(h, w, C)``.

    >>> cut_box(np.arange(8).reshape(2, 4, 1), np.array([0.5, 0.25, 1.0, 0.75])).ravel()
    array([5, 6])
    """
    # float32 shares may lie a rounding beyond a pixel's edge.
    top, left, bottom, right = np.clip(box, 0, 1).astype(np.float64)
    rows, columns = (
        slice(
            first := min(int(begin * size + 1e-3), size - 1),
            max(int(np.ceil(end * size - 1e-3)), first + 1),
        )
        for begin, end, size in ((top, bottom, image.shape[0]), (left, right, image.shape[1]))
    )
    return image[rows, columns]
