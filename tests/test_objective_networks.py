"""Networks and variables that do not fit an objective: errors name the network and the argument."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
import tiny
from flax import nnx

from at_jax.errors import UserError
from at_jax.objective import Objective
from at_jax.terms import Distillation

BATCH = tiny.batch(4)
IMAGES = tiny.prepare(None, BATCH["image"], None)
LABELS = jnp.asarray(BATCH["label"])
STUDENT, TEACHER = tiny.TinyNet(), tiny.TinyNet((5, 6))


class NnxNet(nnx.Module):
    pass


class WithoutTrain(nn.Module):
    @nn.compact
    def __call__(self, images):
        return nn.Dense(tiny.CLASSES)(jnp.mean(images, axis=(1, 2)))


class PassesAll(nn.Module):
    @nn.compact
    def __call__(self, images, **kwargs):
        return WithoutTrain()(images, **kwargs)


class Mistaken(nn.Module):
    @nn.compact
    def __call__(self, images, *, train=False):
        return WithoutTrain()(images, train=train)


class Random(nn.Module):
    always: bool = False

    @nn.compact
    def __call__(self, images, *, train=False):
        x = nn.Dropout(0.5, deterministic=not (train or self.always))(jnp.mean(images, axis=(1, 2)))
        return nn.Dense(tiny.CLASSES)(x)


class Untraceable(WithoutTrain):
    @nn.compact
    def __call__(self, images, *, train=False):
        if jnp.sum(images) > 0:
            return nn.Dense(tiny.CLASSES)(jnp.mean(images, axis=(1, 2)))
        return jnp.zeros((len(images), tiny.CLASSES))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Objective(tiny.TinyNet),
            r"student must be an instance of a linen module, got the class TinyNet: pass an instance, "
            r"TinyNet\(...\)",
        ),
        (
            lambda: Objective(STUDENT, (TEACHER, {"params": {}})),
            "teacher must be an instance of .*, got tuple: pass the module alone, and its variables in",
        ),
        (lambda: Objective(STUDENT, {"params": {}}), "teacher .*, got dict: pass the module alone"),
        (
            lambda: Objective(NnxNet()),
            r"got the NNX module NnxNet: wrap it, flax.nnx.bridge.to_lin",
        ),
        (lambda: Objective("wrn_16_1"), "student .*, got str: pass a flax.linen.Module"),
    ],
)
def test_objective_of_what_is_no_module_raises_usererror(make, message):
    with pytest.raises(UserError, match=message):
        make()


def given(**changed):
    """Arguments of an objective of STUDENT and TEACHER, some of them changed."""
    params, collections, teacher = tiny.networks(STUDENT, TEACHER)
    fitting = {"params": params, "collections": collections, "teacher": teacher, "images": IMAGES}
    return (fitting | changed).values()


PARAMS, COLLECTIONS, OF_TEACHER, _ = given()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"images": jnp.moveaxis(IMAGES, -1, 1)},
            r"teacher TinyNet must have parameters that fit its images, got images of shape \(4, 2, 6, 6\)"
            r" and: For parameter .*/conv0.*: pass images \(B, H, W, C\) with the channels",
        ),
        (
            {"teacher": {"params": PARAMS["student"], **COLLECTIONS}},
            "teacher TinyNet must have parameters that fit .* and the parameters of this network",
        ),
        (
            {"params": {"student": OF_TEACHER["params"]}},
            "student TinyNet must have parameters that fit .* and the parameters of this network",
        ),
        (
            {"teacher": OF_TEACHER["params"]},
            "teacher TinyNet must have all its variables, got the collections bn0, .*: pass all variables",
        ),
        (
            {"teacher": {"params": OF_TEACHER["params"]}},
            r"teacher TinyNet must have .*, got the collections params and: .*\"batch_stats\".*: pass all"
            r" variables of this network, {'params': ..., 'batch_stats': ...}",
        ),
        (
            {"teacher": {"params": OF_TEACHER}},
            "teacher TinyNet must have all its variables, got the",
        ),
        (
            {"collections": {}},
            r"student TinyNet must have .*, got the collections params and: .*\"batch_stats\".*: create "
            r"the same ones with .*, params={'student': variables\['params'\]} and collections={'batch_",
        ),
        (
            {"collections": COLLECTIONS["batch_stats"]},
            "student TinyNet must have .*, got the collections params, bn0, bn1 and: .*: create the same",
        ),
        (
            {"params": {"student": {"conv0": PARAMS["student"]["conv0"]}}},
            r"student TinyNet must have .*Could not find parameter named \"scale\" in scope \"/bn0\":",
        ),
    ],
)
def test_arguments_that_do_not_fit_the_network_raise_usererror(changed, message):
    objective = Objective(STUDENT, TEACHER, (Distillation(),))
    with pytest.raises(UserError, match=message) as raised:
        jax.eval_shape(objective, *given(**changed), LABELS)
    assert "\n" not in str(raised.value) and raised.value.__cause__ is not None


def called(student, keys=None):
    variables = jax.eval_shape(Random().init, jax.random.key(0), IMAGES)
    params = {"Dense_0": variables["params"]["Dense_0"]}
    return jax.eval_shape(
        Objective(student), {"student": params}, {}, None, IMAGES, LABELS, None, keys
    )


@pytest.mark.parametrize(
    ("student", "message"),
    [
        (
            Random(),
            r"student Random draws random numbers with train=True .*, got no keys: pass "
            r"keys=jax.random.split\(key, 4\)",
        ),
        (WithoutTrain(), "student WithoutTrain takes no argument 'train': module.apply.*add it to"),
        (PassesAll(), "student PassesAll takes no argument 'train'"),
        (Untraceable(), "student Untraceable must be traceable by JAX"),
    ],
)
def test_students_that_cannot_be_called_raise_usererror(student, message):
    with pytest.raises(UserError, match=message):
        called(student)
    called(Random(), jax.random.split(jax.random.key(0), 4))


def test_mistake_within_a_module_is_raised_as_it_is():
    with pytest.raises(TypeError, match=r"WithoutTrain.__call__\(\) got an unexpected keyword"):
        called(Mistaken())


def test_teacher_and_prediction_with_dropout_in_evaluation_raise_usererror():
    variables = Random().init(jax.random.key(0), IMAGES)
    message = "Random draws random numbers with train=False .*: make it deterministic there"
    objective = Objective(Random(always=True), Random(always=True), (Distillation(),))
    with pytest.raises(UserError, match=f"teacher {message}"):
        jax.eval_shape(lambda: objective.view_teacher(variables, IMAGES, LABELS).logits)
    with pytest.raises(UserError, match=f"student {message}"):
        jax.eval_shape(objective.predict, variables, None, IMAGES)
