"""User-defined networks in whole runs: as student, as teacher, and opened again."""

import dataclasses
import json
import shutil
import sys

import jax
import jax.numpy as jnp
import own_modules
import pytest
import small_run
from flax import nnx

from at_jax import checkpoint, cli, loop
from at_jax.errors import UserError
from at_jax.terms import Term
from at_jax.training.components import networks


@pytest.mark.parametrize(
    "student",
    [
        own_modules.Dropping(),
        pytest.param(own_modules.Counting(), marks=pytest.mark.slow),
        nnx.bridge.to_linen(own_modules.NnxNet, 4),
    ],
    ids=["dropout", "collections", "nnx"],
)
def test_user_network_trains_resumes_and_evaluates(finished, tmp_path, student):
    points = {"transfer__points": ("only<-group3",)}
    config = small_run.with_teacher(finished, epochs=1, **points)
    loop.train_and_evaluate(config, tmp_path, student=student)
    longer = small_run.with_teacher(finished, epochs=2, **points)
    result = loop.train_and_evaluate(longer, tmp_path, student=student)
    (tmp_path / "whole").mkdir()
    whole = loop.train_and_evaluate(longer, tmp_path / "whole", student=student)
    assert result["test_error"] == whole["test_error"]
    assert small_run.lines_of(tmp_path) == small_run.lines_of(tmp_path / "whole")
    errors = loop.evaluate(longer, tmp_path, student=student)
    assert errors["test_error"] == pytest.approx(result["test_error"])
    if isinstance(student, own_modules.Counting):
        _, variables = checkpoint.load(tmp_path, module=student)
        assert int(variables["counters"]["calls"]) == 6
        assert float(variables["running"]["mean"]) != 0


def test_user_module_trains_and_is_loaded(finished, tmp_path):
    config = small_run.with_teacher(finished, transfer__points=("only<-group3",), epochs=1)
    result = loop.train_and_evaluate(config, tmp_path, student=own_modules.Tapped())
    assert result["parameters"] == 3 * 3 * 1 * 4 + 4 + 4 * 10 + 10
    assert result["student"] == "Tapped"
    assert (
        loop.evaluate(config, tmp_path, student=own_modules.Tapped())["test_error"]
        == result["test_error"]
    )
    assert "loss/attention" in small_run.lines_of(tmp_path)[0]
    module, variables = checkpoint.load(tmp_path, module=own_modules.Tapped())
    assert module.apply(variables, jnp.zeros((1, 16, 16, 1))).shape == (1, 10)


def test_workdir_of_a_user_module_asks_for_it_again(finished, tmp_path):
    config = small_run.with_teacher(finished, method="kd", epochs=1)
    loop.train_and_evaluate(config, tmp_path, student=own_modules.Tapped())
    with pytest.raises(
        UserError, match=r"was started with student=own_modules:Tapped: pass student="
    ):
        loop.train_and_evaluate(config, tmp_path)
    # Named, it is found again.
    result = loop.train_and_evaluate(config, tmp_path, module="own_modules:Tapped")
    assert result["student"] == "Tapped"


def test_user_teacher_gives_the_same_student(finished, tmp_path):
    teacher = checkpoint.load(finished[0] / "teacher")
    loop.train_and_evaluate(small_run.config(), tmp_path, teacher=teacher)
    assert small_run.lines_of(tmp_path) == small_run.lines_of(finished[0])


def test_points_by_submodule_path_are_captured(finished, tmp_path):
    points = ("stem<-group2_block0", "layer<-group3")
    config = small_run.with_teacher(finished, epochs=1, transfer__points=points)
    loop.train_and_evaluate(config, tmp_path, student=own_modules.Untapped())
    assert small_run.lines_of(tmp_path)[0]["loss/attention"] > 0
    wrong = small_run.with_teacher(finished, transfer__points=("nothing<-group3",))
    with pytest.raises(UserError, match="student has no transfer point 'nothing'"):
        loop.train_and_evaluate(wrong, tmp_path / "wrong", student=own_modules.Untapped())


