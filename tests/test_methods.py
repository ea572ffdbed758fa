"""Methods: their parts, and which of them need a teacher."""

import pytest

from at_jax import methods


def test_methods_are_made_of_parts():
    assert [methods.parts_of(method) for method in methods.METHODS] == [
        (), ("kd",), ("at",), ("f_actt",), ("gradient_at",), ("flip_symmetry",), ("min_l2",),
        ("at", "kd"), ("gradient_at", "kd"),
    ]  # fmt: skip


def test_who_needs_a_teacher():
    alone = ("none", "flip_symmetry", "min_l2", "flip_symmetry+min_l2")
    assert not any(methods.needs_teacher(method) for method in alone)
    others = ("kd", "at", "f_actt", "gradient_at", "min_l2+at", "gradient_at+flip_symmetry")
    assert all(methods.needs_teacher(method) for method in others)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("gradient", "'gradient' is none of kd, at, f_actt, gradient_at, flip_symmetry, min_l2"),
        ("kd+none", "'none' is none of"),
        ("at+", "'' is none of"),
        ("kd+kd", "must name each part once, got 'kd.kd'"),
    ],
)
def test_unknown_parts(method, message):
    with pytest.raises(ValueError, match=message):
        methods.parts_of(method)
