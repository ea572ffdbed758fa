"""Examples of a prepared TFDS set: reading, and the search for images that cannot be decoded."""

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from at_jax.data.crops import CenterCrop, Crop, as_array, crop_array
from at_jax.data.decoding import Examples, is_held
from at_jax.data.files import reading
from at_jax.data.files.inspection import check_shapes, inspect_examples
from at_jax.data.files.listing import File
from at_jax.data.files.verified import Verified
from at_jax.data.load_options import LoadOptions
from at_jax.data.tfds.boxes import cut_box
from at_jax.errors import UserError, listed, one_line, printable

__all__ = ["checked", "examples_of", "first_label"]

_FIX = "prepare the set again, or set data.skip_corrupt=True"


class _Reader:
    """Examples by index. In another process, the set is opened again."""

    def __init__(
        self, builder: Any, name: str, split: str, keys: tuple[str, str], options: LoadOptions
    ):
        self._directory, self._name, self._split = str(builder.data_path), name, split
        self._keys, self._options = keys, options
        self._channels = builder.info.features[keys[0]].shape[-1]
        self.source = self._opened(builder)

    def _opened(self, builder: Any) -> Any:
        if self._options.decodes_bytes:
            return _without_images(builder, self._split, self._keys)
        return builder.as_data_source(self._split)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "source": None}

    def describe(self, index: int) -> str:
        """Name of an example in messages."""
        return f"example {index} of {self._name} {self._split}"

    def __call__(
        self, indices: np.ndarray, crops: Sequence[Crop] = ()
    ) -> Iterator[tuple[np.ndarray, int]]:
        if self.source is None:
            import tensorflow_datasets as tfds

            self.source = self._opened(tfds.builder_from_directory(self._directory))
        try:
            examples = _at(self.source, indices)
        except Exception:  # array_record and decoders raise several types
            # One by one, to find the example.
            examples = [_decoded(self.source, int(i), self.describe(int(i))) for i in indices]
        for place, (index, example) in enumerate(zip(indices.tolist(), examples, strict=True)):
            image, label = (example[key] for key in self._keys)
            crop = crops[place] if crops else None
            box = example[self._options.crop] if self._options.crop else None
            yield self._image(image, crop, index, box), int(label)

    def _image(self, image: Any, crop: Crop | None, index: int, box: Any) -> np.ndarray:
        options = self._options
        if crop is None and options.image_size:
            crop = CenterCrop(options.image_size, options.resize)
        if not options.decodes_bytes:
            return image if crop is None else crop_array(image, crop)
        try:
            picture = reading.decode(image, crop=crop if options.scaled else None)
        except Exception as error:
            raise _unreadable(self.describe(index), error) from error
        array = as_array(picture.convert("L") if self._channels == 1 else picture)
        if box is None:
            return array
        array = cut_box(array, box)
        return array if crop is None else crop_array(array, crop)


