"""Parity cases of the losses: the library's function, and values and gradients of NumPy and PyTorch.

Shared by test_parity.py (float32) and check_float64.py (float64, in a separate process).
"""

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from at_jax import losses
from benchmarks import reference

FOLDER = Path(__file__).parent
POINTS = ("thin", "equal", "single")
LOGITS = ("usual", "cold", "soft", "hard")


@dataclasses.dataclass(frozen=True)
class Case:
    """One loss on one input; `expected` maps each source to (values (B,), gradient of their sum)."""

    name: str
    function: Callable  # (student, teacher) -> (B,)
    student: np.ndarray
    teacher: np.ndarray
    expected: dict[str, tuple[np.ndarray, np.ndarray]]

    def deviations(self, dtype):
        """Relative L2 distance from each source: {"torch gradient": 1e-7, ...}."""
        student, teacher = (jnp.asarray(a.astype(dtype)) for a in (self.student, self.teacher))
        value, gradient = _value_and_gradient(self.function)(student, teacher)
        # A result in another precision would make the comparison meaningless.
        assert value.dtype == gradient.dtype == dtype, (self.name, value.dtype, gradient.dtype)
        return {
            f"{source} {what}": relative(result, expected)
            for source, pair in self.expected.items()
            for what, result, expected in zip(
                ("value", "gradient"), (value, gradient), pair, strict=True
            )
        }


def _value_and_gradient(function):
    """Per-example values and the gradient of their sum, as one program: half the compilation time."""

    def total(student, teacher):
        value = function(student, teacher)
        return value.sum(), value

    def both(student, teacher):
        gradient, value = jax.grad(total, has_aux=True)(student, teacher)
        return value, gradient

    return jax.jit(both)


def relative(result, expected):
    """L2 norm of the difference, relative to the norm of the expected array."""
    result = np.asarray(result, np.float64)
    assert result.shape == expected.shape, (result.shape, expected.shape)
    return np.linalg.norm(result - expected) / np.linalg.norm(expected)


def load():
    """Build all cases from losses.npz and the NumPy reference."""
    with np.load(FOLDER / "losses.npz") as file:
        arrays = dict(file)
    return [*_attention_cases(arrays), *_distillation_cases(arrays), *_numpy_cases(arrays)]


def _stored(arrays, name):
    return arrays[f"{name}/value"], arrays[f"{name}/gradient"]


def _attention_cases(arrays):
    for point in POINTS:
        a_s, a_t = arrays[f"{point}/student"], arrays[f"{point}/teacher"]
        kinds = ("sum", "max", "channel") if a_s.shape == a_t.shape else ("sum", "max")
        for kind, p, convention in itertools.product(kinds, (1, 2, 4), ("code", "paper")):
            options = {"kind": kind, "p": p, "convention": convention}
            name = f"{point}/{kind}/{p}/{convention}"
            expected = {
                "torch": _stored(arrays, name),
                "numpy": (
                    reference.attention_transfer(a_s, a_t, **options),
                    reference.attention_transfer_gradient(a_s, a_t, **options),
                ),
            }
            function = _with(losses.attention_transfer, **options)
            yield Case(f"attention/{name}", function, a_s, a_t, expected)


def _distillation_cases(arrays):
    for name in LOGITS:
        z_s, z_t, labels = (arrays[f"{name}/{key}"] for key in ("student", "teacher", "labels"))
        options = {key: float(arrays[f"{name}/{key}"]) for key in ("temperature", "alpha")}
        expected = {
            "torch": _stored(arrays, f"{name}/distillation"),
            "numpy": (
                reference.distillation(z_s, z_t, labels, **options),
                reference.distillation_gradient(z_s, z_t, labels, **options),
            ),
        }
        function = _with(losses.distillation, _labels(labels), **options)
        yield Case(f"distillation/{name}", function, z_s, z_t, expected)


def _numpy_cases(arrays):
    """Losses whose formula is short enough to be compared with NumPy only."""
    a_s, a_t = arrays["equal/student"], arrays["equal/teacher"]
    expected = (
        reference.activation_transfer(a_s, a_t),
        reference.activation_transfer_gradient(a_s, a_t),
    )
    yield Case("activation_transfer", losses.activation_transfer, a_s, a_t, {"numpy": expected})
    z_s, z_t, labels = (arrays[f"usual/{key}"] for key in ("student", "teacher", "labels"))
    expected = (
        reference.cross_entropy(z_s, labels),
        reference.cross_entropy_gradient(z_s, labels),
    )
    integers = _labels(labels)
    yield Case(
        "cross_entropy",
        lambda student, teacher: losses.cross_entropy(student, integers),
        z_s,
        z_t,
        {"numpy": expected},
    )


def _labels(labels):
    return jnp.asarray(labels.astype(np.int32))


def _with(function, *rest, **options):
    return lambda student, teacher: function(student, teacher, *rest, **options)
