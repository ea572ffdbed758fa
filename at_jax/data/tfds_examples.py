"""Examples of a prepared TFDS set: reading, and the search for images that cannot be decoded."""

import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from at_jax.data.decoding import Examples, as_array, is_held, to_square
from at_jax.data.inspection import check_shapes, inspect_examples
from at_jax.data.listing import File
from at_jax.data.verified import Verified
from at_jax.errors import UserError, listed, printable

__all__ = ["checked", "examples_of", "first_label"]


def examples_of(
    builder: Any, name: str, split: str, keys: tuple[str, str], image_size: int
) -> Examples:
    """Examples of a split, not decoded yet.

    Args:
      builder: of the prepared set.
      name: of the set, for messages.
      split: of the set.
      keys: names of the image and the label feature.
      image_size: see :func:`at_jax.data.load`.

    Raises:
      UserError: if there is no such split, or it cannot be read.
    """
    image_key, label_key = keys
    if split not in builder.info.splits:
        raise UserError(
            f"data set {name!r}: expected a split {split!r}, got "
            f"{listed(sorted(builder.info.splits))}: choose a set that has one"
        )
    source = builder.as_data_source(split)
    _check_readable(source, name, builder, lambda: _without_images(builder, split, keys))

    def describe(index: int) -> str:
        return f"example {index} of {name} {split}"

    def read(indices: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
        try:
            examples = _at(source, indices)
        except Exception:  # array_record and decoders raise several types
            # One by one, to find the example.
            examples = [_decoded(source, int(index), describe(int(index))) for index in indices]
        for example in examples:
            yield _to_size(example[image_key], image_size), int(example[label_key])

    def labels() -> np.ndarray:
        fast = _without_images(builder, split, keys)
        chunks = np.array_split(np.arange(len(fast)), max(1, len(fast) // 1024))
        return np.array([example[label_key] for chunk in chunks for example in _at(fast, chunk)])

    # The labels identify a prepared set: its images have no names, and decoders differ between machines.
    return Examples(len(source), read, labels, describe, names=tuple)


def first_label(builder: Any, split: str, keys: tuple[str, str]) -> int:
    """Label of the first example of a split, -1 if labels are withheld."""
    try:
        example = builder.as_data_source(split)[0]
    except Exception:  # its image cannot be decoded
        example = _without_images(builder, split, keys)[0]
    return int(example[keys[1]])


def checked(
    builder: Any,
    name: str,
    splits: dict[str, Examples],
    memory_limit_mb: int,
    skip_corrupt: bool,
) -> tuple[list[Examples], list[str]]:
    """Decode examples to find those that cannot be. Examples in memory are decoded only once, later.

    Args:
      builder: of the prepared set.
      name: of the set, for messages.
      splits: names of splits to their examples.
      memory_limit_mb: see :func:`at_jax.data.load`.
      skip_corrupt: leave out examples that cannot be decoded.

    Returns:
      The examples of each split, and notes.

    Raises:
      UserError: naming the first such example, unless they are left out.
    """
    examples, notes = list(splits.values()), list[str]()
    count = sum(each.count for each in examples)
    if not skip_corrupt and is_held(count, examples[0].image_shape, memory_limit_mb):
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
                f"(data.skip_corrupt); the first: {errors[0]}"
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
        reason = printable(" ".join(str(error).split()))[:200]
        raise UserError(
            f"{subject}: expected a readable image, got {type(error).__name__} ({reason}): prepare the set "
            "again, or set data.skip_corrupt=True"
        ) from error


def _check_readable(
    source: Any, name: str, builder: Any, without_images: Callable[[], Any]
) -> None:
    try:
        try:
            source[0]
        except Exception:
            # Succeeds if only the image cannot be decoded, which is found later.
            without_images()[0]
    # array_record raises RuntimeError and IndexError, decoders raise other types.
    except Exception as error:
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


def _to_size(image: np.ndarray, image_size: int) -> np.ndarray:
    from PIL import Image

    if image_size == 0 or image.shape[:2] == (image_size, image_size):
        return image
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    return as_array(to_square(picture, image_size))
