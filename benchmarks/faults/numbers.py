"""Values and gradients of the library against extended precision, at extreme scales.

The examples of a batch have different scales, so that one program checks them all.
"""

import itertools
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from at_jax import gradients, losses, maps
from benchmarks import reference
from benchmarks.faults.row import Row

__all__ = ["run"]

_SCALES = (1e-36, 1e-30, 1e-25, 1e-20, 1e-10, 1e-5, 1.0, 1e5, 1e10, 1e19, 1e25, 1e30, 1e37)
_EXPONENTS = (1, 1.5, 2, 3.0, 4, 8.0, 16)
_TYPES = (jnp.float32, jnp.bfloat16, jnp.float16)
_SHAPE = (5, 4, 3)
_SMALLEST, _LARGEST = 1.2e-38, 3.4e38  # normal numbers of float32
_COMPILER = {"xla_backend_optimization_level": 0}


class _Case(NamedTuple):
    """A function, its first argument, which is differentiated, and what it should return."""

    name: str
    function: Callable[[jax.Array], jax.Array]  # (B, ...) -> (B,)
    argument: jax.Array
    value: np.ndarray
    gradient: np.ndarray
    scales: tuple[float, ...]
    rounding: float = 0.0  # absolute error that float32 allows
    cancellation: float = 0.0  # the same of the gradient times the largest activation


def run(count: int, folder: pathlib.Path, seed: int) -> Row:
    """Compare values and gradients with the reference.

    Args:
      count: number of values, at least; as many gradients are compared.
      folder: not used.
      seed: of the arrays, and of the order of the cases.
    """
    del folder
    rng = np.random.default_rng(seed)
    cases = list(_cases(seed))
    tried, failures = 0, []
    for index in rng.permutation(len(cases)):
        case = cases[index]()
        tried += 2 * len(case.scales)
        failures += _failures(case)
        if tried >= 2 * count:
            break
    return Row("Values and gradients against extended precision", tried, tuple(failures))


