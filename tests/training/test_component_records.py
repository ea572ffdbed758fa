"""Records of modules, and texts of optimizers and augmentations, which a resumed run compares."""

import dataclasses
import functools
import json
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from at_jax.errors import UserError
from at_jax.terms import TERMS
from at_jax.training.components import imports
from at_jax.training.components.component_records import from_record, record, text_of
from at_jax.training.files import component_changes


@dataclasses.dataclass(frozen=True)
class Darken:
    """An augmentation with an option."""

    factor: float = 0.5

    def __call__(self, key, image):
        return image * self.factor


def partial(**arguments):
    return functools.partial(optax.adam, **arguments)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (partial(b1=0.8), partial(b1=0.7)),
        (partial(b1=np.float32(0.8)), partial(b1=np.float32(0.7))),
        (partial(b1=jnp.asarray(0.8)), partial(b1=jnp.asarray(0.7))),
        (functools.partial(partial(b1=0.8), b2=0.9), functools.partial(partial(b1=0.8), b2=0.8)),
        (partial(mask=Darken(0.1)), partial(mask=Darken(0.2))),
        (Darken(0.1), Darken(0.2)),
    ],
)
def test_text_of_other_arguments_differs(first, second):
    assert text_of(first) != text_of(second)


class Nested(nn.Module):
    """A network with fields that JSON changes."""

    sizes: Any = ((1, 2),)
    names: Any = None

    def __call__(self, images, train=False):
        return images


def test_module_with_nested_tuples_is_built_from_its_record():
    module = Nested(sizes=((5, 6), (7, (8,))), names={"a": (1,)})
    recorded = json.loads(json.dumps(record(module)))
    assert from_record(recorded, f"{__name__}:Nested", "run") == module
    assert hash(from_record(record(Nested()), f"{__name__}:Nested", "run")) == hash(Nested())


def test_field_that_json_cannot_restore_is_not_recorded():
    recorded = record(Nested(names={1: "a"}))
    assert recorded["unrecorded"] == ["names"] and "names" not in recorded["fields"]
    with pytest.raises(UserError, match=r"not recorded \(names\)"):
        from_record(recorded, f"{__name__}:Nested", "run")


def test_text_of_is_the_same_in_every_process():
    assert text_of(Darken()) == f"{__name__}:Darken(factor=0.5)"
    assert text_of(partial(mask=optax.sgd)).endswith(f"(mask={text_of(optax.sgd)})")
    assert " at 0x" not in text_of(partial(mask=lambda x: x))
    assert text_of(Darken) == f"{__name__}:Darken"


def test_class_in_place_of_an_instance_raises_user_error():
    with pytest.raises(UserError, match=r"module= must be an instance .*: pass an instance, Dense"):
        from_record({}, nn.Dense, "run")


def term(weight, scale=1.0, kind="terms:Own"):
    fields = {"scale": scale}
    return {
        "name": "own",
        "weight": weight,
        "class": kind,
        "fields": fields,
        "unrecorded": [],
    }


def of_library(weight):
    return {**term(weight, kind="at_jax.terms.activations:AttentionTransfer"), "name": "at"}


@pytest.mark.parametrize(
    ("before", "now", "message"),
    [
        (term(3.0), term(0.5), r"\(terms:Own\(weight=3.0\)\), got \(terms:Own\(weight=0.5\)\)"),
        (term(7.0), term(None), r"\(terms:Own\(weight=7.0\)\), got \(terms:Own\(weight=None\)\)"),
        # None is the weight in the config section of the term.
        (of_library(7.0), of_library(None), r"\(.*\(weight=7.0\)\), got \(.*\(weight=None\)\)"),
        (of_library(None), of_library(7.0), r"\(.*\(weight=None\)\), got \(.*\(weight=7.0\)\)"),
        (term(None, 2.0), term(0.5), r"\(terms:Own\(scale=2.0\)\), got \(terms:Own\(scale=1.0\)\)"),
    ],
)
def test_other_values_of_a_component_are_named(before, now, message, tmp_path):
    with pytest.raises(UserError, match=f"another terms=, {message}: pass the same"):
        component_changes.check(tmp_path, {"terms": [before]}, {"terms": [now]})


def test_default_weight_that_an_older_version_did_not_record_is_accepted(tmp_path):
    component_changes.check(tmp_path, {"terms": [term(None)]}, {"terms": [term(0.5)]})


def test_import_of_a_package_may_add_terms(tmp_path, monkeypatch):
    (tmp_path / "with_own_term.py").write_text(
        "from at_jax.terms import TERMS, AttentionTransfer\n"
        "class Own(AttentionTransfer):\n    name = 'own'\n"
        "TERMS['own'] = Own\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    imports.packages(None)
    try:
        imports.packages("with_own_term:Own")
        assert "own" in TERMS
    finally:
        TERMS.pop("own", None)
    # It is no network.
    with pytest.raises(UserError, match="name this class as well"):
        from_record({"class": "nets:Net"}, "with_own_term:Own", "run")
    with pytest.raises(UserError, match="with_own_term has no Net"):
        imports.packages("with_own_term:Own, with_own_term:Net")