@pytest.mark.slow  # test_pretrained_run.py has other classes too
def test_attention_transfer_between_other_classes_trains(finished, tmp_path):
    module, variables = checkpoint.load(finished[0] / "teacher")
    config = small_run.config(
        epochs=1, data__train_examples=0, data__mean=(0.0,), data__std=(64.0,)
    )
    result = loop.train_and_evaluate(
        config, tmp_path, teacher=(module, variables), dataset=small_run.arrays(classes=3)
    )
    assert result["teacher_test_error"] is None
    assert json.loads((tmp_path / "result.json").read_text())["teacher_test_error"] is None
    for method in ("kd", "gradient_at", "jacobian", "sobolev"):
        other = small_run.config(method=method, data__train_examples=0)
        with pytest.raises(
            UserError, match=f"for {method}, student and teacher must have the same"
        ):
            loop.train_and_evaluate(
                other,
                tmp_path / method,
                teacher=(module, variables),
                dataset=small_run.arrays(classes=3),
            )


def test_run_of_a_user_module_is_a_teacher_when_it_is_named(finished, tmp_path):
    teacher = small_run.config(method="none", epochs=1)
    student = own_modules.Tapped(features=4)
    loop.train_and_evaluate(teacher, tmp_path / "teacher", student=student)
    recorded = small_run.recorded(tmp_path / "teacher")["student"]
    assert recorded == {
        "class": "own_modules:Tapped", "fields": {"classes": 10, "features": 4}, "unrecorded": [],
    }  # fmt: skip
    changes = {
        "teacher__checkpoint": str(tmp_path / "teacher"),
        "transfer__points": ("group3<-only",),
    }
    config = small_run.config(epochs=1, **changes)
    with pytest.raises(
        UserError, match="user-defined module .own_modules:Tapped.: pass it again with --module="
    ):
        loop.train_and_evaluate(config, tmp_path / "student")
    result = loop.train_and_evaluate(config, tmp_path / "student", module="own_modules:Tapped")
    assert result["teacher_test_error"] is not None
    for named in ("own_modules:make_tapped", student):
        assert checkpoint.load(tmp_path / "teacher", module=named)[0] == student
    for named, message in (
        ("own_modules", "must be package:name"),
        ("own_modules:Nothing", "own_modules has no Nothing, its modules are .*: name one of them"),
        ("no_such_package:Net", "cannot be imported"),
    ):
        with pytest.raises(UserError, match=message):
            loop.evaluate(teacher, tmp_path / "teacher", module=named)


def test_config_names_user_networks(tmp_path):
    """Both networks are imported for training; a file of the run alone does not import them."""
    changes = {
        "student": "own_modules:Tapped",
        "teacher__model": "own_modules:make_tapped",
        "transfer__points": ("only<-only",),
        "epochs": 1,
    }
    result = loop.train_and_evaluate(small_run.config(**changes), tmp_path)
    assert result["student"] == "Tapped" and result["teacher_test_error"] is not None
    assert loop.train_and_evaluate(small_run.config(**changes), tmp_path) == result
    with pytest.raises(UserError, match="pass it again with --module=own_modules:Tapped"):
        checkpoint.load(tmp_path)
    with pytest.raises(UserError, match="pass it again with --module=own_modules:Tapped"):
        loop.evaluate(small_run.config(**changes), tmp_path)
    assert checkpoint.load(tmp_path, module="own_modules:Tapped")[0] == own_modules.Tapped()
    # As a finished teacher, its module is that of teacher.model.
    finished = {"teacher__checkpoint": str(tmp_path / "teacher"), "method": "kd"}
    again = loop.train_and_evaluate(small_run.config(**changes, **finished), tmp_path / "kd")
    assert again["teacher_test_error"] == result["teacher_test_error"]


