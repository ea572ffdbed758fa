r"""Per-example losses: cross-entropy, distillation, attention transfer and full-activation transfer.

Each function takes arrays of ``B`` examples and returns ``(B,)``. None of them averages over the batch,
so no loss depends on the batch size or on the number of devices. Each returns the quantity that its
weight multiplies, factors of 1/2 included.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from at_jax.attention import (
    ALIGNMENTS,
    CONVENTIONS,
    KINDS,
    MAX_EXPONENT,
    Alignment,
    Convention,
    Kind,
    attention_maps,
    attention_transfer,
)
from at_jax.checks import check_equal, check_rank, check_scalar
from at_jax.errors import UserError
from at_jax.precision import Array, at_least_float32, nan_where

__all__ = [
    "ALIGNMENTS", "CONVENTIONS", "KINDS", "MAX_EXPONENT", "Alignment", "Convention", "Kind",
    "activation_transfer", "attention_maps", "attention_transfer", "cross_entropy", "distillation",
]  # fmt: skip


def cross_entropy(logits: Array, labels: Array) -> jax.Array:
    r"""Cross-entropy in nats: :math:`-\log softmax(z)_y`, or :math:`-\sum_k y_k \log softmax(z)_k`.

    Args:
      logits: z, ``(B, K)``.
      labels: y, integers in ``0..K-1``, ``(B,)``; or soft labels, the probabilities of the classes,
        floating point, ``(B, K)``, such as those of mixup or of label smoothing.

    Returns:
      ``(B,)``; NaN where an integer is not in ``0..K-1``. A class with probability 0 adds 0, even if its
      logit is -inf.

    Raises:
      UserError: for a wrong rank, shape or dtype, or different batch sizes.

    >>> import jax.numpy as jnp
    >>> cross_entropy(jnp.zeros((1, 2)), jnp.array([0])).round(4)
    Array([0.6931], dtype=float32)
    >>> cross_entropy(jnp.zeros((1, 2)), jnp.array([[0.4, 0.6]])).round(4)
    Array([0.6931], dtype=float32)
    """
    check_rank("cross_entropy", 2, logits=logits)
    _check_labels("cross_entropy", logits, labels)
    return _cross_entropy(logits, labels)


@jax.jit
def _cross_entropy(logits, labels):
    if labels.ndim == 2:
        return _soft_cross_entropy(at_least_float32(logits), labels)
    # A small type may be too narrow for the number of classes.
    labels = labels.astype(jnp.int32) if labels.dtype.itemsize < 4 else labels
    is_class = (labels >= 0) & (labels < logits.shape[-1])
    values = optax.losses.softmax_cross_entropy_with_integer_labels(
        at_least_float32(logits), jnp.where(is_class, labels, 0)
    )
    return jnp.where(is_class, values, nan_where(~is_class, values.dtype))


def _soft_cross_entropy(logits, labels):
    labels, log_p = labels.astype(logits.dtype), jax.nn.log_softmax(logits)
    # 0 times -inf is 0 here. Only there: the gradient with respect to a label of 0 is -log p.
    log_p = jnp.where((labels == 0) & (log_p == -jnp.inf), 0, log_p)
    return -jnp.sum(labels * log_p, axis=-1)


def distillation(
    logits_s: Array, logits_t: Array, labels: Array,
    *, temperature: ArrayLike, alpha: ArrayLike,
) -> jax.Array:  # fmt: skip
    r"""Knowledge distillation: :math:`\alpha T^2 KL(t \| s) + (1-\alpha) CE`.

    :math:`t` and :math:`s` are the softmax of the logits divided by the temperature :math:`T`. The
    released code of attention transfer uses the same form, with T = 4 and alpha = 0.9.

    Args:
      logits_s: student, ``(B, K)``.
      logits_t: teacher, ``(B, K)``.
      labels: integers in ``0..K-1``, ``(B,)``; or soft labels ``(B, K)``, see :func:`cross_entropy`.
      temperature: T > 0; a number or a scalar array, so it may change during training.
      alpha: weight of the soft targets, 0..1; a number or a scalar array.

    Returns:
      ``(B,)``, in nats. A class that the teacher masks, with a probability t that rounds to 0 (a logit of
      -inf or -1e9), adds 0 to the KL divergence, whether or not the student masks it too. A loss with a
      share of exactly 0 adds 0, even if it is infinite or NaN. An integer label that is not in ``0..K-1``
      gives NaN, unless ``alpha`` is 1: images without a class may then have the label -1.

    Raises:
      UserError: for a wrong rank or dtype, different batch sizes or numbers of classes, or a temperature
        or alpha that is neither a scalar array nor a number in its range.

    Hinton et al. 2015 (arXiv:1503.02531), section 2.

    >>> import jax.numpy as jnp
    >>> z = jnp.array([[1.0, 2.0]])
    >>> distillation(z, z, jnp.array([1]), temperature=4.0, alpha=1.0)
    Array([0.], dtype=float32)
    """
    check_rank("distillation", 2, logits_s=logits_s, logits_t=logits_t)
    check_scalar("distillation", temperature=temperature, alpha=alpha)
    _check_ranges(temperature, alpha)
    fix = "build both networks with the same num_classes and apply them to the same images"
    check_equal("distillation", "student and teacher shapes", logits_s.shape, logits_t.shape, fix)
    _check_labels("distillation", logits_s, labels)
    # A number between 0 and 1 needs no treatment of 0 times infinity, which computes the losses twice.
    may_vanish = not (isinstance(alpha, int | float) and 0 < alpha < 1)
    return _distillation(logits_s, logits_t, labels, temperature, alpha, may_vanish)


@functools.partial(jax.jit, static_argnames="may_vanish")
def _distillation(logits_s, logits_t, labels, temperature, alpha, may_vanish):
    logits_s, logits_t = at_least_float32(logits_s), at_least_float32(logits_t)
    # As NumPy scalars and arrays of other types they would change the type of the result.
    dtype = jnp.promote_types(logits_s.dtype, logits_t.dtype)
    temperature, alpha = jnp.asarray(temperature, dtype), jnp.asarray(alpha, dtype)

    def divergence(logits_s, logits_t):
        log_s = jax.nn.log_softmax(logits_s / temperature)
        log_t = jax.nn.log_softmax(logits_t / temperature)
        return jnp.sum(_kl_summands(log_t, log_s), axis=-1)  # (B,)

    share = _share if may_vanish else _plain_share
    soft = share(alpha * temperature**2, divergence, logits_s, logits_t)
    return soft + share(1 - alpha, _cross_entropy, logits_s, labels)


def _plain_share(share, loss, *arrays):
    return share * loss(*arrays)


def _share(share, loss, *arrays):
    """``share * loss(*arrays)``: (B,). A share of 0 gives 0 where the loss is infinite or NaN.

    Where the loss is finite, a share of 0 keeps its derivative, which is the loss.
    """
    is_unused = (share == 0) & ~jnp.isfinite(loss(*arrays))  # (B,)
    # Double where: the derivatives of an infinite loss may be NaN, and 0 times NaN is NaN.
    used = [jnp.where(jnp.expand_dims(is_unused, tuple(range(1, x.ndim))), 0, x) for x in arrays]
    return share * jnp.where(is_unused, 0, loss(*used))


def _kl_summands(log_t, log_s):
    """Compute ``t log(t / s) - t + s``, which is not negative: ``(B, K)``. The sum of s - t over K is 0.

    The summands of the usual form, t log(t / s), have both signs. At a high temperature their sum is far
    smaller than they are, and T^2 multiplies its rounding error.
    """
    # 0 log 0 is 0; without the mask it would be 0 times infinity. log t may be finite where t is 0.
    is_masked = jnp.exp(log_t) == 0
    x = jnp.where(is_masked, 0, log_t) - jnp.where(is_masked, 0, log_s)
    t, s = jnp.exp(log_t), jnp.exp(log_s)
    # s = t exp(-x): where x is small, x + expm1(-x), about x^2 / 2, loses less than the difference s - t.
    is_near = (jnp.abs(x) < 1) & ~is_masked
    near = jnp.where(is_near, x, 0)
    return jnp.where(is_near, t * (near + jnp.expm1(-near)), t * x - t + s)


def _check_ranges(temperature: ArrayLike, alpha: ArrayLike) -> None:
    """Raise for numbers out of range. Arrays may be traced, and reading one would wait for the device."""
    if isinstance(temperature, int | float | np.generic) and not 0 < temperature < np.inf:
        raise UserError(
            f"distillation: temperature must be a finite number above 0, got {temperature}: Hinton et al. "
            "use 1 to 20"
        )
    if isinstance(alpha, int | float | np.generic) and not 0 <= alpha <= 1:
        raise UserError(
            f"distillation: alpha must be from 0 to 1, got {alpha}: it is the share of the soft targets"
        )


def activation_transfer(a_s: Array, a_t: Array) -> jax.Array:
    r"""Full-activation transfer (F-ActT): the mean of :math:`(a_s - a_t)^2`.

    The baseline of the paper's table 1, at the same points as attention transfer. It is close to the hints
    of FitNets (Romero et al., arXiv:1412.6550). If the widths differ, a trainable 1x1 convolution first
    adapts the student's activations (:class:`at_jax.models.Adapter`).

    Args:
      a_s: student activations, already adapted, ``(B, H, W, C)``.
      a_t: teacher activations, ``(B, H, W, C)``.

    Returns:
      ``(B,)``, the mean over positions and channels, in squared units of the activation.

    Raises:
      UserError: for a wrong rank or dtype, or different shapes.

    >>> import jax.numpy as jnp
    >>> activation_transfer(jnp.ones((1, 2, 2, 3)), jnp.zeros((1, 2, 2, 3)))
    Array([1.], dtype=float32)
    """
    check_rank("activation_transfer", 4, a_s=a_s, a_t=a_t)
    fix = "adapt the channels with a 1x1 convolution, and choose transfer points of equal size"
    check_equal("activation_transfer", "student and teacher shapes", a_s.shape, a_t.shape, fix)
    return _activation_transfer(a_s, a_t)


@jax.jit
def _activation_transfer(a_s, a_t):
    difference = at_least_float32(a_s) - at_least_float32(a_t)
    return jnp.mean(jnp.square(difference), axis=(1, 2, 3))


def _check_labels(function: str, logits: Array, labels: Array) -> None:
    shape: tuple[int, ...] = getattr(labels, "shape", ())
    if len(shape) == 2:
        _check_soft_labels(function, logits, labels)
        return
    check_rank(function, 1, floating=False, labels=labels)
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise UserError(f"{function}: labels must be integers, got {labels.dtype}: cast them")
    # Not len(), which needs a number: jax.export has symbols for sizes.
    sizes, fix = (logits.shape[0], labels.shape[0]), "pass one label for each row of the logits"
    check_equal(function, "numbers of logits and labels", *sizes, fix)


def _check_soft_labels(function: str, logits: Array, labels: Array) -> None:
    check_rank(function, 2, floating=False, labels=labels)
    shape = labels.shape
    if shape[1] == 1 != logits.shape[1]:
        raise UserError(f"{function}: labels must have rank 1, got shape {shape}: use labels[:, 0]")
    fix = "pass the probabilities of all classes for each row of the logits"
    check_equal(function, "shapes of logits and soft labels", logits.shape, shape, fix)
    if not jnp.issubdtype(labels.dtype, jnp.floating):
        raise UserError(
            f"{function}: soft labels (B, K) must be floating point, got {labels.dtype}: use "
            "labels.argmax(axis=-1) for one-hot labels"
        )
