"""Crops, mirrors, user-defined augmentation and normalization on the device."""

import functools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from at_jax.data import augment, augment_each, color_jitter, normalize
from at_jax.data.augmentation import _crop, _draw
from at_jax.data.color import _jitter
from at_jax.errors import UserError


def random_images(batch=6, height=8, width=10, channels=3):
    shape = (batch, height, width, channels)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


NUMPY_MODES = {"reflect": "reflect", "zero": "constant"}


def reference_crop(image, rows, columns, flip, pad, mode="reflect"):
    """Pad, crop, mirror with NumPy, as in the paper's code; RepDistiller's pads with zeros."""
    height, width, _ = image.shape
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)), mode=NUMPY_MODES[mode])
    crop = padded[pad + rows : pad + rows + height, pad + columns : pad + columns + width]
    return crop[:, ::-1] if flip else crop


@pytest.mark.parametrize("mode", NUMPY_MODES)
def test_crop_equals_numpy_pad_at_every_offset(mode):
    image, pad = np.maximum(random_images(1, 5, 6)[0], 1), 4  # no pixel is black
    grid = range(-pad, pad + 1)
    cases = [(r, c, flip) for r in grid for c in grid for flip in (False, True)]
    offsets = jnp.array([case[:2] for case in cases], jnp.int32)
    flips = jnp.array([case[2] for case in cases])
    crop_at = functools.partial(_crop, jnp.asarray(image), pad_mode=mode)
    crops = jax.vmap(crop_at)(offsets, flips)
    for crop, (rows, columns, flip) in zip(np.asarray(crops), cases, strict=True):
        expected = reference_crop(image, rows, columns, flip, pad, mode)
        np.testing.assert_array_equal(crop, expected)


@chex.variants(with_jit=True, without_jit=True)
class AugmentTest(chex.TestCase):
    def test_augment_crops_each_image_by_the_draw_of_its_position(self):
        images, key = random_images(), jax.random.key(3)
        position = jnp.arange(6)
        for mode in NUMPY_MODES:
            crop = functools.partial(augment, pad=3, mirror=True, pad_mode=mode)
            out = self.variant(crop)(key, images, position)
            assert out.dtype == jnp.uint8
            for index in range(6):
                (rows, columns), flip = _draw(jax.random.fold_in(key, index), 3, True)
                draw = int(rows), int(columns), bool(flip)
                expected = reference_crop(images[index], *draw, 3, mode)
                np.testing.assert_array_equal(out[index], expected)

    def test_normalize_equals_numpy(self):
        images = random_images(2)
        mean, std = (120.0, 110.0, 100.0), (60.0, 50.0, 40.0)
        expected = (images.astype(np.float64) - np.array(mean)) / np.array(std)
        out = self.variant(normalize)(images, mean, std)
        assert out.dtype == jnp.float32
        np.testing.assert_allclose(out, expected, atol=1e-6)


def test_augment_without_jit_gives_the_same_images():
    images, key = random_images(), jax.random.key(3)
    compiled = augment(key, images, jnp.arange(6), pad=3, mirror=True)
    with jax.disable_jit():
        plain = augment(key, jnp.asarray(images), jnp.arange(6), pad=3, mirror=True)
    np.testing.assert_array_equal(plain, compiled)


def test_augment_depends_on_key_position_and_image_alone():
    images, key = random_images(8), jax.random.key(0)
    position = jnp.arange(8)
    crop = functools.partial(augment, key, pad=2, mirror=True)
    whole = crop(images, position)
    order = np.array([5, 0, 7])
    np.testing.assert_array_equal(crop(images[order], position[order]), whole[order])
    over_devices = jax.pmap(crop)(images.reshape(4, 2, *images.shape[1:]), position.reshape(4, 2))
    np.testing.assert_array_equal(over_devices.reshape(whole.shape), whole)
    # In a scan, and with another key.
    _, scanned = jax.lax.scan(
        lambda c, x: (c, crop(x[0][None], x[1][None])[0]), 0, (images, position)
    )
    np.testing.assert_array_equal(scanned, whole)
    other = augment(jax.random.key(1), images, position, pad=2, mirror=True)
    assert not np.array_equal(other, whole)


def test_augment_with_a_raw_key_equals_that_with_a_typed_one():
    images = random_images(2)
    raw = augment(jax.random.PRNGKey(4), images, jnp.arange(2), pad=2, mirror=True)
    typed = augment(jax.random.key(4), images, jnp.arange(2), pad=2, mirror=True)
    np.testing.assert_array_equal(raw, typed)


