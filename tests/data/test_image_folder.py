"""Image folders: order, nested and skipped files, corrupt images, the range of 16-bit values."""

import math
import os
import pathlib

import numpy as np
import pytest
from PIL import Image

from at_jax.data import hold_out, load
from at_jax.data.files import inspection, reading
from at_jax.errors import UserError
from benchmarks.faults.image_files import png_file

CAFE = "caf\u00e9", "cafe\u0301"  # composed (NFC) and decomposed (NFD)


def levels(split):
    """Gray level of each image of a split."""
    return split.take(np.arange(len(split)))[0][:, 0, 0, 0].tolist()


def save(path, level, kind="PNG"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), (level,) * 3).save(path, kind)


@pytest.fixture
def toy(tmp_path):
    """Two classes of three training images and two test images."""
    for split, count in (("train", 3), ("test", 2)):
        for label, name in enumerate("ab"):
            for index in range(count):
                save(tmp_path / "toy" / split / name / f"{index}.png", 100 * label + index)
    return tmp_path / "toy"


def test_folder_reads_nested_files_in_one_order(toy):
    save(toy / "train/a/B.PNG", 50)
    save(toy / "train/a/more/1.png", 51)
    save(toy / "train/a/more/deeper/0", 52)
    save(toy / "train/a/1/z.png", 53)
    save(toy / f"train/a/{CAFE[1]}.png", 54)
    save(toy / "train/a/cafz.png", 55)
    # By the parts of names in composed form, as on any system: "é" is after "z".
    assert levels(load("folder", data_dir=str(toy)).train) == [
        0, 53, 1, 2, 50, 55, 54, 51, 52, 100, 101, 102,
    ]  # fmt: skip


def test_folder_counts_skipped_files_and_passes_over_hidden_ones(toy):
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._1.png", ".ipynb_checkpoints/1.png"):
        (toy / "train/a" / name).parent.mkdir(exist_ok=True)
        (toy / "train/a" / name).write_bytes(b"\0")
    for name in ("__MACOSX", "@eaDir"):
        (toy / "train" / name).mkdir()
    assert load("folder", data_dir=str(toy)).notes == ()
    (toy / "train/a/x.tif").write_bytes(b"II*\0")
    (toy / "train/b/y.tiff").write_bytes(b"MM\0*")
    (toy / "train/b/notes.txt").write_text("words")
    (toy / "train/b/none.jpg").symlink_to("nowhere")
    save(toy / "train/stray.png", 3)
    os.mkfifo(toy / "test/a/pipe.png")
    dataset = load("folder", data_dir=str(toy))
    assert dataset.notes == (
        "train: skipped 5 files: 2 are TIFF, 1 is a dangling link, 1 is outside of the class directories, "
        "1 is text",
        "test: skipped 1 file: 1 is a named pipe",
    )
    assert len(dataset.train) == 6


def test_folder_of_other_formats_says_what_is_there(toy):
    for path in (toy / "test/b").iterdir():
        path.with_suffix(".tif").write_bytes(b"II*\0")
        path.unlink()
    match = (
        r"test/b: expected images \(JPEG.* GIF\), got none \(test: skipped 2 files: 2 are TIFF\)"
    )
    with pytest.raises(UserError, match=match):
        load("folder", data_dir=str(toy))


def test_folder_compares_class_names_in_composed_form(toy):
    (toy / "train/b").rename(toy / "train" / CAFE[0])
    (toy / "test/b").rename(toy / "test" / CAFE[1])
    assert load("folder", data_dir=str(toy)).class_names == ("a", CAFE[0])
    save(toy / "test" / CAFE[0] / "0.png", 1)
    match = r"each class once, got 'cafe\\u0301' and 'caf\\xe9', which are the same text in two"
    with pytest.raises(UserError, match=match):
        load("folder", data_dir=str(toy))


def test_folder_with_links_in_a_circle_ends(toy):
    (toy / "train/a/up").symlink_to(toy / "train")
    (toy / "train/a/self").symlink_to(toy / "train/a")
    (toy / "train/a/deep").mkdir()
    (toy / "train/a/deep/back").symlink_to(toy / "train/a/deep")
    dataset = load("folder", data_dir=str(toy))
    assert np.bincount(dataset.train.labels).tolist() == [6, 3]  # "up" holds those of b


