"""The config: every key's rule, default and meaning, and the conversion into settings."""

import dataclasses

import pytest
import small_run

from at_jax import loop
from at_jax.errors import UserError
from at_jax.terms import TERMS, Distillation, Term
from at_jax.training import config as configs
from at_jax.training.settings import combinations, key_fields

NAN, INF = float("nan"), float("inf")
SEED = 2**32 - 1
KEYS = configs.flatten(configs.default_config().to_dict())


def fields():
    """Dotted key -> dataclass field of its default, meaning and rule."""
    return {
        f"{section}.{key}".removeprefix("."): field
        for section, fields in key_fields().items()
        for key, field in fields.items()
    }


FIELDS = fields()
EPOCHS = (((), (1,), (1, 2, 100_000)), ((0, 2), (3, 2), (2, 2), (1.5,), (100_001,), (2**70,)))
EPOCH = ((0, 100_000), (-1, 100_001, 2**70))
FROM_ONE = ((1, 100_000), (0, 100_001, 10**400))
IMAGES = ((0, 2**31 - 1), (-1, 2**31))
FACTOR = ((1e-6, 1.0), (0.0, 1e-7, 1.1, NAN, INF))
TEMPERATURE = ((0.01, 100.0), (0.0, 1e-30, 101.0, 1e20, NAN, INF))
BETA = ((0.0, 1e8), (-1e-9, 1.1e8, 1e30, NAN, INF))
MEAN = (((0.0,), (255,)), (("a",), (NAN,), (INF,), (-1.0,), (1e30,)))
STD = (((0.1,), (255.0,)), ((0.0,), (NAN,), ("a",), (1e-30,), (1e30,)))

