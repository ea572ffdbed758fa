"""A constant student: what counts as one, when a run says so, and the cause that it names."""

import types

import jax.numpy as jnp
import numpy as np
import pytest

from at_jax.terms import GradientTransfer, MinL2
from at_jax.training import collapse, metrics


def information(*batches):
    return metrics.information(
        [metrics.predictions(jnp.asarray(z), jnp.ones(len(z))) for z in batches]
    )


def test_information_of_predictions_is_that_of_their_mixture():
    # Two images, p = (3/4, 1/4) and (1/4, 3/4): log 2 - H(1/4) = 0.6931 - 0.5623 = 0.1308.
    logits = np.log([[0.75, 0.25], [0.25, 0.75]])
    assert information(logits) == pytest.approx(0.1308, abs=1e-4)
    assert information(logits[:1], logits[1:]) == pytest.approx(0.1308, abs=1e-4)
    # Sure of one class each: log 2. Probabilities of exactly 0 are no NaN.
    sure = np.array([[1e4, 0.0], [0.0, 1e4]], np.float32)
    assert information(sure) == pytest.approx(np.log(2), abs=1e-6)
    # Logits that vary over images by s have about s^2 / 2 (1 - 1/K), whatever K.
    rng = np.random.default_rng(0)
    for classes in (2, 100):
        varied = rng.normal(size=(2000, classes)) * 0.1
        assert information(varied) == pytest.approx(0.005 * (1 - 1 / classes), rel=0.1)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_constant_predictions_are_found_despite_rounding(dtype, classes):
    rng = np.random.default_rng(classes)
    constant = np.broadcast_to(rng.normal(size=classes) * 3, (300, classes))
    noise = rng.normal(size=constant.shape)
    for logits in (constant, constant + 1e-4 * noise, 1e6 * constant):
        logits = jnp.asarray(logits, dtype)
        assert collapse.is_constant(information(*jnp.split(logits, 3)))
    for logits in (constant + 0.1 * noise, noise):
        assert not collapse.is_constant(information(jnp.asarray(logits, dtype)))


def test_predictions_with_nan_are_not_constant():
    assert not collapse.is_constant(information(np.array([[np.nan, 0.0], [1.0, 0.0]])))


def lines(*constant):
    return [
        {"epoch": i + 1} | ({collapse.KEY: 1} if each else {}) for i, each in enumerate(constant)
    ]


@pytest.mark.parametrize(
    ("constant", "epochs", "expected"),
    [
        ((1,), 9, [0]),
        ((1, 0, 1, 0), 9, [0, 0, 0, 0]),
        ((1, 1, 1, 0, 1, 1), 9, [0, 1, 0, 0, 0, 0]),  # once a run
        ((0, 0, 1), 3, [0, 0, 1]),  # the last epoch counts alone
        ((1, 1, 1), 3, [0, 1, 0]),
        ((1,), 1, [1]),
        ((0, 0), 2, [0, 0]),
    ],
)
def test_a_collapse_is_reported_at_its_second_epoch_or_at_the_end_and_once(
    constant, epochs, expected
):
    every = lines(*constant)
    found = [collapse.is_collapsed(every[: i + 1], epochs) for i in range(len(every))]
    assert found == [bool(each) for each in expected]


@pytest.mark.parametrize(
    ("terms", "weights", "advice"),
    [
        ((), {}, "optimizer.learning_rate=0.5 is probably too high: lower optimizer.learning_rate"),
        (
            (GradientTransfer(), MinL2()),
            {"gradient_at": lambda step: 50.0 + step, "min_l2": lambda step: 0.25},
            "Probably gradient_at with weight 57 and min_l2 with weight 0.25 outweighs the "
            "cross-entropy, because a constant has no input gradient: lower gradient_at.beta, "
            "min_l2.beta",
        ),
        # A term that has not begun is no cause.
        ((MinL2(),), {"min_l2": lambda step: 0.0}, "lower optimizer.learning_rate"),
    ],
)
def test_warning_names_the_cause_and_the_key(terms, weights, advice):
    run = types.SimpleNamespace(
        name="nin_thin",
        objective=types.SimpleNamespace(terms=terms),
        weights=weights,
        settings=types.SimpleNamespace(optimizer=types.SimpleNamespace(learning_rate=0.5)),
        dataset=types.SimpleNamespace(evaluated_on="validation"),
    )
    norms = {f"gradient_norm_student/{term.metric}": 0.0 for term in terms}
    text = collapse.warning(run, {"epoch": 2, "step": 8, **norms})
    assert text.startswith("Warning: epoch 2: nin_thin has become a constant: it gives all images")
    assert "validation split" in text and text.endswith(advice) and "\n" not in text
