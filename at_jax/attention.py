"""Activation-based attention transfer. :mod:`at_jax.losses` exports the functions of this module.

Section 3.1 of Zagoruyko & Komodakis, arXiv:1612.03928.
"""

import functools
from typing import Literal, get_args

import jax
import jax.numpy as jnp

from at_jax import maps
from at_jax.checks import check_equal, check_exponent, check_rank
from at_jax.errors import UserError
from at_jax.precision import Array, at_least_float32, power_of_two

__all__ = [
    "ALIGNMENTS", "CONVENTIONS", "KINDS", "MAX_EXPONENT", "Alignment", "Convention", "Kind",
    "attention_maps", "attention_transfer",
]  # fmt: skip

Kind = Literal["sum", "max", "channel"]
Convention = Literal["code", "paper"]
Alignment = Literal["resize", "pool"]
KINDS: tuple[Kind, ...] = get_args(Kind)
CONVENTIONS: tuple[Convention, ...] = get_args(Convention)
ALIGNMENTS: tuple[Alignment, ...] = get_args(Alignment)
# Largest exponent. 4**16, the power of a scaled activation, is far from overflow.
MAX_EXPONENT = 16
# Norm of a difference of normalized maps, in units of the type's epsilon, below which maps are equal.
_EQUAL = 8


def attention_maps(
    a_s: Array,
    a_t: Array,
    kind: Kind = "sum",
    p: float = 2,
    align: Alignment = "resize",
) -> tuple[jax.Array, jax.Array]:
    r"""Attention maps of student and teacher at a common size, neither normalized nor scaled.

    Spatial maps of different sizes are compared at the smaller height and the smaller width, because
    detail that one of them lacks cannot be transferred.

    - ``align="resize"``, as in the paper, resizes the maps (:func:`at_jax.maps.resize`);
    - ``align="pool"``, as in RepDistiller and mdistiller, average-pools the larger activations before
      they are squared (:func:`at_jax.maps.pool`).

    Args:
      a_s: student activations, ``(B, Hs, Ws, Cs)``.
      a_t: teacher activations, ``(B, Ht, Wt, Ct)``.
      kind: ``"sum"``, ``"max"`` (spatial attention) or ``"channel"`` (needs ``Cs == Ct``).
      p: exponent of the map, from 1 to 16 (``MAX_EXPONENT``); the maps of :mod:`at_jax.maps` have no
        upper bound. Powers of large activations may overflow.
      align: ``"resize"`` or ``"pool"``; without effect on ``"channel"``.

    Returns:
      Two maps ``(B, min(Hs, Ht), min(Ws, Wt))``, or ``(B, C)`` for ``"channel"``.

    Raises:
      UserError: for an unknown kind or alignment, p out of range, a wrong rank or dtype, different batch
        sizes, or different channel counts with ``kind="channel"``.

    >>> import jax.numpy as jnp
    >>> q_s, q_t = attention_maps(jnp.ones((2, 16, 16, 8)), jnp.ones((2, 8, 8, 32)))
    >>> q_s.shape, q_t.shape
    ((2, 8, 8), (2, 8, 8))
    """
    _check_activations("attention_maps", a_s, a_t, kind, align)
    p = check_exponent("attention_maps", p, MAX_EXPONENT)
    if kind == "channel":
        return maps.channel_map(a_s, p), maps.channel_map(a_t, p)
    spatial_map = maps.sum_map if kind == "sum" else maps.max_map
    size = _common_size(a_s, a_t)
    if align == "pool":
        a_s, a_t = maps.pool(a_s, size), maps.pool(a_t, size)
    return maps.resize(spatial_map(a_s, p), size), maps.resize(spatial_map(a_t, p), size)


def _common_size(a_s: Array, a_t: Array) -> tuple[int, int]:
    """The smaller height and the smaller width."""
    return min(a_s.shape[1], a_t.shape[1]), min(a_s.shape[2], a_t.shape[2])


