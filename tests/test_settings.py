"""Every value that can be wrong is found before anything else happens."""

import pytest
import small_run

from at_jax import settings


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("method", "att", "method must be one of none, kd, at, .*'att' is none of"),
        ("dtype", "float16", "dtype must be one of float32, bfloat16, got 'float16'"),
        ("epochs", 0, "epochs must be at least 1, got 0: change it with --config.epochs="),
        ("batch_size", 0, "batch_size must be at least 1"),
        ("accumulation", 0, "accumulation must be at least 1"),
        ("optimizer__learning_rate", float("nan"), "optimizer.learning_rate must be at least 0"),
        ("optimizer__momentum", 1.0, "optimizer.momentum must be from 0 to below 1"),
        ("optimizer__drop_epochs", (3, 2), "optimizer.drop_epochs must be increasing"),
        ("optimizer__drop_epochs", (0, 2), "optimizer.drop_epochs must be increasing"),
        ("kd__temperature", 0.0, "kd.temperature must be above 0"),
        ("kd__alpha", 1.5, "kd.alpha must be from 0 to 1"),
        ("at__beta", -1.0, "at.beta must be at least 0, got -1.0"),
        ("at__beta", float("inf"), "at.beta must be at least 0, got inf"),
        ("at__kind", "mean", "at.kind must be one of sum, max, channel"),
        ("at__p", 0.5, "at.p must be at least 1"),
        ("at__convention", "torch", "at.convention must be one of code, paper"),
        (
            "gradient_at__beta",
            -1.0,
            "gradient_at.beta must be at least 0, got -1.0: change it with",
        ),
        ("flip_symmetry__beta", float("nan"), "flip_symmetry.beta must be at least 0, got nan"),
        ("min_l2__beta", float("inf"), "min_l2.beta must be at least 0, got inf"),
        ("transfer__decay", "exp", "transfer.decay must be one of constant, linear, cosine, steps"),
        ("data__pad", -1, "data.pad must be at least 0"),
        ("data__mean", (1.0,), "data.mean and data.std must have one number a channel each"),
        ("data__mean", ("a",), "data.mean must be numbers above -inf"),
        ("data__std", (0.0,), "data.std must be numbers above 0"),
        ("transfer__points", (1,), "transfer.points must be texts such as"),
        ("transfer__decay", "steps", "needs the epochs of its steps, got none"),
        ("optimizer__drop_epochs", (1.5,), "optimizer.drop_epochs must be increasing whole epochs"),
        ("method", "at+at", "method must name each part once"),
        ("seed", 2**32, "seed must be from 0 to"),
        ("runtime__steps_per_dispatch", 17, r"runtime.steps_per_dispatch must be from 0 .* to 16"),
        ("runtime__checkpoint_every", 0, "runtime.checkpoint_every must be at least 1"),
    ],
)
def test_bad_values(key, value, message):
    with pytest.raises(ValueError, match=message):
        settings.check(small_run.config(**{key: value}))


@pytest.mark.parametrize("method", ["none", "min_l2", "flip_symmetry"])
def test_a_teacher_that_is_not_used(method):
    with pytest.raises(ValueError, match=f"method '{method}' uses no teacher"):
        settings.check(small_run.config(method=method, teacher__checkpoint="somewhere"))


def test_squared_is_a_switch():
    with pytest.raises(TypeError):
        small_run.config(min_l2__squared=2)


def test_rules_name_keys_that_there_are():
    keys = settings.flatten(small_run.config().to_dict())
    assert set(settings._RULES) <= set(keys)


def test_the_teacher_s_config():
    config = small_run.config(teacher__epochs=7, teacher__drop_epochs=(3,))
    teacher = settings.teacher_config(config)
    assert (teacher.student, teacher.method) == ("wrn_10_0.5", "none")
    assert (teacher.epochs, teacher.optimizer.drop_epochs) == (7, (3,))
    assert teacher.data.train_examples == 60
    as_the_student = settings.teacher_config(small_run.config(teacher__epochs=0))
    assert (as_the_student.epochs, as_the_student.optimizer.drop_epochs) == (2, (1,))
