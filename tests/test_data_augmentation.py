"""Crops, mirrors and normalisation on the device."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from at_jax.data import augment, normalize
from at_jax.data.augmentation import _crop, _draw


def random_images(batch=6, height=8, width=10, channels=3):
    shape = (batch, height, width, channels)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def reference_crop(image, rows, columns, flip, pad):
    """The padded copy, the crop out of it, the mirror: as the paper's code has it."""
    height, width, _ = image.shape
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)), mode="reflect")
    crop = padded[pad + rows : pad + rows + height, pad + columns : pad + columns + width]
    return crop[:, ::-1] if flip else crop


def test_crop_equals_numpy_pad_at_every_offset():
    image, pad = random_images(1, 5, 6)[0], 4
    grid = range(-pad, pad + 1)
    cases = [(r, c, flip) for r in grid for c in grid for flip in (False, True)]
    offsets = jnp.array([case[:2] for case in cases], jnp.int32)
    flips = jnp.array([case[2] for case in cases])
    crops = jax.vmap(functools.partial(_crop, jnp.asarray(image)))(offsets, flips)
    for crop, (rows, columns, flip) in zip(np.asarray(crops), cases, strict=True):
        np.testing.assert_array_equal(crop, reference_crop(image, rows, columns, flip, pad))


@chex.variants(with_jit=True, without_jit=True)
class AugmentTest(chex.TestCase):
    def test_augment_crops_each_image_by_its_own_draw(self):
        images, key = random_images(), jax.random.key(3)
        position = jnp.arange(6)
        out = self.variant(functools.partial(augment, pad=3, mirror=True))(key, images, position)
        assert out.dtype == jnp.uint8
        for index in range(6):
            (rows, columns), flip = _draw(jax.random.fold_in(key, index), 3, True)
            expected = reference_crop(images[index], int(rows), int(columns), bool(flip), 3)
            np.testing.assert_array_equal(out[index], expected)

    def test_normalize(self):
        images = random_images(2)
        mean, std = (120.0, 110.0, 100.0), (60.0, 50.0, 40.0)
        expected = (images.astype(np.float64) - np.array(mean)) / np.array(std)
        out = self.variant(normalize)(images, mean, std)
        assert out.dtype == jnp.float32
        np.testing.assert_allclose(out, expected, atol=1e-6)


def test_without_jit_at_all():
    images, key = random_images(), jax.random.key(3)
    compiled = augment(key, images, jnp.arange(6), pad=3, mirror=True)
    with jax.disable_jit():
        plain = augment(key, jnp.asarray(images), jnp.arange(6), pad=3, mirror=True)
    np.testing.assert_array_equal(plain, compiled)


def test_an_example_depends_on_key_position_and_image_alone():
    images, key = random_images(8), jax.random.key(0)
    position = jnp.arange(8)
    crop = functools.partial(augment, key, pad=2, mirror=True)
    whole = crop(images, position)
    order = np.array([5, 0, 7])
    np.testing.assert_array_equal(crop(images[order], position[order]), whole[order])
    over_devices = jax.pmap(crop)(images.reshape(4, 2, *images.shape[1:]), position.reshape(4, 2))
    np.testing.assert_array_equal(over_devices.reshape(whole.shape), whole)
    # In a scan, and by another key.
    _, scanned = jax.lax.scan(
        lambda c, x: (c, crop(x[0][None], x[1][None])[0]), 0, (images, position)
    )
    np.testing.assert_array_equal(scanned, whole)
    other = augment(jax.random.key(1), images, position, pad=2, mirror=True)
    assert not np.array_equal(other, whole)


def test_raw_keys_work_as_typed_ones():
    images = random_images(2)
    raw = augment(jax.random.PRNGKey(4), images, jnp.arange(2), pad=2, mirror=True)
    typed = augment(jax.random.key(4), images, jnp.arange(2), pad=2, mirror=True)
    np.testing.assert_array_equal(raw, typed)


def test_offsets_are_uniform_and_half_is_mirrored():
    pad, draws = 4, 16_200
    keys = jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(0)))(jnp.arange(draws))
    offsets, flips = jax.vmap(lambda key: _draw(key, pad, True))(keys)
    cells = (np.asarray(offsets) + pad) @ np.array([9, 1])
    counts = np.bincount(cells, minlength=81)
    # 81 cells of 200 expected: chi-square has mean 80, and exceeds 125 once in a thousand times.
    assert counts.shape == (81,) and np.sum((counts - 200) ** 2 / 200) < 125
    # 4 standard deviations of a fair coin: 4 * sqrt(16200) / 2 = 255.
    assert abs(int(flips.sum()) - draws // 2) < 255
    # Mirrored and not, the offsets are the same: draws are independent.
    assert abs(np.asarray(offsets)[np.asarray(flips)].mean()) < 0.12  # 4 * 2.58 / sqrt(2 * 8100)


def test_nothing_asked_for_changes_nothing():
    images = random_images()
    out = augment(jax.random.key(0), images, jnp.arange(6), pad=0, mirror=False)
    np.testing.assert_array_equal(out, images)


@pytest.mark.parametrize("pad", [-1, 8, 9])
def test_pad_out_of_reach(pad):
    with pytest.raises(ValueError, match=f"expected 0 to 7 pixels for 8x10 images .*, got {pad}"):
        augment(jax.random.key(0), random_images(), jnp.arange(6), pad=pad, mirror=True)


def test_normalize_casts_last_and_refuses_other_channels():
    images = random_images(2)
    half = normalize(images, (120.0,) * 3, (60.0,) * 3, jnp.bfloat16)
    full = normalize(images, (120.0,) * 3, (60.0,) * 3)
    assert half.dtype == jnp.bfloat16
    np.testing.assert_array_equal(half, full.astype(jnp.bfloat16))
    with pytest.raises(ValueError, match="each of 3 channels"):
        normalize(images, (120.0,), (60.0,))
