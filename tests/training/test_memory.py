"""The estimate of memory, and sizes that cannot fit or be counted."""

import jax
import jax.numpy as jnp
import pytest
import small_run

from at_jax import data, models
from at_jax.errors import UserError
from at_jax.training.components import datasets, memory, tracing
from at_jax.training.config import settings_of
from at_jax.training.settings import combinations


def test_stored_numbers_by_hand():
    # A 3x3 convolution with 4 channels on 8x8 pixels, and a product that gives 10 numbers; in a scan of 3.
    def layers(x, kernel, weights):
        y = jax.lax.conv(x, kernel, (1, 1), "SAME")  # (1, 4, 8, 8)
        return jnp.sum(y, axis=(2, 3)) @ weights

    x, kernel, weights = (jnp.zeros(s) for s in ((1, 2, 8, 8), (4, 2, 3, 3), (4, 10)))
    once = jax.make_jaxpr(layers)(x, kernel, weights).jaxpr
    assert memory.stored_numbers(once) == 4 * 8 * 8 + 10

    def repeated(x):
        return jax.lax.scan(lambda c, _: (c, layers(c, kernel, weights)), x, length=3)

    assert memory.stored_numbers(jax.make_jaxpr(repeated)(x).jaxpr) == 3 * (4 * 8 * 8 + 10)


def test_activations_that_are_computed_again_are_not_counted():
    plain, remat = (
        tracing.shapes(models.WideResNet(10, 1, remat=remat), (32, 32, 3), "student").stored
        for remat in (False, True)
    )
    # Outside blocks: conv0 and the logits. Each of three blocks: two convolutions and, where the number of
    # channels changes (not in the first), the one of the shortcut.
    outside, blocks = 32 * 32 * 16 + 10, (2 * 32 * 32 * 16, 3 * 16 * 16 * 32, 3 * 8 * 8 * 64)
    assert remat == outside and plain == outside + sum(blocks)


@pytest.mark.parametrize(
    ("network", "size", "changes"),
    [
        ("wrn_10_1000", 16, {}),  # parameters
        ("wrn_10_1", 4096, {}),  # activations
        ("wrn_10_1", 512, {"batch_size": 2**15}),
    ],
)
def test_run_that_cannot_fit_is_refused_with_estimate_and_memory(
    network, size, changes, monkeypatch
):
    monkeypatch.setattr("at_jax.data.memory.available", lambda: 16 * 2**30)
    settings = settings_of(small_run.config(student=network, **changes))
    shapes = tracing.shapes(models.build(network), (size, size, 1), "student")
    message = rf"student='{network}' with batch_size=\d+ .* at least [\d,.]+ GiB .*, got 16.0 GiB"
    with pytest.raises(UserError, match=message):
        memory.check(settings, (size, size, 1), shapes, None)


def test_run_of_the_paper_fits_and_unknown_memory_is_no_bound(monkeypatch):
    settings = settings_of(small_run.config(student="wrn_16_2", batch_size=128))
    shapes = tracing.shapes(models.build("wrn_16_2"), (32, 32, 3), "student")
    for known in (2**30, None):
        monkeypatch.setattr("at_jax.data.memory.available", lambda known=known: known)
        memory.check(settings, (32, 32, 3), shapes, shapes)


def test_steps_that_32_bits_cannot_count_are_refused():
    settings = settings_of(small_run.config(epochs=100_000))
    combinations.check_length(settings, 21_474)
    with pytest.raises(UserError, match=r"epochs must be at most 99999 with 21475 steps each"):
        combinations.check_length(settings, 21_475)


@pytest.mark.parametrize("part", ["train", "test"])
def test_label_out_of_range_in_a_data_set_passed_by_the_user_is_refused(part):
    given = small_run.arrays()
    getattr(given, part).labels[7] = -1
    with pytest.raises(
        UserError, match=rf"{part} labels\[7\]: expected a label from 0 to 2 .* got -1"
    ):
        datasets.load_dataset(settings_of(small_run.config()).data, given=given)
    assert isinstance(given, data.Dataset)


@pytest.mark.parametrize("key", ["data.train_examples", "data.validation_examples"])
def test_choice_of_images_that_cannot_be_made_names_the_key(key):
    config = small_run.config(**{key.replace(".", "__"): 3})
    with pytest.raises(UserError, match=rf"^{key}=3: .*expected from 10"):
        datasets.load_dataset(settings_of(config).data)
