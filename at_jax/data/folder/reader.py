"""Reading the images of a folder: in threads, or in other processes."""

import dataclasses
import os
from collections.abc import Iterator, Sequence

import numpy as np

from at_jax.data.crops import CenterCrop, Crop, as_array, cut
from at_jax.data.decoding import Examples
from at_jax.data.files.inspection import report
from at_jax.data.files.reading import FIX_OF_FOLDER, read_image
from at_jax.data.folder.class_files import ClassFiles
from at_jax.data.load_options import LoadOptions
from at_jax.errors import UserError, printable

__all__ = ["examples_of"]


@dataclasses.dataclass(frozen=True, eq=False)
class _Reader:
    """Images by index, with their labels."""

    files: list[str]
    labels: np.ndarray
    options: LoadOptions
    depth: int
    replaced: set[int] = dataclasses.field(default_factory=set)

    def __call__(
        self, indices: np.ndarray, crops: Sequence[Crop] = ()
    ) -> Iterator[tuple[np.ndarray, int]]:
        for place, index in enumerate(indices.tolist()):
            crop = crops[place] if crops else self._center()
            try:
                yield self._array(index, crop), self.labels[index]
            except UserError as error:
                if not self.options.skip_corrupt:
                    raise
                other, image = self._replacement(index, crop, error)
                if index not in self.replaced:
                    self.replaced.add(index)
                    report(f"note: {error}; {printable(self.files[other])} takes its place")
                yield image, self.labels[index]

    def select(self, indices: np.ndarray) -> "_Reader":
        """Read some of the examples only: none of the others replaces one of them."""
        files = [self.files[index] for index in indices.tolist()]
        return dataclasses.replace(self, files=files, labels=self.labels[indices], replaced=set())

    def _center(self) -> Crop | None:
        size = self.options.image_size
        return CenterCrop(size, self.options.resize) if size else None

    def _array(self, index: int, crop: Crop | None) -> np.ndarray:
        fix = "" if self.options.skip_corrupt else FIX_OF_FOLDER
        if self.options.scaled or crop is None:
            image = read_image(self.files[index], self.depth, crop=crop, fix=fix)
        else:
            image = read_image(self.files[index], self.depth, fix=fix)
            image = cut(image, crop, crop.box(*image.size))
        return as_array(image)

    def _replacement(
        self, index: int, crop: Crop | None, error: UserError
    ) -> tuple[int, np.ndarray]:
        """The next image of the class that can be read: the same one in every epoch and process."""
        same = np.flatnonzero(self.labels == self.labels[index])
        for other in np.roll(same, -1 - int(np.searchsorted(same, index))).tolist()[:-1]:
            try:
                return other, self._array(other, crop)
            except UserError:
                continue
        raise UserError(
            f"{error}; no other image of its class can take its place: restore it, or choose more images"
        ) from error


def examples_of(split: ClassFiles, options: LoadOptions, depth: int) -> Examples:
    """Examples of a split, not decoded yet.

    Args:
      split: of the set.
      options: how it is loaded.
      depth: bits of the values in 16-bit files.
    """
    files, labels = [file.path for file in split.files], split.labels
    start = len(os.path.join(split.directory, ""))
    return Examples(
        len(files),
        _Reader(files, labels, options, depth),
        lambda: labels,
        lambda index: printable(files[index]),
        names=lambda: (file[start:] for file in files),
        picklable=True,
    )
