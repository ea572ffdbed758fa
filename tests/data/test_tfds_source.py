"""TFDS sets: prepared by a user-defined builder, mocked, unprepared, unreadable."""

import pathlib
import socket
import sys

import numpy as np
import pytest
from tfds_sets import set_info, shapes_builder

from at_jax.data import load
from at_jax.errors import UserError


def test_tfds_reads_a_set_of_a_user_defined_builder(shapes, folder):
    dataset = load("tfds", name="shapes", data_dir=shapes)
    assert dataset.name == "shapes" and dataset.class_names == ("bright", "dark")
    assert (len(dataset.train), len(dataset.test)) == (8, 4)
    assert dataset.image_shape == (10, 12, 3) and dataset.train.labels.dtype == np.int32
    brightness = dataset.train.images.mean(axis=(1, 2, 3))
    assert np.array_equal(brightness > 120, dataset.train.labels == 0)
    # The same images as the folder they were written from, in an order that TFDS chooses.
    source = load("folder", data_dir=str(folder)).train.images
    assert sorted(image.tobytes() for image in source) == sorted(
        image.tobytes() for image in dataset.train.images
    )
    assert "tensorflow" not in sys.modules
    direct = load("tfds", name="shapes", data_dir=f"{shapes}/shapes/1.0.0")
    assert np.array_equal(direct.train.images, dataset.train.images)
    with pytest.raises(UserError, match=r"'cifar10': .*1\.0\.0 holds 'shapes': change"):
        load("tfds", name="cifar10", data_dir=f"{shapes}/shapes/1.0.0")


def test_tfds_beyond_the_memory_limit_is_lazy(shapes):
    held = load("tfds", name="shapes", data_dir=shapes, image_size=6)
    lazy = load("tfds", name="shapes", data_dir=shapes, image_size=6, memory_limit_mb=0)
    assert held.image_shape == lazy.image_shape == (6, 6, 3)
    assert not isinstance(lazy.train.images, np.ndarray)
    assert np.array_equal(lazy.train.labels, held.train.labels)
    indices = np.array([7, 2, 2, 0])
    assert np.array_equal(lazy.train.take(indices)[0], held.train.take(indices)[0])
    assert (lazy.mean, lazy.std) == (held.mean, held.std)


@pytest.mark.parametrize("size", [0, 24])
def test_tfds_mock_data_loads_at_its_size_or_resized(tmp_path, size):
    import tensorflow_datasets as tfds

    # The mock needs the metadata of a prepared set, not its images.
    builder = tfds.builder("cifar10", data_dir=tmp_path, file_format="array_record")
    template = tfds.core.ShardedFileTemplate(
        data_dir=builder.data_path, dataset_name="cifar10", filetype_suffix="array_record"
    )
    splits = [
        tfds.core.SplitInfo(
            name=name,
            shard_lengths=[64],
            num_bytes=0,
            filename_template=template.replace(split=name),
        )
        for name in ("train", "test")
    ]
    builder.info.set_splits(tfds.core.SplitDict(splits))
    builder.data_path.mkdir(parents=True)
    builder.info.write_to_directory(builder.data_path)
    with tfds.testing.mock_data(num_examples=64, data_dir=str(tmp_path)):
        dataset = load("tfds", name="cifar10", data_dir="unused", image_size=size)
    assert len(dataset.train) == len(dataset.test) == 64
    assert dataset.image_shape == ((size or 32), (size or 32), 3)
    assert dataset.num_classes == 10


def test_tfds_unprepared_raises_at_once_with_the_command(tmp_path, monkeypatch):
    asked = []  # of the network
    monkeypatch.setattr(socket, "getaddrinfo", lambda *given, **_: asked.append(given))
    with pytest.raises(UserError) as error:
        load("tfds", name="cifar10", data_dir=str(tmp_path))
    assert not asked
    message = str(error.value)
    assert f"prepared in {tmp_path}/cifar10/3.0.2, got no such set" in message
    assert f"`make data DATASET=cifar10 DATA_DIR={tmp_path}`" in message
    assert f"`at-jax data --dataset=cifar10 --data_dir={tmp_path}`" in message
    assert "add --manual_dir=DIR (MANUAL_DIR=DIR) to read cifar-10-binary.tar.gz from a" in message
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match=r"imagenette2-160\.tgz"):
        load("tfds", name="imagenette/160px-v2", data_dir=str(tmp_path))


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("", r"expected the name of a set, got none: set --config.data.name"),
        ("cifar1O", r"\(there: shapes\), got neither: did you mean 'cifar10'"),
        ("shape", r"did you mean 'shapes'"),
        ("qqqq", r"got neither: see https://www.tensorflow.org/datasets/catalog"),
        ("imagenette/tiny", r"written name/config:version, .*BuilderConfig tiny not found"),
        ("cifar10:9.9.9", r"only: 3\.0\.2"),
        ("not a name", r"Parsing builder name string not a name failed"),
    ],
)
def test_tfds_with_a_wrong_name_gives_the_nearest_or_the_reason(shapes, name, match):
    with pytest.raises(UserError, match=match):
        load("tfds", name=name, data_dir=shapes)


