"""One update of several students: they share one pass of the teacher, and nothing else."""

import functools

import flax.linen as nn
import jax
import tiny

from at_jax.objective import Objective
from at_jax.terms import AttentionTransfer, Distillation, GradientTransfer
from at_jax.training import step

KEY = jax.random.key(3)


def test_train_together_with_shared_input_gradients_equals_a_student_alone():
    # The teacher's gradient is computed in the trace of the first student and used in that of the second.
    terms = (GradientTransfer(),)
    objectives = (
        tiny.objective(None, None, *terms),
        tiny.objective(tiny.TinyNet((4, 4)), None, *terms),
    )
    students = tuple(
        step.StudentSpec(o, tiny.sgd(), dict.fromkeys(o.weighted_terms, lambda _: 10.0))
        for o in objectives
    )
    update = functools.partial(
        step.train_together, students=students, prepare=tiny.prepare, accumulation=2
    )
    teacher = tiny.teacher_variables(objectives[0])
    starts = tuple(tiny.create(objective, seed=i) for i, objective in enumerate(objectives))
    states, measured = tiny.jit(update)(starts, teacher, KEY, tiny.batch())
    single = tiny.jit(tiny.bound(objectives[1], accumulation=2))
    alone, expected = single(starts[1], teacher, KEY, tiny.batch())
    assert tiny.largest_deviation(states[1], alone) < 1e-4
    assert tiny.largest_deviation(measured[1], expected) < 1e-4


def test_train_together_with_different_paths_applies_the_teacher_once():
    path = Objective(
        tiny.TinyNet(),
        tiny.TinyNet((5, 6)),
        (AttentionTransfer(),),
        (("late", "conv1"),),
        (),
        ("conv1",),
    )
    objectives = (tiny.objective(None, None, Distillation()), path, Objective(tiny.TinyNet()))
    applied = []

    def note(call, args, kwargs, context):
        if isinstance(context.module, tiny.TinyNet) and context.method_name == "__call__":
            applied.append(context.module.widths)
        return call(*args, **kwargs)

    students = tuple(
        step.StudentSpec(o, tiny.sgd(), dict.fromkeys(o.weighted_terms, lambda _: 1.0))
        for o in objectives
    )
    update = functools.partial(step.train_together, students=students, prepare=tiny.prepare)
    arguments = tuple(map(tiny.create, objectives)), tiny.teacher_variables(path), KEY, tiny.batch()
    with nn.intercept_methods(note):
        _, measured = jax.eval_shape(update, *arguments)
    assert sorted(applied) == [(3, 4)] * 3 + [(5, 6)]
    assert [set(each) for each in measured] == [
        {"loss", "loss/distillation", "error"},
        {"loss", "loss/cross_entropy", "loss/attention", "error"},
        {"loss", "loss/cross_entropy", "error"},
    ]
