r"""Per-example losses: cross-entropy, distillation, attention transfer and full-activation transfer.

Each function takes arrays of ``B`` examples and returns ``(B,)``. None of them averages over the batch,
so no loss depends on the batch size or on the number of devices. Each returns the quantity that its
weight multiplies, factors of 1/2 included.
"""

import functools
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from at_jax import maps
from at_jax.errors import UserError, check_rank
from at_jax.precision import at_least_float32

__all__ = [
    "CONVENTIONS", "KINDS", "Convention", "Kind",
    "activation_transfer", "attention_maps", "attention_transfer", "cross_entropy", "distillation",
]  # fmt: skip

Kind = Literal["sum", "max", "channel"]
Convention = Literal["code", "paper"]
KINDS: tuple[Kind, ...] = get_args(Kind)
CONVENTIONS: tuple[Convention, ...] = get_args(Convention)


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    r"""Cross-entropy with integer labels, in nats: :math:`-\log softmax(z)_y`.

    Args:
      logits: z, ``(B, K)``.
      labels: y, integers in ``0..K-1``, ``(B,)``.

    Returns:
      ``(B,)``.

    Raises:
      UserError: for a wrong rank or dtype, or batches that differ.

    >>> import jax.numpy as jnp
    >>> cross_entropy(jnp.zeros((1, 2)), jnp.array([0])).round(4)
    Array([0.6931], dtype=float32)
    """
    check_rank("cross_entropy", 2, logits=logits)
    _check_labels("cross_entropy", logits, labels)
    return _cross_entropy(logits, labels)


@jax.jit
def _cross_entropy(logits, labels):
    return optax.losses.softmax_cross_entropy_with_integer_labels(at_least_float32(logits), labels)


def distillation(
    logits_s: jax.Array, logits_t: jax.Array, labels: jax.Array,
    *, temperature: ArrayLike, alpha: ArrayLike,
) -> jax.Array:  # fmt: skip
    r"""Knowledge distillation: :math:`\alpha T^2 KL(t \| s) + (1-\alpha) CE`.

    :math:`t` and :math:`s` are the softmax of the logits divided by the temperature :math:`T`. The
    released code of attention transfer uses the same form, with T = 4 and alpha = 0.9.

    Args:
      logits_s: student, ``(B, K)``.
      logits_t: teacher, ``(B, K)``.
      labels: integers in ``0..K-1``, ``(B,)``.
      temperature: T > 0; a number or a scalar array, so it may change during training.
      alpha: weight of the soft targets, 0..1; a number or a scalar array.

    Returns:
      ``(B,)``, in nats.

    Raises:
      UserError: for a wrong rank or dtype, or batches or numbers of classes that differ.

    Hinton et al. 2015 (arXiv:1503.02531), section 2.

    >>> import jax.numpy as jnp
    >>> z = jnp.array([[1.0, 2.0]])
    >>> distillation(z, z, jnp.array([1]), temperature=4.0, alpha=1.0)
    Array([0.], dtype=float32)
    """
    check_rank("distillation", 2, logits_s=logits_s, logits_t=logits_t)
    fix = "build both networks with the same num_classes and apply them to the same images"
    _check_equal("distillation", "student and teacher shapes", logits_s.shape, logits_t.shape, fix)
    _check_labels("distillation", logits_s, labels)
    return _distillation(logits_s, logits_t, labels, temperature, alpha)


@jax.jit
def _distillation(logits_s, logits_t, labels, temperature, alpha):
    logits_s, logits_t = at_least_float32(logits_s), at_least_float32(logits_t)
    kl = optax.losses.kl_divergence_with_log_targets(
        jax.nn.log_softmax(logits_s / temperature), jax.nn.log_softmax(logits_t / temperature)
    )  # (B,)
    return alpha * temperature**2 * kl + (1 - alpha) * _cross_entropy(logits_s, labels)


def attention_maps(
    a_s: jax.Array, a_t: jax.Array, kind: Kind = "sum", p: float = 2
) -> tuple[jax.Array, jax.Array]:
    r"""Attention maps of student and teacher at a common size, not normalized.

    Spatial maps of different size are resized to the smaller height and the smaller width: detail that
    one of them lacks cannot be transferred.

    Args:
      a_s: student activations, ``(B, Hs, Ws, Cs)``.
      a_t: teacher activations, ``(B, Ht, Wt, Ct)``.
      kind: ``"sum"``, ``"max"`` (spatial attention) or ``"channel"`` (needs ``Cs == Ct``).
      p: exponent of the map, at least 1.

    Returns:
      Two maps ``(B, min(Hs, Ht), min(Ws, Wt))``, or ``(B, C)`` for ``"channel"``.

    Raises:
      UserError: for the same reasons as :func:`attention_transfer`.

    >>> import jax.numpy as jnp
    >>> q_s, q_t = attention_maps(jnp.ones((2, 16, 16, 8)), jnp.ones((2, 8, 8, 32)))
    >>> q_s.shape, q_t.shape
    ((2, 8, 8), (2, 8, 8))
    """
    _check_activations("attention_maps", a_s, a_t, kind)
    if kind == "channel":
        return maps.channel_map(a_s, p), maps.channel_map(a_t, p)
    spatial_map = maps.sum_map if kind == "sum" else maps.max_map
    q_s, q_t = spatial_map(a_s, p), spatial_map(a_t, p)
    height, width = (min(pair) for pair in zip(q_s.shape[1:], q_t.shape[1:], strict=True))
    return maps.resize(q_s, (height, width)), maps.resize(q_t, (height, width))


