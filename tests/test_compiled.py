"""Compiled training steps hold no convolution that XLA:CPU runs unoptimised (design 4.7, 4.8).

XLA:CPU has a fast kernel for one layout, b01f_01io->b01f, and brings convolutions into it in the entry
computation only; what stays in another layout or mirrored is run by a loop nest, 80 times slower.
And double backpropagation costs no more operations than it must (design 4.9).
"""

import functools

import jax
import jax.numpy as jnp
import pytest
import tiny
from jax import lax

from at_jax import gradients, losses, methods, models, objective, state, step
from at_jax.conv import conv_general_dilated
from at_jax.terms import Attention, Distillation, InputGradient
from benchmarks.compiled import convolutions, flops

METHODS = {
    "none": {},
    "kd": {"distillation": Distillation()},
    "at": {"attention": Attention()},
    "min_l2": {"min_l2": InputGradient()},
    "flip_symmetry": {"flip_symmetry": InputGradient()},
    "gradient_at": {"gradient_at": InputGradient()},
    "at+kd": {"attention": Attention(), "distillation": Distillation()},
}
# Family: (network, pixels, channels, transfer points). Sizes at which maps stay larger than kernels:
# a 3x3 kernel on a 2x2 map makes XLA swap the operands (design 4.16).
WRN = ("wrn_10_1", 32, 3, ("group1", "group2", "group3"))
DIGITS = ("wrn_10_1", 16, 1, WRN[3])
NIN = ("nin_thin", 32, 3, ("stage1", "stage2", "stage3"))
RESNET = ("resnet_18", 224, 3, ("stage1", "stage2", "stage3", "stage4"))


def compiled_steps(network, method, steps, batch=4):
    """`steps` training steps in one program, from shapes alone: nothing runs."""
    name, size, channels, points = network
    build = functools.partial(models.build, name, num_classes=10)
    terms = objective.Objective(
        build(),
        build() if methods.needs_teacher(method) else None,
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
        *((DIGITS, method, 4) for method in ("none", "at+kd", "gradient_at")),
        *((NIN, method, 4) for method in ("none", "at+kd", "gradient_at", "flip_symmetry")),
        (DIGITS, "at", 1),
        (NIN, "gradient_at", 1),
        (RESNET, "at", 1),
    ],
    ids=lambda value: f"{value[0]}_{value[1]}px" if isinstance(value, tuple) else str(value),
)
def test_training_steps(network, method, steps):
    compiled = compiled_steps(network, method, steps, batch=2 if network is RESNET else 4)
    found, slow = convolutions(compiled)
    # Every layer has two in a step, forward and input gradient (weight gradients are matrix products),
    # two more for J, as many again at the mirrored images; a teacher's layer has one, two for its J.
    student = {"min_l2": 4, "gradient_at": 4, "flip_symmetry": 8}.get(method, 2)
    teacher = methods.needs_teacher(method) + (method == "gradient_at")
    assert len(found) > 8 * (student + teacher) - 2
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


def operations(function, *arguments):
    """Floating-point operations of a function's compiled program, by XLA's count; none of them slow."""
    compiled = jax.jit(function).lower(*arguments).compile(tiny.QUICK)
    assert not convolutions(compiled)[1]
    return flops(compiled)


@pytest.mark.parametrize(("name", "size"), [("wrn_16_1", 32), ("wrn_40_2", 32), ("resnet_18", 224)])
def test_the_student_s_part_of_gradient_transfer_costs_two_plain_steps(name, size):
    student, teacher = models.build(name), models.build("wrn_10_0.25")
    images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    labels = jax.ShapeDtypeStruct((2,), jnp.int32)
    variables, of_teacher = (
        jax.eval_shape(module.init, jax.random.key(0), images) for module in (student, teacher)
    )

    def step_of(terms):
        def run(variables, of_teacher, images, labels):
            params = {"student": variables["params"], "adapter": {}}
            rest = (variables["batch_stats"], of_teacher, images, labels, {"gradient_at": 1.0})
            return jax.value_and_grad(terms, has_aux=True)(params, *rest)

        return operations(run, variables, of_teacher, images, labels)

    def of_the_teacher_alone(of_teacher, images, labels):
        return gradients.value_and_input_gradient(
            lambda x: losses.cross_entropy(teacher.apply(of_teacher, x), labels), images
        )

    plain = step_of(objective.Objective(student))
    whole = step_of(objective.Objective(student, teacher, gradient_at=InputGradient()))
    part = whole - operations(of_the_teacher_alone, of_teacher, images, labels)
    assert 1.95 < part / plain <= 2.05
