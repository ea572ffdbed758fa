"""Prepared TFDS sets for tests."""

import json
import pathlib

from PIL import Image


def shapes_builder(directory, folder, name="shapes", file_format="array_record", **changes):
    """A user-defined builder, written without TensorFlow and not registered in TFDS."""
    import tensorflow_datasets as tfds

    features = changes.get("features") or {
        "image": tfds.features.Image(shape=(10, 12, 3), encoding_format="png"),
        "label": tfds.features.ClassLabel(names=["bright", "dark"]),
    }
    splits = changes.get("splits", {"train": "train", "test": "test"})
    unlabeled = changes.get("unlabeled", ())

    class Shapes(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            description = tfds.features.FeaturesDict(features)
            return tfds.core.DatasetInfo(builder=self, features=description)

        def _split_generators(self, manager):
            return {split: self._generate_examples(split) for split in splits}

        def _generate_examples(self, split):
            for path in sorted((folder / splits[split]).glob("*/*")):
                values = {"image": Image.open(path), "label": path.parent.name, "text": "words"}
                if split in unlabeled:
                    values["label"] = -1
                yield str(path), {key: values[key] for key in features}

    Shapes.name = name
    builder = Shapes(data_dir=directory, file_format=file_format)
    builder.download_and_prepare()
    return builder


def set_info(directory, **values):
    """Change the metadata of a prepared set."""
    path = next(pathlib.Path(directory).rglob("dataset_info.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
