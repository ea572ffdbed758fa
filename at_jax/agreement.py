"""How far two networks agree: in what they answer, and in where they look.

For tables and pages, not for training: NumPy, float64, per example like the losses; the caller takes
the mean. The arrays come from any network, see :func:`at_jax.figures.attention_maps`.
"""

import numpy as np

from at_jax import maps


def top1(logits_s: np.ndarray, logits_t: np.ndarray) -> np.ndarray:
    """Whether student and teacher name the same class, right or wrong.

    Args:
      logits_s: of the student, ``(B, K)``.
      logits_t: of the teacher, ``(B, K)``.

    Returns:
      ``(B,)``, 1 where they do and 0 where not.

    Raises:
      ValueError: if the shapes differ.

    >>> top1(np.array([[0.0, 2.0], [3.0, 1.0]]), np.array([[0.0, 9.0], [0.0, 1.0]]))
    array([1., 0.])
    """
    logits_s, logits_t = _pair(logits_s, logits_t, 2, "logits")
    return (logits_s.argmax(axis=-1) == logits_t.argmax(axis=-1)).astype(np.float64)


def divergence(logits_s: np.ndarray, logits_t: np.ndarray) -> np.ndarray:
    r"""How much the student's probabilities lack of the teacher's: :math:`KL(softmax_t \| softmax_s)`.

    Args:
      logits_s: of the student, ``(B, K)``.
      logits_t: of the teacher, ``(B, K)``.

    Returns:
      ``(B,)``, in nats; 0 where they are the same.

    Raises:
      ValueError: if the shapes differ.

    >>> divergence(np.log([[0.5, 0.5]]), np.log([[0.5, 0.5]]))
    array([0.])
    """
    logits_s, logits_t = _pair(logits_s, logits_t, 2, "logits")
    log_s, log_t = _log_softmax(logits_s), _log_softmax(logits_t)
    return np.sum(np.exp(log_t) * (log_t - log_s), axis=-1)


def correlation(q_s: np.ndarray, q_t: np.ndarray) -> np.ndarray:
    """Pearson's correlation over positions of two attention maps of each image.

    It does not depend on the maps' scale, so normalised maps and those before have the same.

    Args:
      q_s: maps of the student, ``(B, H, W)``.
      q_t: of the teacher, ``(B, H', W')``; resized to the student's size, as the loss does.

    Returns:
      ``(B,)`` in -1..1; 0 where a map is the same everywhere and so shows nothing.

    Raises:
      ValueError: if the ranks or the numbers of images differ.

    >>> q = np.arange(4.0).reshape(1, 2, 2)
    >>> correlation(q, 10 * q + 1), correlation(q, -q)
    (array([1.]), array([-1.]))
    """
    q_s, q_t = np.asarray(q_s), np.asarray(q_t)
    if q_s.ndim == 3 == q_t.ndim and q_s.shape != q_t.shape:
        q_t = np.asarray(maps.resize(q_t.astype(np.float32), q_s.shape[1:]))
    q_s, q_t = _pair(q_s, q_t, 3, "maps")

    def centred(q):
        q = q.reshape(len(q), -1)
        # By the largest value first: squares of tiny maps would vanish.
        q = q / np.maximum(np.max(np.abs(q), axis=1, keepdims=True), np.finfo(np.float64).tiny)
        q = q - q.mean(axis=1, keepdims=True)
        # What rounding leaves of a constant map is not a shape.
        q[np.max(np.abs(q), axis=1) < 1e-6] = 0
        return q

    a, b = centred(q_s), centred(q_t)
    norms = np.sqrt(np.sum(a**2, axis=1) * np.sum(b**2, axis=1))
    return np.clip(np.sum(a * b, axis=1) / np.where(norms > 0, norms, 1), -1, 1)


def confusion(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> np.ndarray:
    """How many images of each class were taken for each.

    Args:
      labels: ``(B,)``, true classes.
      predictions: ``(B,)``, classes that the network names.
      num_classes: K.

    Returns:
      ``(K, K)`` counts, a row a true class, a column a predicted one.

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


def _pair(a, b, rank: int, what: str) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.ndim != rank or a.shape != b.shape:
        raise ValueError(
            f"{what} of student and teacher must be of rank {rank} and have one shape, got {a.shape} and "
            f"{b.shape}: take both at the same images"
        )
    return a, b
