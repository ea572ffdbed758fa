"""Agreement of two networks in their predictions and in their attention maps.

For evaluation, not for training: computed in NumPy in float64. Like the losses, each function returns one
number per example.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from at_jax import maps
from at_jax.checks import check_equal, check_rank
from at_jax.errors import UserError
from at_jax.pooling import whole_numbers
from at_jax.precision import Array

__all__ = ["confusion", "correlation", "divergence", "top1"]


def top1(logits_s: Array, logits_t: Array) -> np.ndarray:
    """Agreement of the predicted classes, whether or not they are correct.

    Args:
      logits_s: student, ``(B, K)``.
      logits_t: teacher, ``(B, K)``.

    Returns:
      ``(B,)``, 1 where student and teacher predict the same class, 0 elsewhere, also where a logit is NaN.

    Raises:
      UserError: if a rank is wrong or the shapes differ.

    >>> top1(np.array([[0.0, 2.0], [3.0, 1.0]]), np.array([[0.0, 9.0], [0.0, 1.0]]))
    array([1., 0.])
    """
    logits_s, logits_t = _logits("top1", logits_s, logits_t)
    is_equal = logits_s.argmax(axis=-1) == logits_t.argmax(axis=-1)
    # np.argmax returns the index of a NaN, which is not a prediction.
    is_valid = ~(np.isnan(logits_s) | np.isnan(logits_t)).any(axis=-1)
    return (is_equal & is_valid).astype(np.float64)


def divergence(logits_s: Array, logits_t: Array) -> np.ndarray:
    r"""KL divergence of the student from the teacher: :math:`KL(softmax_t \| softmax_s)`.

    Args:
      logits_s: student, ``(B, K)``.
      logits_t: teacher, ``(B, K)``.

    Returns:
      ``(B,)``, in nats; 0 where the probabilities are equal. A class whose teacher probability is 0 in
      float64 (a logit of -inf or -1e9) adds 0, as in :func:`at_jax.losses.distillation`.

    Raises:
      UserError: if a rank is wrong or the shapes differ.

    >>> divergence(np.log([[0.5, 0.5]]), np.log([[0.5, 0.5]]))
    array([0.])
    """
    logits_s, logits_t = _logits("divergence", logits_s, logits_t)
    log_s, log_t = _log_softmax(logits_s), _log_softmax(logits_t)
    # 0 log 0 is 0; without the mask it would be 0 times infinity. log t may be finite where t is 0.
    is_masked = np.exp(log_t) == 0
    difference = np.where(is_masked, 0, log_t) - np.where(is_masked, 0, log_s)
    return np.sum(np.exp(log_t) * difference, axis=-1)


def correlation(q_s: Array, q_t: Array) -> np.ndarray:
    """Pearson correlation of two attention maps over positions.

    It does not depend on the scale of the maps, so they need not be normalized.

    Args:
      q_s: maps of the student, ``(B, H, W)``.
      q_t: maps of the teacher, ``(B, H', W')``; resized bilinearly to the student's size.

    Returns:
      ``(B,)`` in -1..1; 0 where a map is constant up to rounding: where no position differs from the mean
      by more than 8 times the machine epsilon of its type (2 times in half precision; at least 1e-14),
      relative to the largest magnitude. Integers count as float64.

    Raises:
      UserError: if a rank is wrong, a map is empty, or the batch sizes differ.

    >>> q = np.arange(4.0).reshape(1, 2, 2)
    >>> correlation(q, 10 * q + 1), correlation(q, -q)
    (array([1.]), array([-1.]))
    """
    q_s, q_t = np.asarray(q_s), np.asarray(q_t)
    check_rank("correlation", 3, floating=False, q_s=q_s, q_t=q_t)
    fix = "compute both from the same images"
    check_equal("correlation", "batch sizes of q_s and q_t", len(q_s), len(q_t), fix)
    # A constant map varies by rounding errors only, which must not be correlated.
    least = [_rounding_error(q) for q in (q_s, q_t)]
    if q_s.shape != q_t.shape:
        q_t = _resized(q_t, q_s.shape[1:])
    a, b = _centered(q_s, least[0]), _centered(q_t, least[1])
    norms = np.sqrt(np.sum(a**2, axis=1) * np.sum(b**2, axis=1))
    return np.clip(np.sum(a * b, axis=1) / np.where(norms > 0, norms, 1), -1, 1)


def confusion(labels: Array, predictions: Array, num_classes: int) -> np.ndarray:
    """Confusion matrix.

    Args:
      labels: true classes, ``(B,)``.
      predictions: predicted classes, ``(B,)``.
      num_classes: K, at least 1.

    Returns:
      Counts, ``(K, K)``: one row per true class, one column per predicted class.

    Raises:
      UserError: unless both are integers in ``0..K-1`` of the same shape ``(B,)``, and K is a whole number
        of at least 1.

    >>> confusion(np.array([0, 0, 1]), np.array([0, 1, 1]), 2)
    array([[1, 1],
           [0, 1]])
    """
    sizes = whole_numbers([num_classes])
    if not sizes or sizes[0] < 1:
        raise UserError(
            f"confusion: num_classes must be a whole number of at least 1, got {num_classes!r}: pass the "
            "number of classes"
        )
    (num_classes,) = sizes
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    check_rank("confusion", 1, floating=False, labels=labels, predictions=predictions)
    fix = "pass one prediction for each label"
    check_equal(
        "confusion", "numbers of labels and predictions", labels.size, predictions.size, fix
    )
    for name, classes in (("labels", labels), ("predictions", predictions)):
        is_integer = np.issubdtype(classes.dtype, np.integer)
        if classes.size and not (is_integer and 0 <= classes.min() <= classes.max() < num_classes):
            got = f"{classes.min()} to {classes.max()}" if is_integer else classes.dtype
            raise UserError(
                f"confusion: {name} must be integers from 0 to {num_classes - 1}, got {got}: leave out "
                "examples without a class, and pass class indices"
            )
    counts = np.zeros((num_classes, num_classes), np.int64)
    # An empty list is of floats.
    np.add.at(counts, (labels.astype(int), predictions.astype(int)), 1)
    return counts


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.sum(np.exp(shifted), axis=-1, keepdims=True))


def _rounding_error(q: np.ndarray) -> float:
    """Bound on the rounding errors of a constant map whose largest value is 1."""
    # Integers are exact, but their means and resized maps are in float64.
    dtype = q.dtype if jnp.issubdtype(q.dtype, jnp.floating) else np.float64
    # Half precision is the rounded result of a computation in float32.
    units = 2 if jnp.dtype(dtype).itemsize < 4 else 8
    return max(units * float(jnp.finfo(dtype).eps), 1e-14)


def _scaled(q: np.ndarray) -> np.ndarray:
    """Maps (B, H, W) in float64 with a largest magnitude of 1; a zero map is kept."""
    q = q.astype(np.float64)
    largest = np.max(np.abs(q), axis=(1, 2), keepdims=True)
    return q / np.where(largest == 0, 1, largest)


def _resized(q: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    # Scaled first: XLA may take tiny numbers for zero.
    with jax.enable_x64(True):
        return np.asarray(maps.resize(jnp.asarray(_scaled(q)), shape))


def _centered(q: np.ndarray, least: float) -> np.ndarray:
    """Maps (B, H, W) minus their means, scaled: (B, N). A map within ``least`` of constant gives zeros."""
    # Scaled first: squares of tiny maps would vanish.
    q = _scaled(q).reshape(len(q), math.prod(q.shape[1:]))
    q = q - q.mean(axis=1, keepdims=True)
    q[np.max(np.abs(q), axis=1) < least] = 0
    return q


def _logits(function: str, logits_s: Array, logits_t: Array) -> tuple[np.ndarray, np.ndarray]:
    logits_s, logits_t = np.asarray(logits_s, np.float64), np.asarray(logits_t, np.float64)
    check_rank(function, 2, logits_s=logits_s, logits_t=logits_t)
    fix = "apply both networks to the same images"
    check_equal(function, "shapes of logits_s and logits_t", logits_s.shape, logits_t.shape, fix)
    return logits_s, logits_t