def test_draw_gives_uniform_offsets_and_mirrors_half():
    pad, draws = 4, 16_200
    keys = jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(0)))(jnp.arange(draws))
    offsets, flips = jax.vmap(lambda key: _draw(key, pad, True))(keys)
    cells = (np.asarray(offsets) + pad) @ np.array([9, 1])
    counts = np.bincount(cells, minlength=81)
    # 81 cells of 200 expected: chi-square has mean 80, and exceeds 125 once in a thousand times.
    assert counts.shape == (81,) and np.sum((counts - 200) ** 2 / 200) < 125
    # 4 standard deviations of a fair coin: 4 * sqrt(16200) / 2 = 255.
    assert abs(int(flips.sum()) - draws // 2) < 255
    # The offsets do not depend on the mirroring.
    assert abs(np.asarray(offsets)[np.asarray(flips)].mean()) < 0.12  # 4 * 2.58 / sqrt(2 * 8100)


def test_augment_without_pad_and_mirror_changes_nothing():
    images = random_images()
    out = augment(jax.random.key(0), images, jnp.arange(6), pad=0, mirror=False)
    np.testing.assert_array_equal(out, images)


@pytest.mark.parametrize("pad", [1.5, -1, 8, 9])
def test_augment_with_a_pad_out_of_range_raises(pad):
    with pytest.raises(
        UserError, match=f"expected a pad of 0 to 7 pixels for 8x10 images .*, got {pad}"
    ):
        augment(jax.random.key(0), random_images(), jnp.arange(6), pad=pad, mirror=True)


def test_augment_with_another_pad_mode_raises():
    images, key = random_images(), jax.random.key(0)
    crop = functools.partial(augment, key, images, jnp.arange(6), mirror=True)
    with pytest.raises(UserError, match="pad_mode of reflect or zero, got 'edge'"):
        crop(pad=1, pad_mode="edge")
    with pytest.raises(UserError, match=r"0 to 7 pixels .*may leave no image.*got 8"):
        crop(pad=8, pad_mode="zero")


def test_normalize_to_bfloat16_casts_last():
    images = random_images(2)
    half = normalize(images, (120.0,) * 3, (60.0,) * 3, jnp.bfloat16)
    full = normalize(images, (120.0,) * 3, (60.0,) * 3)
    assert half.dtype == jnp.bfloat16
    np.testing.assert_array_equal(half, full.astype(jnp.bfloat16))


def test_normalize_of_float_images_equals_that_of_uint8():
    images = random_images(2)
    expected = normalize(images, (120.0,) * 3, (60.0,) * 3)
    out = normalize(images.astype(np.float32), (120.0,) * 3, (60.0,) * 3)
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize(("mean", "std"), [(1, 3), (3, 1), (4, 4)])
def test_normalize_with_another_number_of_channels_raises(mean, std):
    with pytest.raises(
        UserError, match=rf"each of 3 channels, got shapes \({mean},\) and \({std},"
    ):
        normalize(random_images(2), (120.0,) * mean, (60.0,) * std)


# ---- augment_each ----


def random_crop(key, image, pad=2):
    """User-defined crop of one example."""
    padded = jnp.pad(image, ((pad, pad), (pad, pad), (0, 0)))
    rows, columns = jax.random.randint(key, (2,), 0, 2 * pad + 1, jnp.int32)
    return jax.lax.dynamic_slice(padded, (rows, columns, jnp.int32(0)), image.shape)


def augment_each_jitted(augment):
    return jax.jit(functools.partial(augment_each, augment))


def test_augment_each_of_the_built_in_crop_equals_augment():
    images, key, positions = random_images(), jax.random.key(3), jnp.arange(6)

    def built_in(key, image):
        return _crop(image, *_draw(key, 3, True))

    out = augment_each_jitted(built_in)(key, images, positions)
    np.testing.assert_array_equal(out, augment(key, images, positions, pad=3, mirror=True))


def test_augment_each_depends_on_key_position_and_image_alone():
    images, key, positions = random_images(), jax.random.key(0), jnp.arange(6)
    crop = augment_each_jitted(random_crop)
    whole = crop(key, images, positions)
    assert whole.dtype == jnp.uint8 and whole.shape == images.shape
    order = np.array([5, 0, 3])
    np.testing.assert_array_equal(crop(key, images[order], positions[order]), whole[order])
    alone = jax.jit(random_crop)
    for index in range(6):
        one = alone(jax.random.fold_in(key, index), images[index])
        np.testing.assert_array_equal(whole[index], one)
    assert not np.array_equal(crop(key, images, positions + 6), whole)


def test_augment_each_to_float32_keeps_the_values():
    images = jnp.asarray(random_images())
    out = augment_each(
        lambda key, image: image.astype(jnp.float32) / 2, jax.random.key(0), images, jnp.arange(6)
    )
    assert out.dtype == jnp.float32
    np.testing.assert_array_equal(out, images.astype(jnp.float32) / 2)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (
            lambda key, image: image[1:-1],
            r"\(8, 10, 3\): expected .*, got \(6, 10, 3\): crop or pad",
        ),
        (lambda key, image: image[None], r"got \(1, 8, 10, 3\)"),
        (
            lambda key, image: image.astype(jnp.bfloat16),
            r"uint8 or float32 in 0\.\.255, got bfloat16",
        ),
        (lambda key, image: image.astype(jnp.int32), r"got int32: convert"),
        (lambda key, image: (image, key), r"got tuple: return one array"),
        (lambda key, image: None, r"got NoneType"),
    ],
)
def test_augment_each_with_a_wrong_result_raises_when_traced(wrong, match):
    images = jax.ShapeDtypeStruct((6, 8, 10, 3), jnp.uint8)
    positions = jax.ShapeDtypeStruct((6,), jnp.int32)
    with pytest.raises(UserError, match=match):
        jax.eval_shape(functools.partial(augment_each, wrong, jax.random.key(0)), images, positions)


