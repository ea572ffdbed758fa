"""Jacobian matching, Sobolev training and map gradients, against formulas for one example at a time."""

import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from at_jax import intermediates
from at_jax.conv import conv_general_dilated
from at_jax.errors import UserError
from at_jax.models import layers
from at_jax.objective import Objective
from at_jax.terms import Batch, JacobianMatching, MapGradientTransfer, SobolevTraining
from at_jax.terms.view import View, view_network

BATCH = tiny.batch(4)
IMAGES = tiny.prepare(None, BATCH["image"], None)
LABELS = jnp.asarray(BATCH["label"])
KEYS = jax.random.split(jax.random.key(5), 4)
# Without batch statistics, so that the examples of a batch do not depend on one another.
STUDENT, TEACHER = tiny.TinyNet(batch_norm=False), tiny.TinyNet((5, 6), batch_norm=False)
NEW = (JacobianMatching(), SobolevTraining(), MapGradientTransfer())


class Unlike(nn.Module):
    """A network with other classes, widths, sizes of maps and names of taps."""

    @nn.compact
    def __call__(self, images, *, train=False):
        x = images
        for index, stride in enumerate((2, 1)):
            x = nn.tanh(layers.conv(7, 3, stride=stride, name=f"layer{index}")(x))
            intermediates.tap(self, f"stage{index}", x)
        return layers.classifier(jnp.mean(x, axis=(1, 2)), 2 * tiny.CLASSES, x.dtype)


@functools.cache
def variables(net, seed=0):
    images = jnp.zeros((1, tiny.SIZE, tiny.SIZE, tiny.CHANNELS))
    return tiny.filled(jax.eval_shape(net.init, jax.random.key(0), images), seed)


def objective(*terms, teacher=TEACHER, points=tiny.POINTS):
    return Objective(STUDENT, teacher, terms, points)


@pytest.mark.parametrize("term", NEW, ids=lambda term: term.name)
def test_one_student_view_with_two_teachers_is_compared_with_each(term):
    student, *teachers = (variables(net, n) for n, net in enumerate((STUDENT, TEACHER, TEACHER)))

    def batch(student, which):
        teacher = view_network(TEACHER, teachers[which], IMAGES, LABELS, frozen=True, train=False)
        return Batch(IMAGES, LABELS, KEYS, student, teacher, tiny.POINTS, lambda images: student)

    @tiny.jit
    def run():
        shared, fresh = (
            view_network(STUDENT, student, IMAGES, LABELS, train=False) for _ in range(2)
        )
        term.values(batch(shared, 0), None)
        return term.values(batch(shared, 1), None), term.values(batch(fresh, 1), None)

    found, expected = run()
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@functools.cache
def compiled(objective):
    """(parameters of the student, teacher, images, keys) -> ((sum of terms, terms), gradient)."""

    def run(params, teacher, images, keys):
        def total(params):
            weights = dict.fromkeys(objective.weighted_terms, 1.0)
            student = {"student": params}
            _, outputs = objective(student, {}, teacher, images, LABELS, weights, keys)
            outputs.terms.pop("cross_entropy")
            return sum(jnp.sum(term) for term in outputs.terms.values()), outputs

        return jax.value_and_grad(total, has_aux=True)(params)

    return tiny.jit(run)


def evaluate(objective, params=None, teacher=None, images=IMAGES, keys=KEYS):
    """Values of the terms, and the gradient of their sum over terms and examples."""
    outputs, gradient = outputs_of(objective, params, teacher, images, keys)
    return outputs.terms, gradient


def outputs_of(objective, params=None, teacher=None, images=IMAGES, keys=KEYS):
    params = variables(STUDENT)["params"] if params is None else params
    teacher = variables(objective.teacher, 7) if teacher is None else teacher
    (_, outputs), gradient = compiled(objective)(params, teacher, images, keys)
    return outputs, gradient


def apply_one(net, variables, image):
    """Logits (K,) and taps (H, W, C) of a single image."""
    logits, mutated = net.apply(variables, image[None], train=False, mutable=["intermediates"])
    return logits[0], {
        k: v[0][0] for k, v in mutated["intermediates"].items() if isinstance(v, tuple)
    }


def norm(g):
    return jnp.sqrt(jnp.sum(g**2))


def direction(g):
    return g / norm(g)