def examples_of(
    builder: Any, name: str, split: str, keys: tuple[str, str], options: LoadOptions
) -> Examples:
    """Examples of a split, not decoded yet.

    Args:
      builder: of the prepared set.
      name: of the set, for messages.
      split: of the set.
      keys: names of the image and the label feature.
      options: how the set is loaded.

    Raises:
      UserError: if there is no such split, or it cannot be read.
    """
    if split not in builder.info.splits:
        raise UserError(
            f"data set {name!r}: expected a split {split!r}, got "
            f"{listed(sorted(builder.info.splits))}: choose a set that has one"
        )
    reader = _Reader(builder, name, split, keys, options)
    _check_readable(builder, name, split, keys)

    def labels() -> np.ndarray:
        fast = _without_images(builder, split, keys)
        chunks = np.array_split(np.arange(len(fast)), max(1, len(fast) // 1024))
        return np.array([example[keys[1]] for chunk in chunks for example in _at(fast, chunk)])

    # The labels identify a prepared set: its images have no names, and decoders differ between machines.
    return Examples(
        len(reader.source), reader, labels, reader.describe, names=tuple, picklable=True
    )


def first_label(builder: Any, split: str, keys: tuple[str, str]) -> int:
    """Label of the first example of a split, -1 if labels are withheld."""
    return int(_first(builder, split, keys)[keys[1]])


def _first(builder: Any, split: str, keys: tuple[str, str]) -> dict[str, Any]:
    """First example of a split, with its image encoded if it cannot be decoded: that is found later."""
    try:
        return builder.as_data_source(split)[0]
    except Exception:  # decoders raise several types
        return _without_images(builder, split, keys)[0]


def checked(
    builder: Any,
    name: str,
    splits: dict[str, Examples],
    options: LoadOptions,
) -> tuple[list[Examples], list[str]]:
    """Decode examples to find those that cannot be. Examples in memory are decoded only once, later.

    Args:
      builder: of the prepared set.
      name: of the set, for messages.
      splits: names of splits to their examples.
      options: with skip_corrupt, examples that cannot be decoded are left out.

    Returns:
      The examples of each split, and notes.

    Raises:
      UserError: naming the first such example, unless they are left out.
    """
    examples, notes = list(splits.values()), list[str]()
    count = sum(each.count for each in examples)
    skip_corrupt, limit = options.skip_corrupt, options.memory_limit_mb
    decodes = skip_corrupt or options.streams_train
    if not decodes and is_held(count, examples[0].image_shape, limit):
        return examples, notes
    for place, (split, each) in enumerate(splits.items()):
        folder = os.path.join(builder.data_path, split)
        version = _version(builder, split)
        files = [File(os.path.join(folder, str(index)), version) for index in range(each.count)]
        found = inspect_examples(each, files, Verified(builder.data_path / split), name)
        errors = [found.errors[index] for index in sorted(found.errors)]
        if errors and not skip_corrupt:
            raise errors[0]
        if errors:
            kept = np.delete(np.arange(each.count), sorted(found.errors))
            examples[place] = each.select(kept)
            notes.append(
                f"{split}: skipped {len(errors):,} of {each.count:,} examples, which cannot be read "
                f"(data.skip_corrupt); the first: {str(errors[0]).removesuffix(f': {_FIX}')}"
            )
        check_shapes(examples[place], np.delete(found.entries, sorted(found.errors)))
    return examples, notes


def _version(builder: Any, split: str) -> tuple[int, int] | None:
    """Size and time of the last change of a split's files."""
    try:
        found = [os.stat(path) for path in builder.info.splits[split].filepaths]
    except OSError:
        return None
    return sum(each.st_size for each in found), max(each.st_mtime_ns for each in found)


def _without_images(builder: Any, split: str, keys: tuple[str, str]) -> Any:
    """A source of undecoded images, to read labels ten times as fast."""
    import tensorflow_datasets as tfds

    return builder.as_data_source(split, decoders={keys[0]: tfds.decode.SkipDecoding()})


def _decoded(source: Any, index: int, subject: str) -> dict[str, Any]:
    try:
        return source[index]
    except Exception as error:
        raise _unreadable(subject, error) from error


def _unreadable(subject: str, error: Exception) -> UserError:
    reason = printable(one_line(error))
    return UserError(
        f"{subject}: expected a readable image, got {type(error).__name__} ({reason}): {_FIX}"
    )


def _check_readable(builder: Any, name: str, split: str, keys: tuple[str, str]) -> None:
    try:
        _first(builder, split, keys)
    except Exception as error:  # array_record raises RuntimeError and IndexError
        raise UserError(
            f"data set {name!r}: expected readable array_record files in {builder.data_path}, got "
            f"{type(error).__name__} ({error}): remove that directory and prepare the set again"
        ) from error


def _at(source: Any, indices: np.ndarray) -> list[dict[str, Any]]:
    """Return the examples at `indices`."""
    places = indices.tolist()
    try:
        return source.__getitems__(places)  # twice as fast as one by one
    except TypeError:  # tfds.testing.mock_data has single examples only
        return [source[place] for place in places]
