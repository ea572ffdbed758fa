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
        (options.at_least_or(1, 0), (0, 1, 2), (-1, 0.5, INFINITY, "1", None)),
        (options.one_of("sum", "max"), ("sum", "max"), ("summ", "", None, 1)),
        (options.increasing, ((), (1,), (1, 2, 9)), ((0,), (2, 2), (3, 1), (1.5,), ("1",), 3)),
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
        with pytest.raises(
            UserError, match=r"^part\.value must be .*, got .*: set it with --config"
        ):
            options.check(Section(value), "part")


@dataclasses.dataclass(frozen=True)
class Section:
    """One field with a rule, one without, one that is not an option."""

    rate: float = options.option(0.1, "Learning rate.", options.at_least(0))
    name: str = options.option("any", "Name.")
    plain: int = 3


def test_option_is_a_field_with_default_and_meaning():
    fields = {field.name: field for field in dataclasses.fields(Section)}
    assert Section() == Section(rate=0.1, name="any")
    assert fields["rate"].metadata["meaning"] == "Learning rate."
    assert fields["name"].metadata["rule"] is None


def test_check_of_fields_without_rule_accepts_any_value():
    options.check(Section(name="", plain=-1))


def test_check_names_the_key_the_rule_and_the_value():
    with pytest.raises(UserError) as error:
        options.check(Section(rate=-2.0), "optimizer")
    assert str(error.value) == (
        "optimizer.rate must be at least 0, got -2.0: set it with --config.optimizer.rate=..."
    )
    with pytest.raises(UserError, match=r"^rate must be at least 0, got -2.0: .*--config\.rate="):
        options.check(Section(rate=-2.0))
