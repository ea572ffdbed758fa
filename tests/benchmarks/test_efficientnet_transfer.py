"""The study of a teacher with other classes: which images are labeled, held out and tested; its config."""

import argparse

import numpy as np
import pytest
from PIL import Image

from at_jax.training import config
from benchmarks import efficientnet_transfer as study


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two classes of six training and three test images, each of one color that identifies it."""
    monkeypatch.setattr(study, "LABELED", 20)  # 2 a class
    monkeypatch.setattr(study, "HELD_OUT", 30)
    monkeypatch.setattr(study, "TESTED", 10)
    for split, label, index in np.ndindex(2, 2, 6):
        path = tmp_path / ("train", "test")[split] / "ab"[label]
        path.mkdir(parents=True, exist_ok=True)
        color = (100 * split, 100 * label, 10 * index)
        Image.new("RGB", (32, 32), color).save(path / f"{index}.png")
    return tmp_path


def colors(split):
    images, labels = split.take(np.arange(len(split)))
    assert images.shape[1:] == (96, 96, 3)
    return {
        (*map(int, image[0, 0]), int(label)) for image, label in zip(images, labels, strict=True)
    }


def test_held_out_images_are_other_training_images_and_no_test_image_is_used_to_select(folder):
    selecting, testing = study.load(folder, select=True), study.load(folder, select=False)
    labeled = {(0, 100 * label, 10 * index, label) for label in (0, 1) for index in (0, 1)}
    assert colors(selecting.train) == colors(testing.train) == labeled
    assert len(testing.train) == 4 * study.REPEATS
    held_out = {(0, 100 * label, 10 * index, label) for label in (0, 1) for index in (2, 3, 4)}
    assert colors(selecting.test) == held_out
    assert colors(testing.test) == {(100, 100 * label, 0, label) for label in (0, 1)}


def test_config_is_valid_and_has_the_weight():
    made = study.configure(argparse.Namespace(epochs=3), seed=2, beta=7.0)
    settings = config.settings_of(made)
    assert (settings.seed, settings.epochs, settings.terms["at"].beta) == (2, 3, 7.0)