# Key -> (values at the edge that are accepted, values beyond it that are not).
BOUNDARIES = {
    "compare": (((), ("none", "at+kd")), ((1,), (None,))),
    "seed": ((0, SEED), (-1, SEED + 1)),
    "dtype": (("float32", "bfloat16"), ("float16", "")),
    "epochs": FROM_ONE,
    "batch_size": ((1, 2**20), (0, 2**20 + 1, 2**31)),
    "accumulation": ((1, 2**20), (0, 2**20 + 1)),
    "teacher.epochs": EPOCH,
    "teacher.drop_epochs": EPOCHS,
    "teacher.train_examples": (*IMAGES[:1], (-1, 2**70)),
    "teacher.image_size": ((0, 4096), (-1, 4097)),
    "teacher.mean": MEAN,
    "teacher.std": STD,
    "init.freeze": (((), ("conv1", "stage1")), ((1,), ("",))),
    "data.source": (("digits", "tfds", "folder"), ("digit", "")),
    "data.image_size": ((0, 256), (-1, 4097, 2**31, 2**70)),
    "data.resize": ((0, 8192), (-1, 8193)),
    "data.workers": ((-1, 0, 256), (-2, 257)),
    "data.test_fraction": ((0.001, 0.999), (0.0, 1.0, NAN)),
    "data.augmentation": (("crop", "random_resized_crop"), ("none", "")),
    "data.color_jitter": ((0.0, 1.0), (-0.1, 1.1, NAN)),
    "data.memory_limit_mb": ((0, 2**30), (-1, 2**30 + 1)),
    "data.train_examples": IMAGES,
    "data.epoch_examples": IMAGES,
    "data.validation_examples": IMAGES,
    "data.split_seed": ((0, SEED), (-1, SEED + 1)),
    "data.order_seed": ((-1, SEED), (-2, SEED + 1)),
    "data.mean": MEAN,
    "data.std": STD,
    "data.pad": ((0, 1024), (-1, 1025)),
    "data.pad_mode": (("reflect", "zero"), ("edge", "")),
    "optimizer.name": (("sgd", "adamw", "lamb"), ("adam",)),
    "optimizer.learning_rate": ((0.0, 100.0), (-1e-9, 1e10, NAN, INF)),
    "optimizer.schedule": (("steps", "cosine", "one_cycle", "constant"), ("linear",)),
    "optimizer.warmup_epochs": ((0.0, 1e5), (-1e-9, 1.1e5, NAN, INF)),
    "optimizer.drop_epochs": EPOCHS,
    "optimizer.drop_factor": FACTOR,
    "optimizer.momentum": ((0.0, 0.9999), (-1e-9, 1.0, NAN)),
    "optimizer.weight_decay": ((0.0, 10.0), (-1e-9, 11.0, NAN, INF)),
    "optimizer.decay_mask": (("all", "kernels"), ("biases",)),
    "optimizer.clip_norm": ((0.0, 1e-6, 1e6), (-1e-9, 1e-7, 1e7, NAN, INF)),
    "transfer.points": (((), ("a<-b",)), ((1,),)),
    "transfer.begin_epoch": EPOCH,
    "transfer.decay": (("constant", "linear", "cosine", "steps"), ("exp",)),
    "transfer.decay_epochs": EPOCHS,
    "transfer.decay_factor": FACTOR,
    "runtime.devices": ((0, 4096), (-1, 4097)),
    "runtime.steps_per_dispatch": ((0, 16), (-1, 17)),
    "runtime.checkpoint_every": FROM_ONE,
    "kd.temperature": TEMPERATURE,
    "kd.alpha": ((0.0, 1.0), (-1e-9, 1.0 + 1e-9, NAN)),
    "at.kind": (("sum", "max", "channel"), ("mean",)),
    "at.p": ((1.0, 16.0), (1.0 - 1e-9, 64.0, NAN, INF)),
    "at.convention": (("code", "paper"), ("torch",)),
    "at.align": (("resize", "pool"), ("crop",)),
    **{f"{name}.beta": BETA for name in TERMS if name != "kd"},
    **{f"{name}.begin_epoch": ((-1, 0, 100_000), (-2, 100_001)) for name in TERMS},
    **{f"{name}.temperature": TEMPERATURE for name in ("gradient_at", "flip_symmetry", "min_l2")},
}
# Keys that must change together.
COMPANIONS = {
    "data.mean": {"data.std": (1.0,)},
    "data.std": {"data.mean": (1.0,)},
    "teacher.mean": {"teacher.std": (1.0,)},
    "teacher.std": {"teacher.mean": (1.0,)},
    "transfer.decay": {"transfer.decay_epochs": (1,)},
    "data.resize": {"data.source": "folder", "data.image_size": 1},
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
        assert f"{key} must be {rule}, got {value!r}"[:200] in str(raised.value)
        assert f"set it with --config.{key}=" in str(raised.value)


def test_every_number_has_bounds():
    for key, field in FIELDS.items():
        if field.type in (int, float) or type(field.default) in (int, float):
            with pytest.raises(UserError, match=key):
                settings_with({key: type(field.default)(10**15)})
            with pytest.raises(UserError, match=key):
                settings_with({key: type(field.default)(-(10**15))})


@pytest.mark.parametrize("key", [key for key, value in KEYS.items() if isinstance(value, str)])
@pytest.mark.parametrize("value", ["a\0b", "a\udfffb"])
def test_settings_of_text_that_no_file_can_hold_names_the_key(key, value):
    with pytest.raises(UserError, match=key):
        settings_with({key: value})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "att"}, "method must be none, one of kd, at, .* got 'att'"),
        ({"method": "at+at"}, "method must name each term once"),
        ({"method": ""}, "method must be none, .* got ''"),
        ({"compare": ("att",)}, "each method of compare must be none, .* got 'att'"),
        ({"student": ""}, "student='': unknown network '': choose one of wrn_DEPTH_WIDTH"),
        ({"student": "wrn_\uff11\uff10_1"}, "student='wrn_..?_1': unknown network"),
        ({"student": "wrn_10_" + "9" * 5000}, "student='wrn_10_9+': unknown network"),
        ({"student": "wrn_10_1000000"}, "width of a network must be at most 1000, got 1000000"),
        (
            {"teacher.model": "wrn_100006_1"},
            "teacher.model='wrn_100006_1': the depth .* at most 250",
        ),
        (
            {"teacher.model": "wrn_11_1", "teacher.checkpoint": "runs/a"},
            r"teacher.model='wrn_11_1': .* must be 6n\+4",
        ),
        ({"data.image_size": 257}, "data.image_size must be at most 256 for the digits.* got 257"),
        ({"data.resize": 256}, "data.resize=256 .* got data.image_size=0 and data.source='digits'"),
        (
            {"data.resize": 200, "data.image_size": 224, "data.source": "folder"},
            "data.resize=200 must be at least data.image_size, .* got data.image_size=224",
        ),
        ({"data.mean": (1.0,)}, "data.mean and data.std must each have one number per channel"),
        (
            {"teacher.std": (1.0,)},
            "teacher.mean and teacher.std must each have one number per channel",
        ),
        (
            {"teacher.weights": "a.pt", "teacher.checkpoint": "runs/a"},
            "one teacher, got teacher.checkpoint='runs/a' and teacher.weights='a.pt'",
        ),
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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"data.mean": (0.485, 0.456, 0.406), "data.std": (0.229, 0.224, 0.225)},
            r'multiply them by 255, --config.data.mean="\(123.67, 116.28, 103.53\)" --config.data.std=',
        ),
        ({"teacher.mean": (0.5,), "teacher.std": (0.5,)}, "teacher.std are in 0..255, got"),
    ],
)
def test_statistics_of_pixels_in_unit_range_are_refused_in_new_runs_only(
    tmp_path, changes, message
):
    config = small_run.config(**{key.replace(".", "__"): value for key, value in changes.items()})
    settings = configs.settings_of(config)  # those of an earlier run can be read
    with pytest.raises(UserError, match=message):
        combinations.check_scale(settings)
    with pytest.raises(UserError, match=message):
        loop.train_and_evaluate(config, tmp_path)


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


