"""The sources by name: digits and folders of images (TFDS sets: test_data_tfds.py)."""

import importlib.util
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from at_jax.data import load
from at_jax.data.dataset import channel_statistics

# Two classes by brightness, so that a mixed-up label shows.
DARK, BRIGHT = 40, 200


def picture(level, size=(12, 10), mode="RGB"):
    """A noisy image of `size` (width, height) around a grey level."""
    channels = {"L": (), "RGB": (3,), "RGBA": (4,)}[mode]
    noise = np.random.default_rng(level).integers(-30, 30, (size[1], size[0], *channels))
    return Image.fromarray((level + noise).astype(np.uint8))


@pytest.fixture
def folder(tmp_path):
    """4 training and 2 test images a class, of one size."""
    for split, count in (("train", 4), ("test", 2)):
        for name, level in (("bright", BRIGHT), ("dark", DARK)):
            directory = tmp_path / "pictures" / split / name
            directory.mkdir(parents=True)
            for i in range(count):
                picture(level + i).save(directory / f"{i}.{('png', 'jpg', 'JPEG')[i % 3]}")
    return tmp_path / "pictures"


# ---- the registry ------------------------------------------------------------------------------


def test_unknown_source_and_negative_numbers():
    with pytest.raises(ValueError, match=r"one of \['digits', 'folder', 'tfds'\], got 'cifar10'"):
        load("cifar10")
    with pytest.raises(ValueError, match="image_size: expected 0 or more, got -1"):
        load("digits", image_size=-1)


def test_importing_the_package_imports_no_reader():
    code = (
        "import sys, at_jax.data; loaded = sys.modules;"
        "assert not {'sklearn', 'tensorflow_datasets', 'PIL'} & set(loaded);"
        "at_jax.data.load('digits'); assert 'sklearn' not in loaded"
    )
    root = pathlib.Path(__file__).parents[1]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)


# ---- digits ------------------------------------------------------------------------------------


def test_digits():
    dataset = load("digits")
    assert dataset.image_shape == (16, 16, 1) and dataset.num_classes == 10
    assert (len(dataset.train), len(dataset.test)) == (1442, 355)
    assert dataset.train.images.dtype == np.uint8 and dataset.train.labels.dtype == np.int32
    # 174 to 183 images a class, of which every fifth is a test image.
    assert set(np.bincount(dataset.test.labels)) <= {34, 35, 36}
    assert (dataset.mean, dataset.std) == channel_statistics(dataset.train)
    again = load("digits", name="digits")
    assert np.array_equal(again.test.images, dataset.test.images)


def test_digits_keep_their_pixels_at_their_own_size():
    dataset = load("digits", image_size=8)
    assert dataset.image_shape == (8, 8, 1)
    assert dataset.train.images.max() == 255  # 16 of 16
    # The file's first image is a zero; its first row is 0 0 5 13 9 1 0 0, times 255 / 16.
    assert dataset.train.labels[0] == 0
    assert dataset.train.images[0, 0, :, 0].tolist() == [0, 0, 80, 207, 143, 16, 0, 0]


def test_digits_errors(monkeypatch):
    with pytest.raises(ValueError, match="expected no name, got 'cifar10'"):
        load("digits", name="cifar10")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"got no scikit-learn: pip install scikit-learn"):
        load("digits")


# ---- folder ------------------------------------------------------------------------------------


def test_folder(folder):
    (folder / "train" / "dark" / "notes.txt").write_text("not an image")
    dataset = load("folder", data_dir=str(folder))
    assert dataset.name == "pictures" and dataset.class_names == ("bright", "dark")
    assert dataset.image_shape == (10, 12, 3)
    assert dataset.train.labels.tolist() == [0] * 4 + [1] * 4
    brightness = dataset.train.images.mean(axis=(1, 2, 3))
    assert brightness[:4].min() > 150 > 80 > brightness[4:].max()
    assert (dataset.mean, dataset.std) == channel_statistics(dataset.train)
    # PNG is lossless: the file's own pixels.
    np.testing.assert_array_equal(dataset.train.images[0], np.asarray(picture(BRIGHT)))


