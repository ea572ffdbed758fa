"""Checks of what users pass."""

import numpy as np
import pytest

from at_jax.data.checks import check_class_names, check_image, check_labels, numbered_class_names
from at_jax.errors import UserError


def test_check_class_names_gives_a_tuple_of_strings():
    assert check_class_names("mine", np.array(["cat", "dog"])) == ("cat", "dog")
    assert check_class_names("mine", (name for name in "ab")) == ("a", "b")


@pytest.mark.parametrize("names", ["cat", [], 3, None, [0, 1, 2]])
def test_check_class_names_of_no_list_of_strings_raises(names):
    with pytest.raises(UserError, match="'mine': expected class_names as a list of strings, got"):
        check_class_names("mine", names)


def test_check_labels_accepts_every_class_and_names_the_first_wrong_one():
    names = tuple(f"class {k}" for k in range(7))
    check_labels("labels", np.arange(7), names)
    check_labels("label", 6, names)
    match = r"labels\[1\]: expected a label from 0 to 6 \(classes .*class 4 and 2 more\), got 7"
    with pytest.raises(UserError, match=match):
        check_labels("labels", np.array([0, 7, -1]), names)
    with pytest.raises(UserError, match="label: .* got 7: add the name"):
        check_labels("label", 7, names)


def test_check_image_of_one_channel_gets_its_axis():
    image = np.zeros((3, 8), np.uint8)
    assert check_image(image, image.shape, "image").shape == (3, 8, 1)
    assert check_image(image[None], image.shape, "images").shape == (1, 3, 8, 1)


def test_numbered_class_names_cover_both_splits():
    assert numbered_class_names("mine", np.array([0, 0]), np.array([2])) == ("0", "1", "2")
    with pytest.raises(UserError, match="'mine': .* the label 3 among 3 examples: number those"):
        numbered_class_names("mine", np.array([0, 3]), np.array([2]))
