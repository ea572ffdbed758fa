"""First and second order of every convolution of a network, in several implementations.

First order: y = conv(x, w), and the gradients of |y|^2 / 2. Second order: the gradients of
|d(|y|^2 / 2) / dx|^2 / 2, six convolutions.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from at_jax import models
from at_jax.conv_lowerings import DIMENSIONS, Window, as_lax, cpu
from benchmarks.gpu import timing

__all__ = ["Layer", "first_order", "layers", "prepare", "second_order"]

Pair = tuple[Any, Any]
_SMALL = 1e-9  # of an update that makes each repetition depend on the previous one


@dataclasses.dataclass(frozen=True)
class Layer:
    """Shapes of a convolution: x (B, H, W, C), w (kh, kw, C / G, F)."""

    x: tuple[int, ...]
    w: tuple[int, ...]
    window: Window

    def __str__(self) -> str:
        kind = f"{self.w[0]}x{self.w[1]}"
        if self.window.groups > 1:
            kind = (
                f"depthwise {kind}" if self.w[2] == 1 else f"{kind} of {self.window.groups} groups"
            )
        stride = "" if self.window.strides == (1, 1) else f" stride {self.window.strides[0]}"
        return f"{kind}{stride}, {self.x[3]} to {self.w[3]}, {self.x[1]} px, batch {self.x[0]}"


def layers(network: str, size: int, batch: int) -> list[Layer]:
    """Distinct convolutions of a network, in the order of its forward pass."""
    module = models.build(network)
    images = jax.ShapeDtypeStruct((batch, size, size, 3), jnp.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), images)
    jaxpr = jax.make_jaxpr(module.apply)(variables, images)
    return list(dict.fromkeys(_layers(jaxpr.jaxpr)))


def _layers(jaxpr: Any) -> Iterator[Layer]:
    for equation in jaxpr.eqns:
        if equation.primitive.name == "at_conv":
            x, w = (variable.aval.shape for variable in equation.invars)
            yield Layer(x, w, equation.params["window"])
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from _layers(inner)


def first_order(forms: Any, window: Window, x: jax.Array, w: jax.Array) -> Pair:
    """Gradients of |y|^2 / 2 with respect to x and w, from the operations of a module of forms."""
    y = forms.forward(x, w, window)
    return forms.input_grad(y, w, window), forms.weight_grad(x, y, window)


def second_order(forms: Any, window: Window, x: jax.Array, w: jax.Array) -> Pair:
    """Gradients of |g|^2 / 2 with respect to x and w, where g is the gradient of |y|^2 / 2 in x."""
    y = forms.forward(x, w, window)
    g = forms.input_grad(y, w, window)
    # g is bilinear in y and w: the cotangent g meets each of them.
    dy = forms.forward(g, w, window)
    dw = forms.weight_grad(g, y, window)
    return forms.input_grad(dy, w, window), dw + forms.weight_grad(x, dy, window)


def _of_lax(order: int, window: Window, x: jax.Array, w: jax.Array) -> Pair:
    def loss(x: jax.Array, w: jax.Array) -> jax.Array:
        y = lax.conv_general_dilated(
            x, w, window.strides, window.padding, rhs_dilation=window.dilation,
            dimension_numbers=DIMENSIONS, feature_group_count=window.groups,
        )  # fmt: skip
        return jnp.sum(y**2) / 2

    if order == 1:
        return jax.grad(loss, (0, 1))(x, w)
    return jax.grad(lambda x, w: jnp.sum(jax.grad(loss)(x, w) ** 2) / 2, (0, 1))(x, w)


_ORDERS = {1: first_order, 2: second_order}


def _implementations(order: int, window: Window) -> dict[str, Callable[..., Pair]]:
    return {
        "family, lax forms": functools.partial(_ORDERS[order], as_lax, window),
        "family, CPU forms": functools.partial(_ORDERS[order], cpu, window),
        "lax": functools.partial(_of_lax, order, window),
    }


def prepare(layer: Layer, repeats: int) -> Callable[[], dict[str, Any]]:
    """Compile both orders of each implementation.

    Args:
      layer: shapes.
      repeats: of the operations in one program.

    Returns:
      Function that returns milliseconds: ``{"lax": [first order, second], ...}``.
    """
    rng = np.random.default_rng(0)
    x = rng.standard_normal(layer.x).astype(np.float32)
    w = (rng.standard_normal(layer.w) / np.sqrt(np.prod(layer.w[:3]))).astype(np.float32)
    programs = [
        (name, _compiled(function, x, w, repeats))
        for order in _ORDERS
        for name, function in _implementations(order, layer.window).items()
    ]

    def measure() -> dict[str, Any]:
        on_device = jax.device_put((x, w))
        result: dict[str, list[float]] = {}
        for name, program in programs:
            seconds = timing.best(functools.partial(program, *on_device), 1) / repeats
            result.setdefault(name, []).append(1e3 * seconds)
        if timing.has_torch():
            of_torch = [_torch_seconds(layer, order, x, w, repeats) for order in _ORDERS]
            result["PyTorch"] = [1e3 * seconds for seconds in of_torch]
        return result

    return measure


def _compiled(function: Callable[..., Pair], x: np.ndarray, w: np.ndarray, repeats: int) -> Any:
    def body(carry: Pair, _: None) -> tuple[Pair, None]:
        updates = function(*carry)
        return tuple(a + _SMALL * u for a, u in zip(carry, updates, strict=True)), None  # type: ignore[return-value]

    def run(x: jax.Array, w: jax.Array) -> Pair:
        return lax.scan(body, (x, w), length=repeats)[0]

    return jax.jit(run).lower(x, w).compile()


def _torch_seconds(layer: Layer, order: int, x: Any, w: Any, repeats: int) -> float:
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    (top, bottom), (left, right) = layer.window.padding
    if (top, left) != (bottom, right):
        raise ValueError(f"PyTorch pads both sides alike, got {layer.window.padding}")
    images = torch.tensor(x, device=device).permute(0, 3, 1, 2)
    images = images.contiguous(memory_format=torch.channels_last).requires_grad_()
    kernel = torch.tensor(w, device=device).permute(3, 2, 0, 1)
    kernel = kernel.contiguous(memory_format=torch.channels_last).requires_grad_()

    def call() -> Any:
        y = torch.nn.functional.conv2d(
            images, kernel, None, layer.window.strides, (top, left), layer.window.dilation,
            layer.window.groups,
        )  # fmt: skip
        loss = y.square().sum() / 2
        if order == 2:
            (g,) = torch.autograd.grad(loss, images, create_graph=True)
            loss = g.square().sum() / 2
        return torch.autograd.grad(loss, (images, kernel))

    return timing.best_torch(call, repeats)
