"""Agreement of two networks in their predictions and in their attention maps.

For evaluation, not for training: computed in NumPy in float64. Like the losses, each function returns one
number per example.
"""

import jax.numpy as jnp
import numpy as np

from at_jax import maps
from at_jax.errors import UserError

__all__ = ["confusion", "correlation", "divergence", "top1"]


def top1(logits_s: np.ndarray, logits_t: np.ndarray) -> np.ndarray:
    """Agreement of the predicted classes, whether or not they are correct.

    Args:
      logits_s: student, ``(B, K)``.
      logits_t: teacher, ``(B, K)``.

    Returns:
      ``(B,)``, 1 where student and teacher predict the same class, 0 elsewhere.

    Raises:
      UserError: if a rank is wrong or the shapes differ.

    >>> top1(np.array([[0.0, 2.0], [3.0, 1.0]]), np.array([[0.0, 9.0], [0.0, 1.0]]))
    array([1., 0.])
    """
    logits_s, logits_t = _pair("top1", logits_s, logits_t, 2)
    return (logits_s.argmax(axis=-1) == logits_t.argmax(axis=-1)).astype(np.float64)


def divergence(logits_s: np.ndarray, logits_t: np.ndarray) -> np.ndarray:
    r"""KL divergence of the student from the teacher: :math:`KL(softmax_t \| softmax_s)`.

    Args:
      logits_s: student, ``(B, K)``.
      logits_t: teacher, ``(B, K)``.

    Returns:
      ``(B,)``, in nats; 0 where the probabilities are equal.

    Raises:
      UserError: if a rank is wrong or the shapes differ.

    >>> divergence(np.log([[0.5, 0.5]]), np.log([[0.5, 0.5]]))
    array([0.])
    """
    logits_s, logits_t = _pair("divergence", logits_s, logits_t, 2)
    log_s, log_t = _log_softmax(logits_s), _log_softmax(logits_t)
    return np.sum(np.exp(log_t) * (log_t - log_s), axis=-1)


def correlation(q_s: np.ndarray, q_t: np.ndarray) -> np.ndarray:
    """Pearson correlation of two attention maps over positions.

    It does not depend on the scale of the maps, so they need not be normalized.

    Args:
      q_s: maps of the student, ``(B, H, W)``.
      q_t: maps of the teacher, ``(B, H', W')``; resized bilinearly to the student's size.

    Returns:
      ``(B,)`` in -1..1; 0 where a map is constant.

    Raises:
      UserError: if a rank is wrong or the batch sizes differ.

    >>> q = np.arange(4.0).reshape(1, 2, 2)
    >>> correlation(q, 10 * q + 1), correlation(q, -q)
    (array([1.]), array([-1.]))
    """
    q_s, q_t = np.asarray(q_s), np.asarray(q_t)
    if q_s.ndim == 3 == q_t.ndim and q_s.shape != q_t.shape:
        q_t = np.asarray(maps.resize(jnp.asarray(q_t, jnp.float32), q_s.shape[1:]))
    q_s, q_t = _pair("correlation", q_s, q_t, 3)
    a, b = _centered(q_s), _centered(q_t)
    norms = np.sqrt(np.sum(a**2, axis=1) * np.sum(b**2, axis=1))
    return np.clip(np.sum(a * b, axis=1) / np.where(norms > 0, norms, 1), -1, 1)


def confusion(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> np.ndarray:
    """Confusion matrix.

    Args:
      labels: true classes, ``(B,)``.
      predictions: predicted classes, ``(B,)``.
      num_classes: K.

    Returns:
      Counts, ``(K, K)``: one row per true class, one column per predicted class.

    >>> confusion(np.array([0, 0, 1]), np.array([0, 1, 1]), 2)
    array([[1, 1],
           [0, 1]])
    """
    counts = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(counts, (labels, predictions), 1)
    return counts


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.sum(np.exp(shifted), axis=-1, keepdims=True))


def _centered(q: np.ndarray) -> np.ndarray:
    """Maps (B, H, W) minus their means, scaled: (B, N). A constant map gives zeros."""
    q = q.reshape(len(q), -1)
    # Scaled by the largest value first: squares of tiny maps would vanish.
    q = q / np.maximum(np.max(np.abs(q), axis=1, keepdims=True), np.finfo(np.float64).tiny)
    q = q - q.mean(axis=1, keepdims=True)
    # The rounding errors of a constant map are not a shape.
    q[np.max(np.abs(q), axis=1) < 1e-6] = 0
    return q


def _pair(
    function: str, first: np.ndarray, second: np.ndarray, rank: int
) -> tuple[np.ndarray, np.ndarray]:
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if first.ndim != rank or first.shape != second.shape:
        raise UserError(
            f"{function}: student and teacher arrays must have rank {rank} and the same shape, got "
            f"{first.shape} and {second.shape}: compute both from the same images"
        )
    return first, second
