"""Configs of several students of one program: what may differ, and what must not."""

import pytest
import small_run

from at_jax.errors import UserError
from at_jax.training import config as configs


def together(*changes):
    configs.check_together([small_run.config(**each) for each in changes])


SHARED = {"data__order_seed": 0, "teacher__checkpoint": "somewhere"}


def test_check_together_allows_students_seeds_optimizers_and_terms_to_differ():
    together(
        SHARED,
        SHARED | {"student": "wrn_10_0.5", "seed": 3, "method": "at+kd", "at__beta": 1.0},
        SHARED | {"init__weights": "runs/other", "init__freeze": ("conv0",)},
        SHARED | {"optimizer__name": "adamw", "transfer__begin_epoch": 1, "sobolev__beta": 2.0},
        {"data__order_seed": 0, "method": "none"},
    )


def test_check_together_allows_one_teacher_of_a_file():
    together(*2 * ({"data__order_seed": 0, "teacher__weights": "resnet.pt"},))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ((), "train_together needs students, got none"),
        ((SHARED, SHARED | {"epochs": 3}), "must have the same epochs, got 2 and 3"),
        ((SHARED, SHARED | {"data__pad": 2}), "must have the same data.pad, got 0 and 2"),
        ((SHARED, SHARED | {"dtype": "bfloat16"}), "the same dtype, got 'float32' and 'bfloat16'"),
        ((SHARED, SHARED | {"runtime__devices": 1}), "must have the same runtime.devices"),
        (
            ({"method": "none"}, {"method": "none", "seed": 1}),
            "the same order of images, got data.order_seed=-1 and the seeds 0, 1",
        ),
        (
            (SHARED, SHARED | {"teacher__checkpoint": "elsewhere"}),
            "the same finished teacher, got teacher.checkpoint='elsewhere', 'somewhere'",
        ),
        (({"data__order_seed": 0},), "the same finished teacher, got teacher.checkpoint=''"),
        (
            (SHARED, SHARED | {"teacher__image_size": 32}),
            "must have the same teacher.weights, model, image_size, mean and std, got",
        ),
        (
            (SHARED, SHARED | {"teacher__stochastic": True}),
            "must have the same teacher.stochastic, got True and False",
        ),
    ],
)
def test_check_together_of_configs_that_cannot_share_a_program_raises_usererror(changes, message):
    with pytest.raises(UserError, match=message):
        together(*changes)