def test_help_text_with_a_plain_field_of_a_term_shows_its_type_and_default(monkeypatch):
    @dataclasses.dataclass(frozen=True)
    class Plain(Term):
        name = "plain"
        scale: float = 2.0

    monkeypatch.setitem(TERMS, "plain", Plain)
    assert configs.help_text().endswith("\n  plain.scale: float; default 2.0\n")


def test_teacher_config_is_that_of_its_network_with_labels_only():
    config = small_run.config(
        teacher__epochs=7, teacher__drop_epochs=(3,), data__epoch_examples=128
    )
    teacher = configs.teacher_config(config)
    assert (teacher.student, teacher.method) == ("wrn_10_0.5", "none")
    assert (teacher.epochs, teacher.optimizer.drop_epochs) == (7, (3,))
    assert (teacher.data.train_examples, teacher.data.epoch_examples) == (60, 0)
    assert (config.student, config.method) == ("wrn_10_0.25", "at")  # unchanged
    as_the_student = configs.teacher_config(small_run.config(teacher__epochs=0))
    assert (as_the_student.epochs, as_the_student.optimizer.drop_epochs) == (2, (1,))


def test_order_seed_is_the_run_s_seed_unless_it_is_set():
    assert configs.order_seed(settings_with({"seed": 3})) == 3
    assert configs.order_seed(settings_with({"seed": 3, "data.order_seed": 0})) == 0


def test_flatten_joins_keys_with_dots_and_makes_tuples_lists():
    nested = {"a": {"b": {"c": (1, (2,))}, "d": "x"}, "e": None, "f": {}}
    assert configs.flatten(nested) == {"a.b.c": [1, (2,)], "a.d": "x", "e": None}
