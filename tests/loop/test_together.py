"""Several students in one program: each trains as it would alone on the same order of images."""

import dataclasses
import functools
import json

import chex
import jax
import optax
import pytest
import small_run
import tiny

from at_jax import checkpoint, loop
from at_jax.distributed import devices
from at_jax.errors import UserError
from at_jax.objective import Objective
from at_jax.terms import AttentionTransfer, Distillation, GradientTransfer
from at_jax.training import run_log, step, trainer
from at_jax.training.files import run_files

KEY = jax.random.key(3)


def students():
    """Four students of one teacher, of different terms, networks and optimizers."""
    teacher = tiny.TinyNet((5, 6))
    wide = tiny.TinyNet((4, 6))
    objectives = [
        Objective(tiny.TinyNet()),
        Objective(tiny.TinyNet(), teacher, (AttentionTransfer(),), tiny.POINTS),
        Objective(wide, teacher, (Distillation(), AttentionTransfer()), tiny.POINTS),
        Objective(tiny.TinyNet(), teacher, (GradientTransfer(),)),
    ]
    return tuple(
        step.StudentSpec(
            each, tiny.sgd(), {n: optax.constant_schedule(10.0) for n in each.weighted_terms}
        )
        for each in objectives
    )


@pytest.mark.slow
@pytest.mark.parametrize("accumulation", [1, 2])
def test_train_together_equals_train_step_after_a_step(accumulation):
    chosen = students()
    teacher = tiny.teacher_variables(chosen[1].objective)
    states = tuple(tiny.create(each.objective, seed=i) for i, each in enumerate(chosen))
    batch = tiny.batch()
    shared = {"prepare": tiny.prepare, "accumulation": accumulation}
    together = tiny.jit(functools.partial(step.train_together, students=chosen, **shared))
    after, measured = together(states, teacher, KEY, batch)
    for state, each, ours, numbers in zip(states, chosen, after, measured, strict=True):
        alone = tiny.jit(functools.partial(step.train_step, **each._asdict(), **shared))
        theirs, expected = alone(state, teacher, KEY, batch)
        assert tiny.largest_deviation(ours, theirs) < 1e-5
        chex.assert_trees_all_close(numbers, expected, rtol=1e-5)


def test_train_together_applies_the_teacher_once(monkeypatch):
    chosen, applied = students(), []
    original = Objective.view_teacher

    def view_teacher(self, *arguments):
        applied.append(self)
        return original(self, *arguments)

    monkeypatch.setattr(Objective, "view_teacher", view_teacher)
    states = tuple(tiny.create(each.objective) for each in chosen)
    teacher = tiny.teacher_variables(chosen[1].objective)
    run = functools.partial(step.train_together, students=chosen, prepare=tiny.prepare)
    jax.eval_shape(run, states, teacher, KEY, tiny.batch())
    # Its view serves the input gradient of one student, and the taps and logits of the others.
    assert len([each for each in applied if each.teacher is not None]) == 1


def runs(finished, tmp_path, **changes):
    """Three students of the finished teacher that share an order of images."""
    methods = {"none": small_run.config, "at": None, "at+kd": None}
    result = []
    for seed, method in enumerate(methods):
        make = methods[method] or functools.partial(small_run.with_teacher, finished)
        config = make(method=method, seed=seed, data__order_seed=5, **changes)
        result.append((config, tmp_path / method))
    return result


@pytest.mark.slow
def test_train_together_writes_the_files_of_single_runs(finished, tmp_path):
    together = loop.train_together(runs(finished, tmp_path / "together"))
    alone = [loop.train_and_evaluate(*run) for run in runs(finished, tmp_path / "alone")]
    for ours, theirs, (_, workdir) in zip(
        together, alone, runs(finished, tmp_path / "together"), strict=True
    ):
        assert run_files.read_result(workdir) == ours
        assert (ours["trained_together"], theirs["trained_together"]) == (3, 1)
        assert ours["teacher_test_error"] == theirs["teacher_test_error"]
        assert ours.keys() == theirs.keys()
    for method in ("none", "at", "at+kd"):
        ours, theirs = (small_run.lines_of(tmp_path / w / method) for w in ("together", "alone"))
        assert len(ours) == 2
        # The losses of the first epoch, three steps: later ones diverge where a ReLU switches.
        for key in (key for key in ours[0] if key.startswith("loss")):
            assert ours[0][key] == pytest.approx(theirs[0][key], rel=1e-3)
        checkpoint.load(tmp_path / "together" / method)


