"""Random and center crops of photographs, and decoding at the scale that a crop needs."""

import functools
import math
import pathlib

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from at_jax.data import crops
from at_jax.data.crops import Box, CenterCrop, RandomResizedCrop
from at_jax.data.files import reading
from benchmarks.faults.image_files import png_file


def test_center_crop_equals_resizing_the_whole_image_and_cropping(picture):
    rng = np.random.default_rng(0)
    for width, height, size in [*rng.integers(3, 90, (20, 3)).tolist(), (500, 375, 224)]:
        image, resize = picture(100, (width, height)), size + int(rng.integers(0, 40))
        scale = resize / min(width, height)
        whole = image.resize(
            [max(resize, round(side * scale)) for side in image.size], Image.Resampling.BILINEAR
        )
        left, top = (whole.width - size) // 2, (whole.height - size) // 2
        expected = np.asarray(whole.crop((left, top, left + size, top + size)), int)
        found = np.asarray(crops.to_square(image, size, resize), int)
        # Resizing all of it also averages over pixels outside of the crop: only at its edge.
        inner = slice(1, -1)
        assert np.abs(found - expected)[inner, inner].max(initial=0) <= 1, (width, height, size)


@functools.cache
def boxes(width=640, height=640, count=4000):
    return np.array(
        [RandomResizedCrop((8, 8), (3, i)).box(width, height) for i in range(count)], int
    )


def test_random_resized_crop_has_the_distribution_of_the_paper_recipe():
    left, top, right, bottom = boxes().T
    assert left.min() >= 0 and top.min() >= 0 and right.max() <= 640 and bottom.max() <= 640
    w, h = right - left, bottom - top
    area, ratio = w * h / 640**2, w / h
    assert 0.079 < area.min() < 0.085 and area.max() <= 1
    assert 0.74 < ratio.min() < 0.76 and 1.32 < ratio.max() < 1.35
    # Every shape of at most 3/4 of a square fits into it, so none of these areas is drawn again.
    fits = area < 0.74
    uniform = stats.uniform(0.08, 0.66)
    assert stats.kstest(area[fits], uniform.cdf).pvalue > 1e-3
    in_logarithm = stats.uniform(math.log(3 / 4), 2 * math.log(4 / 3))
    assert stats.kstest(np.log(ratio[fits]), in_logarithm.cdf).pvalue > 1e-3
    small = area < 0.2  # where there is room
    for place, room in ((left, 640 - w), (top, 640 - h)):
        assert stats.kstest(place[small] / room[small], stats.uniform.cdf).pvalue > 1e-3


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        # No shape of ratio 3/4 to 4/3 and 8 % of the area fits: the largest one of those ratios.
        ((1000, 10), Box(493, 0, 506, 10)),  # width round(10 * 4/3) = 13, left (1000 - 13) // 2
        ((10, 1000), Box(0, 493, 10, 506)),
        ((1, 1), Box(0, 0, 1, 1)),
    ],
)
def test_random_resized_crop_of_a_long_picture_is_its_center(size, expected):
    assert RandomResizedCrop((8, 8), (0,)).box(*size) == expected


def test_random_resized_crop_is_a_function_of_its_key():
    assert RandomResizedCrop((8, 8), (1, 2)).box(99, 70) == RandomResizedCrop((8, 8), (1, 2)).box(
        99, 70
    )
    assert len({tuple(box) for box in boxes(count=50)}) == 50


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_crop_array_resizes_every_channel(channels):
    image = np.random.default_rng(0).integers(0, 256, (9, 12, channels), np.uint8)
    crop = RandomResizedCrop((5, 6), (4,))
    found = crops.crop_array(image, crop)
    box = tuple(crop.box(12, 9))
    for channel in range(channels):
        one = Image.fromarray(image[..., channel]).resize(
            (6, 5), Image.Resampling.BILINEAR, box=box
        )
        np.testing.assert_array_equal(found[..., channel], one)


def smooth(width, height):
    """A picture without detail, which all ways of scaling down keep."""
    x, y = np.meshgrid(np.linspace(0, 6, width), np.linspace(0, 4, height))
    waves = [np.sin(x), np.cos(y), np.sin(x + y)]
    return Image.fromarray(np.stack([127 + 100 * wave for wave in waves], -1).astype(np.uint8))


@pytest.fixture
def decoded_sizes(monkeypatch):
    """Sizes of the pictures that crops are cut out of."""
    sizes = []

    def cut(picture, crop, box):
        sizes.append(picture.size)
        return crops.cut(picture, crop, box)

    monkeypatch.setattr(reading, "cut", cut)
    return sizes


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize(
    ("crop", "scale"),
    [
        (CenterCrop(60, 70), 4),  # the shorter side of 320 is 70: more than a quarter needs 80
        (CenterCrop(100, 120), 2),
        (RandomResizedCrop((40, 40), (0, 2)), 2),
        (CenterCrop(224, 256), 1),
    ],
)
def test_jpeg_is_decoded_at_the_scale_of_its_crop(
    crop, scale, orientation, tmp_path, decoded_sizes
):
    path, exif = pathlib.Path(tmp_path, "a.jpg"), Image.Exif()
    exif[0x0112] = orientation
    smooth(480, 320).save(path, quality=95, exif=exif)
    found = np.asarray(reading.read_image(path, crop=crop), int)
    whole = reading.read_image(path)
    assert whole.size == ((320, 480) if orientation == 6 else (480, 320))
    expected = np.asarray(crops.cut(whole, crop, crop.box(*whole.size)), int)
    assert np.abs(found - expected).max() <= 6 and np.abs(found - expected).mean() < 1
    assert decoded_sizes == [tuple(side // scale for side in whole.size)]


def test_crop_of_other_formats_is_cut_out_of_what_is_read_without_one(tmp_path, picture):
    crop = RandomResizedCrop((6, 6), (5,))
    picture(120, (31, 23), "RGBA").save(tmp_path / "transparent.png")
    wide = np.arange(40 * 30).reshape(30, 40, 1) * 50
    (tmp_path / "sixteen.png").write_bytes(png_file(wide, 0, 16))
    for name in ("transparent.png", "sixteen.png"):
        whole = reading.read_image(tmp_path / name)
        expected = crops.cut(whole, crop, crop.box(*whole.size))
        found = reading.read_image(tmp_path / name, crop=crop)
        assert found.tobytes() == expected.tobytes() and found.size == (6, 6)
