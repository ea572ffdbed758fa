"""Rules of settings at their boundaries, and the check of a whole section."""

import dataclasses

import pytest

from at_jax import options
from at_jax.errors import UserError

INFINITY, NAN = float("inf"), float("nan")


@pytest.mark.parametrize(
    ("rule", "accepted", "refused"),
    [
        (options.at_least(1), (1, 1.0, 5), (0, 0.999, -1, INFINITY, NAN, True, "2", None)),
        (options.above(0), (1e-9, 1), (0, -1e-9, INFINITY, NAN, False, "1", None)),
        (options.between(0, 1), (0, 0.5, 1), (-1e-9, 1 + 1e-9, NAN, True, "0.5")),
        (
            options.or_special(0, options.between(1, 3)),
            (0, 1, 3),
            (-1, 0.5, 4, INFINITY, "1", None),
        ),
        (options.between(0, 1e300), (0, 1e300), (10**400, -(10**400), INFINITY)),
        (options.one_of("sum", "max"), ("sum", "max"), ("summ", "", None, 1)),
        (
            options.EPOCH_LIST,
            ((), (1,), (1, 2, options.EPOCHS)),
            ((0,), (2, 2), (3, 1), (1.5,), ("1",), 3, (options.EPOCHS + 1,)),
        ),
        (options.items(options.above(0), "positive"), ((), (1, 2)), ((1, 0), (-1,), 1)),
    ],
)
def test_rules_at_their_boundaries(rule, accepted, refused):
    @dataclasses.dataclass(frozen=True)
    class Section:
        value: object = options.option(None, "A value.", rule)

    for value in accepted:
        options.check(Section(value), "part")
    for value in refused:
        with pytest.raises(UserError, match=r"^part\.value must be .*, got .*: for example value="):
            options.check(Section(value), "part")


@dataclasses.dataclass(frozen=True)
class Section:
    """Fields with a rule, without one, and that are not options."""

    rate: float = options.option(0.1, "Learning rate.", options.at_least(0))
    name: str = options.option("any", "Name.")
    plain: int = 3
    several: tuple = ()
    switch: bool = False
    scale: float = 1  # a whole number is accepted


def test_option_is_a_field_with_default_and_meaning():
    fields = {field.name: field for field in dataclasses.fields(Section)}
    assert Section() == Section(rate=0.1, name="any")
    assert fields["rate"].metadata["meaning"] == "Learning rate."
    assert fields["name"].metadata["rule"] is None


def test_check_of_fields_without_rule_accepts_any_value_of_their_type():
    options.check(Section(name="", plain=-1))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("plain", 1.5, "plain must be a whole number, got 1.5"),
        ("plain", True, "plain must be a whole number, got True"),
        ("name", 2, "name must be a string, got 2"),
        ("name", None, "name must be a string, got None"),
        ("several", "ab", "several must be a tuple, got 'ab'"),
        ("several", 3, "several must be a tuple, got 3"),
        ("switch", 2, "switch must be True or False, got 2"),
        ("switch", "False", "switch must be True or False, got 'False'"),
        ("scale", "1", "scale must be a finite number, got '1'"),
        ("scale", INFINITY, "scale must be a finite number, got inf"),
    ],
)
def test_check_of_a_value_of_another_type_raises_usererror(field, value, message):
    with pytest.raises(UserError, match=f"^{message}: for example {field}="):
        options.check(Section(**{field: value}))


def test_check_names_the_key_the_rule_and_the_value():
    with pytest.raises(UserError) as error:
        options.check(Section(rate=-2.0), "optimizer")
    assert str(error.value) == ("optimizer.rate must be at least 0, got -2.0: for example rate=0.1")
    with pytest.raises(
        UserError, match=r"^rate must be at least 0, got -2.0: for example rate=0.1"
    ):
        options.check(Section(rate=-2.0))


def test_types_are_checked_under_postponed_annotations():
    namespace = {}
    code = """
from __future__ import annotations
import dataclasses
from at_jax.options import option

@dataclasses.dataclass(frozen=True)
class Section:
    scale: float = 1.0
    switch: bool = option(True, "A switch.")
"""
    exec(code, namespace)
    section = namespace["Section"]
    options.check(section())
    for field, value in (("scale", "big"), ("switch", 3)):
        with pytest.raises(UserError, match=f"{field} must be .*, got"):
            options.check(section(**{field: value}))
