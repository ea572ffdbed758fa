"""Compiled training steps: no convolution without a fast kernel, and no more operations than necessary.

XLA:CPU has a fast kernel for one layout, b01f_01io->b01f, and brings convolutions into it in the entry
computation only. A convolution that stays in another layout, or mirrored, is computed by a loop nest, 80
times slower. Every convolution of the library must have the fast layout, within scans too. Each distinct
input gradient of the student adds at most 1.03 plain steps.
"""

import dataclasses
import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
import pytest
import tiny
from jax import lax

from at_jax import gradients, losses, models
from at_jax.conv import conv_general_dilated
from at_jax.objective import Objective
from at_jax.terms import TERMS, MinL2, needs_teacher, parts
from at_jax.training import state, step
from benchmarks.compiled import convolutions, flops, multiply_adds

# Family: (network, pixels, channels, transfer points). Sizes at which maps stay larger than kernels:
# a 3x3 kernel on a 2x2 map makes XLA swap the operands.
WRN = ("wrn_10_1", 32, 3, ("group1", "group2", "group3"))
DIGITS = ("wrn_10_1", 16, 1, WRN[3])
NIN = ("nin_thin", 32, 3, ("stage1", "stage2", "stage3"))
RESNET = ("resnet_18", 224, 3, ("stage1", "stage2", "stage3", "stage4"))
CIFAR_RESNET = ("cifar_resnet_8x4", 32, 3, ("stage1", "stage2", "stage3"))
EFFICIENTNET = ("efficientnet_lite0", 224, 3, ("stage3", "stage4", "stage5"))
SIZES = (("wrn_16_1", 32), ("wrn_40_2", 32), ("mobilenet_v2_0.5", 32), ("resnet_18", 224))


def compiled_steps(network, method, steps, batch=4):
    """`steps` training steps in one program, traced and compiled from shapes alone: nothing runs."""
    name, size, channels, points = network
    build = functools.partial(models.build, name, num_classes=10)
    objective = Objective(
        build(),
        build() if needs_teacher(method) else None,
        tuple(TERMS[part]() for part in parts(method)),
        tuple((point, point) for point in points),
    )
    image = (size, size, channels)
    key = jax.random.key(0)
    create = functools.partial(state.create, objective.student, {}, tiny.sgd())
    abstract_state = jax.eval_shape(lambda k: create(k, image, {}), key)
    teacher = None
    if objective.teacher is not None:
        teacher = jax.eval_shape(objective.teacher.init, key, jnp.zeros((1, *image)))
    batches = {
        "image": jax.ShapeDtypeStruct((steps, batch, *image), jnp.uint8),
        "label": jax.ShapeDtypeStruct((steps, batch), jnp.int32),
        "position": jax.ShapeDtypeStruct((steps, batch), jnp.int32),
    }
    run = functools.partial(
        step.train_steps,
        objective=objective,
        optimizer=tiny.sgd(),
        weights={name: lambda _: 1000.0 for name in objective.weighted_terms},
        prepare=lambda key, images, positions: images.astype(jnp.float32) / 255,
    )
    traced = jax.jit(run).trace(abstract_state, teacher, key, batches)
    return traced, traced.lower().compile(tiny.QUICK)


METHODS = ("none", *(name for name in TERMS if name != "f_actt"), "at+kd")
# One of each kind of pass; the others are slow tests.
QUICK_METHODS = ("none", "at+kd", "gradient_at")


@pytest.mark.parametrize(
    ("network", "method", "steps"),
    [
        *((WRN, method, 4) for method in QUICK_METHODS),
        (NIN, "gradient_at", 4),
        (DIGITS, "at", 1),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                *((WRN, method, 4) for method in METHODS if method not in QUICK_METHODS),
                *((WRN, method, 1) for method in ("none", "at+kd", "gradient_at", "flip_symmetry")),
                *((DIGITS, method, 4) for method in ("none", "at+kd", "gradient_at")),
                *((NIN, method, 4) for method in ("none", "at+kd", "flip_symmetry")),
                (NIN, "gradient_at", 1),
                (RESNET, "at", 1),
                (CIFAR_RESNET, "gradient_at", 4),
                (EFFICIENTNET, "gradient_at", 1),
            )
        ),
    ],
    ids=lambda value: f"{value[0]}_{value[1]}px" if isinstance(value, tuple) else str(value),
)
def test_training_steps_hold_no_slow_convolution(network, method, steps):
    traced, compiled = compiled_steps(network, method, steps, 4 if network[1] <= 32 else 2)
    _, slow = convolutions(compiled)
    # Every layer has two in a step besides its weight gradients, forward and input gradient, two more for
    # J, as many again at the mirrored images; a teacher's layer has one, two for its J.
    with_j = ("gradient_at", "jacobian", "sobolev", "map_gradient")
    student = {"flip_symmetry": 8, "min_l2": 4, **dict.fromkeys(with_j, 4)}.get(method, 2)
    teacher = needs_teacher(method) + (method in with_j)
    found = str(traced.jaxpr).count("at_conv[") + str(traced.jaxpr).count("at_conv_input_grad[")
    assert found > 8 * (student + teacher) - 2
    assert steps == 1 or "while(" in compiled.as_text()
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
def test_convolutions_of_lax_are_found_slow_where_those_of_the_library_are_fast(program):
    x = jax.ShapeDtypeStruct((4, 16, 16, 8), jnp.float32)
    w = jax.ShapeDtypeStruct((3, 3, 8, 8), jnp.float32)
    slow = {
        conv: convolutions(jax.jit(program(conv)).lower(x, w).compile(tiny.QUICK))[1]
        for conv in (conv_general_dilated, lax.conv_general_dilated)
    }
    assert not slow[conv_general_dilated]
    if program is training_in_scan:
        assert slow[lax.conv_general_dilated]