def blended(image, factors):
    """Brightness, contrast and saturation, as the docstring of color_jitter defines them."""
    image = image.astype(np.float64)

    def gray(x):
        weights = (0.299, 0.587, 0.114) if x.shape[-1] == 3 else (1 / x.shape[-1],) * x.shape[-1]
        return np.sum(x * weights, axis=-1, keepdims=True)

    image = np.clip(factors[0] * image, 0, 255)
    image = np.clip(factors[1] * image + (1 - factors[1]) * gray(image).mean(), 0, 255)
    if image.shape[-1] == 3:
        image = np.clip(factors[2] * image + (1 - factors[2]) * gray(image), 0, 255)
    return image


def test_color_jitter_with_a_strength_out_of_range_raises():
    with pytest.raises(UserError, match="strength must be from 0 to 1, got 2"):
        color_jitter(jax.random.key(0), jnp.zeros((1, 2, 2, 3)), jnp.arange(1), strength=2)


@pytest.mark.parametrize("channels", [1, 3])
def test_color_jitter_blends_each_image_with_its_own_factors(channels):
    images = random_images()[..., :channels]
    factors = np.array([[1.4, 1, 1], [1, 0.6, 1], [1, 1, 1.4], [0.7, 1.3, 0.8], [1, 1, 1]])
    for image, chosen in zip(images, factors, strict=False):
        found = _jitter(jnp.asarray(image, jnp.float32), jnp.asarray(chosen, jnp.float32))
        np.testing.assert_allclose(found, blended(image, chosen), atol=1e-3)
    key, strength = jax.random.key(3), 0.4
    out = color_jitter(key, images, jnp.arange(6), strength=strength)
    # The result depends on the position in the global batch, not on the batch.
    part = color_jitter(key, images[4:], jnp.arange(4, 6), strength=strength)
    np.testing.assert_allclose(part, out[4:], atol=1e-3)
    assert out.dtype == jnp.float32 and float(out.min()) >= 0 and float(out.max()) <= 255
    same = color_jitter(key, np.broadcast_to(images[:1], images.shape), jnp.arange(6), strength=0.4)
    assert len({np.asarray(image).tobytes() for image in same}) == 6
    unchanged = color_jitter(key, images, jnp.arange(6), strength=0.0)
    np.testing.assert_allclose(unchanged, images, atol=1e-3)


def test_color_jitter_draws_factors_within_its_strength_and_apart_from_the_mirroring():
    images = np.full((2000, 1, 1, 1), 100, np.uint8)
    key = jax.random.key(0)
    # One gray pixel: contrast and saturation change nothing, so that the value is the factor.
    factor = np.asarray(color_jitter(key, images, jnp.arange(2000), strength=0.4)).ravel() / 100
    assert 0.6 <= factor.min() < 0.61 and 1.39 < factor.max() <= 1.4
    assert abs(factor.mean() - 1) < 4 * 0.8 / math.sqrt(12 * 2000)
    keys = jax.vmap(lambda place: jax.random.fold_in(key, place))(jnp.arange(2000))
    _, flips = jax.vmap(lambda key: _draw(key, 0, True))(keys)
    assert abs(np.corrcoef(factor, np.asarray(flips))[0, 1]) < 0.09  # 4 / sqrt(2000)
