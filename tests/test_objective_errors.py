"""Errors of the objective: each is raised before anything compiles."""

import dataclasses
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
import tiny

from at_jax.errors import UserError
from at_jax.objective import Objective
from at_jax.options import option
from at_jax.terms import TERMS, ActivationTransfer, AttentionTransfer, Distillation, MinL2, Term

BATCH = tiny.batch(4)
IMAGES = tiny.prepare(None, BATCH["image"], None)
LABELS = jnp.asarray(BATCH["label"])
STUDENT, TEACHER = tiny.TinyNet(), tiny.TinyNet((5, 6))


def arguments(images=IMAGES, weights=("at",)):
    """Arguments of an objective of STUDENT and TEACHER."""
    objective = tiny.objective(STUDENT, TEACHER)
    created = tiny.create(objective)
    weights = dict.fromkeys(weights, 1.0)
    teacher = tiny.teacher_variables(objective)
    return created.params, created.collections, teacher, images, LABELS, weights


@pytest.mark.parametrize(
    ("point", "message"),
    [
        (
            ("deep", "late"),
            "student has no transfer point 'deep'; it taps 'early', 'late': choose from these, capture a "
            r"submodule by its path, as in paths_s=\('encoder/layer3',\), or tap",
        ),
        (
            ("late", "deep"),
            r"teacher has no transfer point 'deep'; it taps 'early', 'late': .*, as in paths_t=\('enc",
        ),
    ],
)
def test_points_that_a_network_lacks_raise_usererror_if_a_term_reads_them(point, message):
    objective = Objective(STUDENT, TEACHER, (AttentionTransfer(),), (*tiny.POINTS, point))
    with pytest.raises(UserError, match=message):
        jax.eval_shape(objective, *arguments())
    distilling = dataclasses.replace(objective, terms=(Distillation(),))
    jax.eval_shape(distilling, *arguments(weights=()))


def test_parameters_or_weights_of_another_form_raise_usererror():
    objective = tiny.objective(STUDENT, TEACHER)
    params, *rest, weights = arguments()
    with pytest.raises(UserError, match=r"student's parameters as 'student', got .*: pass {'stud"):
        objective(params["student"], *rest, weights)
    with pytest.raises(UserError, match="params must have .*, got tuple: pass"):
        objective(tuple(params), *rest, weights)
    with pytest.raises(UserError, match="weights must be a mapping from term to beta, got tuple"):
        objective(params, *rest, (1.0,))


@dataclasses.dataclass(frozen=True)
class Twin(Distillation):
    name: ClassVar[str] = "twin"


@dataclasses.dataclass(frozen=True)
class MeanOfLogits(Term):
    name: ClassVar[str] = "mean_of_logits"
    needs_teacher: ClassVar[bool] = False

    def values(self, batch, params):
        return jnp.mean(batch.student.logits)


@dataclasses.dataclass(frozen=True)
class Replacement(MeanOfLogits):
    name: ClassVar[str] = "replacement"
    beta: ClassVar[None] = None


class Attention(MeanOfLogits):
    name = "attention"
    metric = "mean_of_logits"


