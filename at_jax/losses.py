r"""Per-example losses: cross-entropy, distillation, attention and full-activation transfer.

Every function maps arrays of ``B`` examples to ``B`` numbers and reduces no further, so that no loss
changes with the batch size or the number of devices; the mean over the batch is taken once, in
:mod:`at_jax.objective`. Every function returns the term that its weight multiplies, halves included.

References: Zagoruyko & Komodakis, arXiv:1612.03928; Hinton, Vinyals & Dean, arXiv:1503.02531.
"""

import functools

import chex
import jax
import jax.numpy as jnp
import optax

from at_jax import maps
from at_jax.precision import at_least_float32

KINDS = ("sum", "max", "channel")
CONVENTIONS = ("code", "paper")


@jax.jit
def cross_entropy(logits: chex.Array, labels: chex.Array) -> jax.Array:
    """Cross-entropy with integer labels, in nats.

    Args:
      logits: ``(B, K)``.
      labels: integers in ``0..K-1``, ``(B,)``.

    Returns:
      ``(B,)``.

    Raises:
      ValueError: if ``logits`` are not floating point.

    >>> import jax.numpy as jnp
    >>> cross_entropy(jnp.zeros((1, 2)), jnp.array([0])).round(4)
    Array([0.6931], dtype=float32)
    """
    chex.assert_rank([logits, labels], [2, 1])
    chex.assert_equal_shape_prefix([logits, labels], 1)
    return optax.losses.softmax_cross_entropy_with_integer_labels(at_least_float32(logits), labels)


@jax.jit
def distillation(
    logits_s: chex.Array,
    logits_t: chex.Array,
    labels: chex.Array,
    *,
    temperature: chex.Numeric,
    alpha: chex.Numeric,
) -> jax.Array:
    r"""Knowledge distillation: :math:`\alpha T^2 KL(t \| s) + (1-\alpha) CE`.

    :math:`t` and :math:`s` are the softmax of the logits divided by the temperature :math:`T`. The
    released code of attention transfer uses the same form, with T = 4 and alpha = 0.9.

    Args:
      logits_s: student, ``(B, K)``.
      logits_t: teacher, ``(B, K)``.
      labels: integers in ``0..K-1``, ``(B,)``.
      temperature: T > 0; a number or a scalar array, so it may change during training.
      alpha: the share of the soft targets, 0..1; likewise.

    Returns:
      ``(B,)``, in nats.

    Raises:
      ValueError: if the logits are not floating point or differ in their number of classes.

    Hinton et al. 2015 (arXiv:1503.02531), section 2.

    >>> import jax.numpy as jnp
    >>> z = jnp.array([[1.0, 2.0]])
    >>> distillation(z, z, jnp.array([1]), temperature=4.0, alpha=1.0)
    Array([0.], dtype=float32)
    """
    chex.assert_rank([logits_s, logits_t, labels], [2, 2, 1])
    if logits_s.shape != logits_t.shape:
        raise ValueError(
            f"student and teacher logits must have one shape (batch, classes), got {logits_s.shape} "
            f"and {logits_t.shape}: build both with the same num_classes"
        )
    logits_s, logits_t = at_least_float32(logits_s), at_least_float32(logits_t)
    kl = optax.losses.kl_divergence_with_log_targets(
        jax.nn.log_softmax(logits_s / temperature), jax.nn.log_softmax(logits_t / temperature)
    )  # (B,)
    return alpha * temperature**2 * kl + (1 - alpha) * cross_entropy(logits_s, labels)


def _attention_maps(
    a_s: jax.Array, a_t: jax.Array, kind: str, p: float
) -> tuple[jax.Array, jax.Array]:
    """Maps of student and teacher, brought to one size: two arrays (B, H, W) or (B, C)."""
    if kind == "channel":
        if a_s.shape[-1] != a_t.shape[-1]:
            raise ValueError(
                f"kind='channel' compares channel by channel and needs equal channel counts, got "
                f"student {a_s.shape[-1]} and teacher {a_t.shape[-1]}: use kind='sum' or 'max', or "
                "choose transfer points of equal width"
            )
        return maps.channel_map(a_s, p), maps.channel_map(a_t, p)
    mapping = {"sum": maps.sum_map, "max": maps.max_map}[kind]
    q_s, q_t = mapping(a_s, p), mapping(a_t, p)
    # The larger map is brought to the smaller size: detail that one side lacks cannot be transferred.
    shape = tuple(min(pair) for pair in zip(q_s.shape[1:], q_t.shape[1:], strict=True))
    return maps.resize(q_s, shape), maps.resize(q_t, shape)