def jacobian_by_hand(student, teacher, image, key):
    top = jnp.argmax(apply_one(TEACHER, teacher, image)[0])
    g_s, g_t = (
        jax.grad(lambda x, net=net, v=v: apply_one(net, v, x)[0][top])(image)
        for net, v in ((STUDENT, student), (TEACHER, teacher))
    )
    return jnp.sum((direction(g_s) - direction(g_t)) ** 2), norm(g_s), norm(g_t)


def sobolev_by_hand(student, teacher, image, key):
    v = direction(jax.random.normal(key, (tiny.CLASSES,)))
    # The full Jacobian (K, H, W, C) of each network, then its product with v.
    j_s, j_t = (
        jax.jacrev(lambda x, net=net, w=w: apply_one(net, w, x)[0])(image)
        for net, w in ((STUDENT, student), (TEACHER, teacher))
    )
    g_s, g_t = jnp.tensordot(v, j_s, 1), jnp.tensordot(v, j_t, 1)
    return jnp.sum((g_s - g_t) ** 2), norm(g_s), norm(g_t)


def squares(net, variables, image, point, size):
    """The map of one image at a point, resized to size x size."""
    q = jnp.sum(apply_one(net, variables, image)[1][point] ** 2, axis=-1)
    return q if q.shape == (size, size) else jax.image.resize(q, (size, size), "bilinear")


def map_gradient_by_hand(student, teacher, image, key, net_t=TEACHER, s="late", t="late", size=3):
    top = jnp.argmax(squares(net_t, teacher, image, t, size))
    g_s, g_t = (
        jax.grad(lambda x, n=n, v=v, p=p: squares(n, v, x, p, size).ravel()[top])(image)
        for n, v, p in ((STUDENT, student, s), (net_t, teacher, t))
    )
    return jnp.sum((direction(g_s) - direction(g_t)) ** 2), norm(g_s), norm(g_t)


BY_HAND = {
    "jacobian": jacobian_by_hand,
    "sobolev": sobolev_by_hand,
    "map_gradient": map_gradient_by_hand,
}


@pytest.mark.parametrize(
    ("terms", "teacher", "points", "map_gradient"),
    [
        (NEW, TEACHER, tiny.POINTS, {}),
        (
            (MapGradientTransfer(point="early"),),
            TEACHER,
            tiny.POINTS,
            {"s": "early", "t": "early", "size": 6},
        ),
        # Other classes; the student's 6x6 map is resized to the teacher's 3x3.
        (
            (MapGradientTransfer(),),
            Unlike(),
            (("early", "stage1"),),
            {"net_t": Unlike(), "s": "early", "t": "stage1"},
        ),
    ],
    ids=["all", "a point", "other classes and sizes"],
)
def test_terms_and_their_gradient_equal_the_formula_of_each_example(
    terms, teacher, points, map_gradient
):
    outputs, gradient = outputs_of(objective(*terms, teacher=teacher, points=points))
    found = outputs.terms
    variables_t = variables(teacher, 7)

    @tiny.jit
    def formula(params):
        def total(params):
            values = {}
            for term in terms:
                options = map_gradient if term.name == "map_gradient" else {}
                of_one = functools.partial(BY_HAND[term.name], **options)
                of_each = jax.vmap(lambda *one: of_one({"params": params}, variables_t, *one))  # noqa: B023
                values[term.name] = of_each(IMAGES, KEYS)
            return sum(jnp.sum(term) for term, *_ in values.values()), values

        return jax.value_and_grad(total, has_aux=True)(params)

    (_, expected), expected_gradient = formula(variables(STUDENT)["params"])
    assert set(found) == {term.name for term in terms}
    assert len(outputs.measures) == 2 * len(terms)
    for name, (values, *norms) in expected.items():
        assert np.min(values) > 1e-3
        np.testing.assert_allclose(found[name], values, rtol=1e-4)
        for network, wanted in zip(("student", "teacher"), norms, strict=True):
            measured = outputs.measures[f"gradient_norm_{network}/{name}"]
            np.testing.assert_allclose(measured, wanted, rtol=1e-4)
    assert tiny.largest_deviation(expected_gradient, gradient) < 1e-3


def test_terms_of_a_student_that_equals_its_teacher_are_zero_with_finite_gradients():
    twins = objective(*NEW, teacher=STUDENT)
    terms, gradient = evaluate(twins, teacher=variables(STUDENT))
    chex.assert_tree_all_finite(gradient)
    for values in terms.values():
        np.testing.assert_allclose(values, np.zeros(4), atol=1e-6)


