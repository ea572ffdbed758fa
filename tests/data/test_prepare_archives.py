"""ImageNet and CUB are prepared from mock archives, and read as training reads them.

Slow tests, in the environment that `make data` builds (.venv-prepare, or the Python that the variable
AT_JAX_PREPARE_PYTHON names); skipped without it.
"""

import io
import os
import pathlib
import subprocess
import tarfile

import numpy as np
import pytest
from PIL import Image

from at_jax.data import load, prepare

ROOT = pathlib.Path(__file__).parents[2]
PYTHON = pathlib.Path(
    os.environ.get("AT_JAX_PREPARE_PYTHON", ROOT / ".venv-prepare" / "bin" / "python")
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON.exists(), reason="make data has built no environment yet"),
]


def encoded(pixels, kind="JPEG"):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return buffer.getvalue()


def archive(path, files):
    """Write a tar archive of names and contents; gzipped for .tgz."""
    with tarfile.open(path, "w:gz" if str(path).endswith("tgz") else "w") as made:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            made.addfile(entry, io.BytesIO(content))


def gray(level, height=40, width=60):
    return np.full((height, width, 3), level, np.uint8)


def prepared(name, archives, directory):
    program = pathlib.Path(__file__).parent / "prepare_mock.py"
    command = [PYTHON, program, prepare.__file__, f"--dataset={name}", f"--data_dir={directory}"]
    done = subprocess.run(
        [*command, f"--manual_dir={archives}"],
        capture_output=True,
        text=True,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_imagenet_is_prepared_from_its_two_archives(tmp_path):
    archives = tmp_path / "archives"
    archives.mkdir()
    inner = {}
    for synset, level in (("n01440764", 60), ("n01443537", 180)):
        part = archives / f"{synset}.tar"
        archive(part, {f"{synset}_{i}.JPEG": encoded(gray(level)) for i in range(3)})
        inner[part.name] = part.read_bytes()
        part.unlink()
    archive(archives / "ILSVRC2012_img_train.tar", inner)
    names = [f"ILSVRC2012_val_{i:08}.JPEG" for i in (1, 2)]
    archive(archives / "ILSVRC2012_img_val.tar", {n: encoded(gray(120)) for n in names})
    said = prepared("imagenet2012", archives, tmp_path / "data")
    assert "at-jax train --config=imagenet --config.data.data_dir=" in said
    dataset = load("tfds", name="imagenet2012", data_dir=str(tmp_path / "data"), image_size=32)
    assert dataset.num_classes == 1000 and dataset.class_names[0] == "n01440764"
    assert (len(dataset.train), len(dataset.test)) == (6, 2)
    brightness = dataset.train.images.mean(axis=(1, 2, 3))
    np.testing.assert_allclose(brightness, np.where(dataset.train.labels == 0, 60, 180), atol=2)


def test_cub_is_prepared_from_its_two_archives_and_cropped_to_the_boxes(tmp_path):
    archives = tmp_path / "archives"
    archives.mkdir()
    pixels = gray(0)
    pixels[10:26, 20:36] = 200  # x, y, width, height: 20, 10, 16, 16
    mask = np.where(pixels[..., 0] > 0, 255, 0).astype(np.uint8)
    birds = {1: "001.Black_footed_Albatross", 2: "002.Laysan_Albatross"}
    images, masks, lists = {}, {}, {"images": [], "train_test_split": [], "bounding_boxes": []}
    index = 0
    for number, bird in birds.items():
        for is_train in (1, 1, 0):
            index += 1
            name = f"{bird}/{bird[4:]}_{index:04}_{number}.jpg"
            images[f"CUB_200_2011/images/{name}"] = encoded(pixels)
            masks[f"segmentations/{name.replace('.jpg', '.png')}"] = encoded(mask, "PNG")
            lists["images"].append(f"{index} {name}")
            lists["train_test_split"].append(f"{index} {is_train}")
            lists["bounding_boxes"].append(f"{index} 20.0 10.0 16.0 16.0")
    texts = {
        f"CUB_200_2011/{name}.txt": ("\n".join(lines) + "\n").encode()
        for name, lines in lists.items()
    }
    archive(archives / "CUB_200_2011.tgz", texts | images)
    archive(archives / "segmentations.tgz", masks)
    said = prepared("caltech_birds2011", archives, tmp_path / "data")
    assert "at-jax train --config=cub --config.data.data_dir=" in said
    options = {"name": "caltech_birds2011", "data_dir": str(tmp_path / "data"), "image_size": 16}
    cropped = load("tfds", crop="bbox", **options)
    assert (len(cropped.train), len(cropped.test), cropped.num_classes) == (4, 2, 200)
    assert sorted(cropped.train.labels) == [0, 0, 1, 1]
    # The box is the bird: all of it, and nothing else but what JPEG blurs.
    assert cropped.train.images.min() > 150
    assert load("tfds", **options).train.images.min() < 50
