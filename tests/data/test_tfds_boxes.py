"""Images of TFDS sets that are cropped to their bounding boxes."""

import numpy as np
import pytest
from PIL import Image

from at_jax.data import load
from at_jax.data.tfds.boxes import cut_box
from at_jax.errors import UserError

CLASSES = ("a", "b")


@pytest.fixture(scope="module")
def boxed(tmp_path_factory):
    """A set whose images are black, with a square of the class's gray level in a box."""
    import tensorflow_datasets as tfds

    class Boxed(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
                "bbox": tfds.features.BBoxFeature(),
                "label": tfds.features.ClassLabel(names=CLASSES),
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, manager):
            return {"train": self._generate_examples(4), "test": self._generate_examples(2)}

        def _generate_examples(self, count):
            for index in range(count):
                height, width = 20 + index, 30
                pixels = np.zeros((height, width, 3), np.uint8)
                pixels[4:12, 10:18] = 100 + 50 * (index % 2)
                box = tfds.features.BBox(4 / height, 10 / width, 12 / height, 18 / width)
                # A gray image of a color set, as CUB and ImageNet have some.
                image = Image.fromarray(pixels[..., 0] if index == 2 else pixels)
                yield index, {"image": image, "bbox": box, "label": index % 2}

    directory = tmp_path_factory.mktemp("boxed")
    Boxed.name = "boxed"
    Boxed(data_dir=directory, file_format="array_record").download_and_prepare()
    return str(directory)


@pytest.mark.parametrize("limit", [0, 4096])
@pytest.mark.parametrize("random_crop", [False, True])
def test_images_are_cropped_to_their_boxes_first(boxed, limit, random_crop):
    options = {"name": "boxed", "data_dir": boxed, "memory_limit_mb": limit, "image_size": 8}
    found = load("tfds", crop="bbox", random_crop=random_crop, **options)
    for split in (found.train, found.test):
        images, labels = split.take(np.arange(len(split)))
        gray = 100 + 50 * labels
        np.testing.assert_array_equal(
            images, np.broadcast_to(gray[:, None, None, None], images.shape)
        )
    whole = load("tfds", **options).train.take(np.arange(4))[0]
    assert whole.min() == 0  # the box is not all of an image


def test_boxes_that_do_not_exist_raise(boxed, folder):
    options = {"name": "boxed", "data_dir": boxed, "image_size": 8}
    with pytest.raises(UserError, match=r"must name a bounding box .*\(bbox\), got 'box'"):
        load("tfds", crop="box", **options)
    with pytest.raises(UserError, match="got 'bbox' with data.source='folder'"):
        load("folder", data_dir=str(folder), crop="bbox")


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        # Of 4 rows and 10 columns.
        ((0, 0, 1, 1), (0, 4, 0, 10)),
        ((0.25, 0.1, 0.75, 0.3), (1, 3, 1, 3)),
        (
            (0.3, 0.15, 0.7, 0.31),
            (1, 3, 1, 4),
        ),  # 1.2..2.8 and 1.5..3.1: every pixel that is touched
        ((-0.5, 0.5, 2.0, 1.5), (0, 4, 5, 10)),
        ((1, 1, 1, 1), (3, 4, 9, 10)),  # an empty box keeps one pixel
    ],
)
def test_cut_box_keeps_the_pixels_that_the_box_touches(box, expected):
    image = np.arange(40).reshape(4, 10, 1)
    top, bottom, left, right = expected
    np.testing.assert_array_equal(
        cut_box(image, np.array(box, np.float32)), image[top:bottom, left:right]
    )