@pytest.mark.parametrize("named", ["own_modules:Typed", "own_modules:make_typed"])
def test_network_that_takes_classes_and_dtype_is_opened_by_its_name(tmp_path, named):
    changes = {
        "student": named,
        "teacher__model": named,
        "transfer__points": ("only<-only",),
        "dtype": "bfloat16",
        "epochs": 1,
    }
    result = loop.train_and_evaluate(small_run.config(**changes), tmp_path)
    assert result["teacher_test_error"] is not None
    module, variables = checkpoint.load(tmp_path, module=named)
    assert (module.num_classes, jnp.dtype(module.dtype)) == (10, jnp.bfloat16)
    assert module.apply(variables, jnp.zeros((1, 16, 16, 1))).dtype == jnp.bfloat16


def test_comparison_runs_keep_a_module_that_only_the_main_run_needs(tapped_run, tmp_path):
    changes = {
        "teacher__checkpoint": str(tapped_run),
        "compare": ("none",),
        "transfer__points": ("group3<-only",),
        "epochs": 1,
    }
    module = "own_modules:Tapped"
    result = loop.train_and_evaluate(small_run.config(**changes), tmp_path, module=module)
    assert result["method"] == "at" and (tmp_path / "none" / "result.json").exists()


def test_files_of_a_run_import_nothing(tmp_path, monkeypatch, finished):
    """The names of networks in config.json, which may come from someone else."""
    (tmp_path / "never_imported.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    run = tmp_path / "run"
    shutil.copytree(finished[0], run)
    config = json.loads((run / "config.json").read_text())
    (tmp_path / "weights.safetensors").write_bytes(b"no weights")
    config["student"] = config["teacher"]["model"] = "never_imported:Net"
    config["teacher"]["weights"] = str(tmp_path / "weights.safetensors")
    config["teacher"]["checkpoint"] = ""
    (run / "config.json").write_text(json.dumps(config))
    for command in (
        ["figures", "maps", "--workdir", str(run), "--out", str(tmp_path / "a.png")],
        ["evaluate", "--workdir", str(run)],
        ["weights", str(run), str(tmp_path / "out.safetensors"), "--to-safetensors"],
    ):
        cli.main(command)
    assert "never_imported" not in sys.modules


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"student": "own_modules:Nothing"},
            "student=own_modules:Nothing: own_modules has no Noth",
        ),
        ({"student": "no_such_package:Net"}, "student=no_such_package:Net cannot be imported"),
        ({"student": ":Net"}, "must be package:name, got ':Net'"),
        (
            {"student": "own_modules:NnxNet"},
            "must be callable with no arguments",
        ),
        ({"student": "at_jax.models:WideResNet"}, "must be callable with num_classes, dtype, got"),
        ({"teacher__model": "own_modules:Nothing"}, "own_modules:Nothing: own_modules has no"),
        ({"student": "builtins:int"}, "builtins:int must be callable with|must be an instance of"),
    ],
)
def test_config_that_names_no_network_raises_before_anything_is_written(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        loop.train_and_evaluate(small_run.config(**changes), tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.parametrize("module", ["own_modules:Tapped", own_modules.Tapped()])
def test_module_of_a_new_run_raises(tmp_path, module):
    with pytest.raises(UserError, match="to train a network of your own, set --config.student="):
        loop.train_and_evaluate(small_run.config(method="none"), tmp_path, module=module)


def test_network_named_by_a_config_takes_the_number_of_classes_and_the_dtype():
    built = networks.build("at_jax.models:EfficientNetLite", 7, "bfloat16")
    assert built.num_classes == 7 and built.dtype == jnp.bfloat16


def test_two_user_networks_are_named_together(finished, tmp_path):
    """One --module names the networks of the teacher's run and of the student's run."""
    teacher, both = tmp_path / "teacher", "own_modules:Tapped, own_modules:Dropping"
    loop.train_and_evaluate(
        small_run.config(method="none", epochs=1), teacher, student=own_modules.Tapped()
    )
    points = {"teacher__checkpoint": str(teacher), "transfer__points": ("only<-only",)}
    config = small_run.config(epochs=1, **points)
    given = {"student": own_modules.Dropping(), "module": "own_modules:Tapped"}
    result = loop.train_and_evaluate(config, tmp_path / "student", **given)
    again = loop.train_and_evaluate(config, tmp_path / "student", module=both)
    assert again == result
    errors = loop.evaluate(config, tmp_path / "student", module=both)
    assert errors["test_error"] == pytest.approx(result["test_error"])
    others = "own_modules:Untapped,own_modules:Counting"
    message = "trained own_modules:Tapped, got --module=.*: name this class as well"
    with pytest.raises(UserError, match=message):
        networks.load_teacher(str(teacher), "float32", others)


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("own_modules:NnxNet", "must be an instance of a linen module, got the NNX module NnxNet"),
        ("own_modules:make_features", "must be callable with no arguments, got TypeError"),
        ("own_modules:Normalized", r"a class with other fields \(.*: name the class that was"),
        ("own_modules:Untapped()", r"own_modules has no Untapped\(\)"),
        ("broken_module:Net", r"cannot be imported \(No module named 'missing_dependency'\)"),
        (".own_modules:Tapped", "must be package:name"),
        (own_modules.Untapped(), "the variables of the run in .* are not those of Untapped"),
        (own_modules.Tapped(features=5), "the variables of the run in .* are not those of Tapped"),
    ],
)
def test_run_opened_with_another_module_raises(tapped_run, tmp_path, monkeypatch, named, message):
    (tmp_path / "broken_module.py").write_text("import missing_dependency")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=message):
        checkpoint.load(tapped_run, module=named)