def attention_transfer(
    a_s: Array,
    a_t: Array,
    *,
    kind: Kind = "sum",
    p: float = 2,
    convention: Convention = "code",
    align: Alignment = "resize",
) -> jax.Array:
    r"""Activation-based attention transfer at one transfer point.

    With the normalized maps :math:`q = vec(F(a)) / \|vec(F(a))\|_2` of N positions,

    - ``convention="paper"`` is equation 2 of arXiv:1612.03928, :math:`\frac12 \|q_s - q_t\|_2`;
    - ``convention="code"`` is the authors' released code, :math:`\frac1N \|q_s - q_t\|_2^2`: the mean
      over positions of the squared difference, used with :math:`\beta = 10^3`.

    Maps of different sizes are aligned as in :func:`attention_maps`. The result does not depend on the
    scale of the activations: each example is scaled before the power is taken, so no power overflows. A
    NaN or an infinity gives NaN for its own example only.

    In the convention of the paper, :math:`\|q_s - q_t\|_2` counts as zero, in value and gradient, up to 8
    times the machine epsilon (1e-6 in float32). The maps of equal networks differ by a few rounding
    errors, since a compiled program may compute each in a different order, and the gradient of a norm does
    not shrink with the norm.

    Args:
      a_s: student activations, ``(B, Hs, Ws, Cs)``.
      a_t: teacher activations, ``(B, Ht, Wt, Ct)``.
      kind: ``"sum"``, ``"max"`` (spatial attention) or ``"channel"`` (needs ``Cs == Ct``).
      p: exponent of the map, from 1 to 16.
      convention: ``"code"`` or ``"paper"``.
      align: ``"resize"`` resizes maps, ``"pool"`` average-pools the larger activations before squaring.

    Returns:
      ``(B,)``, dimensionless; 0 where the normalized maps agree.

    Raises:
      UserError: for an unknown kind, convention or alignment, p out of range, a wrong rank or dtype,
        different batch sizes, or different channel counts with ``kind="channel"``.

    >>> import jax.numpy as jnp
    >>> a = jnp.array([1.0, 0.0]).reshape(1, 1, 2, 1)
    >>> b = jnp.array([0.0, 5.0]).reshape(1, 1, 2, 1)
    >>> attention_transfer(a, b)  # ((1-0)**2 + (0-1)**2) / 2 positions
    Array([1.], dtype=float32)
    >>> attention_transfer(a, b, convention="paper").round(4)  # sqrt(2) / 2
    Array([0.7071], dtype=float32)
    """
    _check_choice("attention_transfer", "convention", convention, CONVENTIONS)
    _check_activations("attention_transfer", a_s, a_t, kind, align)
    p = check_exponent("attention_transfer", p, MAX_EXPONENT)
    return _attention_transfer(a_s, a_t, kind, p, convention, align)


@functools.partial(jax.jit, static_argnames=("kind", "p", "convention", "align"))
def _attention_transfer(a_s, a_t, kind, p, convention, align):
    if align == "pool" and kind != "channel":
        # Scaled first, so that no sum overflows, and again below: a mean of both signs may be small.
        size = _common_size(a_s, a_t)
        a_s, a_t = maps.pool(_scaled(a_s), size), maps.pool(_scaled(a_t), size)
    if kind == "max":  # of each position, only the largest magnitude is used
        a_s, a_t = (maps.max_map(a, 1)[..., None] for a in (a_s, a_t))  # (B, H, W, 1)
    q_s, q_t = attention_maps(_scaled(a_s), _scaled(a_t), kind, p)
    difference = maps.normalize(q_s) - maps.normalize(q_t)  # (B, N)
    if convention == "paper":
        squares = jnp.sum(jnp.square(difference), axis=-1, keepdims=True)
        is_equal = squares <= (_EQUAL * jnp.finfo(squares.dtype).eps) ** 2
        return maps.l2_norm(jnp.where(is_equal, 0, difference)) / 2
    return jnp.mean(jnp.square(difference), axis=-1)


def _scaled(a):
    """Activations (B, H, W, C) with a largest magnitude of 1 to 4 in each example."""
    a = at_least_float32(a)
    return a * power_of_two(a, (1, 2, 3))[0]


def _check_choice(function: str, name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UserError(
            f"{function}: {name} must be one of {', '.join(known)}, got {value!r}: the default is "
            f"{known[0]!r}"
        )


def _check_activations(function: str, a_s: Array, a_t: Array, kind: str, align: str) -> None:
    _check_choice(function, "kind", kind, KINDS)
    _check_choice(function, "align", align, ALIGNMENTS)
    check_rank(function, 4, a_s=a_s, a_t=a_t)
    fix = "apply both networks to the same images"
    check_equal(function, "student and teacher batch sizes", a_s.shape[0], a_t.shape[0], fix)
    if kind == "channel":
        fix = "use kind='sum' or 'max', or choose transfer points of equal width"
        check_equal(function, "student and teacher channels", a_s.shape[3], a_t.shape[3], fix)
