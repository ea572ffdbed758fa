"""The config: every key's rule, default and meaning, and the conversion into settings."""

import dataclasses

import pytest
import small_run

from at_jax.errors import UserError
from at_jax.terms import TERMS, Distillation
from at_jax.training import config as configs
from at_jax.training.settings import SECTIONS, Settings, term_options

NAN, INF = float("nan"), float("inf")
SEED = 2**32 - 1
KEYS = configs.flatten(configs.default_config().to_dict())


def fields():
    """Dotted key -> dataclass field of its default, meaning and rule."""
    top = [f for f in dataclasses.fields(Settings) if f.default is not dataclasses.MISSING]
    found = {field.name: field for field in top}
    for name, section in SECTIONS.items():
        found |= {f"{name}.{field.name}": field for field in dataclasses.fields(section)}
    for name, term in TERMS.items():
        found |= {f"{name}.{key}": field for key, field in term_options(term).items()}
    return found


FIELDS = fields()
NOT_NEGATIVE = ((0.0, 1e9), (-1e-9, NAN, INF))
POSITIVE = ((1e-9, 1e9), (0.0, -1.0, NAN, INF))
COUNT = ((0, 10**6), (-1,))
FROM_ONE = ((1, 10**6), (0,))
EPOCHS = (((), (1,), (1, 2, 9)), ((0, 2), (3, 2), (2, 2), (1.5,)))

# Key -> (values at the edge that are accepted, values beyond it that are not).
BOUNDARIES = {
    "compare": (((), ("none", "at+kd")), ((1,), (None,))),
    "seed": ((0, SEED), (-1, SEED + 1)),
    "dtype": (("float32", "bfloat16"), ("float16", "")),
    "epochs": FROM_ONE,
    "batch_size": FROM_ONE,
    "accumulation": FROM_ONE,
    "teacher.epochs": COUNT,
    "teacher.drop_epochs": EPOCHS,
    "teacher.train_examples": COUNT,
    "data.image_size": COUNT,
    "data.memory_limit_mb": COUNT,
    "data.train_examples": COUNT,
    "data.validation_examples": COUNT,
    "data.split_seed": COUNT,
    "data.order_seed": ((-1, SEED), (-2, SEED + 1)),
    "data.mean": (((-1e9,), (0,)), (("a",), (NAN,), (INF,))),
    "data.std": (((1e-9,),), ((0.0,), (NAN,), ("a",))),
    "data.pad": COUNT,
    "optimizer.name": (("sgd", "adamw", "lamb"), ("adam",)),
    "optimizer.learning_rate": NOT_NEGATIVE,
    "optimizer.schedule": (("steps", "cosine", "one_cycle", "constant"), ("linear",)),
    "optimizer.warmup_epochs": NOT_NEGATIVE,
    "optimizer.drop_epochs": EPOCHS,
    "optimizer.drop_factor": POSITIVE,
    "optimizer.momentum": ((0.0, 0.999), (-1e-9, 1.0, NAN)),
    "optimizer.weight_decay": NOT_NEGATIVE,
    "optimizer.decay_mask": (("all", "kernels"), ("biases",)),
    "optimizer.clip_norm": NOT_NEGATIVE,
    "transfer.points": (((), ("a<-b",)), ((1,),)),
    "transfer.begin_epoch": COUNT,
    "transfer.decay": (("constant", "linear", "cosine", "steps"), ("exp",)),
    "transfer.decay_epochs": EPOCHS,
    "transfer.decay_factor": POSITIVE,
    "runtime.devices": COUNT,
    "runtime.steps_per_dispatch": ((0, 16), (-1, 17)),
    "runtime.checkpoint_every": FROM_ONE,
    "kd.temperature": POSITIVE,
    "kd.alpha": ((0.0, 1.0), (-1e-9, 1.0 + 1e-9, NAN)),
    "at.kind": (("sum", "max", "channel"), ("mean",)),
    "at.p": ((1.0, 1e9), (1.0 - 1e-9, NAN, INF)),
    "at.convention": (("code", "paper"), ("torch",)),
    **{f"{name}.beta": NOT_NEGATIVE for name in TERMS if name != "kd"},
    **{f"{name}.begin_epoch": ((-1, 0, 10**6), (-2,)) for name in TERMS},
    **{f"{name}.temperature": POSITIVE for name in ("gradient_at", "flip_symmetry", "min_l2")},
}
# Keys that must change together.
COMPANIONS = {
    "data.mean": {"data.std": (1.0,)},
    "data.std": {"data.mean": (1.0,)},
    "transfer.decay": {"transfer.decay_epochs": (1,)},
}


def settings_with(changes):
    config = configs.default_config()
    config.update_from_flattened_dict(changes)
    return configs.settings_of(config)


def read(settings, key):
    """Value of a dotted key in the settings."""
    section, _, name = key.rpartition(".")
    if section not in TERMS:
        return getattr(getattr(settings, section) if section else settings, name)
    term = settings.terms[section]
    return getattr(term if name in ("beta", "begin_epoch") else term.term, name)


def test_every_rule_has_its_boundaries_here():
    assert {key for key, field in FIELDS.items() if field.metadata["rule"]} == set(BOUNDARIES)


