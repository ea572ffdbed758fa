"""TFDS sets that are hostile or damaged."""

import json
import pathlib

import numpy as np
import pytest
from tfds_sets import set_info, shapes_builder

from at_jax.data import load
from at_jax.errors import UserError


def set_class(value, name):
    """Replace the class of the first feature, at any depth."""
    for key, inner in value.items():
        if key in ("pythonClassName", "type") and inner.endswith("Image"):
            value[key] = name
            return True
        if isinstance(inner, dict) and set_class(inner, name):
            return True
    return False


@pytest.mark.parametrize("direct", [False, True])
def test_tfds_metadata_that_name_a_module_are_refused_unimported(
    direct, shapes, tmp_path, monkeypatch
):
    (tmp_path / "hostile_module.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    data_dir = f"{shapes}/shapes/1.0.0" if direct else shapes
    set_info(shapes, moduleName="hostile_module")
    assert load("tfds", name="shapes", data_dir=data_dir).image_shape == (10, 12, 3)
    path = next(pathlib.Path(shapes).rglob("features.json"))
    features = json.loads(path.read_text())
    for name in ("hostile_module.Image", "tensorflow_datasets.scripts.cli.main.Image"):
        assert set_class(features, name) or name.startswith("tensorflow")
        features["x"] = {"jsonFeature": {"json": json.dumps({"a": {"type": name}})}}
        path.write_text(json.dumps(features))
        with pytest.raises(UserError, match=rf"features\.json, got the class .*{name}, whose mod"):
            load("tfds", name="shapes", data_dir=data_dir)
    path.write_text("[" * 100_000)
    with pytest.raises(
        UserError, match=r"features\.json: expected the JSON of a prepared TFDS set"
    ):
        load("tfds", name="shapes", data_dir=data_dir)
    assert not (tmp_path / "imported").exists()


@pytest.mark.parametrize("limit", [0, 4096])
def test_tfds_with_a_corrupt_image_raises_or_skips_it(limit, tmp_path, folder, monkeypatch):
    import tensorflow_datasets as tfds

    shapes_builder(tmp_path / "p", folder)
    decode = tfds.features.Image.decode_example_np
    whole = load("tfds", name="shapes", data_dir=str(tmp_path / "p"))
    tested = {image.tobytes() for image in whole.test.images}
    # The order is that of a hash; some images are in both splits.
    index = next(i for i, x in enumerate(whole.train.images) if i and x.tobytes() not in tested)
    bad = {whole.train.images[index].tobytes()}

    def decode_or_fail(self, example):
        image = decode(self, example)
        if image.tobytes() in bad:
            raise OSError("broken\ndata stream")
        return image

    monkeypatch.setattr(tfds.features.Image, "decode_example_np", decode_or_fail)
    options = {"name": "shapes", "data_dir": str(tmp_path / "p"), "memory_limit_mb": limit}
    match = rf"^example {index} of shapes train: expected a readable image, .*broken data stream"
    with pytest.raises(UserError, match=match):
        load("tfds", **options)
    dataset = load("tfds", **options, skip_corrupt=True)
    assert len(dataset.train) == 7 and dataset.train.take(np.arange(7))[0].shape[0] == 7
    (note,) = dataset.notes
    assert note.startswith(
        "train: skipped 1 of 8 examples, which cannot be read (data.skip_corrupt)"
    )
