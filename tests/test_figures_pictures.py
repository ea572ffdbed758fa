"""Images that are drawn: chosen, read, cut."""

import numpy as np
import pytest
from PIL import Image

from at_jax import data
from at_jax.figures import pictures


def test_photographs_of_any_size_are_cut_as_in_training(tmp_path):
    # 40 x 20, red in the left quarter, blue in the right, green between: the centre square is green.
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, :10, 0] = pixels[:, 10:30, 1] = pixels[:, 30:, 2] = 255
    (tmp_path / "dog").mkdir()
    Image.fromarray(pixels).save(tmp_path / "dog" / "wide.png")
    Image.fromarray(pixels).rotate(90, expand=True).save(tmp_path / "tall.png")
    found = pictures.from_files(
        [str(tmp_path / "dog" / "wide.png"), str(tmp_path / "tall.png")], (8, 8, 3), ["cat", "dog"]
    )
    assert found.images.shape == (2, 8, 8, 3)
    np.testing.assert_array_equal(found.images[:, 2:6, 2:6], np.full((2, 4, 4, 3), (0, 255, 0)))
    assert found.labels.tolist() == [1, pictures.UNKNOWN]  # by the folder's name
    # Drawn from more pixels than the network sees: 8 * (192 // 8).
    assert found.shown[0].shape == (192, 192, 3)


def test_grey_networks_see_grey(tmp_path):
    Image.new("RGBA", (30, 30), (255, 0, 0, 255)).save(tmp_path / "a.png")
    found = pictures.from_files([str(tmp_path / "a.png")], (16, 16, 1))
    assert found.images.shape == (1, 16, 16, 1)
    assert found.images.ravel()[0] == 76  # 0.299 * 255: the eye's weight of red


def test_a_rotation_tag_is_followed_and_shapes_need_not_be_square(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # held upright: turn by 90 degrees
    Image.new("RGB", (40, 20)).save(tmp_path / "a.jpg", exif=exif)
    found = pictures.from_files([str(tmp_path / "a.jpg")], (40, 20, 3))
    assert found.images.shape == (1, 40, 20, 3)
    assert found.shown[0].shape == (160, 80, 3)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ValueError, match="--images: there is no file 'none.png'"):
        pictures.from_files(["none.png"], (8, 8, 3))
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(ValueError, match="cannot be read as an image"):
        pictures.from_files([str(tmp_path / "a.png")], (8, 8, 3))


def test_the_choice_shows_every_class_and_some_mistakes():
    labels = np.array([0, 0, 0, 1, 1, 2, 2, 2], np.int32)
    assert pictures.choose(labels, 5).tolist() == [0, 3, 5, 1, 4]
    wrong = np.zeros(8, bool)
    wrong[[2, 5]] = True
    # A quarter of 4 is one mistake: that of the class whose turn comes first.
    assert pictures.choose(labels, 4, wrong).tolist() == [0, 3, 1, 5]
    assert sorted(pictures.choose(labels, 99, wrong).tolist()) == list(range(8))


def test_grey_images_of_a_split_are_drawn():
    split = data.Split(np.full((2, 4, 4, 1), 9, np.uint8), np.array([1, 0], np.int32))
    found = pictures.from_split(split, np.array([1]))
    assert found.images.shape == (1, 4, 4, 1) and found.shown[0].shape == (4, 4, 3)
    assert found.labels.tolist() == [0]