def named(name):
    return type("Named", (MeanOfLogits,), {"name": name})()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Objective(STUDENT, terms=(Distillation(),)),
            "for kd, the objective must have a teacher, got None: pass teacher=",
        ),
        (
            lambda: Objective(STUDENT, TEACHER, (AttentionTransfer(),)),
            "for at, the objective must have transfer points, got none: pass points=",
        ),
        (
            lambda: Objective(STUDENT, terms=(MinL2(), MinL2(squared=True))),
            "terms must have different names, and none of student, cross_entropy, got min_l2, min_l2",
        ),
        (
            lambda: Objective(STUDENT, terms=(MeanOfLogits(), Attention())),
            "terms must have different metrics, and none of .*, got mean_of_logits, mean_of_logits",
        ),
        (
            # Its parameters would replace those of the student.
            lambda: Objective(STUDENT, terms=(named("student"),)),
            "terms must have different names, and none of student, cross_entropy, got student",
        ),
        (
            lambda: Objective(STUDENT, terms=(named("cross_entropy"),)),
            "must have different names, and none of student, cross_entropy",
        ),
        (
            lambda: Objective(STUDENT, TEACHER, (Distillation(), Twin())),
            "one term can replace the cross-entropy, got kd, twin",
        ),
        (
            lambda: Objective(STUDENT, terms=(AttentionTransfer(),), points=tiny.POINTS),
            "for at, the objective must have a teacher, got None",
        ),
    ],
)
def test_objective_with_terms_that_lack_something_raises_usererror(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_objective_without_a_weight_raises_usererror():
    with pytest.raises(
        UserError, match="every term needs a weight, got none for at: pass weights={'at': beta}"
    ):
        tiny.objective(STUDENT, TEACHER)(*arguments(weights=()))


class TwoClasses(nn.Module):
    @nn.compact
    def __call__(self, images, *, train=False):
        return nn.Dense(2)(jnp.mean(images, axis=(1, 2)))


@pytest.mark.parametrize("name", ["kd", "gradient_at", "jacobian", "sobolev"])
def test_objective_with_a_teacher_of_other_classes_raises_usererror(name):
    objective = Objective(STUDENT, TwoClasses(), (TERMS[name](),))
    params, collections, *_ = arguments()
    variables = jax.eval_shape(TwoClasses().init, jax.random.key(0), IMAGES)
    rest = IMAGES, LABELS, {name: 1.0}, jax.random.split(jax.random.key(0), 4)
    with pytest.raises(
        UserError,
        match=rf"for {name}, student and teacher must have the same classes, got .* \(4, 2\), \(4, 3\)",
    ):
        jax.eval_shape(objective, params, collections, variables, *rest)


def test_objective_with_integer_images_raises_usererror():
    with pytest.raises(
        UserError, match="Objective: images must be floating point, got uint8: normalize"
    ):
        tiny.objective(STUDENT, TEACHER)(*arguments(images=jnp.asarray(BATCH["image"])))


@pytest.mark.parametrize("keys", [None, jax.random.split(jax.random.key(0), 4)])
def test_objective_with_one_image_without_a_batch_raises_usererror(keys):
    message = r"images must have rank 4, got shape \(6, 6, 2\): .* if it is a single example"
    objective = tiny.objective(STUDENT, TEACHER)
    with pytest.raises(UserError, match=message):
        objective(*arguments(images=IMAGES[0]), keys)
    with pytest.raises(UserError, match=message):
        objective.init_params(jax.random.key(0), {}, {}, IMAGES[0])


def test_objective_with_images_of_another_library_raises_usererror():
    class Tensor:
        dtype, shape = "float32", (4, 6, 6, 2)

    with pytest.raises(UserError, match="Objective: images must be an array of JAX or NumPy"):
        tiny.objective(STUDENT, TEACHER)(*arguments(images=Tensor()))


@pytest.mark.parametrize("term", [MeanOfLogits(), Replacement()])
def test_term_that_returns_a_mean_raises_usererror(term):
    with pytest.raises(
        UserError, match=r"must return one number per example, shape \(4,\), got \(\)"
    ):
        jax.eval_shape(Objective(STUDENT, terms=(term,)), *arguments(weights=(term.name,)))


@pytest.mark.parametrize("terms", [(), (AttentionTransfer(), Distillation())])
def test_weights_without_a_term_raise_usererror(terms):
    objective = Objective(STUDENT, TEACHER, terms, tiny.POINTS)
    names = [term.name for term in terms]
    known = ", ".join(map(repr, names)) or "none"
    message = f"weights must name terms of the objective, {known}, got 'kdd', 'x': leave it out"
    with pytest.raises(UserError, match=message):
        jax.eval_shape(objective, *arguments(weights=(*names, "kdd", "x")))
    jax.eval_shape(objective, *arguments(weights=names))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Objective(STUDENT, TEACHER, AttentionTransfer()),
            r"a sequence, got .*pass \[term\]",
        ),
        (
            # The weights would be lost.
            lambda: Objective(STUDENT, TEACHER, {AttentionTransfer(): 50.0}, tiny.POINTS),
            r"a sequence without weights, got {'at': 50.0}: pass list\(terms\), and the weights in each",
        ),
        (
            lambda: Objective(STUDENT, TEACHER, (AttentionTransfer,), tiny.POINTS),
            r"terms must be instances of .*Term, got .*: pass them as in \[AttentionTransfer\(\)\]",
        ),
        (
            lambda: Objective(STUDENT, TEACHER, ("at",), tiny.POINTS),
            "instances of .*Term, got 'at'",
        ),
        (lambda: Objective(STUDENT, points=("ab", "cd")), "points must be pairs .*, got 'ab'"),
        (
            lambda: Objective(STUDENT, points={"late": "late"}),
            "points must be pairs .*, got 'late'",
        ),
        (
            lambda: Objective(STUDENT, points=[("late",)]),
            r"points must be pairs .*, got \('late',\)",
        ),
        (
            lambda: Objective(STUDENT, freeze="conv0"),
            r"freeze must be a sequence of names, got 'conv0'",
        ),
        (
            lambda: Objective(STUDENT, paths_t="late"),
            r"paths_t must be a sequence .*pass \('late',\)",
        ),
    ],
)
def test_objective_with_fields_of_another_form_raises_usererror(make, message):
    with pytest.raises(UserError, match=message):
        make()


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (1, {"params": {}}, "collections must be the student's collections but its params"),
        (1, None, "collections must be .*, got NoneType"),
        (2, None, "teacher must be the variables of TinyNet, got NoneType: pass"),
        (
            6,
            jax.random.key(0),
            r"keys must be one PRNG key per example, shape \(4,\), got shape \(\)",
        ),
        (
            6,
            jax.random.split(jax.random.key(0), 3),
            r"shape \(4,\), got shape \(3,\): use jax.random",
        ),
    ],
)
def test_arguments_of_another_form_raise_usererror(place, value, message):
    given = [*arguments(), None]
    given[place] = value
    with pytest.raises(UserError, match=message):
        jax.eval_shape(tiny.objective(STUDENT, TEACHER), *given)