def attention_transfer(
    a_s: jax.Array,
    a_t: jax.Array,
    *,
    kind: Kind = "sum",
    p: float = 2,
    convention: Convention = "code",
) -> jax.Array:
    r"""Activation-based attention transfer at one transfer point.

    With the normalized maps :math:`q = vec(F(a)) / \|vec(F(a))\|_2` of N positions,

    - ``convention="paper"`` is equation 2 of arXiv:1612.03928, :math:`\frac12 \|q_s - q_t\|_2`;
    - ``convention="code"`` is the authors' released code, :math:`\frac1N \|q_s - q_t\|_2^2`: the mean
      over positions of the squared difference, used with :math:`\beta = 10^3`.

    Maps of different size are resized as in :func:`attention_maps`.

    Args:
      a_s: student activations, ``(B, Hs, Ws, Cs)``.
      a_t: teacher activations, ``(B, Ht, Wt, Ct)``.
      kind: ``"sum"``, ``"max"`` (spatial attention) or ``"channel"`` (needs ``Cs == Ct``).
      p: exponent of the map, at least 1.
      convention: ``"code"`` or ``"paper"``.

    Returns:
      ``(B,)``, dimensionless; 0 where the normalized maps agree.

    Raises:
      UserError: for an unknown kind or convention, ``p < 1``, a wrong rank or dtype, batches that differ,
        or channel counts that differ with ``kind="channel"``.

    >>> import jax.numpy as jnp
    >>> a = jnp.array([1.0, 0.0]).reshape(1, 1, 2, 1)
    >>> b = jnp.array([0.0, 5.0]).reshape(1, 1, 2, 1)
    >>> attention_transfer(a, b)  # ((1-0)**2 + (0-1)**2) / 2 positions
    Array([1.], dtype=float32)
    >>> attention_transfer(a, b, convention="paper").round(4)  # sqrt(2) / 2
    Array([0.7071], dtype=float32)
    """
    if convention not in CONVENTIONS:
        raise UserError(f"convention must be one of {', '.join(CONVENTIONS)}, got {convention!r}")
    _check_activations("attention_transfer", a_s, a_t, kind)
    maps.check_exponent(p)
    return _attention_transfer(a_s, a_t, kind, p, convention)


@functools.partial(jax.jit, static_argnames=("kind", "p", "convention"))
def _attention_transfer(a_s, a_t, kind, p, convention):
    q_s, q_t = attention_maps(a_s, a_t, kind, p)
    difference = maps.normalize(q_s) - maps.normalize(q_t)  # (B, N)
    if convention == "paper":
        return maps.l2_norm(difference) / 2
    return jnp.mean(jnp.square(difference), axis=-1)


def activation_transfer(a_s: jax.Array, a_t: jax.Array) -> jax.Array:
    r"""Full-activation transfer (F-ActT): the mean of :math:`(a_s - a_t)^2`.

    The baseline of the paper's table 1, at the same points as attention transfer. It is close to the
    hints of FitNets (Romero et al., arXiv:1412.6550). Where the widths differ, a trainable 1x1
    convolution first adapts the student's activations (:class:`at_jax.models.Adapter`).

    Args:
      a_s: student activations, already adapted, ``(B, H, W, C)``.
      a_t: teacher activations, ``(B, H, W, C)``.

    Returns:
      ``(B,)``, the mean over positions and channels, in squared units of the activation.

    Raises:
      UserError: for a wrong rank or dtype, or shapes that differ.

    >>> import jax.numpy as jnp
    >>> activation_transfer(jnp.ones((1, 2, 2, 3)), jnp.zeros((1, 2, 2, 3)))
    Array([1.], dtype=float32)
    """
    check_rank("activation_transfer", 4, a_s=a_s, a_t=a_t)
    fix = "adapt the channels with a 1x1 convolution, and choose transfer points of equal size"
    _check_equal("activation_transfer", "student and teacher shapes", a_s.shape, a_t.shape, fix)
    return _activation_transfer(a_s, a_t)


@jax.jit
def _activation_transfer(a_s, a_t):
    difference = at_least_float32(a_s) - at_least_float32(a_t)
    return jnp.mean(jnp.square(difference), axis=(1, 2, 3))


def _check_equal(function: str, what: str, first: object, second: object, fix: str) -> None:
    if first != second:
        raise UserError(f"{function}: {what} must be equal, got {first} and {second}: {fix}")


def _check_labels(function: str, logits: jax.Array, labels: jax.Array) -> None:
    check_rank(function, 1, labels=labels)
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise UserError(f"{function}: labels must be integers, got {labels.dtype}: cast them")
    sizes, fix = (len(logits), len(labels)), "pass one label for each row of the logits"
    _check_equal(function, "numbers of logits and labels", *sizes, fix)


def _check_activations(function: str, a_s: jax.Array, a_t: jax.Array, kind: str) -> None:
    if kind not in KINDS:
        raise UserError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    check_rank(function, 4, a_s=a_s, a_t=a_t)
    fix = "apply both networks to the same images"
    _check_equal(function, "student and teacher batch sizes", a_s.shape[0], a_t.shape[0], fix)
    if kind == "channel":
        fix = "use kind='sum' or 'max', or choose transfer points of equal width"
        _check_equal(function, "student and teacher channels", a_s.shape[3], a_t.shape[3], fix)
