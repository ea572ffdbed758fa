"""Attention maps and input gradients of a network as NumPy arrays."""

import collections
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from at_jax import gradients, intermediates, losses, maps
from at_jax.errors import UserError

__all__ = [
    "KINDS",
    "attention_maps",
    "check_kind",
    "check_taps",
    "gradient_maps",
    "logits_and_mappings",
    "rms_normalize",
]

KINDS = {"sum": maps.sum_map, "max": maps.max_map}


def check_kind(kind: str, p: float) -> None:
    """Raise unless maps of this kind and exponent can be drawn.

    Raises:
      UserError: naming the valid values.
    """
    if kind not in KINDS:
        raise UserError(
            f"kind must be {' or '.join(KINDS)}, got {kind!r}: channel attention has no spatial "
            "positions to draw"
        )
    if isinstance(p, bool) or not isinstance(p, int | float) or not 1 <= p <= losses.MAX_EXPONENT:
        raise UserError(
            f"p must be a number from 1 to {losses.MAX_EXPONENT}, got {p!r}: the paper draws 1, 2 and 4"
        )


def attention_maps(
    model: nn.Module,
    variables: Any,
    images: Any,
    *,
    kind: str = "sum",
    p: float = 2,
    paths: Sequence[str] = (),
) -> dict[str, np.ndarray]:
    r"""Compute the attention maps of a network at every transfer point.

    ``kind="sum"`` is :math:`F_{sum}^p = \sum_c |a_c|^p`, and ``kind="max"`` is
    :math:`F_{max}^p = \max_c |a_c|^p` (section 3.1 of the paper).

    Args:
      model: from :func:`at_jax.checkpoint.load`, or any linen module with taps.
      variables: its variables.
      images: ``(B, H, W, C)``, normalized as in its training.
      kind: ``"sum"`` or ``"max"``.
      p: exponent, from 1 to 16.
      paths: submodules, such as ``"encoder/layer3"``, whose output is added to the taps.

    Returns:
      Transfer point to maps ``(B, h, w)`` at the resolution of that point, float32, not normalized; in the
      order of the network. See :func:`at_jax.maps.normalize` and :func:`at_jax.maps.resize`.

    Raises:
      UserError: for another kind, or a network without transfer points.

    >>> class Net(nn.Module):
    ...     def __call__(self, x, train=False):
    ...         intermediates.tap(self, "pixels", x)
    ...         return x.mean(axis=(1, 2))
    >>> attention_maps(Net(), {}, jnp.full((1, 2, 2, 3), 2.0))  # 3 channels of 2 ** 2
    {'pixels': array([[[12., 12.],
            [12., 12.]]], dtype=float32)}
    """
    _, (found,) = logits_and_mappings(model, variables, images, ((kind, p),), paths=paths)
    check_taps(model, found)
    return found


def logits_and_mappings(
    model: nn.Module,
    variables: Any,
    images: Any,
    mappings: tuple[tuple[str, float], ...],
    *,
    paths: Sequence[str] = (),
    inputs: Mapping[str, Any] | None = None,
) -> tuple[np.ndarray, tuple[dict[str, np.ndarray], ...]]:
    """Compute logits and the attention maps of several mappings in one forward pass.

    Args:
      model: the network.
      variables: its variables.
      images: ``(B, H, W, C)``, normalized as in its training.
      mappings: pairs (kind, p), see :func:`attention_maps`.
      paths: submodules whose output is added to the taps.
      inputs: further keyword arguments of the network, arrays.

    Returns:
      Logits ``(B, K)``, and ``{point: (B, h, w)}`` of each mapping, empty without transfer points.

    Raises:
      UserError: for a mapping that cannot be drawn.
    """
    for kind, p in mappings:
        check_kind(kind, p)
    _check_hashable(model)
    static = {"model": model, "mappings": mappings, "paths": tuple(paths)}
    logits, found = jax.device_get(
        _forward(variables, jnp.asarray(images), dict(inputs or {}), **static)
    )
    return logits, tuple(map(dict, found))


