"""Shardings that the types of arrays carry: explicit mesh axes, and those over which shard_map varies."""

import jax
from jax import lax

__all__ = ["is_explicit", "varying_as", "with_equal_axes"]


def is_explicit(*arrays: jax.Array) -> bool:
    """True if a type carries a sharding (a mesh with explicit axes), for which lax has rules."""
    return any(axis is not None for a in arrays for axis in jax.typeof(a).sharding.spec)


def with_equal_axes(*arrays: jax.Array) -> list[jax.Array]:
    """Under shard_map, cast all operands to vary over the same mesh axes.

    The transpose of the cast is the sum over devices that the gradient of a replicated kernel needs.
    """
    union = _varying(*arrays)
    return [_cast(a, union - _varying(a)) for a in arrays]


def varying_as(total: jax.Array, *operands: jax.Array) -> jax.Array:
    """Under shard_map, cast the carry of a loop to vary over the mesh axes of the operands."""
    return _cast(total, _varying(*operands))


def _varying(*arrays: jax.Array) -> frozenset[str]:
    return frozenset().union(*(jax.typeof(a).manual_axis_type.varying for a in arrays))


def _cast(array: jax.Array, axes: frozenset[str]) -> jax.Array:
    return lax.pcast(array, tuple(sorted(axes)), to="varying") if axes else array
