"""Several students in one program: each trains as it would alone on the same order of images."""

import functools
import json

import chex
import jax
import optax
import pytest
import small_run
import tiny

from at_jax import checkpoint, ledger, loop, parallel, step, trainer
from at_jax.objective import Objective
from at_jax.terms import Attention, Distillation, InputGradient

KEY = jax.random.key(3)


def learners():
    """Four students of one teacher, of different terms, networks and optimizers."""
    teacher = tiny.TinyNet((5, 6))
    wide = tiny.TinyNet((4, 6))
    objectives = [
        Objective(tiny.TinyNet()),
        Objective(tiny.TinyNet(), teacher, tiny.POINTS, attention=Attention()),
        Objective(wide, teacher, tiny.POINTS, Distillation(), Attention()),
        Objective(tiny.TinyNet(), teacher, gradient_at=InputGradient()),
    ]
    return tuple(
        step.Learner(
            each, tiny.sgd(), {n: optax.constant_schedule(10.0) for n in each.weighted_terms}
        )
        for each in objectives
    )


@pytest.mark.parametrize("accumulation", [1, 2])
def test_together_equals_alone_after_a_step(accumulation):
    chosen = learners()
    teacher = tiny.teacher_variables(chosen[1].objective)
    states = tuple(tiny.create(each.objective, seed=i) for i, each in enumerate(chosen))
    batch = tiny.batch()
    shared = {"prepare": tiny.prepare, "accumulation": accumulation}
    together = tiny.jit(functools.partial(step.train_together, learners=chosen, **shared))
    after, measured = together(states, teacher, KEY, batch)
    for state, each, ours, numbers in zip(states, chosen, after, measured, strict=True):
        alone = tiny.jit(functools.partial(step.train_step, **each._asdict(), **shared))
        theirs, expected = alone(state, teacher, KEY, batch)
        assert tiny.largest_deviation(ours, theirs) < 1e-5
        chex.assert_trees_all_close(numbers, expected, rtol=1e-5)


def test_the_teacher_looks_once(monkeypatch):
    chosen, looks = learners(), []
    original = Objective.teach

    def teach(self, *arguments):
        looks.append(self)
        return original(self, *arguments)

    monkeypatch.setattr(Objective, "teach", teach)
    states = tuple(tiny.create(each.objective) for each in chosen)
    teacher = tiny.teacher_variables(chosen[1].objective)
    run = functools.partial(step.train_together, learners=chosen, prepare=tiny.prepare)
    jax.eval_shape(run, states, teacher, KEY, tiny.batch())
    # By the one that asks for most: its J serves the gradient term, its taps and logits the others.
    # The student alone asks too, of nobody.
    assert [each.gradient_at is not None for each in looks if each.teacher] == [True]


def runs(finished, tmp_path, **changes):
    """Three students of the finished teacher that share an order of images."""
    methods = {"none": small_run.config, "at": None, "at+kd": None}
    result = []
    for seed, method in enumerate(methods):
        make = methods[method] or functools.partial(small_run.with_teacher, finished)
        config = make(method=method, seed=seed, data__order_seed=5, **changes)
        result.append((config, tmp_path / method))
    return result


def test_runs_together_leave_what_runs_alone_leave(finished, tmp_path):
    together = loop.train_together(runs(finished, tmp_path / "together"))
    alone = [loop.train_and_evaluate(*run) for run in runs(finished, tmp_path / "alone")]
    for ours, theirs, (_, workdir) in zip(
        together, alone, runs(finished, tmp_path / "together"), strict=True
    ):
        assert json.loads((workdir / "result.json").read_text()) == ours
        assert (ours["trained_together"], theirs["trained_together"]) == (3, 1)
        assert ours["teacher_test_error"] == theirs["teacher_test_error"]
        assert ours.keys() == theirs.keys()
    for method in ("none", "at", "at+kd"):
        ours, theirs = (small_run.lines_of(tmp_path / w / method) for w in ("together", "alone"))
        assert len(ours) == 2
        # The losses of the first epoch, three steps: later ones part company where a ReLU switches.
        for key in (key for key in ours[0] if key.startswith("loss")):
            assert ours[0][key] == pytest.approx(theirs[0][key], rel=1e-3)
        checkpoint.load(tmp_path / "together" / method)


