"""Identity of a data set: its classes and images, wherever they are stored."""

import hashlib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Identity", "SplitIdentity", "class_difference", "identify"]


class SplitIdentity(NamedTuple):
    """Identity of the images of a split.

    Attributes:
      images: their number.
      digest: of their labels in order, and of their names or pixels, 16 hexadecimal digits.
    """

    images: int
    digest: str


class Identity(NamedTuple):
    """Identity of a data set as it was loaded, before a choice of images.

    Attributes:
      class_names: indexed by the labels.
      train: training images.
      test: test images.
    """

    class_names: tuple[str, ...]
    train: SplitIdentity
    test: SplitIdentity

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {
            "class_names": list(self.class_names),
            "train": self.train._asdict(),
            "test": self.test._asdict(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Identity":
        """Convert the result of :meth:`to_json` back."""
        return cls(
            tuple(value["class_names"]),
            SplitIdentity(**value["train"]),
            SplitIdentity(**value["test"]),
        )


def identify(
    labels: np.ndarray, names: Iterable[str] = (), images: np.ndarray | None = None
) -> SplitIdentity:
    """Compute the identity of a split.

    Args:
      labels: ``(N,)`` integers.
      names: of the images in the same order, such as their paths within the data set.
      images: some of the images of a set without names, ``(n, H, W, C)``. They must not be decoded from
        files, because decoders differ between machines.

    >>> identify(np.array([0, 1]), names=["a/1.png", "b/1.png"])
    SplitIdentity(images=2, digest='ec887c5ba74a6dd2')
    """
    digest = hashlib.sha256(np.ascontiguousarray(labels, np.int32).tobytes())
    # Some file systems change the Unicode form of a name.
    digest.update(unicodedata.normalize("NFC", "\0".join(names)).encode("utf-8", "surrogatepass"))
    if images is not None:
        digest.update(str(images.shape).encode())
        digest.update(np.ascontiguousarray(images).tobytes())
    return SplitIdentity(len(labels), digest.hexdigest()[:16])


def class_difference(
    first: Sequence[str], second: Sequence[str], where: tuple[str, str]
) -> str | None:
    """Describe the first difference between two lists of class names; None if there is none.

    Args:
      first: class names, indexed by the labels.
      second: other class names.
      where: phrases that say where the lists are from.

    >>> class_difference(["cat", "dog"], ["cat", "eel"], ("in the run", "in the data"))
    "class 1 is 'dog' in the run and 'eel' in the data"
    >>> class_difference(["cat"], ["cat", "eel"], ("in the run", "in the data"))
    "1 classes in the run and 2 in the data: class 1 is 'eel' in the data"
    """
    for index, names in enumerate(zip(first, second, strict=False)):
        if len({unicodedata.normalize("NFC", name) for name in names}) > 1:
            return f"class {index} is {names[0]!r} {where[0]} and {names[1]!r} {where[1]}"
    if len(first) == len(second):
        return None
    index = min(len(first), len(second))
    longer, there = (first, where[0]) if len(first) > len(second) else (second, where[1])
    return (
        f"{len(first)} classes {where[0]} and {len(second)} {where[1]}: class {index} is "
        f"{longer[index]!r} {there}"
    )