@pytest.mark.parametrize(
    ("file_format", "why"),
    [("tfrecord", "which only TensorFlow reads"), ("parquet", "TFDS .* drops rows")],
)
def test_tfds_in_an_unreadable_format_raises(shapes, file_format, why):
    set_info(shapes, fileFormat=file_format)
    with pytest.raises(UserError, match=rf"got {file_format} \({why}.*--data_dir"):
        load("tfds", name="shapes", data_dir=shapes)


def test_tfds_with_missing_files_raises(shapes):
    next(pathlib.Path(shapes).rglob("*train*array_record*")).unlink()
    with pytest.raises(
        UserError, match=r"expected readable array_record files in .*prepare the set"
    ):
        load("tfds", name="shapes", data_dir=shapes)


def test_tfds_without_a_label_raises(tmp_path, folder):
    import tensorflow_datasets as tfds

    features = {
        "image": tfds.features.Image(shape=(10, 12, 3), encoding_format="png"),
        "text": tfds.features.Text(),
    }
    shapes_builder(tmp_path / "p", folder, features=features)
    with pytest.raises(
        UserError, match=r"got image \(Image\), text \(Text\): choose an image-class"
    ):
        load("tfds", name="shapes", data_dir=str(tmp_path / "p"))


def test_tfds_without_a_labeled_test_split_uses_validation(tmp_path, folder):
    both = {"train": "train", "test": "train", "validation": "test"}
    # As imagenet2012: there is a test split, but its labels are withheld.
    shapes_builder(tmp_path / "a", folder, splits=both, unlabeled=("test",))
    assert len(load("tfds", name="shapes", data_dir=str(tmp_path / "a")).test) == 4
    shapes_builder(tmp_path / "b", folder, splits={"train": "train", "validation": "test"})
    assert len(load("tfds", name="shapes", data_dir=str(tmp_path / "b")).test) == 4
    shapes_builder(tmp_path / "c", folder, splits={"train": "train"})
    with pytest.raises(UserError, match=r"test or validation, got train"):
        load("tfds", name="shapes", data_dir=str(tmp_path / "c"))
    shapes_builder(tmp_path / "d", folder, splits={"test": "test"})
    with pytest.raises(UserError, match=r"expected a split 'train', got test"):
        load("tfds", name="shapes", data_dir=str(tmp_path / "d"))


def test_tfds_with_unlabeled_training_images_raises(tmp_path, folder):
    shapes_builder(tmp_path / "p", folder, unlabeled=("train",))
    with pytest.raises(UserError, match="labels from 0 to 1, got -1 at example 0 of shapes train"):
        load("tfds", name="shapes", data_dir=str(tmp_path / "p"))


def test_tfds_with_images_of_different_size_raises(tmp_path, folder, picture):
    import tensorflow_datasets as tfds

    picture(40, (20, 30)).save(folder / "train" / "dark" / "large.png")
    features = {
        "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
        "label": tfds.features.ClassLabel(names=["bright", "dark"]),
    }
    shapes_builder(tmp_path / "p", folder, features=features)
    # TFDS orders examples by a hash of their paths: the large one may be first of all, and is then
    # compared with the test images, not with its neighbours.
    with pytest.raises(UserError, match=r"example \d of shapes train\b.*image_size=N"):
        load("tfds", name="shapes", data_dir=str(tmp_path / "p"))
    dataset = load("tfds", name="shapes", data_dir=str(tmp_path / "p"), image_size=9)
    assert dataset.image_shape == (9, 9, 3)
