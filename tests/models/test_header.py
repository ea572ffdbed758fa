"""The description of a network in the header of a weights file."""

import json

import numpy as np
import pytest

from at_jax.errors import UserError
from at_jax.models import pretrained

DESCRIBED = {
    "name": "wrn_10_1", "class_names": ["cat", "dög"], "image_shape": [16, 16, 3],
    "mean": [1.5, 2.0, 3.0], "std": [60.0, 61.0, 62.0], "dtype": "float32",
}  # fmt: skip


def write(path, metadata):
    path.write_bytes(pretrained.dumps({"weight": np.ones(2, np.float32)}, metadata))
    return path


def test_description_is_read_as_it_was_written(tmp_path):
    path = write(tmp_path / "a.safetensors", pretrained.metadata(DESCRIBED))
    found = pretrained.description(path)
    assert found == {key: value for key, value in DESCRIBED.items() if key != "dtype"}
    np.testing.assert_array_equal(pretrained.read(path)["weight"], np.ones(2))


def test_description_keeps_the_resize_and_the_bit_depth_if_they_are_known(tmp_path):
    more = {"resize": 20, "bit_depth": 12}
    path = write(tmp_path / "a.safetensors", pretrained.metadata(DESCRIBED | more))
    found = pretrained.description(path)
    assert {key: found[key] for key in more} == more


def test_file_of_another_program_has_no_description(tmp_path):
    assert pretrained.description(write(tmp_path / "a.safetensors", {"format": "pt"})) == {}
    (tmp_path / "a.pth").write_bytes(b"PK")
    (tmp_path / "b.safetensors").write_bytes(b"no file")  # reading its weights names the fault
    for name in ("a.pth", "b.safetensors", "none.safetensors"):
        assert pretrained.description(tmp_path / name) == {}


@pytest.mark.parametrize(
    "change",
    [
        {"name": 7}, {"class_names": "cat"}, {"class_names": [1]}, {"mean": 3}, {"mean": ["x"]},
        {"mean": [1.0]}, {"std": [0, 1, 1]}, {"std": [float("nan")] * 3}, {"mean": [1e9, 1, 1]},
        {"image_shape": [16, 16]}, {"image_shape": [16, -5, 3]}, {"image_shape": [16, 2.5, 3]},
        {"image_shape": [16, True, 3]}, {"image_shape": {"a": 1}}, {"resize": -1}, {"bit_depth": 32},
    ],
)  # fmt: skip
def test_damaged_description_is_named(tmp_path, change):
    text = json.dumps(DESCRIBED | change)
    for damaged in (text, text[:-1], "[]", "{}", "[" * 100_000):
        path = write(tmp_path / "a.safetensors", {"at_jax": damaged})
        with pytest.raises(UserError, match="a.safetensors: its description, .* is damaged"):
            pretrained.description(path)
