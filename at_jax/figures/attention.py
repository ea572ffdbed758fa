"""What is drawn, as arrays: attention maps at every transfer point, and input gradients."""

import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from at_jax import gradients, intermediates, losses, maps

KINDS = {"sum": maps.sum_map, "max": maps.max_map}


def check_kind(kind: str, p: float) -> None:
    """Raise unless a map can be drawn of this kind and exponent.

    Raises:
      ValueError: naming what can be.
    """
    if kind not in KINDS:
        raise ValueError(
            f"kind must be {' or '.join(KINDS)}, got {kind!r}: channel attention has no positions to draw"
        )
    if isinstance(p, bool) or not isinstance(p, int | float) or not 1 <= p < float("inf"):
        raise ValueError(f"p must be a number of at least 1, got {p!r}: the paper draws 1, 2 and 4")


def check_taps(model: nn.Module, looked: Mapping[str, Any]) -> None:
    """Raise unless a network taps something that can be drawn.

    Raises:
      ValueError: saying how.
    """
    if not looked:
        raise ValueError(
            f"{type(model).__name__} taps no transfer point: tap the activations to draw with "
            "at_jax.intermediates.tap"
        )


def attention_maps(
    model: nn.Module, variables: Any, images: Any, *, kind: str = "sum", p: float = 2
) -> dict[str, np.ndarray]:
    """The attention maps of a network at every transfer point that it taps.

    Args:
      model: the network, from :func:`at_jax.checkpoint.load` or your own that taps.
      variables: its parameters and statistics.
      images: ``(B, H, W, C)``, normalised as in its training.
      kind: ``"sum"`` or ``"max"`` over channels.
      p: exponent, at least 1.

    Returns:
      Point to maps ``(B, h, w)`` in the size of that point, not normalised, float32, in the order of
      their names. :func:`at_jax.maps.normalize` and ``resize`` go on from there.

    Raises:
      ValueError: for another kind, or a model without taps.

    >>> class Net(nn.Module):
    ...     def __call__(self, x, train=False):
    ...         intermediates.tap(self, "pixels", x)
    ...         return x.mean(axis=(1, 2))
    >>> attention_maps(Net(), {}, jnp.full((1, 2, 2, 3), 2.0))  # 3 channels of 2 * 2
    {'pixels': array([[[12., 12.],
            [12., 12.]]], dtype=float32)}
    """
    looked = answers_and_maps(model, variables, images, kind=kind, p=p)[1]
    check_taps(model, looked)
    return looked


def answers_and_maps(
    model: nn.Module, variables: Any, images: Any, *, kind: str = "sum", p: float = 2
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """As :func:`attention_maps`, after the logits ``(B, K)`` of the same pass; no taps, no maps."""
    logits, (looked,) = answers_and_mappings(model, variables, images, ((kind, p),))
    return logits, looked


def answers_and_mappings(
    model: nn.Module, variables: Any, images: Any, mappings: tuple[tuple[str, float], ...]
) -> tuple[np.ndarray, tuple[dict[str, np.ndarray], ...]]:
    """As :func:`answers_and_maps`, several ``(kind, p)`` of one forward pass."""
    for kind, p in mappings:
        check_kind(kind, p)
    return jax.device_get(_look(variables, jnp.asarray(images), model=model, mappings=mappings))


def gradient_maps(
    model: nn.Module, variables: Any, images: Any, labels: Any = None
) -> tuple[np.ndarray, np.ndarray]:
    r"""Where the loss is sensitive: :math:`\sum_c |J_c|` of the input gradient of the cross-entropy.

    Args:
      model: the network.
      variables: its parameters and statistics.
      images: ``(B, H, W, C)``, normalised as in its training.
      labels: ``(B,)``, true classes; where there is none, -1 (or None for all of them): then the
        class that the network names stands for it.

    Returns:
      Logits ``(B, K)`` and maps ``(B, H, W)``, float32.

    >>> class Net(nn.Module):
    ...     def __call__(self, x, train=False):
    ...         return x.sum(axis=(1, 2))
    >>> logits, j = gradient_maps(Net(), {}, jnp.zeros((1, 1, 1, 2)), [0])
    >>> logits, j  # J is the softmax less the label: (1/2 - 1, 1/2)
    (array([[0., 0.]], dtype=float32), array([[[1.]]], dtype=float32))
    """
    images = jnp.asarray(images)
    labels = np.full(len(images), -1) if labels is None else labels
    return jax.device_get(
        _sensitive(variables, images, jnp.asarray(labels, jnp.int32), model=model)
    )


@functools.partial(jax.jit, static_argnames=("model", "mappings"))
def _look(variables, images, *, model, mappings):
    logits, mutated = model.apply(
        variables, images, train=False, mutable=[intermediates.COLLECTION]
    )
    taps = intermediates.collect(mutated)
    maps_ = tuple({name: KINDS[kind](a, p=p) for name, a in taps.items()} for kind, p in mappings)
    return logits, maps_


@functools.partial(jax.jit, static_argnames="model")
def _sensitive(variables, images, labels, *, model):
    def loss(x):
        logits = model.apply(variables, x, train=False)
        named = jnp.argmax(logits, axis=-1).astype(labels.dtype)
        return losses.cross_entropy(logits, jnp.where(labels < 0, named, labels)), logits

    (_, logits), j = gradients.value_and_input_gradient(loss, images, has_aux=True)
    return logits, jnp.sum(jnp.abs(j), axis=-1)  # (B, K), (B, H, W)