@pytest.mark.slow  # trains four runs
@pytest.mark.parametrize("every", [1, 10])
def test_train_together_resumes_from_the_latest_common_step(finished, tmp_path, monkeypatch, every):
    whole = runs(finished, tmp_path / "whole", runtime__checkpoint_every=every, epochs=4)[1:]
    loop.train_together(whole)
    cut = runs(finished, tmp_path / "cut", runtime__checkpoint_every=every, epochs=4)[1:]
    original, rounds = run_log.RunLog.save_epoch, []

    def dies(self, train_state):
        # As after kill -9: in the last round the first run has saved, the others have not.
        rounds.append(int(train_state.step))
        if rounds[-1] == 12 and self.workdir.name == "at+kd":
            raise KeyboardInterrupt
        original(self, train_state)

    with monkeypatch.context() as patch:
        patch.setattr(run_log.RunLog, "save_epoch", dies)
        with pytest.raises(KeyboardInterrupt):
            loop.train_together(cut)
    # The best epoch of one run saves all of them, at the same step.
    before = max(step for step in rounds if step < 12)
    assert rounds.count(before) == 2
    said = []
    monkeypatch.setattr(trainer, "log", said.append)
    loop.train_together(cut)
    assert said[0] == f"Resuming after step {before} of 12"
    assert [line.split()[0] for line in said] == ["Resuming", "Compiling"]
    for (_, ours), (_, theirs) in zip(cut, whole, strict=True):
        assert small_run.lines_of(ours) == small_run.lines_of(theirs)
        assert json.loads((ours / "result.json").read_text())["trained_together"] == 2


@pytest.mark.slow  # trains two runs
def test_train_together_leaves_finished_runs_alone(finished, tmp_path):
    first, second, _ = runs(finished, tmp_path)
    result = loop.train_and_evaluate(*first)
    checkpoints = sorted((first[1] / "checkpoints").iterdir())
    again, other = loop.train_together([first, second])
    assert again == result and other["trained_together"] == 1
    assert sorted((first[1] / "checkpoints").iterdir()) == checkpoints


def test_train_together_that_is_refused_changes_no_run(finished, tmp_path):
    first, second, _ = runs(finished, tmp_path)
    for config, folder in (first, second):
        run_files.claim(folder, config.to_dict())
    before = [(folder / "config.json").read_bytes() for _, folder in (first, second)]
    changed = [(config.copy_and_resolve_references(), folder) for config, folder in (first, second)]
    for config, _ in changed:
        config.runtime.checkpoint_every = 7  # may differ
    changed[1][0].optimizer.learning_rate = 0.3
    with pytest.raises(UserError, match="optimizer.learning_rate: .* there, 0.3 now"):
        loop.train_together(changed)
    assert [(folder / "config.json").read_bytes() for _, folder in changed] == before


def test_train_together_with_a_shared_workdir_raises(finished, tmp_path):
    first, second, _ = runs(finished, tmp_path)
    (tmp_path / "link").symlink_to(first[1])
    with pytest.raises(UserError, match="different workdirs: pass one for each"):
        loop.train_together([first, (second[0], tmp_path / "link")])
    for wrong in ([first[0]], None):
        with pytest.raises(UserError, match=r"takes pairs: pass \[.config, workdir., ...\]"):
            loop.train_together(wrong)
    with pytest.raises(UserError, match="must be an ml_collections.ConfigDict, got dict"):
        loop.train_together([(first[0].to_dict(), first[1])])
    with pytest.raises(UserError, match="different workdirs: pass one for each"):
        loop.train_together([first, (second[0], first[1])])
    with pytest.raises(UserError, match="needs students, got none"):
        loop.train_together([])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 10}, "must have the same batch_size, got 20 and 10"),
        ({"data__pad": 2}, "must have the same data.pad, got 0 and 2"),
        ({"data__order_seed": 6}, "must have the same data.order_seed, got 5 and 6"),
        ({"teacher__checkpoint": ""}, "must have the same finished teacher"),
    ],
)
def test_train_together_with_different_programs_raises(finished, tmp_path, changes, message):
    first, second, _ = runs(finished, tmp_path)
    other = small_run.with_teacher(finished, data__order_seed=5).copy_and_resolve_references()
    other.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    with pytest.raises(UserError, match=message):
        loop.train_together([first, second, (other, tmp_path / "other")])
    assert not tmp_path.exists() or not any(tmp_path.iterdir())


def test_train_together_with_different_orders_raises(finished, tmp_path):
    configs = [small_run.config(method="none", seed=seed) for seed in (0, 1)]
    with pytest.raises(UserError, match=r"seeds 0, 1: set data.order_seed=0"):
        loop.train_together([(c, tmp_path / str(c.seed)) for c in configs])


@pytest.mark.slow  # one student is compared in tests/distributed
def test_train_together_on_four_devices_equals_one(finished):
    # With synchronized statistics: the losses are those of the global batch.
    def synchronized(each):
        student = each.objective.student.clone(bn_axis_name=devices.AXIS_NAME)
        return each._replace(objective=dataclasses.replace(each.objective, student=student))

    chosen = tuple(synchronized(each) for each in students()[:3])
    teacher = tiny.teacher_variables(chosen[1].objective)
    # On the host: the step takes the buffers that it is given.
    states = jax.device_get(tuple(tiny.create(each.objective) for each in chosen))
    results = []
    for count in (1, 4):
        used = tuple(jax.local_devices()[:count])
        run = functools.partial(
            step.train_together,
            students=chosen,
            prepare=tiny.prepare,
            axis_name=devices.AXIS_NAME,
        )
        arguments = devices.replicate((states, teacher, KEY), used)
        batch = devices.shard(tiny.batch(), count)
        results.append(jax.device_get(devices.map_train(run, used)(*arguments, batch)))
    assert tiny.largest_deviation(results[1][0], results[0][0]) < 1e-5
