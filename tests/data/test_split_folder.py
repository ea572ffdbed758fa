"""Folders whose classes are not split into train and test."""

import shutil

import numpy as np
import pytest

from at_jax.data import load
from at_jax.errors import UserError


@pytest.fixture
def classes(folder):
    """Two classes of ten images, directly in a directory."""
    for index in range(4, 10):
        for name in ("bright", "dark"):
            shutil.copy(folder / "train" / name / "0.png", folder / "train" / name / f"{index}.png")
    return folder / "train"


def test_folder_without_train_and_test_is_split_by_fraction_and_seed(classes):
    def split(**options):
        dataset = load("folder", data_dir=str(classes), memory_limit_mb=0, **options)
        examples = dataset.test.images.examples
        tested = {examples.describe(index) for index in range(examples.count)}
        return dataset, tested, (len(dataset.train), len(dataset.test))

    dataset, tested, sizes = split()
    assert sizes == (16, 4) and dataset.class_names == ("bright", "dark")
    assert np.bincount(dataset.test.labels).tolist() == [2, 2]  # 20 % of each class
    assert dataset.notes == (
        "no directories train and test: 4 of 20 images are the test set (data.test_fraction=0.2, "
        "data.split_seed=0)",
    )
    assert load("folder", data_dir=str(classes)).identity == dataset.identity
    assert {split(split_seed=seed)[0].identity for seed in range(8)} > {dataset.identity}
    assert split(test_fraction=0.001)[2] == (18, 2)  # one of each class at least
    assert split(test_fraction=0.999)[2] == (2, 18)
    # A file that is no image is no part of it, and a new image does not move the others.
    (classes / "dark" / "notes.txt").write_text("words")
    noted, _, sizes = split()
    assert sizes == (16, 4) and noted.identity == dataset.identity
    assert noted.notes[0] == "train: skipped 1 file: 1 is text"
    shutil.copy(classes / "dark" / "0.png", classes / "dark" / "new.png")
    _, again, _ = split()
    assert len(tested & again) >= 3


def test_folder_with_parts_that_are_no_classes_is_not_split(classes):
    (classes / "dark").rename(classes / "validation")
    with pytest.raises(UserError, match="got bright next to validation, the name of a split"):
        load("folder", data_dir=str(classes))


@pytest.mark.parametrize("part", ["train", "dev"])
def test_folder_with_a_class_that_has_the_name_of_a_split_says_so(part, classes):
    (classes / "bright").rename(classes / part)
    with pytest.raises(UserError, match=rf"got dark next to {part}, the name of a split: rename"):
        load("folder", data_dir=str(classes))


def test_links_to_other_images_are_left_out(classes):
    before = load("folder", data_dir=str(classes))
    (classes / "dark/best").mkdir()
    images = [path for path in (classes / "dark").iterdir() if path.is_file()]
    for image in images:
        (classes / "dark/best" / image.name).symlink_to(image)
    after = load("folder", data_dir=str(classes))
    assert after.identity == before.identity
    assert any(f"{len(images)} are repeated by a link" in note for note in after.notes)
    # Links to files elsewhere are images.
    outside = classes.parent / "outside.png"
    images[0].rename(outside)
    images[0].symlink_to(outside)
    assert len(load("folder", data_dir=str(classes)).train) == len(before.train)


def test_folder_with_one_image_of_a_class_cannot_be_split(classes):
    for path in sorted((classes / "dark").iterdir())[1:]:
        path.unlink()
    with pytest.raises(UserError, match="dark: expected at least 2 images, one to train .*got 1"):
        load("folder", data_dir=str(classes))
