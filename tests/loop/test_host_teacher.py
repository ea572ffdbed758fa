"""A teacher without variables that runs on the host, outside of JAX."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_run

from at_jax import checkpoint, data, intermediates, loop


def network(images):
    """Random, fixed projections in NumPy: logits (B, 10), activation (B, 4, 4, 2)."""
    rng = np.random.default_rng(0)
    pixels = np.asarray(images)[:, ::4, ::4, 0]  # (B, 4, 4)
    projection = rng.normal(size=(16, 10)).astype(np.float32)
    activation = np.stack([np.maximum(pixels, 0), np.maximum(-pixels, 0)], axis=-1)
    return pixels.reshape(len(pixels), -1) @ projection, activation


@jax.custom_vjp
def call(images):
    shapes = ((images.shape[0], 10), (images.shape[0], 4, 4, 2))
    results = tuple(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)
    return jax.pure_callback(network, results, images)


def backward(images, gradient):
    raise ValueError("the teacher has no input gradient")


call.defvjp(lambda images: (call(images), images), backward)


class HostTeacher(nn.Module):
    @nn.compact
    def __call__(self, images, *, train=False):
        logits, activation = call(images)
        intermediates.tap(self, "last", activation)
        return logits


def train(workdir, method):
    config = small_run.config(method=method, epochs=1, transfer__points=("group3<-last",))
    config.optimizer.drop_epochs = ()
    return loop.train_and_evaluate(config, workdir, teacher=(HostTeacher(), {}))


def test_teacher_on_the_host_is_evaluated_and_transferred(tmp_path):
    result = train(tmp_path / "run", "at+kd")
    _, _, info = checkpoint.open_run(tmp_path / "run")
    images, labels = data.load("digits", image_size=16).test.take(range(355))
    logits, _ = network(data.normalize(images, info["mean"], info["std"]))
    wrong = 100 * np.mean(logits.argmax(axis=-1) != labels)
    np.testing.assert_allclose(result["teacher_test_error"], wrong, rtol=1e-6)
    line = small_run.lines_of(tmp_path / "run")[0]
    assert line["loss/attention"] > 0 and line["loss/distillation"] > 0


def test_term_that_differentiates_a_teacher_on_the_host_raises(tmp_path):
    with pytest.raises(ValueError, match="the teacher has no input gradient"):
        train(tmp_path / "run", "gradient_at")
    assert not (tmp_path / "run" / "config.json").exists()