@pytest.mark.parametrize("limit", [0, 4096])
@pytest.mark.parametrize("split", ["train", "test"])
def test_folder_with_corrupt_images_raises_or_skips_them(split, limit, toy):
    options = {"data_dir": str(toy), "memory_limit_mb": limit}
    path = toy / split / "b" / "1.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(UserError, match=rf"{split}/b/1\.png: expected .*skip_corrupt=True"):
        load("folder", **options)
    dataset = load("folder", **options, skip_corrupt=True)
    found = levels(getattr(dataset, split))
    assert 101 not in found and len(found) == {"train": 5, "test": 3}[split]
    assert getattr(dataset, split).labels.tolist() == [level // 100 for level in found]
    (note,) = dataset.notes
    assert note.startswith(f"{split}: skipped 1 of {len(found) + 1} images, which cannot be read")
    assert "1.png" in note and "\n" not in note
    for path in (toy / split / "b").iterdir():
        path.write_bytes(b"\x89PNG")
    with pytest.raises(
        UserError, match=rf"{split}/b: .*got none \({split}: skipped \d files: . are u"
    ):
        load("folder", **options, skip_corrupt=True)


def test_folder_that_is_read_lazily_counts_corrupt_images(toy):
    for name in ("a/0.png", "b/2.png"):
        (toy / "train" / name).write_bytes(b"")
    with pytest.raises(
        UserError, match=r"^2 of 6 images in .*train: image .*a/0\.png: .* is empty"
    ):
        load("folder", data_dir=str(toy), memory_limit_mb=0, image_size=4)


def test_folder_that_is_read_lazily_finds_another_size_before_training(toy):
    Image.new("RGB", (5, 4)).save(toy / "test/b/1.png")
    with pytest.raises(UserError, match=r"b/1\.png: expected 4x4x3 .*a/0\.png, got 4x5x3"):
        load("folder", data_dir=str(toy), memory_limit_mb=0)


@pytest.mark.parametrize("limit", [0, 4096])
def test_folder_scales_16_bit_values_by_the_range_of_the_training_images(limit, toy):
    for index, largest in enumerate((3000, 77, 900)):  # 12 bits
        values = np.full((4, 4, 1), largest)
        (toy / f"train/a/{index}.png").write_bytes(png_file(values, 0, 16))
    values[:] = 50_000
    (toy / "test/a/0.png").write_bytes(png_file(values, 0, 16))
    dataset = load("folder", data_dir=str(toy), memory_limit_mb=limit)
    assert dataset.bit_depth == 12
    assert dataset.notes == ("the values of 16-bit images have 12 bits",)
    assert levels(dataset.train)[:4] == [3000 >> 4, 77 >> 4, 900 >> 4, 100]  # 8 bits stay
    assert levels(dataset.test)[:2] == [255, 1]


def test_folder_whose_image_vanishes_raises_or_takes_the_next_of_the_class(toy, capsys):
    options = {"data_dir": str(toy), "memory_limit_mb": 0}
    strict, lenient = (load("folder", **options, skip_corrupt=skip) for skip in (False, True))
    (toy / "train/a/2.png").unlink()
    (toy / "train/b/0.png").write_bytes(b"\x89PNG")
    with pytest.raises(UserError, match=r"a/2\.png: .*No such file"):
        strict.train.take(np.arange(6))
    for _ in range(2):
        assert levels(lenient.train) == [0, 1, 0, 101, 101, 102]
    vanished, damaged = sorted(capsys.readouterr().err.splitlines())  # threads print in any order
    assert "a/2.png" in vanished and "a/0.png takes its place" in vanished
    assert "b/0.png" in damaged and "b/1.png takes its place" in damaged
    for path in (toy / "train/a").iterdir():
        path.unlink()
    with pytest.raises(UserError, match=r"a/\d\.png"):
        levels(lenient.train)


def test_image_that_vanishes_is_replaced_by_one_of_its_own_split(toy, capsys):
    dataset = load("folder", data_dir=str(toy), memory_limit_mb=0, skip_corrupt=True)
    held = hold_out(dataset, 2, seed=0)
    kept, validated = ({*levels(split)} for split in (held.train, held.test))
    assert not kept & validated
    for level in kept - {min(kept), max(kept)}:
        path = toy / ("train/a" if level < 100 else "train/b") / f"{level % 100}.png"
        path.unlink()
    assert {*levels(held.train)} <= kept
    for line in capsys.readouterr().err.splitlines():
        assert "skip_corrupt" not in line and "takes its place" in line


@pytest.fixture
def examined(tmp_path, monkeypatch):
    """Names of the files that are examined; results are remembered below tmp_path."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(inspection, "_SECONDS_TO_REMEMBER", -1.0)
    names, examine, read = [], reading.examine, reading.read_bytes
    monkeypatch.setattr(reading, "examine", lambda content: names.append(1) or examine(content))
    monkeypatch.setattr(reading, "read_bytes", lambda path, *most: read(path, *most))
    return names


def test_images_that_were_read_before_are_not_examined_again(examined, toy, tmp_path):
    (toy / "test/a/0.png").write_bytes(png_file(np.full((4, 4, 1), 1000), 0, 16))

    def count():
        examined.clear()
        dataset = load("folder", data_dir=str(toy), memory_limit_mb=0)
        assert dataset.bit_depth == 10
        return len(examined)

    assert [count(), count()] == [10, 0]
    save(toy / "train/a/new.png", 7)
    os.utime(toy / "train/b/0.png", (1, 1))
    assert [count(), count()] == [2, 0]
    # A bad image is never remembered, and found after a good one was.
    (toy / "train/b/0.png").write_bytes(b"\x89PNG")
    for _ in range(2):
        with pytest.raises(UserError, match=r"b/0\.png"):
            count()
    save(toy / "train/b/0.png", 100)
    for path in (tmp_path / "cache").rglob("*"):  # damage
        if path.is_file():
            path.write_bytes(path.read_bytes()[:-1] + b"\7")
    assert [count(), count()] == [11, 0]


@pytest.mark.parametrize("size", [0, 4])
def test_images_that_were_held_in_memory_are_not_examined_for_figures(size, examined, toy):
    load("folder", data_dir=str(toy), image_size=size)
    dataset = load("folder", data_dir=str(toy), image_size=size, memory_limit_mb=0)
    assert not examined and len(dataset.train.take(np.arange(6))[0]) == 6
    # With image_size, the sizes of the files were not compared.
    load("folder", data_dir=str(toy), memory_limit_mb=0)
    assert len(examined) == (10 if size else 0)


def test_images_are_remembered_only_where_it_takes_long_or_can_be_written(
    examined, toy, tmp_path, monkeypatch
):
    (tmp_path / "cache").write_text("no directory")
    for _ in range(2):
        load("folder", data_dir=str(toy), memory_limit_mb=0)
    assert len(examined) == 20
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    monkeypatch.setattr(inspection, "_SECONDS_TO_REMEMBER", math.inf)
    load("folder", data_dir=str(toy), memory_limit_mb=0)
    assert not pathlib.Path(tmp_path / "other").exists()


def test_a_long_inspection_reports_progress(toy, monkeypatch, capsys):
    monkeypatch.setattr(inspection, "_SECONDS_BETWEEN_LINES", -1.0)
    monkeypatch.setattr(inspection, "_CHUNK", 4)
    load("folder", data_dir=str(toy), memory_limit_mb=0)
    assert capsys.readouterr().err.splitlines()[0] == "Checked 4 of 6 images of toy"


def test_folder_with_a_control_character_in_a_name_gives_one_line(toy):
    (toy / "train/a/two\nlines.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"'.*two\\nlines\.png'") as error:
        load("folder", data_dir=str(toy))
    assert "\n" not in str(error.value)
    (toy / "train/a/two\nlines.png").unlink()
    (toy / "train/c\nd").mkdir()
    with pytest.raises(UserError, match=r"only in train: 'c\\nd'") as error:
        load("folder", data_dir=str(toy))
    assert "\n" not in str(error.value)
