"""The registry: methods are made of terms, and every term states what its method needs and shows."""

import dataclasses
import json
import re
import types

import numpy as np
import pytest

from at_jax import terms
from at_jax.errors import UserError
from at_jax.terms import TERMS, AttentionTransfer, Batch, MinL2, Term


def test_parts_of_a_method_are_its_terms_in_the_order_of_the_registry():
    assert terms.parts("none") == ()
    assert all(terms.parts(name) == (name,) for name in TERMS)
    assert terms.parts("at+kd") == terms.parts("kd+at") == ("kd", "at")
    assert terms.parts("+".join(reversed(TERMS))) == tuple(TERMS)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (
            "gradient",
            "one of kd, at, f_actt, gradient_at, flip_symmetry, min_l2, jacobian, sobolev, map_gradient,"
            ".* got 'gradient': did you mean gradient_at",
        ),
        ("kd+none", "got 'kd[+]none': replace 'none'"),
        ("none,at", r"""write several methods as a tuple, "\('none','at'\)"$"""),
        ("kd, at", r"""'kd, at': join terms of one loss, kd[+]at, or write .*, "\('kd','at'\)"$"""),
        (("at", "kd"), r"must be a string, got \('at', 'kd'\): join the names of terms, as in 'at"),
        ("at+", "replace ''"),
        ("", "replace ''"),
        ("kd+kd", "must name each term once, got 'kd[+]kd'"),
    ],
)
def test_parts_of_an_unknown_method_raises_usererror(method, message):
    with pytest.raises(UserError, match=message):
        terms.parts(method)


def test_needs_teacher_is_true_if_any_term_compares_with_one():
    alone = ("none", "flip_symmetry", "min_l2", "flip_symmetry+min_l2")
    assert not any(terms.needs_teacher(method) for method in alone)
    others = (
        "kd", "at", "f_actt", "gradient_at", "jacobian", "sobolev", "map_gradient", "min_l2+at",
        "gradient_at+flip_symmetry",
    )  # fmt: skip
    assert all(terms.needs_teacher(method) for method in others)


def test_terms_that_compare_logits_need_equal_classes():
    needing = {name for name, term in TERMS.items() if term.needs_equal_classes}
    assert needing == {"kd", "gradient_at", "jacobian", "sobolev"}


def test_terms_that_compare_activations_say_so():
    comparing = {name: term.compares_taps for name, term in TERMS.items() if term.compares_taps}
    assert comparing == dict.fromkeys(("at", "f_actt", "map_gradient"), "activation")


def test_every_term_is_complete():
    for name, term in TERMS.items():
        assert term.name == name and issubclass(term, Term)
        assert dataclasses.is_dataclass(term) and hash(term()) == hash(term())
        assert all(field.metadata["meaning"] for field in dataclasses.fields(term))
    assert [name for name, term in TERMS.items() if term.beta is None] == ["kd"]
    metrics = [term.metric for term in TERMS.values()]
    assert metrics == [
        "distillation", "attention", "activation", "gradient_at", "flip_symmetry", "min_l2", "jacobian",
        "sobolev", "map_gradient",
    ]  # fmt: skip


def test_titles_and_colors_of_terms_differ():
    methods = ("none", *TERMS)
    assert len({terms.title(method) for method in methods}) == len(methods)
    colors = [terms.color(method) for method in methods]
    assert len(set(colors)) == len(methods)
    assert all(re.fullmatch("#[0-9A-F]{6}", color) for color in colors)


def test_title_and_color_of_a_combination_do_not_depend_on_the_order():
    assert terms.title("none") == "labels only"
    assert terms.title("kd+at") == terms.title("at+kd") == "attention transfer + distillation"
    assert terms.color("kd+at") == terms.color("at+kd") == TERMS["at"].color_combined
    assert terms.color("at+kd") != terms.color("at") != terms.color("kd")
    combined = {terms.color(f"{name}+kd") for name in TERMS if name != "kd"}
    assert len(combined) == len(TERMS) - 1 and terms.color("kd") not in combined
    assert terms.color("gradient_at+kd") not in (terms.color("at+kd"), terms.color("gradient_at"))


def test_title_and_color_of_a_user_defined_term_are_its_name_and_the_default():
    assert terms.title("my_term") == "my_term"
    assert terms.title("my_term+kd") == "my_term + distillation"
    assert terms.color("my_term") == Term.color


def test_term_class_without_a_name_raises_usererror():
    with pytest.raises(UserError, match="term Nameless has no name: set the class attribute name"):

        class Nameless(Term):
            pass


def test_abstract_term_class_needs_no_name():
    class Base(Term, abstract=True):
        pass

    class Named(Base):
        name = "named"

    assert (Named.title, Named.metric) == ("named", "named")


def test_term_subclass_with_a_name_of_its_own_has_a_metric_of_its_own():
    class Other(TERMS["at"]):
        name = "other"

    assert (Other.metric, Other.title, Other.beta) == ("other", "other", 1000.0)
    assert Other().values.__func__ is TERMS["at"].values


def test_subclass_of_a_term_adds_an_option():
    @dataclasses.dataclass(frozen=True)
    class Scaled(AttentionTransfer):
        name = "scaled"
        factor: float = 2.0

        def values(self, batch, params):
            return self.factor * super().values(batch, params)

    view = types.SimpleNamespace(taps={"tap": np.ones((1, 2, 2, 3), np.float32)})
    other = types.SimpleNamespace(taps={"tap": np.arange(12, dtype=np.float32).reshape(1, 2, 2, 3)})
    batch = Batch(None, None, None, view, other, (("tap", "tap"),), None)
    single = AttentionTransfer().values(batch, None)
    assert single > 0
    np.testing.assert_allclose(Scaled().values(batch, None), 2 * single)


def test_term_that_compares_taps_without_a_teacher_raises_usererror():
    with pytest.raises(UserError, match="term own compares taps .* got needs_teacher=False"):

        class Own(Term):
            name = "own"
            compares_taps, needs_teacher = "activation", False


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TERMS["kd"](temperature=0.0), "kd.temperature must be from 0.01 to 100, got 0.0"),
        (lambda: TERMS["at"](kind="mean"), "at.kind must be one of sum, max, channel, got 'mean'"),
        (
            lambda: TERMS["min_l2"](temperature=float("inf")),
            "min_l2.temperature must be from 0.01 to 100",
        ),
    ],
)
def test_term_with_a_bad_option_raises_usererror(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_term_of_numpy_scalars_has_python_numbers():
    term = AttentionTransfer(p=np.int64(2))
    assert term == AttentionTransfer() and hash(term) == hash(AttentionTransfer())
    assert json.dumps(dataclasses.asdict(term)) == json.dumps(
        dataclasses.asdict(AttentionTransfer(p=2))
    )
    assert type(MinL2(temperature=np.float64(4)).temperature) is float
    assert MinL2(squared=np.bool_(True)).squared is True
    with pytest.raises(UserError, match="at.p must be from 1 to 16, got True"):
        AttentionTransfer(p=np.bool_(True))