def test_terms_of_zero_gradients_are_as_documented_and_have_finite_gradients():
    params, teacher = variables(STUDENT)["params"], variables(TEACHER, 7)
    zero_s, zero_t = (jax.tree.map(jnp.zeros_like, tree) for tree in (params, teacher))
    ones = np.ones(4)
    for student, frozen, expected in (
        (zero_s, teacher, ones),  # only the teacher's gradient is not 0
        (params, zero_t, ones),  # only the student's
        (zero_s, zero_t, 0 * ones),
    ):
        terms, gradient = evaluate(objective(*NEW), student, frozen)
        chex.assert_tree_all_finite(gradient)
        np.testing.assert_allclose(terms["jacobian"], expected, rtol=1e-5)
        np.testing.assert_allclose(terms["map_gradient"], expected, rtol=1e-5)
        assert np.all((terms["sobolev"] > 0) == (expected > 0))
    # Where the student's gradient is exactly 0, so is the derivative of its direction.
    _, gradient = evaluate(objective(JacobianMatching()), zero_s, teacher)
    assert all(jnp.all(leaf == 0) for leaf in jax.tree.leaves(gradient))


def test_map_gradient_of_an_early_point_does_not_run_later_layers():
    def pull_backs(term):
        wanted = objective(term)
        params = {"student": variables(STUDENT)["params"]}
        arguments = params, {}, variables(TEACHER, 7), IMAGES, LABELS, {"map_gradient": 1.0}
        return str(jax.make_jaxpr(wanted)(*arguments)).count("at_conv_input_grad[")

    # One layer of each network, or two.
    assert pull_backs(MapGradientTransfer(point="early")) == 2
    assert pull_backs(MapGradientTransfer()) == pull_backs(MapGradientTransfer(point="late")) == 4


def test_map_gradient_of_an_unknown_point_raises_usererror():
    with pytest.raises(
        UserError,
        match="map_gradient.point must be a student point of transfer.points, got 'deep': choose from "
        "early, late",
    ):
        evaluate(objective(MapGradientTransfer(point="deep")))


def test_map_gradient_without_points_raises_usererror():
    with pytest.raises(UserError, match="for map_gradient, .* must have transfer points, got no"):
        objective(MapGradientTransfer(), points=())


def scaled_taps(scale, kernel, frozen=False):
    """View of a layer whose tap is multiplied by ``scale``."""

    def forward(images):
        x = jnp.tanh(convolved(images, kernel)) * jnp.float32(scale)
        return (jnp.mean(x, axis=(1, 2)), {"a": x}), {}

    return View(forward, IMAGES, LABELS, frozen=frozen)


def convolved(images, kernel):
    return conv_general_dilated(
        images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@pytest.mark.parametrize("scales", [(1e-22, 1.0), (1e21, 1.0), (1.0, 1e-22), (1e21, 1e21)], ids=str)
def test_map_gradient_does_not_depend_on_the_scale_of_the_taps(scales):
    kernel_s, kernel_t = jax.random.normal(jax.random.key(3), (2, 3, 3, tiny.CHANNELS, 5))

    @tiny.jit
    def value_and_gradient(scale_s, scale_t):
        def total(kernel_s):
            student = scaled_taps(scale_s, kernel_s)
            teacher = scaled_taps(scale_t, kernel_t, frozen=True)
            batch = Batch(IMAGES, LABELS, KEYS, student, teacher, (("a", "a"),), lambda x: student)
            values = MapGradientTransfer().values(batch, None)
            return jnp.sum(values), MapGradientTransfer().measures(batch, None)

        return jax.value_and_grad(total, has_aux=True)(kernel_s)

    (value, _), gradient = value_and_gradient(*scales)
    (expected, measures), expected_gradient = value_and_gradient(1.0, 1.0)
    assert expected > 0.1
    np.testing.assert_allclose(value, expected, rtol=1e-4)
    assert tiny.largest_deviation(gradient, expected_gradient) < 1e-3
    # The norms that are reported are those of the unscaled maps: of degree 2 in the tap.
    (_, larger), _ = value_and_gradient(1e3, 1e-3)
    for network, factor in (("student", 1e6), ("teacher", 1e-6)):
        name = f"gradient_norm_{network}"
        np.testing.assert_allclose(larger[name], factor * measures[name], rtol=1e-4)