def test_teacher_that_lacks_statistics_raises_usererror():
    params, collections, teacher, *rest = arguments()
    statistics = {k: v for k, v in teacher["batch_stats"].items() if k != "bn1"}
    partial = {**teacher, "batch_stats": statistics}
    with pytest.raises(
        UserError,
        match="teacher TinyNet must have all its variables, got none for batch_stats/bn1/mean, batch_s",
    ):
        jax.eval_shape(tiny.objective(STUDENT, TEACHER), params, collections, partial, *rest)


def test_frozen_module_that_the_student_lacks_raises_usererror():
    objective = dataclasses.replace(tiny.objective(STUDENT, TEACHER), freeze=("cov0",))
    with pytest.raises(UserError, match="no module 'cov0' to freeze, .*did you mean 'conv0'"):
        jax.eval_shape(objective, *arguments())


def test_parameters_that_no_term_has_or_that_one_lacks_raise_usererror():
    params, *rest = arguments(weights=("f_actt",))
    adapted = tiny.objective(STUDENT, TEACHER, ActivationTransfer())
    with pytest.raises(UserError, match="keys f_actt, student, got student: Objective.init_params"):
        jax.eval_shape(adapted, params, *rest)
    params, *rest = arguments()
    with pytest.raises(UserError, match="keys student, got f_act, student"):
        jax.eval_shape(tiny.objective(STUDENT, TEACHER), {**params, "f_act": {}}, *rest)


class WithTaps(nn.Module):
    @nn.compact
    def __call__(self, images, *, train=False):
        return nn.Dense(3)(jnp.mean(images, axis=(1, 2))), images


def test_student_that_returns_a_tuple_raises_usererror():
    variables = jax.eval_shape(WithTaps().init, jax.random.key(0), IMAGES)
    with pytest.raises(UserError, match=r"WithTaps must return logits \(B, K\), got tuple"):
        jax.eval_shape(
            Objective(WithTaps()), {"student": variables["params"]}, {}, None, IMAGES, LABELS
        )


class Undecorated(MeanOfLogits):
    name = "undecorated"
    scale: float = option(1.0, "Factor.")


def test_term_with_options_that_is_not_decorated_raises_usererror():
    with pytest.raises(
        UserError, match="term Undecorated must be a frozen dataclass, got a class without"
    ):
        Objective(STUDENT, terms=(Undecorated(),))