def _failures(case: _Case) -> Iterator[str]:
    def total(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        values = case.function(x)
        return jnp.sum(values), values

    both = jax.jit(jax.value_and_grad(total, has_aux=True), compiler_options=_COMPILER)
    (_, value), gradient = both(case.argument)
    pairs = (("value", value, case.value), ("gradient", gradient, case.gradient))
    for what, found, expected in pairs:
        for example, scale in enumerate(case.scales):
            ours, theirs = np.asarray(found[example], reference.Wide), expected[example]
            if problem := _difference(ours, theirs, case, what, example):
                yield f"{case.name}, {what} at scale {scale:g}: {problem}"


def _difference(ours: np.ndarray, theirs: np.ndarray, case: _Case, what: str, example: int) -> str:
    """Describe the fault; empty if there is none, or if float32 cannot represent the numbers."""
    if np.max(np.abs(theirs)) > _LARGEST:  # False for NaN
        return ""
    precision = {2: 2e-2 if what == "gradient" else 1e-4}.get(case.argument.dtype.itemsize, 2e-4)
    norm = np.sqrt(np.sum(theirs**2))
    allowed = precision * norm + 4 * _SMALLEST * np.sqrt(theirs.size) + case.rounding
    if case.argument.dtype == jnp.float16 and what == "gradient":
        if np.max(np.abs(theirs)) > 6e4:  # the gradient has the type of the argument
            return ""
        allowed += 6e-5 * np.sqrt(theirs.size)
    if what == "gradient" and case.cancellation:
        allowed += case.cancellation / np.max(np.abs(_wide(case.argument)[example]))
    error = np.sqrt(np.sum((ours - theirs) ** 2))
    if error <= allowed:
        return ""
    return f"norm {float(np.sqrt(np.sum(ours**2))):.6g}, expected {float(norm):.6g}"


def _cases(seed: int) -> Iterator[Callable[[], _Case]]:
    """Functions that make a case each: the reference is computed for those that are checked."""
    options = itertools.product(losses.KINDS, _EXPONENTS, losses.CONVENTIONS, _TYPES)
    for kind, p, convention, dtype in options:
        yield lambda *a, o=(kind, p, convention, dtype): _attention(seed, *o)
    for kind, p in itertools.product(losses.KINDS, _EXPONENTS):
        yield lambda o=(kind, p): _map(seed, *o)
    for name in ("gradient_transfer", "flip_symmetry", "gradient_penalty", "l2_norm"):
        for dtype in _TYPES[:2]:
            yield lambda o=(name, dtype): _norm(seed, *o)
    yield lambda: _normalized(seed)
    yield lambda: _activation(seed)
    for temperature, alpha in itertools.product(
        (0.01, 0.3, 1.0, 4.0, 20.0, 100.0), (0.0, 0.7, 1.0)
    ):
        yield lambda o=(temperature, alpha): _distillation(seed, *o)
    yield lambda: _cross_entropy(seed)


def _arrays(seed: int, scales: tuple[float, ...], dtype: Any, shape: tuple[int, ...] = _SHAPE):
    """Student, with zeros as after a ReLU, at each scale, and teacher at the scales in reverse."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, len(scales), *shape))
    a[:, rng.random(shape) < 0.2] = 0
    factors = np.array(scales).reshape(-1, *[1] * len(shape))
    return jnp.asarray(a * factors, dtype), jnp.asarray(b * factors[::-1], dtype)


def _wide(x: jax.Array) -> np.ndarray:
    wide = np.asarray(x.astype(jnp.float32), reference.Wide)
    return np.where(np.abs(wide) < _SMALLEST, 0, wide)  # XLA:CPU takes the others for zero


def _scales(dtype: Any, low: float = 0.0, high: float = np.inf) -> tuple[float, ...]:
    if dtype == jnp.float16:
        return (0.01, 0.1, 1.0, 10.0, 100.0, 1e3)
    return tuple(scale for scale in _SCALES if low <= scale <= high)


def _attention(seed: int, kind: Any, p: float, convention: Any, dtype: Any) -> _Case:
    scales = _scales(dtype)
    a_s, a_t = _arrays(seed, scales, dtype)
    options: dict[str, Any] = {"kind": kind, "p": p, "convention": convention}
    wide = _wide(a_s), _wide(a_t)
    return _Case(
        f"attention_transfer {kind} p={p} {convention} {jnp.dtype(dtype).name}",
        lambda x: losses.attention_transfer(x, a_t, **options),
        a_s,
        reference.attention_transfer(*wide, **options),
        reference.attention_transfer_gradient(*wide, **options),
        scales,
        # Where one position dominates a map, its gradient is a small difference of large numbers.
        cancellation=1e-6 * p,
    )


def _map(seed: int, kind: Any, p: float) -> _Case:
    # Maps keep their values: scales whose powers float32 holds.
    scales = _scales(jnp.float32, 10 ** (-30 / p), 10 ** (30 / p))
    a, _ = _arrays(seed, scales, jnp.float32)
    mapping = {"sum": maps.sum_map, "max": maps.max_map, "channel": maps.channel_map}[kind]
    value = reference.attention_map(_wide(a), kind, p)
    summed = tuple(range(1, value.ndim))
    return _Case(
        f"{mapping.__name__} p={p}",
        lambda x: jnp.sum(mapping(x, p), axis=summed),
        a,
        np.sum(value, axis=summed),
        reference.attention_map_gradient(_wide(a), kind, p, np.ones(value.shape)),
        scales,
    )


def _norm(seed: int, name: str, dtype: Any) -> _Case:
    scales = _scales(dtype)
    j, other = _arrays(seed, scales, dtype)
    other = other[::-1]  # at the scales of the first
    function: Callable[[jax.Array], jax.Array] = {
        "gradient_transfer": lambda x: gradients.gradient_transfer(x, other),
        "flip_symmetry": lambda x: gradients.flip_symmetry(x, other),
        "gradient_penalty": gradients.gradient_penalty,
        "l2_norm": lambda x: maps.l2_norm(x) / 2,
    }[name]
    minus = {"gradient_transfer": _wide(other), "flip_symmetry": _wide(other)[:, :, ::-1]}
    x = _wide(j) - minus.get(name, 0)
    value, gradient = reference.half_norm(x), reference.half_norm_gradient(x)
    return _Case(f"{name} {jnp.dtype(dtype).name}", function, j, value, gradient, scales)


def _normalized(seed: int) -> _Case:
    q, weights = _arrays(seed, _SCALES, jnp.float32)
    flat = (weights[6] * jnp.ones_like(q)).reshape(len(q), -1)  # the scale in the middle is 1
    value = np.sum(reference.normalize(_wide(q)) * _wide(flat), axis=1)
    return _Case(
        "normalize",
        lambda x: jnp.sum(maps.normalize(x) * flat, axis=1),
        q,
        value,
        reference.normalize_gradient(_wide(q), _wide(flat)),
        _SCALES,
        rounding=1e-6,
    )


def _activation(seed: int) -> _Case:
    scales = _scales(jnp.float32, 1e-15, 1e15)
    a, b = _arrays(seed, scales, jnp.float32)
    b = b[::-1]
    value = reference.activation_transfer(_wide(a), _wide(b))
    gradient = reference.activation_transfer_gradient(_wide(a), _wide(b))
    return _Case(
        "activation_transfer",
        lambda x: losses.activation_transfer(x, b),
        a,
        value,
        gradient,
        scales,
    )


def _distillation(seed: int, temperature: float, alpha: float) -> _Case:
    scales = _scales(jnp.float32, 1e-10, 1e5)
    s, t = _arrays(seed, scales, jnp.float32, (7,))
    t = t[::-1]
    labels = jnp.arange(len(scales)) % 7
    wide = _wide(s), _wide(t), np.asarray(labels), temperature, alpha
    return _Case(
        f"distillation T={temperature} alpha={alpha}",
        lambda x: losses.distillation(x, t, labels, temperature=temperature, alpha=alpha),
        s,
        reference.distillation(*wide),
        reference.distillation_gradient(*wide),
        scales,
        # Log-probabilities near log K are rounded to 1e-7, and their difference is multiplied by T^2.
        rounding=2e-6 * max(temperature**2 * alpha, 1),
    )


def _cross_entropy(seed: int) -> _Case:
    s, _ = _arrays(seed, _SCALES, jnp.float32, (7,))
    labels = jnp.arange(len(_SCALES)) % 7
    value = reference.cross_entropy(_wide(s), np.asarray(labels))
    gradient = reference.cross_entropy_gradient(_wide(s), np.asarray(labels))
    call = lambda x: losses.cross_entropy(x, labels)  # noqa: E731
    return _Case("cross_entropy", call, s, value, gradient, _SCALES, rounding=2e-6)