@functools.partial(jax.jit, static_argnames=("kind", "p", "convention"))
def attention_transfer(
    a_s: chex.Array,
    a_t: chex.Array,
    *,
    kind: str = "sum",
    p: float = 2,
    convention: str = "code",
) -> jax.Array:
    r"""Activation-based attention transfer at one transfer point.

    With the normalised maps :math:`q = vec(F(a)) / \|vec(F(a))\|_2` of N positions,

    - ``convention="paper"`` is equation 2 of arXiv:1612.03928, :math:`\frac12 \|q_s - q_t\|_2`;
    - ``convention="code"`` is what the authors released, :math:`\frac1N \|q_s - q_t\|_2^2`, the
      mean over positions of the squared difference, used with :math:`\beta = 10^3`.

    Maps of different size are resized to the smaller height and width, bilinear.

    Args:
      a_s: student activations, ``(B, Hs, Ws, Cs)``.
      a_t: teacher activations, ``(B, Ht, Wt, Ct)``.
      kind: ``"sum"``, ``"max"`` (spatial attention) or ``"channel"`` (needs ``Cs == Ct``).
      p: the exponent of the map, at least 1.
      convention: ``"code"`` or ``"paper"``.

    Returns:
      ``(B,)``, without unit; 0 where the normalised maps agree.

    Raises:
      ValueError: for an unknown kind or convention, ``p < 1``, batches that differ, activations
        that are not floating point, or channel counts that differ with ``kind="channel"``.

    >>> import jax.numpy as jnp
    >>> a = jnp.array([1.0, 0.0]).reshape(1, 1, 2, 1)
    >>> b = jnp.array([0.0, 5.0]).reshape(1, 1, 2, 1)
    >>> attention_transfer(a, b)  # ((1-0)**2 + (0-1)**2) / 2 positions
    Array([1.], dtype=float32)
    >>> attention_transfer(a, b, convention="paper").round(4)  # sqrt(2) / 2
    Array([0.7071], dtype=float32)
    """
    for name, value, known in (("kind", kind, KINDS), ("convention", convention, CONVENTIONS)):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")
    chex.assert_rank([a_s, a_t], 4)
    _check_equal_batch(a_s, a_t)
    q_s, q_t = _attention_maps(a_s, a_t, kind, p)
    difference = maps.normalize(q_s) - maps.normalize(q_t)  # (B, N)
    if convention == "paper":
        return maps.l2_norm(difference) / 2
    return jnp.mean(jnp.square(difference), axis=-1)


@jax.jit
def activation_transfer(a_s: chex.Array, a_t: chex.Array) -> jax.Array:
    r"""Full-activation transfer (F-ActT): the mean of :math:`(a_s - a_t)^2`.

    The baseline of the paper's table 1, close to the hints of FitNets (Romero et al.,
    arXiv:1412.6550), at the same points as attention transfer. Where widths differ, a trainable
    1x1 convolution brings the student to the teacher's width first
    (:class:`at_jax.models.adapter.Adapter`).

    Args:
      a_s: student activations, already adapted, ``(B, H, W, C)``.
      a_t: teacher activations, ``(B, H, W, C)``.

    Returns:
      ``(B,)``, the mean over positions and channels, in squared units of the activation.

    Raises:
      ValueError: if the shapes differ or the activations are not floating point.

    >>> import jax.numpy as jnp
    >>> activation_transfer(jnp.ones((1, 2, 2, 3)), jnp.zeros((1, 2, 2, 3)))
    Array([1.], dtype=float32)
    """
    chex.assert_rank([a_s, a_t], 4)
    if a_s.shape != a_t.shape:
        raise ValueError(
            "full-activation transfer needs activations of one shape (B, H, W, C), got student "
            f"{a_s.shape} and teacher {a_t.shape}: adapt the channels with a 1x1 convolution, and "
            "choose transfer points of equal height and width"
        )
    difference = at_least_float32(a_s) - at_least_float32(a_t)
    return jnp.mean(jnp.square(difference), axis=(1, 2, 3))


def _check_equal_batch(a_s: jax.Array, a_t: jax.Array) -> None:
    if a_s.shape[0] != a_t.shape[0]:
        raise ValueError(
            f"student and teacher must see one batch, got {a_s.shape[0]} and {a_t.shape[0]} examples: "
            "apply both networks to the same images"
        )
