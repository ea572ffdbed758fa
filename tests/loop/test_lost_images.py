"""An image that can no longer be read while a run trains: no epoch is lost."""

import pathlib

import numpy as np
import pytest
import small_run

from at_jax import data, loop
from at_jax.errors import UserError
from at_jax.training import run_log


class Pairs:
    """Digits as a source of pairs, of which one can be made unreadable."""

    def __init__(self, split, switch: pathlib.Path):
        self._images, self._labels = split.take(np.arange(len(split)))
        self._switch = switch

    def __len__(self):
        return len(self._labels)

    def __getitem__(self, index):
        if self._switch.exists() and index % 10 == 7:
            raise OSError("deleted")
        return self._images[index], int(self._labels[index])


@pytest.fixture
def dataset(tmp_path):
    """Digits that are read while training."""
    digits = data.load("digits")
    pairs = [Pairs(split, tmp_path / name) for name, split in
             (("train", digits.train), ("test", digits.test))]  # fmt: skip
    return data.from_source(*pairs, class_names=digits.class_names, memory_limit_mb=0)


@pytest.mark.slow
def test_unreadable_image_ends_the_run_saved_and_it_resumes(dataset, tmp_path, compiled_once):
    config = small_run.config(method="none", runtime__checkpoint_every=5)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    loop.train_and_evaluate(config, whole, dataset=dataset)
    # In the evaluations of epochs 1 and 2, and in the training of epoch 2.
    for split, step in (("test", 3), ("train", 3), ("test", 6)):
        (tmp_path / split).touch()
        match = (
            rf"{split}\[\d*7\]: .*deleted.* \(saved after step {step}: run the same command to res"
        )
        with pytest.raises(UserError, match=match) as error:
            loop.train_and_evaluate(config, broken, dataset=dataset)
        assert "\n" not in str(error.value)
        (tmp_path / split).unlink()
    loop.train_and_evaluate(config, broken, dataset=dataset)
    assert small_run.lines_of(broken) == small_run.lines_of(whole)
    assert [line["epoch"] for line in small_run.lines_of(broken)] == [1, 2]


@pytest.mark.slow  # trains four runs
@pytest.mark.parametrize("epoch", [1, 2])
def test_evaluation_that_fails_for_one_of_several_students_is_repeated(
    finished, tmp_path, monkeypatch, epoch
):
    def runs(folder):
        configs = [
            small_run.config(method="none", data__order_seed=5),
            *(
                small_run.with_teacher(finished, method=method, data__order_seed=5)
                for method in ("at", "kd")
            ),
        ]
        return [(config, folder / config.method) for config in configs]

    loop.train_together(runs(tmp_path / "whole"))
    line_of = run_log.RunLog._line

    # The second start records the epoch of the run that failed first, and fails for the next one.
    for method in ("at", "kd"):

        def fails(self, train_state, at, teacher, method=method):
            if self.workdir.name == method and at == epoch:
                raise UserError("image x: deleted")
            return line_of(self, train_state, at, teacher)

        with monkeypatch.context() as patch:
            patch.setattr(run_log.RunLog, "_line", fails)
            with pytest.raises(UserError, match="deleted .saved after step"):
                loop.train_together(runs(tmp_path / "broken"))
    loop.train_together(runs(tmp_path / "broken"))
    for method in ("none", "at", "kd"):
        ours, theirs = (small_run.lines_of(tmp_path / f / method) for f in ("broken", "whole"))
        assert ours == theirs and [line["epoch"] for line in ours] == [1, 2]
