"""Checks of images, labels and class names that users pass."""

from collections.abc import Iterable, Sequence

import numpy as np

from at_jax.errors import UserError, listed

__all__ = ["RENUMBER", "check_class_names", "check_image", "check_labels", "numbered_class_names"]

# Both splits need the same numbers: a return_inverse of each would give a class two of them.
RENUMBER = (
    "number those of both splits with np.searchsorted(names, labels of the split), where names = "
    "np.unique(labels of both)"
)


def check_image(images: np.ndarray, shape: tuple[int, ...], subject: str) -> np.ndarray:
    """Check one image, or a batch of images whose shape is `shape`, and add the axis of one channel."""
    if images.dtype != np.uint8:
        raise UserError(
            f"{subject}: expected uint8 in 0..255, got {images.dtype}: scale to 0..255 and cast with "
            ".astype(np.uint8)"
        )
    if 0 in shape:
        raise UserError(
            f"{subject}: expected images of at least one pixel and one channel, got {shape}: remove "
            "empty images"
        )
    # An image of three rows with as many channels as columns does not occur in practice.
    if len(shape) == 3 and shape[0] in (1, 3) and shape[1] == shape[2] > 4:
        raise UserError(
            f"{subject}: expected images (H, W, C), got {shape}, channels first: move the channels last "
            "with np.moveaxis(images, -3, -1)"
        )
    return images if len(shape) == 3 else images[..., None]


def check_class_names(name: str, class_names: Sequence[str]) -> tuple[str, ...]:
    """Return class names as a tuple. Raise unless they are a nonempty list of strings."""
    names = list(class_names) if isinstance(class_names, Iterable) else []
    if isinstance(class_names, str) or not names or not all(isinstance(n, str) for n in names):
        raise UserError(
            f"data set {name!r}: expected class_names as a list of strings, got {class_names!r:.80}: "
            'pass one name per class, such as ["cat", "dog"]'
        )
    return tuple(str(each) for each in names)


def numbered_class_names(
    name: str, train_labels: np.ndarray, test_labels: np.ndarray
) -> tuple[str, ...]:
    """Return the names "0" to "K-1" of the labels of both splits."""
    largest = max(int(train_labels.max()), int(test_labels.max()), 0)
    examples = len(train_labels) + len(test_labels)
    if largest >= examples:
        raise UserError(
            f"data set {name!r}: expected class indices 0, 1, 2 ..., got the label {largest} among "
            f"{examples} examples: {RENUMBER}, or pass class_names"
        )
    return tuple(str(label) for label in range(largest + 1))


def check_labels(subject: str, labels: np.ndarray | int, names: tuple[str, ...]) -> None:
    """Raise unless labels, one integer or integers (N,), are indices of class names."""
    wrong = np.flatnonzero((np.asarray(labels) < 0) | (np.asarray(labels) >= len(names)))
    if not len(wrong):
        return
    if isinstance(labels, np.ndarray):
        subject, labels = f"{subject}[{wrong[0]}]", int(labels[wrong[0]])
    raise UserError(
        f"{subject}: expected a label from 0 to {len(names) - 1} (classes {listed(names)}), got "
        f"{labels}: add the name of its class to class_names, or change the label"
    )
