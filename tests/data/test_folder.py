"""Folders of images."""

import shutil

import numpy as np
import pytest
from PIL import Image

from at_jax.data import channel_statistics, load, memory
from at_jax.data.folder import source
from at_jax.errors import UserError

BRIGHT, DARK = 200, 40  # gray levels of the two classes


def test_folder_loads_classes_by_directory(folder, picture):
    (folder / "train" / "dark" / "notes.txt").write_text("not an image")
    dataset = load("folder", data_dir=str(folder))
    assert dataset.name == "pictures" and dataset.class_names == ("bright", "dark")
    assert dataset.image_shape == (10, 12, 3)
    assert dataset.train.labels.tolist() == [0] * 4 + [1] * 4
    brightness = dataset.train.images.mean(axis=(1, 2, 3))
    assert brightness[:4].min() > 150 > 80 > brightness[4:].max()
    assert (dataset.mean, dataset.std) == channel_statistics(dataset.train)
    # PNG is lossless.
    np.testing.assert_array_equal(dataset.train.images[0], np.asarray(picture(BRIGHT)))


def test_folder_beyond_the_memory_limit_is_lazy(folder):
    in_memory = load("folder", data_dir=str(folder))
    lazy = load("folder", data_dir=str(folder), memory_limit_mb=0)
    assert isinstance(in_memory.train.images, np.ndarray)
    assert not isinstance(lazy.train.images, np.ndarray)
    assert (lazy.mean, lazy.std) == (in_memory.mean, in_memory.std)
    indices = np.array([6, 0, 3])
    for one, other in zip(lazy.train.take(indices), in_memory.train.take(indices), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def test_folder_with_image_size_resizes_and_converts_to_rgb(folder, picture):
    directory = folder / "train" / "dark"
    picture(DARK, (30, 20), "L").save(directory / "gray.png")
    picture(DARK, (9, 20), "RGBA").save(directory / "alpha.png")
    picture(DARK).quantize(8).save(directory / "palette.png", transparency=bytes([0] * 8))
    Image.fromarray(np.full((20, 20), BRIGHT * 256, np.uint16)).save(directory / "sixteen_bit.png")
    with pytest.raises(UserError, match=r"expected 10x12x3 .*0\.png, got 20x\d+x3 .*image_size=N"):
        load("folder", data_dir=str(folder))
    dataset = load("folder", data_dir=str(folder), image_size=8, name="mine")
    assert dataset.name == "mine" and dataset.image_shape == (8, 8, 3)
    names = sorted(path.name for path in directory.iterdir())
    gray = dataset.train.images[4 + names.index("gray.png")]
    assert np.array_equal(gray[..., 0], gray[..., 2])
    assert set(dataset.train.images[4 + names.index("sixteen_bit.png")].ravel()) == {BRIGHT}


def test_folder_with_image_size_crops_the_center(folder):
    # 40 x 20 pixels, red in the middle half: the center square of the resized image is all red.
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
def test_folder_with_an_unreadable_image_names_it(folder, limit):
    path = folder / "train" / "dark" / "1.jpg"
    path.write_bytes(path.read_bytes()[:-40])  # truncated in its data
    with pytest.raises(UserError, match=r"dark/1\.jpg: expected a readable JPEG, .*truncated"):
        load("folder", data_dir=str(folder), memory_limit_mb=limit)
    path.write_bytes(b"no image at all")
    with pytest.raises(UserError, match=r"dark/1\.jpg.*a file that is text"):
        load("folder", data_dir=str(folder), memory_limit_mb=limit)


def test_folder_without_a_directory_gives_both_ways_to_pass_it():
    with pytest.raises(
        UserError, match=r"\{train,test\}/<class>.*got none: set --config\.data"
    ) as error:
        load("folder")
    for fix in ("--config.data.data_dir=DIR", "--config=configs/folder.py:data=DIR"):
        assert fix in str(error.value)


@pytest.mark.parametrize("name", ["val", "validation"])
def test_folder_without_test_is_evaluated_on_its_validation_images(folder, name):
    expected = load("folder", data_dir=str(folder))
    (folder / "test").rename(folder / name)
    found = load("folder", data_dir=str(folder))
    np.testing.assert_array_equal(found.test.images, expected.test.images)
    assert f"no class directories in test: the images of {name} are the test set" in found.notes
    (folder / "test").mkdir()  # of images without labels
    np.testing.assert_array_equal(
        load("folder", data_dir=str(folder)).test.images, expected.test.images
    )
    (folder / name / "gray").mkdir()
    with pytest.raises(UserError, match=f"classes in train and {name}, .* only in {name}: gray"):
        load("folder", data_dir=str(folder))


def test_folder_whose_test_images_are_linked_training_images_notes_it(folder):
    shutil.rmtree(folder / "test" / "dark")
    (folder / "test" / "dark").symlink_to(folder / "train" / "dark")
    notes = load("folder", data_dir=str(folder)).notes
    assert "the test images are training images, through a link: dark" in notes


def test_folder_that_does_not_fit_into_memory_is_refused_before_it_is_decoded(folder, monkeypatch):
    monkeypatch.setattr(source, "inspect", lambda *args, **kwargs: pytest.fail("decoded"))
    with pytest.raises(UserError, match=r"memory for \d+ images of 4000x4000x3 .*available memory"):
        monkeypatch.setattr(memory, "available", lambda: 7 * 4000**2)
        load("folder", data_dir=str(folder), image_size=4000)


def test_folder_whose_training_images_are_streamed_needs_no_memory_for_them(folder, monkeypatch):
    (folder / "train" / "dark" / "notes.txt").write_text("not an image")
    count = len(load("folder", data_dir=str(folder)).test)
    monkeypatch.setattr(memory, "available", lambda: 10 * 32 * 32 * 3 + count * 32 * 32 * 3)
    dataset = load("folder", data_dir=str(folder), image_size=32, random_crop=True)
    assert len(dataset.train) == 8


def test_oversampling_by_links_is_kept(folder):
    before = len(load("folder", data_dir=str(folder)).train)
    (folder / "train" / "dark" / "again.png").symlink_to(folder / "train" / "dark" / "0.png")
    assert len(load("folder", data_dir=str(folder)).train) == before + 1


def test_folder_with_another_layout_raises(folder, tmp_path):
    with pytest.raises(UserError, match=r"nowhere does not exist: set --config.data"):
        load("folder", data_dir=str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"folder nowhere does not exist \(in /.*\): set --config"):
        load("folder", data_dir="nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file is a file: set --config.data"):
        load("folder", data_dir=str(tmp_path / "file"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"got no directory .*empty/train"):
        load("folder", data_dir=str(tmp_path / "empty"))
    (folder / "train" / "gray").mkdir()
    with pytest.raises(UserError, match=r"got only in train: gray, only in test: none"):
        load("folder", data_dir=str(folder))
    (folder / "test" / "gray").mkdir()
    with pytest.raises(
        UserError, match=r"train/gray: expected images \(JPEG, PNG, WebP, BMP or GIF\)"
    ):
        load("folder", data_dir=str(folder))
    (tmp_path / "flat" / "train").mkdir(parents=True)
    with pytest.raises(UserError, match=r"at least two class directories"):
        load("folder", data_dir=str(tmp_path / "flat"))


def test_folder_with_splits_of_different_size_raises(folder, picture):
    for path in (folder / "test").glob("*/*"):
        picture(DARK, (7, 7)).save(path)
    with pytest.raises(UserError, match=r"one size, got 10x12x3 .* and 7x7x3 .*image_size=N"):
        load("folder", data_dir=str(folder))
