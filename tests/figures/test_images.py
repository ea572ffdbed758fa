"""Images that are drawn: chosen, read, cropped."""

import pathlib

import numpy as np
import pytest
from PIL import Image

from at_jax import data
from at_jax.data.files import photographs
from at_jax.errors import UserError
from at_jax.figures import images


def test_from_files_crops_photographs_as_training_does(tmp_path):
    # 40 x 20, red in the left quarter, blue in the right, green between: the center square is green.
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, :10, 0] = pixels[:, 10:30, 1] = pixels[:, 30:, 2] = 255
    (tmp_path / "dog").mkdir()
    Image.fromarray(pixels).save(tmp_path / "dog" / "wide.png")
    Image.fromarray(pixels).rotate(90, expand=True).save(tmp_path / "tall.png")
    paths = [str(tmp_path / "dog" / "wide.png"), str(tmp_path / "tall.png")]
    found = images.from_files(paths, (8, 8, 3), ["cat", "dog"])
    assert found.pixels.shape == (2, 8, 8, 3)
    np.testing.assert_array_equal(found.pixels[:, 2:6, 2:6], np.full((2, 4, 4, 3), (0, 255, 0)))
    assert found.labels.tolist() == [1, images.UNKNOWN]  # by the name of the directory
    # Drawn with more pixels than the network takes: 8 * (192 // 8).
    assert found.shown[0].shape == (192, 192, 3)


def test_from_files_converts_to_gray_for_one_channel(tmp_path):
    Image.new("RGBA", (30, 30), (255, 0, 0, 255)).save(tmp_path / "a.png")
    found = images.from_files([str(tmp_path / "a.png")], (16, 16, 1))
    assert found.pixels.shape == (1, 16, 16, 1)
    assert found.pixels.ravel()[0] == 76  # 0.299 * 255: the luminance of red


def test_from_files_applies_orientation_tags_and_allows_rectangles(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees
    Image.new("RGB", (40, 20)).save(tmp_path / "a.jpg", exif=exif)
    found = images.from_files([str(tmp_path / "a.jpg")], (40, 20, 3))
    assert found.pixels.shape == (1, 40, 20, 3)
    assert found.shown[0].shape == (160, 80, 3)


def test_class_names_in_decomposed_form_are_those_of_the_directories():
    # Names of arrays are not normalized; directories of a Mac are decomposed.
    for directory in ("caf\u00e9", "cafe\u0301"):
        for name in ("caf\u00e9", "cafe\u0301"):
            assert photographs.class_of(f"photos/{directory}/1.jpg", ["dog", name]) == 1


def test_class_of_a_link_is_the_directory_of_the_link(tmp_path, monkeypatch):
    for folder in ("store", "cat"):
        (tmp_path / folder).mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "store" / "1.png")
    (tmp_path / "cat" / "a.png").symlink_to(tmp_path / "store" / "1.png")
    (tmp_path / "cat" / "below").mkdir()
    monkeypatch.chdir(tmp_path / "cat" / "below")
    for file in (str(tmp_path / "cat" / "a.png"), "../a.png", "../../cat/a.png"):
        found = images.from_files([file, "../../store/1.png"], (8, 8, 3), ["dog", "cat"])
        assert found.labels.tolist() == [1, images.UNKNOWN]


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ((), images.UNKNOWN),
        (("photos",), 1),
        (("photos/cat",), 1),
        (("./photos/cat/",), 1),
        (("photos/cat/small",), images.UNKNOWN),
        (("photos/cat/small/a.png",), images.UNKNOWN),
        (("phot", "photos/dog"), images.UNKNOWN),
        (("photos/cat/small", "photos"), 1),
        (("/",), 1),
        (("nosuch://photos", "photos"), 1),
    ],
)
def test_class_of_a_file_below_the_directory_of_a_class(tmp_path, monkeypatch, named, expected):
    (tmp_path / "dog" / "photos" / "cat" / "small").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "dog")  # above the named directories: no class
    Image.new("RGB", (9, 9)).save("photos/cat/small/a.png")
    found = images.from_files(["photos/cat/small/a.png"], (8, 8, 3), ["dog", "cat"], named=named)
    assert found.labels.tolist() == [expected]


def test_from_files_reads_16_bit_values_by_the_depth_of_the_data_set(tmp_path):
    Image.fromarray(np.full((9, 9), 2560, np.uint16)).save(tmp_path / "a.png")
    for depth, expected in ((16, 10), (12, 160)):
        found = images.from_files([str(tmp_path / "a.png")], (8, 8, 1), bit_depth=depth)
        assert np.unique(found.pixels).tolist() == [expected]


def test_from_files_that_cannot_be_read_raises(tmp_path):
    with pytest.raises(UserError, match="--images: there is no file 'none.png'"):
        images.from_files(["none.png"], (8, 8, 3))
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(UserError, match=r"--images: image .*a\.png: .* a file that is text"):
        images.from_files([str(tmp_path / "a.png")], (8, 8, 3))


def test_files_of_a_directory_are_evenly_spaced_and_those_that_are_named_are_all_kept(tmp_path):
    for n in range(6):
        folder = tmp_path / "photographs" / f"class{n // 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(folder / f"{n}.png")
    directory = str(tmp_path / "photographs")
    for count, expected in ((1, "0"), (3, "024"), (4, "0134"), (9, "012345")):
        found = images.files(["b.jpg", directory, "a.jpg"], count)
        assert found[0] == "b.jpg" and found[-1] == "a.jpg"
        assert "".join(pathlib.Path(file).stem for file in found[1:-1]) == expected
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="--images: expected a directory with .*, got none in"):
        images.files([str(tmp_path / "empty")], 8)


def test_choose_takes_classes_in_turn_and_some_mistakes():
    labels = np.array([0, 0, 0, 1, 1, 2, 2, 2], np.int32)
    assert images.choose(labels, 5).tolist() == [0, 3, 5, 1, 4]
    wrong = np.zeros(8, bool)
    wrong[[2, 5]] = True
    # A quarter of 4 is one mistake: that of the class whose turn comes first.
    assert images.choose(labels, 4, wrong).tolist() == [0, 3, 1, 5]
    assert sorted(images.choose(labels, 99, wrong).tolist()) == list(range(8))


def test_from_split_repeats_gray_values_for_drawing():
    split = data.Split(np.full((2, 4, 4, 1), 9, np.uint8), np.array([1, 0], np.int32))
    found = images.from_split(split, np.array([1]))
    assert found.pixels.shape == (1, 4, 4, 1) and found.shown[0].shape == (4, 4, 3)
    assert found.labels.tolist() == [0]


@pytest.mark.parametrize(("channels", "shown"), [(2, [0, 0, 0]), (4, [0, 1, 2])])
def test_from_split_draws_the_first_channels_of_others(channels, shown):
    pixels = np.broadcast_to(np.arange(channels, dtype=np.uint8), (1, 4, 4, channels))
    split = data.Split(pixels, np.array([0], np.int32))
    assert images.from_split(split, np.array([0])).shown[0][1, 2].tolist() == shown