def check_taps(model: nn.Module, found: Mapping[str, Any]) -> None:
    """Raise unless a network has transfer points to draw.

    Raises:
      UserError: naming the fix.
    """
    if not found:
        raise UserError(
            f"{type(model).__name__} has no transfer point to draw: call at_jax.intermediates.tap on "
            "its activations, or name a submodule by its path in config.transfer.points"
        )


def gradient_maps(
    model: nn.Module, variables: Any, images: Any, labels: Any = None
) -> tuple[np.ndarray, np.ndarray]:
    r"""Compute :math:`\sum_c |J_c|`, the input gradient of the cross-entropy summed over channels.

    Args:
      model: the network.
      variables: its variables.
      images: ``(B, H, W, C)``, normalized as in its training.
      labels: ``(B,)``, classes; -1 (or None for all images) selects the predicted class.

    Returns:
      Logits ``(B, K)`` and maps ``(B, H, W)``, float32.

    Raises:
      UserError: for labels that are not classes.

    >>> class Net(nn.Module):
    ...     def __call__(self, x, train=False):
    ...         return x.sum(axis=(1, 2))
    >>> logits, j = gradient_maps(Net(), {}, jnp.zeros((1, 1, 1, 2)), [0])
    >>> logits, j  # J = softmax - one-hot label = (1/2 - 1, 1/2)
    (array([[0., 0.]], dtype=float32), array([[[1.]]], dtype=float32))
    """
    images = jnp.asarray(images)
    labels = np.full(len(images), -1) if labels is None else np.asarray(labels)
    _check_hashable(model)
    logits, j = jax.device_get(
        _input_gradient(variables, images, labels.astype(np.int32), model=model)
    )
    classes = logits.shape[-1]
    if not np.issubdtype(labels.dtype, np.integer) or np.any((labels < -1) | (labels >= classes)):
        raise UserError(
            f"gradient_maps: labels must be classes from 0 to {classes - 1}, or -1, got "
            f"{labels.tolist()!r:.200}: pass class indices"
        )
    return logits, j


def _check_hashable(model: nn.Module) -> None:
    """Raise unless a module can be a static argument."""
    try:
        hash(model)
    except TypeError as error:
        raise UserError(
            f"{type(model).__name__} has a field that cannot be hashed ({error}): make its lists tuples, "
            "and its dicts flax.core.FrozenDict"
        ) from error


def rms_normalize(q: np.ndarray) -> np.ndarray:
    """Divide every map by its root mean square, so that a uniform map is 1 everywhere.

    This is :func:`at_jax.maps.normalize` times the square root of the number of positions. Maps of
    different sizes can then share a color scale.

    Args:
      q: maps, ``(B, H, W)``.

    Returns:
      ``(B, H, W)``; zero maps stay zero.

    >>> rms_normalize(np.array([[[7.0, 7.0]], [[0.0, 0.0]]], np.float32)).round(4).tolist()
    [[[1.0, 1.0]], [[0.0, 0.0]]]
    """
    scaled = np.asarray(maps.normalize(jnp.asarray(q))) * np.sqrt(q[0].size)
    return scaled.reshape(q.shape)


@functools.partial(jax.jit, static_argnames=("model", "mappings", "paths"))
def _forward(variables, images, inputs, *, model, mappings, paths):
    logits, taps, _ = intermediates.forward(
        model, variables, images, paths=paths, train=False, **inputs
    )
    taps = {name: a for name, a in taps.items() if a.ndim == 4}  # tokens have no positions to draw
    # An OrderedDict keeps the order of the network; JAX sorts the keys of a dict.
    found = tuple(
        collections.OrderedDict((name, KINDS[kind](a, p=p)) for name, a in taps.items())
        for kind, p in mappings
    )
    return logits, found


@functools.partial(jax.jit, static_argnames="model")
def _input_gradient(variables, images, labels, *, model):
    def loss(x):
        logits, *_ = intermediates.forward(model, variables, x, train=False)
        predicted = jnp.argmax(logits, axis=-1).astype(labels.dtype)
        return losses.cross_entropy(logits, jnp.where(labels < 0, predicted, labels)), logits

    (_, logits), j = gradients.value_and_input_gradient(loss, images, has_aux=True)
    return logits, jnp.sum(jnp.abs(j), axis=-1)  # (B, K), (B, H, W)
