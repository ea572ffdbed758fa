"""PyTorch's half of the benchmark takes the same loss and gradients. Skipped where PyTorch is missing."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import traverse_util

from benchmarks.double_backprop import programs

pytest.importorskip("torch")
from benchmarks.double_backprop import pytorch

SETTING = programs.Setting("wrn_10_0.5", "wrn_10_1", 16, 4, "float32", ())
ROWS = [row for row in programs.ROWS if not programs.split(row)[1]]


@pytest.mark.parametrize("row", ROWS)
def test_loss_and_gradients(row):
    terms = programs.objective_of(row, SETTING)
    terms = dataclasses.replace(terms, student=terms.student.clone(bn_axis_name=None))
    student, teacher = SETTING.variables(SETTING.student, 0), SETTING.variables(SETTING.teacher, 1)
    images, labels = SETTING.images()
    rest = (student["batch_stats"], teacher, jnp.asarray(images), jnp.asarray(labels))

    @tiny.jit
    @jax.value_and_grad
    def run(params):
        return terms({"student": params, "adapter": {}}, *rest, programs.WEIGHTS)[0]

    loss, gradient = run(student["params"])
    ours = traverse_util.flatten_dict(gradient, sep="/")
    for layout in pytorch.LAYOUTS:
        rival = pytorch.program(
            row=row, student=SETTING.student, teacher=SETTING.teacher, student_variables=student,
            teacher_variables=teacher, images=images, labels=labels, weights=programs.WEIGHTS,
            layout=layout, lr=0.01, momentum=0.9, weight_decay=5e-4,
        )  # fmt: skip
        np.testing.assert_allclose(rival.loss, loss, rtol=1e-5)
        theirs = rival.gradients()
        assert ours.keys() == theirs.keys()
        for name, leaf in ours.items():
            distance = np.linalg.norm(theirs[name] - leaf)
            # Looser than parity proper (test_second_order.py): J may jump where a ReLU switches.
            assert distance <= 1e-3 * np.linalg.norm(leaf), name