@pytest.mark.parametrize("key", BOUNDARIES)
def test_settings_of_values_at_the_boundaries_of_a_rule(key):
    accepted, rejected = BOUNDARIES[key]
    companions = COMPANIONS.get(key, {})
    for value in accepted:
        found = read(settings_with({key: value} | companions), key)
        assert found == (0 if value == -1 and key.endswith("begin_epoch") else value)
    rule = FIELDS[key].metadata["rule"].text
    for value in rejected:
        with pytest.raises(UserError) as raised:
            settings_with({key: value} | companions)
        assert f"{key} must be {rule}, got {value!r}" in str(raised.value)
        assert f"set it with --config.{key}=" in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "att"}, "method must be none, one of kd, at, .* got 'att'"),
        ({"method": "at+at"}, "method must name each term once"),
        ({"data.mean": (1.0,)}, "data.mean and data.std must have one number a channel each"),
        ({"transfer.decay": "steps"}, "needs the epochs of its steps, got none"),
        (
            {"optimizer.nesterov": True, "optimizer.name": "adamw"},
            "optimizer.nesterov is for sgd, got optimizer.name='adamw'",
        ),
    ],
)
def test_settings_of_values_that_do_not_fit_together_raises_usererror(changes, message):
    with pytest.raises(UserError, match=message):
        settings_with(changes)


def test_settings_of_a_config_with_an_unknown_or_missing_key_raises_usererror():
    config = configs.default_config()
    config.optimizer.learning_rat = 0.1
    with pytest.raises(UserError, match="learning_rat': did you mean optimizer.learning_rate"):
        configs.settings_of(config)
    config = configs.default_config()
    del config.at.beta, config.epochs
    with pytest.raises(UserError, match="the config lacks at.beta, epochs: start from"):
        configs.settings_of(config)


def test_config_with_a_value_of_another_type_raises_typeerror():
    for changes in ({"min_l2__squared": 2}, {"epochs": 1.5}, {"student": 3}):
        with pytest.raises(TypeError):
            small_run.config(**changes)


def test_settings_of_the_defaults_hold_every_value():
    settings = configs.settings_of(configs.default_config())
    for key, value in KEYS.items():
        found = read(settings, key)
        found = list(found) if isinstance(found, tuple) else found
        assert found == (0 if key in {f"{name}.begin_epoch" for name in TERMS} else value), key
    assert settings.terms["kd"].beta is None
    assert settings.terms["kd"].term == Distillation()
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.optimizer.learning_rate = 1.0


def test_settings_of_terms_hold_their_options_weight_and_first_epoch():
    settings = settings_with(
        {
            "kd.alpha": 0.5,
            "at.beta": 3.0,
            "at.p": 4.0,
            "transfer.begin_epoch": 5,
            "min_l2.begin_epoch": 0,
        }
    )
    kd, at, min_l2 = (settings.terms[name] for name in ("kd", "at", "min_l2"))
    assert (kd.term.alpha, kd.beta, kd.begin_epoch) == (0.5, None, 5)
    assert (at.term.p, at.beta, at.begin_epoch) == (4.0, 3.0, 5)
    assert min_l2.begin_epoch == 0


def test_default_config_has_a_field_with_a_meaning_for_every_key():
    assert set(KEYS) == set(FIELDS)
    for key, field in FIELDS.items():
        meaning = field.metadata["meaning"]
        assert len(meaning) > 10 and meaning.endswith("."), key


def test_help_text_shows_type_default_rule_and_meaning_of_every_key():
    text = configs.help_text()
    lines = text.splitlines()
    assert sum(line.startswith("  ") and not line.startswith("   ") for line in lines) == len(KEYS)
    for key, field in FIELDS.items():
        rule = field.metadata["rule"]
        expected = f", {rule.text}" if rule else ""
        kind = type(field.default).__name__
        head = lines.index(f"  {key}: {kind}{expected}; default {field.default!r}")
        assert lines[head + 1].strip() == field.metadata["meaning"]


def test_teacher_config_is_that_of_its_network_with_labels_only():
    config = small_run.config(teacher__epochs=7, teacher__drop_epochs=(3,))
    teacher = configs.teacher_config(config)
    assert (teacher.student, teacher.method) == ("wrn_10_0.5", "none")
    assert (teacher.epochs, teacher.optimizer.drop_epochs) == (7, (3,))
    assert teacher.data.train_examples == 60
    assert (config.student, config.method) == ("wrn_10_0.25", "at")  # unchanged
    as_the_student = configs.teacher_config(small_run.config(teacher__epochs=0))
    assert (as_the_student.epochs, as_the_student.optimizer.drop_epochs) == (2, (1,))


def test_order_seed_is_the_run_s_seed_unless_it_is_set():
    assert configs.order_seed(settings_with({"seed": 3})) == 3
    assert configs.order_seed(settings_with({"seed": 3, "data.order_seed": 0})) == 0


def test_flatten_joins_keys_with_dots_and_makes_tuples_lists():
    nested = {"a": {"b": {"c": (1, (2,))}, "d": "x"}, "e": None, "f": {}}
    assert configs.flatten(nested) == {"a.b.c": [1, (2,)], "a.d": "x", "e": None}