def operations(function, *arguments):
    """Floating-point operations of a function's compiled program, by XLA's count; none of them slow."""
    compiled = jax.jit(function).lower(*arguments).compile(tiny.QUICK)
    assert not convolutions(compiled)[1]
    return flops(compiled)


@functools.cache
def networks(name, size):
    """Student and a small teacher, shapes of their variables, images and labels."""
    student, teacher = models.build(name), models.build("wrn_10_0.25")
    images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    labels = jax.ShapeDtypeStruct((2,), jnp.int32)
    variables, of_teacher = (
        jax.eval_shape(module.init, jax.random.key(0), images) for module in (student, teacher)
    )
    return student, teacher, variables, of_teacher, images, labels


@functools.cache
def step_program(name, size, terms=()):
    """The loss and its gradient with respect to the parameters, and shapes of its arguments."""
    student, teacher, *shapes = networks(name, size)
    needs = any(term.needs_teacher for term in terms)
    objective = Objective(student, teacher if needs else None, terms)

    def run(variables, of_teacher, images, labels):
        params = {"student": variables["params"]}
        weights = dict.fromkeys(objective.weighted_terms, 1.0)
        collections = {"batch_stats": variables["batch_stats"]}
        rest = collections, of_teacher if needs else None, images, labels, weights
        return jax.value_and_grad(objective, has_aux=True)(params, *rest)

    return run, shapes


@functools.cache
def step_operations(name, size, terms=()):
    """Operations of the compiled step, by XLA's count."""
    run, shapes = step_program(name, size, terms)
    return operations(run, *shapes)


def step_multiply_adds(name, size, terms=()):
    """Multiply-adds of the traced step, each operation in its textbook form."""
    run, shapes = step_program(name, size, terms)
    return sum(multiply_adds(jax.make_jaxpr(run)(*shapes).jaxpr))


@functools.cache
def teacher_operations(name, size):
    """Operations of the teacher's forward pass and its J."""
    _, teacher, _, of_teacher, images, labels = networks(name, size)

    def run(of_teacher, images, labels):
        return gradients.value_and_input_gradient(
            lambda x: losses.cross_entropy(teacher.apply(of_teacher, x), labels), images
        )

    return operations(run, of_teacher, images, labels)


@pytest.mark.parametrize(
    ("name", "size"),
    [("wrn_10_1", 32), *(pytest.param(*case, marks=pytest.mark.slow) for case in SIZES)],
)
def test_gradient_transfer_costs_the_student_two_plain_steps(name, size):
    whole = step_operations(name, size, (TERMS["gradient_at"](),))
    part = whole - teacher_operations(name, size)
    ratio = part / step_operations(name, size)
    # (6S - s) / (3S - s): of ResNet-18 2.022, because a plain step needs no gradient of the images.
    textbook = step_multiply_adds(name, size, (MinL2(),)) / step_multiply_adds(name, size)
    assert 1.95 < ratio <= 1.02 * textbook


@pytest.mark.parametrize(
    ("name", "size"),
    [SIZES[0], SIZES[3], *(pytest.param(*case, marks=pytest.mark.slow) for case in SIZES[1:3])],
)
def test_an_input_gradient_doubles_the_multiply_adds_of_a_step(name, size):
    ratio = step_multiply_adds(name, size, (MinL2(),)) / step_multiply_adds(name, size)
    assert 2 < ratio <= (2.03 if name == "resnet_18" else 2.01)  # (6S - s) / (3S - s)


@dataclasses.dataclass(frozen=True)
class Second(MinL2):
    name: ClassVar[str] = "second"


@dataclasses.dataclass(frozen=True)
class Third(MinL2):
    name: ClassVar[str] = "third"


@pytest.mark.parametrize(
    ("terms", "distinct"),
    [
        ((MinL2(),), 1),
        ((MinL2(), Second(temperature=2.0)), 2),
        ((MinL2(), Second(temperature=2.0), Third(temperature=4.0)), 3),
        # Terms of one temperature share their input gradient.
        ((MinL2(temperature=2.0), Second(temperature=2.0), Third(temperature=2.0)), 1),
    ],
)
def test_each_distinct_input_gradient_costs_at_most_one_plain_step(terms, distinct):
    # A plain step is 3S - s: forward, backward by weights and by inputs, the latter without the first
    # layer (s). The first input gradient adds 3S, one pass forward and two of its own backward.
    whole, plain = (step_operations("wrn_10_1", 32, t) for t in (terms, ()))
    assert 1 + 0.95 * distinct < whole / plain <= 1 + 1.03 * distinct
