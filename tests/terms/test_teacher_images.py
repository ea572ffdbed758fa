"""The teacher's own image size and normalization, as a part of its forward pass."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from at_jax import data, losses
from at_jax.terms import GradientTransfer, Term
from at_jax.terms.view import view_network
from at_jax.training.components import teacher_images
from at_jax.training.components.teacher_images import Normalization, TeacherImages
from at_jax.training.settings import TeacherSettings

MEAN, STD = (100.0, 120.0), (50.0, 60.0)  # two channels, as the tiny networks
OWN = TeacherSettings(image_size=9, mean=(130.0, 90.0), std=(25.0, 30.0))


class Linear(nn.Module):
    """Logits that are sums of the pixels, weighted by 1, 2, ... in the order of the array."""

    @nn.compact
    def __call__(self, images, *, train=False):
        size = np.prod(images.shape[1:])
        rows = images.reshape(len(images), -1)
        return jnp.stack(
            [rows @ jnp.asarray(1.0 + np.arange(size), jnp.float32), jnp.sum(rows, axis=-1)],
            axis=-1,
        )


def dataset():
    x = np.random.default_rng(0).integers(0, 256, (8, 6, 6, 2)).astype(np.uint8)
    made = data.from_arrays(x, np.arange(8) % 3, x, np.arange(8) % 3)
    return dataclasses.replace(made, mean=MEAN, std=STD)


def test_linear_teacher_with_its_own_images_by_hand():
    # One channel, 1x2 pixels of 30 and 50, normalized for the student by mean 10 and std 20: (1, 2). The
    # teacher takes 1x4: bilinear, with half-pixel centers at 0.25, 0.75, 1.25, 1.75 of 2 pixels:
    # (30, 35, 45, 50). Its mean 40 and std 5 give (-2, -1, 1, 2).
    images = TeacherImages(
        (1, 4, 1), Normalization((10.0,), (20.0,)), Normalization((40.0,), (5.0,))
    )
    x = jnp.array([1.0, 2.0]).reshape(1, 1, 2, 1)
    np.testing.assert_allclose(images(x).ravel(), [-2, -1, 1, 2], rtol=1e-6)
    view = view_network(Linear(), {}, x, jnp.array([0]), prepare=images, frozen=True, train=False)
    # -2 * 1 - 1 * 2 + 1 * 3 + 2 * 4 = 7, and the sum 0.
    np.testing.assert_allclose(view.logits, [[7.0, 0.0]], atol=1e-5)
    # The first logit's gradient in the teacher's images is (1, 2, 3, 4). Each pixel of the student is worth
    # 20/5 = 4 of the teacher's, with weights (1, .75, .25, 0) and (0, .25, .75, 1) in the four:
    # 4 * (1 + 1.5 + .75) = 13 and 4 * (.5 + 2.25 + 4) = 27.
    j = view.gradient(lambda logits: logits[:, 0])
    assert j.shape == x.shape
    np.testing.assert_allclose(j.ravel(), [13.0, 27.0], rtol=1e-6)


def test_input_gradient_of_a_teacher_with_its_own_images_is_that_of_the_composition():
    images = teacher_images.of_settings(OWN, dataset())
    objective = dataclasses.replace(
        tiny.objective(None, None, GradientTransfer()), teacher_images=images
    )
    variables, batch = tiny.teacher_variables(objective), tiny.batch()
    x = data.normalize(jnp.asarray(batch["image"]), MEAN, STD)

    def expected(x):
        pixels = x * jnp.array(STD).reshape(1, 1, 1, 2) + jnp.array(MEAN).reshape(1, 1, 1, 2)
        resized = jax.image.resize(pixels, (8, 9, 9, 2), "bilinear")
        logits = objective.teacher.apply(variables, data.normalize(resized, OWN.mean, OWN.std))
        return jnp.sum(losses.cross_entropy(logits, batch["label"])), logits

    @tiny.jit
    def both(x):
        view = objective.view_teacher(variables, x, batch["label"])
        gradient, logits = jax.grad(expected, has_aux=True)(x)
        return (view.logits, view.gradient()), (logits, gradient)

    found, wanted = both(x)
    assert found[1].shape == x.shape
    assert tiny.largest_deviation(found, wanted) < 1e-5
    # It matters: without its own images the teacher computes something else.
    plain = dataclasses.replace(objective, teacher_images=None)
    other = plain.view_teacher(variables, x, batch["label"]).logits
    assert tiny.largest_deviation(other, wanted[0]) > 0.01


@pytest.mark.parametrize(
    "settings",
    [TeacherSettings(), TeacherSettings(image_size=6), TeacherSettings(mean=MEAN, std=STD)],
    ids=["default", "size", "normalization"],
)
def test_teacher_with_the_images_of_the_student_has_no_map(settings):
    assert teacher_images.of_settings(settings, dataset()) is None


def test_teacher_has_the_normalization_of_its_training_unless_the_config_gives_one():
    other, nearly = Normalization((90.0, 80.0), (40.0, 30.0)), Normalization((100.4, 120.0), STD)
    found = teacher_images.of_settings(TeacherSettings(), dataset(), other)
    assert found == TeacherImages((6, 6, 2), Normalization(MEAN, STD), other)
    assert "6x6, normalized with mean (90.0, 80.0) and std (40.0, 30.0)" in str(found)
    assert teacher_images.of_settings(OWN, dataset(), other).teacher.mean == OWN.mean
    # Statistics of the same images, and those of images with another number of channels.
    assert teacher_images.of_settings(TeacherSettings(), dataset(), nearly) is None
    gray = Normalization((90.0,), (40.0,))
    assert teacher_images.of_settings(TeacherSettings(), dataset(), gray) is None


def test_terms_receive_the_students_images():
    class Same(Term):
        name = "same"

        def values(self, batch, params):
            assert batch.images.shape == batch.teacher.gradient().shape == (8, 6, 6, 2)
            return batch.teacher.gradient().sum((1, 2, 3))

    images = teacher_images.of_settings(OWN, dataset())
    objective = dataclasses.replace(
        tiny.objective(None, None, Same()), teacher_images=images, points=()
    )
    state, batch = tiny.create(objective), tiny.batch()
    shapes = jax.eval_shape(lambda: tiny.teacher_variables(objective))
    jax.eval_shape(
        lambda teacher: objective(
            state.params,
            state.collections,
            teacher,
            tiny.prepare(None, batch["image"], None),
            batch["label"],
            {"same": 1.0},
        )[0],
        shapes,
    )
