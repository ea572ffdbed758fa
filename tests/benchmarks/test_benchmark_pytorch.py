"""The PyTorch programs have the loss and gradients of the library. Skipped if PyTorch is missing."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import traverse_util

from benchmarks.double_backprop import programs
from benchmarks.double_backprop.setting import Setting

pytest.importorskip("torch")
from benchmarks.double_backprop import pytorch

SETTING = Setting("wrn_10_0.5", "wrn_10_1", 16, 4, "float32", ())


@pytest.mark.parametrize("row", [row for row in programs.ROWS if pytorch.has_row(row)])
def test_program_of_each_row_has_the_loss_and_gradients_of_the_library(row):
    objective = programs.objective_of(row, SETTING)
    student = objective.student.clone(bn_axis_name=None)
    objective = dataclasses.replace(objective, student=student)
    student, teacher = SETTING.variables(SETTING.student, 0), SETTING.variables(SETTING.teacher, 1)
    images, labels = SETTING.images()
    collections = {"batch_stats": student["batch_stats"]}

    @tiny.jit
    @jax.value_and_grad
    def run(params):
        rest = (collections, teacher, jnp.asarray(images), jnp.asarray(labels), programs.WEIGHTS)
        return objective({"student": params}, *rest)[0]

    loss, gradient = run(student["params"])
    expected = traverse_util.flatten_dict(gradient, sep="/")
    for layout in pytorch.LAYOUTS:
        program = pytorch.program(
            row=row, student=SETTING.student, teacher=SETTING.teacher, student_variables=student,
            teacher_variables=teacher, images=images, labels=labels, weights=programs.WEIGHTS,
            layout=layout, lr=0.01, momentum=0.9, weight_decay=5e-4,
        )  # fmt: skip
        np.testing.assert_allclose(program.loss, loss, rtol=1e-5)
        gradients = program.gradients()
        assert expected.keys() == gradients.keys()
        for name, leaf in expected.items():
            distance = np.linalg.norm(gradients[name] - leaf)
            # Looser than the tests of second order: J may jump where a ReLU switches.
            assert distance <= 1e-3 * np.linalg.norm(leaf), name


def test_has_row_of_a_mode_or_a_term_of_the_library_alone_is_false():
    assert pytorch.has_row("none") and pytorch.has_row("at+kd")
    assert not pytorch.has_row("gradient_at (remat)") and not pytorch.has_row("jacobian")
