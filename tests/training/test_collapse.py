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


def is_constant(information, train_error=100.0, train=(0, 1), test=(0, 1)):
    """For an epoch of 100 images."""
    labels = {name: np.array(values * 3) for name, values in (("train", train), ("test", test))}
    splits = {name: types.SimpleNamespace(labels=array) for name, array in labels.items()}
    run = types.SimpleNamespace(
        steps_per_epoch=5,
        settings=types.SimpleNamespace(batch_size=20),
        dataset=types.SimpleNamespace(**splits),
    )
    return collapse.is_constant(run, information, train_error)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_constant_predictions_are_found_despite_rounding(dtype, classes):
    rng = np.random.default_rng(classes)
    constant = np.broadcast_to(rng.normal(size=classes) * 3, (300, classes))
    noise = rng.normal(size=constant.shape)
    for logits in (constant, constant + 1e-4 * noise, 1e6 * constant):
        logits = jnp.asarray(logits, dtype)
        assert is_constant(information(*jnp.split(logits, 3)))
    for logits in (constant + 0.1 * noise, noise):
        assert not is_constant(information(jnp.asarray(logits, dtype)))


def test_predictions_with_nan_are_not_constant():
    assert not is_constant(information(np.array([[np.nan, 0.0], [1.0, 0.0]])))


@pytest.mark.parametrize(
    ("train_error", "train", "test", "expected"),
    [
        # 100 images, classes of share 1/2: a guess is right for 50 % and 3 * sqrt(0.25 / 100) = 15 %.
        (50.0, (0, 1), (0, 1), True),
        (35.1, (0, 1), (0, 1), True),
        (34.9, (0, 1), (0, 1), False),  # it learns: batch normalization lags behind
        (35.1, (0, 1, 2, 3), (0, 1), False),  # share 1/4: 25 % and 13 %
        (50.0, (0, 1), (1, 1), False),  # one class is right
    ],
)
def test_a_constant_has_the_training_error_of_a_guess(train_error, train, test, expected):
    assert is_constant(0.0, train_error, train, test) == expected


def lines(*constant):
    return [{"epoch": i + 1} | ({collapse.KEY: 1} if c else {}) for i, c in enumerate(constant)]


@pytest.mark.parametrize(
    ("constant", "at_the_end", "reported"),
    [
        ((1,), False, [0]),
        ((1, 0, 1), False, [0, 0, 0]),
        ((1, 1, 1, 0, 1, 1), True, [0, 1, 0, 0, 0, 0]),  # once a run
        ((0, 1, 1, 0), False, [0, 0, 1, 0]),
    ],
)
def test_a_collapse_is_reported_once_after_two_epochs_in_a_row(constant, at_the_end, reported):
    every = lines(*constant)
    assert collapse.is_collapsed(every) == at_the_end
    found = [collapse.is_new(every[: i + 1]) for i in range(len(every))]
    assert found == [bool(each) for each in reported]


@pytest.mark.parametrize(
    ("terms", "weights", "advice"),
    [
        ((), {}, "optimizer.learning_rate=0.5 is probably too high: lower optimizer.learning_rate"),
        (
            (GradientTransfer(), MinL2()),
            {"gradient_at": lambda step: 50.0 + step, "min_l2": lambda step: 0.25},
            "outweighed by gradient_at (weight 57) and min_l2 (weight 0.25), because a constant has no "
            "input gradient: lower gradient_at.beta, min_l2.beta",
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
        reads_rate=True,
    )
    norms = {f"gradient_norm_student/{term.metric}": 0.0 for term in terms}
    text = collapse.warning(run, {"epoch": 2, "step": 8, **norms})
    assert text.startswith("Warning: epoch 2: nin_thin has become a constant: it gives all images")
    assert "validation split" in text and text.endswith(advice) and "\n" not in text