@pytest.fixture(scope="module")
def tapped_run(tmp_path_factory, compiled_once):
    """Workdir of a run of a user-defined network."""
    workdir = tmp_path_factory.mktemp("tapped")
    config = small_run.config(method="none", epochs=1)
    loop.train_and_evaluate(config, workdir, student=own_modules.Tapped())
    return workdir


def test_teacher_variables_with_activations_are_accepted(tmp_path):
    """A call with every collection mutable returns the sown values among the variables."""
    module = own_modules.Sowing()
    variables = module.init(jax.random.key(0), jnp.zeros((1, 16, 16, 1)), mutable=True)
    assert "intermediates" in variables
    config = small_run.config(epochs=1, transfer__points=("group3<-only",))
    loop.train_and_evaluate(config, tmp_path, teacher=(module, variables))
    assert small_run.lines_of(tmp_path)[0]["loss/attention"] > 0


def test_stochastic_teacher_without_deterministic_raises(finished, tmp_path):
    config = small_run.with_teacher(finished, teacher__stochastic=True)
    with pytest.raises(UserError, match="WideResNet takes no argument 'deterministic'"):
        loop.train_and_evaluate(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@dataclasses.dataclass(frozen=True)
class Gate(Term):
    """A term that passes the teacher's logits to the student's forward pass."""

    name = "gate"

    def forward_inputs(self, teacher):
        return {"gate": jnp.mean(teacher.logits, axis=-1)}

    def values(self, batch, params):
        return jnp.sum(batch.student.logits**2, axis=-1)


def test_run_that_needs_its_teacher_is_not_evaluated_alone(finished, tmp_path):
    config = small_run.with_teacher(finished, epochs=1)
    loop.train_and_evaluate(config, tmp_path, student=own_modules.Gated(), terms=(Gate(),))
    message = r"trained with inputs from its teacher \(forward_inputs of a term\), got none"
    with pytest.raises(UserError, match=message):
        loop.evaluate(config, tmp_path, student=own_modules.Gated())
    with pytest.raises(UserError, match=message):
        networks.load_teacher(str(tmp_path), "float32", own_modules.Gated())
    module, variables = checkpoint.load(tmp_path, module=own_modules.Gated())
    images = jnp.zeros((2, 16, 16, 1))
    assert module.apply(variables, images, gate=jnp.ones(2)).shape == (2, 10)
