"""Compiled training steps hold no convolution that XLA:CPU runs unoptimised (design 4.7, 4.8).

XLA:CPU has a fast kernel for one layout, b01f_01io->b01f, and brings convolutions into it in the entry
computation only; what stays in another layout or mirrored is run by a loop nest, 80 times slower.
"""

import functools
import re

import jax
import jax.numpy as jnp
import pytest
import tiny
from jax import lax

from at_jax import models, objective, state, step
from at_jax.conv import conv_general_dilated
from at_jax.objective import Attention, Distillation

METHODS = {
    "none": {},
    "kd": {"distillation": Distillation()},
    "at": {"attention": Attention()},
}
# Family: (network, pixels, channels, transfer points). Sizes at which maps stay larger than kernels:
# a 3x3 kernel on a 2x2 map makes XLA swap the operands (design 4.16).
WRN = ("wrn_10_1", 32, 3, ("group1", "group2", "group3"))
DIGITS = ("wrn_10_1", 16, 1, WRN[3])
NIN = ("nin_thin", 32, 3, ("stage1", "stage2", "stage3"))
RESNET = ("resnet_18", 224, 3, ("stage1", "stage2", "stage3", "stage4"))


def convolutions(compiled):
    """All convolutions of a compiled program, and those that XLA:CPU runs unoptimised."""
    lines = [line.strip() for line in compiled.as_text().splitlines() if " convolution(" in line]
    slow = [
        line
        for line in lines
        if "dim_labels=b01f_01io->b01f" not in line or re.search("[lr]hs_reversal", line)
    ]
    return lines, slow


def compiled_steps(network, method, steps, batch=4):
    """`steps` training steps in one program, from shapes alone: nothing runs."""
    name, size, channels, points = network
    build = functools.partial(models.build, name, num_classes=10)
    terms = objective.Objective(
        build(),
        None if method == "none" else build(),
        points=tuple((point, point) for point in points),
        **METHODS[method],
    )
    optimizer = state.sgd(0.1, momentum=0.9, weight_decay=5e-4)
    image = (size, size, channels)
    key = jax.random.key(0)
    abstract_state = jax.eval_shape(lambda k: state.create(terms, optimizer, k, image, {}), key)
    teacher = None
    if terms.teacher is not None:
        teacher = jax.eval_shape(terms.teacher.init, key, jnp.zeros((1, *image)))
    batches = {
        "image": jax.ShapeDtypeStruct((steps, batch, *image), jnp.uint8),
        "label": jax.ShapeDtypeStruct((steps, batch), jnp.int32),
        "position": jax.ShapeDtypeStruct((steps, batch), jnp.int32),
    }
    run = functools.partial(
        step.train_steps,
        objective=terms,
        optimizer=optimizer,
        weights={name: lambda _: 1000.0 for name in terms.weighted_terms},
        prepare=lambda key, images, positions: images.astype(jnp.float32) / 255,
    )
    return jax.jit(run).lower(abstract_state, teacher, key, batches).compile(tiny.QUICK)


@pytest.mark.parametrize(
    ("network", "method", "steps"),
    [
        *((WRN, method, steps) for method in METHODS for steps in (1, 4)),
        *((DIGITS, method, 4) for method in METHODS),
        *((NIN, method, 4) for method in METHODS),
        (DIGITS, "at", 1),
        (NIN, "at", 1),
        (RESNET, "at", 1),
    ],
    ids=lambda value: f"{value[0]}_{value[1]}px" if isinstance(value, tuple) else str(value),
)
def test_training_steps(network, method, steps):
    compiled = compiled_steps(network, method, steps, batch=2 if network is RESNET else 4)
    found, slow = convolutions(compiled)
    # Every layer has three in a step (the first only two); with a teacher, one more.
    assert len(found) > 8 * (3 if method == "none" else 4) - 1
    assert ("while(" in compiled.as_text()) == (steps > 1)
    assert not slow, slow[:3]


def loss(conv, x, w):
    y = conv(x, w, (2, 2), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return jnp.sum(jnp.sin(y))


def training_in_scan(conv):
    """Plain gradient descent on one strided convolution, four steps of it."""

    def run(x, w):
        descend = jax.grad(lambda w: loss(conv, x, w))
        return lax.scan(lambda w, _: (w - descend(w), None), w, length=4)[0]

    return run


def double_backpropagation(conv):
    """The gradient of the squared norm of the input gradient, as min-l2 and gradient transfer."""

    def run(x, w):
        penalty = lambda w: jnp.sum(jax.grad(loss, argnums=1)(conv, x, w) ** 2)  # noqa: E731
        return jax.grad(penalty)(w)

    return run


@pytest.mark.parametrize("program", [training_in_scan, double_backpropagation])
def test_the_count_tells_the_family_from_lax(program):
    x = jax.ShapeDtypeStruct((4, 16, 16, 8), jnp.float32)
    w = jax.ShapeDtypeStruct((3, 3, 8, 8), jnp.float32)
    slow = {
        conv: convolutions(jax.jit(program(conv)).lower(x, w).compile(tiny.QUICK))[1]
        for conv in (conv_general_dilated, lax.conv_general_dilated)
    }
    assert not slow[conv_general_dilated]
    if program is training_in_scan:
        assert slow[lax.conv_general_dilated]


@pytest.mark.parametrize("network", [WRN, NIN], ids=lambda network: network[0])
@pytest.mark.parametrize("steps", [1, 2])
def test_second_order_of_a_network(network, steps):
    name, size, channels, _ = network
    module = models.build(name)
    images = jax.ShapeDtypeStruct((steps, 2, size, size, channels), jnp.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, *images.shape[2:])))

    def penalty(params, statistics, images):
        def total(images):
            variables = {"params": params, **statistics}
            logits, _ = module.apply(variables, images, train=True, mutable=["batch_stats"])
            return jnp.sum(jax.nn.logsumexp(logits, axis=-1))

        return jnp.sum(jax.grad(total)(images) ** 2)

    def run(variables, images):
        statistics = {name: value for name, value in variables.items() if name != "params"}

        def body(params, images):
            gradient = jax.grad(penalty)(params, statistics, images)
            return jax.tree.map(lambda p, g: p - g, params, gradient), None

        return lax.scan(body, variables["params"], images, unroll=steps == 1)[0]

    found, slow = convolutions(jax.jit(run).lower(variables, images).compile(tiny.QUICK))
    # Two student passes more than a plain step's three.
    assert len(found) > 5 * 7
    assert not slow, slow[:3]
