"""Reading of image files: hostile ones, each with the right pixels, refusal or skip."""

import concurrent.futures
import struct
import time

import numpy as np
import pytest
from PIL import Image

from at_jax.data import crops
from at_jax.data.files import reading
from at_jax.data.files.formats import recognize
from at_jax.errors import UserError
from benchmarks.faults import images
from benchmarks.faults.image_files import png_file, saved


@pytest.mark.parametrize("kind", images.KINDS)
def test_file_in_a_folder_has_the_right_pixels_or_message(kind, tmp_path):
    assert images.check(kind, tmp_path, np.random.default_rng(7)) == ""


def test_run_of_the_benchmark_names_failures(tmp_path, monkeypatch):
    assert images.run(2, tmp_path, seed=0) == ("image folders with a hostile file", 2, ())
    monkeypatch.setattr(reading, "to_rgb", lambda image, content: Image.new("RGB", image.size))
    (failure,) = images.run(1, tmp_path, seed=0).failures
    assert failure.startswith("PNG, seed 0, index 0: pixels differ by ")


def test_eps_named_png_starts_no_program(tmp_path, monkeypatch):
    program = tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho started >> {tmp_path}/log\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    path = tmp_path / "x.png"
    path.write_bytes(saved(Image.new("RGB", (16, 16)), "EPS"))
    with pytest.raises(UserError, match=r"x\.png: expected .* BMP or GIF, got a file that is EPS"):
        reading.read_image(path)
    assert not (tmp_path / "log").exists()


@pytest.mark.parametrize(("alpha", "expected"), [(0, [10, 20, 30]), (128, [132, 137, 142])])
def test_bitmap_whose_fourth_byte_is_unset_is_opaque(alpha, expected, tmp_path):
    pixels = np.array([[[30, 20, 10, alpha]]], np.uint8)  # blue, green, red, alpha
    masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    header = struct.pack("<IiiHHIIiiII4I", 108, 1, 1, 1, 32, 3, 4, 0, 0, 0, 0, *masks) + bytes(52)
    data = struct.pack("<2sIHHI", b"BM", 14 + 108 + 4, 0, 0, 14 + 108) + header + pixels.tobytes()
    (tmp_path / "x.bmp").write_bytes(data)
    assert np.asarray(reading.read_image(tmp_path / "x.bmp"))[0, 0].tolist() == expected


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"", "empty"),
        (b"BM text that begins like a bitmap", "text"),
        (b"GIF88a", "text"),
        (b"MM\0*", "TIFF"),
        (b"\xef\xbb\xbf  <HTML>", "HTML"),
        ("é".encode() * 256, "text"),  # 512 bytes
        (b"\0\0\0\x1cftypavif", "AVIF or HEIC"),
        (b"\xff\xfe\0\1", "of an unknown format"),
        (b"\0" * 128 + b"DICM", "DICOM"),
    ],
)
def test_recognize_names_other_files(head, expected):
    assert recognize(head) == expected


@pytest.mark.parametrize("depth", [8, 10, 12, 14, 16])
def test_read_image_shifts_16_bit_values_by_the_depth_and_clips(depth, tmp_path):
    values = np.array([0, 255, 256, 1023, 4095, 16383, 65535]).reshape(1, 7, 1)
    (tmp_path / "a.png").write_bytes(png_file(values, 0, 16))
    found = np.asarray(reading.read_image(tmp_path / "a.png", depth))[0, :, 0]
    assert found.tolist() == [min(v >> (depth - 8), 255) for v in values.ravel()]


def test_to_square_equals_resizing_the_whole_image(picture):
    rng = np.random.default_rng(0)
    for width, height, size in [*rng.integers(3, 90, (40, 3)).tolist(), (500, 375, 224)]:
        image = picture(100, (width, height))
        scale = size / min(width, height)
        whole = image.resize(
            [max(size, round(side * scale)) for side in image.size], Image.Resampling.BILINEAR
        )
        left, top = (whole.width - size) // 2, (whole.height - size) // 2
        expected = np.asarray(whole.crop((left, top, left + size, top + size)), int)
        found = np.asarray(crops.to_square(image, size), int)
        assert np.abs(found - expected).max() <= 1, (width, height, size)


@pytest.mark.parametrize("size", [(65_000, 1), (1, 65_000)])
def test_to_square_of_a_long_image_is_cheap(size, monkeypatch):
    image = Image.new("RGB", size, (1, 2, 3))
    computed, new = [], Image.Image._new  # every operation makes its result with it
    monkeypatch.setattr(
        Image.Image, "_new", lambda self, core: computed.append(core.size) or new(self, core)
    )
    square = crops.to_square(image, 224)
    assert computed == [(224, 224)]
    assert square.size == (224, 224) and square.getpixel((100, 100)) == (1, 2, 3)


def test_large_images_are_decoded_one_after_another(monkeypatch):
    monkeypatch.setattr(reading, "_MAX_PIXELS_AT_ONCE", 100)
    at_once = []

    def decode(pixels):
        with reading._room(pixels):
            time.sleep(0.01)
            at_once.append(reading._pixels_decoded)

    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        list(threads.map(decode, [60, 60, 40, 10**9, 30, 30, 60, 100]))
    assert max(at_once) <= 100 and reading._pixels_decoded == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.mkdir(), "got no regular file"),
        (lambda path: None, r"FileNotFoundError \(No such file or directory\)"),
        (lambda path: path.symlink_to(path), "OSError"),
    ],
)
def test_read_image_of_what_is_no_file_raises(change, message, tmp_path):
    change(tmp_path / "a.png")
    with pytest.raises(UserError, match=message) as error:
        reading.read_image(tmp_path / "a.png")
    assert str(error.value).count(str(tmp_path)) == 1


def test_read_image_bounds_the_size_of_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "_MAX_BYTES", 1000)
    (tmp_path / "a.png").write_bytes(png_file(np.zeros((4, 4, 3), int), 2, 8) + bytes(1000))
    with pytest.raises(UserError, match="expected a file of at most 1,000 bytes, got a larger one"):
        reading.read_image(tmp_path / "a.png")