def test_folder_is_lazy_beyond_the_memory_limit(folder):
    held = load("folder", data_dir=str(folder))
    lazy = load("folder", data_dir=str(folder), memory_limit_mb=0)
    assert isinstance(held.train.images, np.ndarray)
    assert not isinstance(lazy.train.images, np.ndarray)
    assert (lazy.mean, lazy.std) == (held.mean, held.std)
    indices = np.array([6, 0, 3])
    for one, other in zip(lazy.train.take(indices), held.train.take(indices), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def test_folder_brings_images_to_one_size_and_to_rgb(folder):
    directory = folder / "train" / "dark"
    picture(DARK, (30, 20), "L").save(directory / "grey.png")
    picture(DARK, (9, 20), "RGBA").save(directory / "alpha.png")
    picture(DARK).quantize(8).save(directory / "palette.png", transparency=bytes([0] * 8))
    Image.fromarray(np.full((20, 20), BRIGHT * 256, np.uint16)).save(directory / "sixteen_bit.png")
    with pytest.raises(ValueError, match=r"20x\d+x3 .* expected 10x12x3 .*0\.png; .*image_size=N"):
        load("folder", data_dir=str(folder))
    dataset = load("folder", data_dir=str(folder), image_size=8, name="mine")
    assert dataset.name == "mine" and dataset.image_shape == (8, 8, 3)
    names = sorted(path.name for path in directory.iterdir())
    grey = dataset.train.images[4 + names.index("grey.png")]
    assert np.array_equal(grey[..., 0], grey[..., 2])
    assert set(dataset.train.images[4 + names.index("sixteen_bit.png")].ravel()) == {BRIGHT}


def test_folder_crops_the_centre(folder):
    # 40 x 20 pixels, red in the middle half: the centre square of the resized image is all red.
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, 10:30, 0] = 255
    for path in folder.glob("*/*/*"):
        Image.fromarray(pixels).save(path.with_suffix(".png"))
        if path.suffix != ".png":
            path.unlink()
    images = load("folder", data_dir=str(folder), image_size=10).train.images
    assert images[..., 0].min() > 190 and images[:, :, 2:8, 0].min() == 255
    assert images[..., 1:].max() == 0


@pytest.mark.parametrize("limit", [4096, 0])
def test_folder_names_the_unreadable_image(folder, limit):
    path = folder / "train" / "dark" / "1.jpg"
    path.write_bytes(path.read_bytes()[:-40])  # truncated in its data
    with pytest.raises(
        ValueError, match=r"dark/1\.jpg: expected a readable JPEG or PNG.*truncated"
    ):
        load("folder", data_dir=str(folder), memory_limit_mb=limit)
    path.write_bytes(b"no image at all")
    with pytest.raises(ValueError, match=r"dark/1\.jpg.*UnidentifiedImageError"):
        load("folder", data_dir=str(folder), memory_limit_mb=limit)


def test_folder_layout_errors(folder, tmp_path):
    with pytest.raises(ValueError, match=r"\{train,test\}/<class>.*got none: give data_dir"):
        load("folder")
    with pytest.raises(ValueError, match=r"got no directory .*nowhere/train"):
        load("folder", data_dir=str(tmp_path / "nowhere"))
    (folder / "train" / "grey").mkdir()
    with pytest.raises(ValueError, match=r"got \['grey'\] only in train and \[\] only in test"):
        load("folder", data_dir=str(folder))
    (folder / "test" / "grey").mkdir()
    with pytest.raises(ValueError, match=r"train/grey: expected images \(.jpg, .jpeg, .png\)"):
        load("folder", data_dir=str(folder))
    (tmp_path / "flat" / "train").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"at least two class directories"):
        load("folder", data_dir=str(tmp_path / "flat"))


def test_folder_splits_of_different_size(folder):
    for path in (folder / "test").glob("*/*"):
        picture(DARK, (7, 7)).save(path)
    with pytest.raises(ValueError, match=r"one size, got 10x12x3 .* and 7x7x3 .*image_size=N"):
        load("folder", data_dir=str(folder))