@pytest.mark.parametrize("every", [1, 10])
def test_runs_together_resume_from_the_step_that_all_have(finished, tmp_path, monkeypatch, every):
    whole = runs(finished, tmp_path / "whole", runtime__checkpoint_every=every, epochs=4)
    loop.train_together(whole)
    cut = runs(finished, tmp_path / "cut", runtime__checkpoint_every=every, epochs=4)
    original, rounds = ledger.Ledger.save_epoch, []

    def dies(self, train_state):
        # As kill -9 would: in the last round the first run has saved, the others have not.
        rounds.append(int(train_state.step))
        if rounds[-1] == 12 and self.workdir.name == "at":
            raise KeyboardInterrupt
        original(self, train_state)

    with monkeypatch.context() as patch:
        patch.setattr(ledger.Ledger, "save_epoch", dies)
        with pytest.raises(KeyboardInterrupt):
            loop.train_together(cut)
    # One run's best epoch saves them all: with rounds of their own they would drift apart.
    before = max(step for step in rounds if step < 12)
    assert rounds.count(before) == 3
    said = []
    monkeypatch.setattr(trainer, "say", said.append)
    loop.train_together(cut)
    assert said == [f"Resuming after step {before} of 12"]
    for (_, ours), (_, theirs) in zip(cut, whole, strict=True):
        assert small_run.lines_of(ours) == small_run.lines_of(theirs)


def test_one_workdir_for_two(finished, tmp_path):
    first, second, _ = runs(finished, tmp_path)
    with pytest.raises(ValueError, match="a workdir each"):
        loop.train_together([first, (second[0], first[1])])
    with pytest.raises(ValueError, match="needs students, got none"):
        loop.train_together([])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 10}, "must have one batch_size, got 20 and 10"),
        ({"data__pad": 2}, "must have one data.pad, got 0 and 2"),
        ({"data__order_seed": 6}, "must have one data.order_seed, got 5 and 6"),
        ({"teacher__checkpoint": ""}, "must have one finished teacher"),
    ],
)
def test_what_cannot_share_a_program(finished, tmp_path, changes, message):
    first, second, _ = runs(finished, tmp_path)
    other = small_run.with_teacher(finished, data__order_seed=5).copy_and_resolve_references()
    other.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    with pytest.raises(ValueError, match=message):
        loop.train_together([first, second, (other, tmp_path / "other")])
    assert not tmp_path.exists() or not any(tmp_path.iterdir())


def test_seeds_of_two_orders_cannot_share_a_program(finished, tmp_path):
    configs = [small_run.config(method="none", seed=seed) for seed in (0, 1)]
    with pytest.raises(ValueError, match=r"seeds 0, 1: set data.order_seed=0"):
        loop.train_together([(c, tmp_path / str(c.seed)) for c in configs])


def test_many_devices_together(finished):
    # Four devices against one, synchronised: the groups' losses are global ones.
    chosen = tuple(
        each._replace(
            objective=Objective(
                each.objective.student.clone(bn_axis_name=parallel.AXIS_NAME),
                each.objective.teacher,
                each.objective.points,
                each.objective.distillation,
                each.objective.attention,
            )
        )
        for each in learners()[:3]
    )
    teacher = tiny.teacher_variables(chosen[1].objective)
    # On the host: the step takes the buffers that it is given.
    states = jax.device_get(tuple(tiny.create(each.objective) for each in chosen))
    results = []
    for count in (1, 4):
        devices = tuple(jax.local_devices()[:count])
        mapped = parallel.map_train(
            functools.partial(
                step.train_together,
                learners=chosen,
                prepare=tiny.prepare,
                axis_name=parallel.AXIS_NAME,
            ),
            devices,
        )
        arguments = parallel.replicate((states, teacher, KEY), devices)
        results.append(jax.device_get(mapped(*arguments, parallel.shard(tiny.batch(), count))))
    assert tiny.largest_deviation(results[1][0], results[0][0]) < 1e-5
