"""A workdir belongs to one config and its arguments; metrics survive crashes."""

import json

import numpy as np
import pytest
import small_run

from at_jax.errors import UserError
from at_jax.training.config import flatten
from at_jax.training.files import run_files
from at_jax.training.files.checkpoints import Checkpoints


def claim(workdir, **changes):
    run_files.claim(workdir, small_run.config(**changes).to_dict())


def with_arguments(**arguments):
    return {"config": small_run.config().to_dict(), "arguments": arguments}


def test_claim_with_the_same_config_is_allowed(tmp_path):
    claim(tmp_path)
    claim(tmp_path)
    assert flatten(run_files.read_config(tmp_path)) == flatten(small_run.config().to_dict())
    assert run_files.read_arguments(tmp_path) == {}


def test_claim_with_another_config_names_the_keys(tmp_path):
    claim(tmp_path)
    with pytest.raises(UserError, match=r"at.beta: 50.0 there, 3.0 now, seed: 0 there, 7 now"):
        claim(tmp_path, at__beta=3.0, seed=7)
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == 0


def test_claim_with_another_runtime_is_allowed(tmp_path):
    claim(tmp_path)
    claim(tmp_path, runtime__devices=1)
    claim(tmp_path, data__workers=-1)  # the batches are the same
    claim(tmp_path, data__skip_corrupt=True)  # the images are compared on their own


@pytest.mark.parametrize("decay", ["constant", "steps"])
def test_claim_with_more_epochs_is_allowed(tmp_path, decay):
    claim(tmp_path, transfer__decay=decay)
    claim(tmp_path, transfer__decay=decay, epochs=5)
    assert run_files.read_config(tmp_path)["epochs"] == 5


@pytest.mark.parametrize(
    ("step", "meta", "begun"),
    [
        (None, {}, 0),
        (1, {"steps_per_epoch": 4}, 1),
        (9, {"steps_per_epoch": 4}, 3),
        (12, {"steps_per_epoch": 4}, 3),
        (4, {}, 4),  # of version 0.1
    ],
)
def test_claim_with_fewer_epochs_is_allowed_down_to_those_that_have_begun(
    tmp_path, step, meta, begun
):
    claim(tmp_path, epochs=5)
    if step is not None:
        with Checkpoints(tmp_path) as checkpoints:
            checkpoints.save(step, {"params": {"w": np.zeros(1)}}, meta, None)
    if begun > 1:
        with pytest.raises(UserError, match=f"epochs: 5 there, {begun - 1} now"):
            claim(tmp_path, epochs=begun - 1)
    claim(tmp_path, epochs=max(begun, 1))
    assert run_files.read_config(tmp_path)["epochs"] == max(begun, 1)


def test_claim_with_more_epochs_of_the_teacher_raises(tmp_path):
    claim(tmp_path, teacher__epochs=0)
    (tmp_path / run_files.TEACHER).mkdir()  # its run
    with pytest.raises(UserError, match="epochs: 2 there, 5 now"):
        claim(tmp_path, teacher__epochs=0, epochs=5)
    claim(tmp_path / "named", teacher__epochs=0, teacher__checkpoint="somewhere")
    claim(tmp_path / "named", teacher__epochs=0, teacher__checkpoint="somewhere", epochs=5)


@pytest.mark.parametrize("decay", ["linear", "cosine"])
def test_claim_with_more_epochs_of_a_decay_raises(tmp_path, decay):
    claim(tmp_path, transfer__decay=decay)
    with pytest.raises(UserError, match="epochs: 2 there, 5 now"):
        claim(tmp_path, transfer__decay=decay, epochs=5)


def test_epochs_grow_with_the_teacher_that_was_trained(tmp_path):
    first = {"teacher__epochs": 0, "optimizer__drop_epochs": (1,)}
    claim(tmp_path, **first)
    (tmp_path / "teacher").mkdir()
    message = (
        r"epochs: 2 there, 5 now.*--config.teacher.epochs=2 --config.teacher.drop_epochs=\"\(1,\)\" keep "
        r"that teacher; otherwise use .*--config.init.weights="
    )
    with pytest.raises(UserError, match=message):
        claim(tmp_path, **first, epochs=5)
    with pytest.raises(UserError, match="5 now") as error:  # the decay depends on the length, too
        claim(tmp_path, **first, epochs=5, transfer__decay="cosine")
    assert "keep that teacher" not in str(error.value)
    kept = {"teacher__epochs": 2, "teacher__drop_epochs": (1,), "optimizer__drop_epochs": (1,)}
    with pytest.raises(UserError, match="teacher.epochs: 0 there, 3 now"):
        claim(tmp_path, **(kept | {"teacher__epochs": 3}), epochs=5)
    claim(tmp_path, **kept, epochs=5)
    assert run_files.read_config(tmp_path)["epochs"] == 5


def test_claim_of_an_unusable_workdir_raises(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="not readable as a config"):
        claim(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written .*choose another --workdir"):
        claim(tmp_path / "file" / "run")


def test_metrics_drop_a_torn_line_and_later_steps(tmp_path):
    for step in (3, 6, 9):
        run_files.append_metrics(tmp_path, {"step": step, "loss": float("nan")})
    with open(tmp_path / run_files.METRICS, "a") as file:
        file.write('{"step": 12, "lo')  # killed while writing
    assert [line["step"] for line in run_files.read_metrics(tmp_path)] == [3, 6, 9]
    assert run_files.read_metrics(tmp_path)[0]["loss"] is None
    assert [line["step"] for line in run_files.keep_metrics(tmp_path, 6)] == [3, 6]
    run_files.append_metrics(tmp_path, {"step": 9})
    assert [line["step"] for line in run_files.read_metrics(tmp_path)] == [3, 6, 9]


def test_claim_with_other_arguments_raises(tmp_path):
    run_files.claim(tmp_path, **with_arguments(optimizer="a:f", terms=[{"name": "own"}]))
    run_files.check(tmp_path, **with_arguments(optimizer="b:f", terms=[{"name": "own"}]))
    assert run_files.read_method(tmp_path) == "own"
    for arguments, message in (
        ({}, r"was started with optimizer=a:f, terms=\(own\): pass optimizer=, terms= "),
        (
            {"optimizer": "a:g", "terms": [{"name": "own"}]},
            "another optimizer=, a:f, got a:g: pass",
        ),
        (
            {"optimizer": "a:f", "terms": [{"name": "own"}], "augment": "a:h"},
            "was started without augment=: leave it out",
        ),
    ):
        with pytest.raises(UserError, match=message):
            run_files.check(tmp_path, **with_arguments(**arguments))


def test_claim_with_other_callbacks_is_allowed(tmp_path):
    run_files.claim(tmp_path, **with_arguments(callbacks=["a:Logger"]))
    run_files.claim(tmp_path, **with_arguments())


def test_sections_of_terms_that_the_method_lacks_may_differ(tmp_path):
    before = small_run.config(method="at").to_dict()
    run_files.claim(tmp_path, before)
    run_files.check(tmp_path, small_run.config(method="at", jacobian__beta=7.0).to_dict())
    with pytest.raises(UserError, match="at.beta: 50.0 there, 7.0 now"):
        run_files.check(tmp_path, small_run.config(method="at", at__beta=7.0).to_dict())


@pytest.mark.parametrize("name", run_files.FIGURES)
def test_folder_with_files_that_a_run_would_replace_is_refused(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(
        UserError, match=f"holds no run, and files that .* replace \\({name}\\): choose"
    ):
        claim(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_folder_with_other_files_is_a_workdir(tmp_path):
    (tmp_path / "log.txt").write_text("output of a program that redirects it here")
    claim(tmp_path)
    assert run_files.has_config(tmp_path)


def test_sections_of_unknown_terms_matter_only_to_the_run_that_uses_them(tmp_path):
    section = {"beta": 1.0, "begin_epoch": 0}
    config = small_run.config().to_dict()
    run_files.write_json(tmp_path / "config.json", {**config, "hint": section})
    assert "hint" not in run_files.read_config(tmp_path)
    used = {**config, "hint": section, "method": "at+hint"}
    run_files.write_json(tmp_path / "config.json", used)
    with pytest.raises(UserError, match="hint.begin_epoch, hint.beta unknown"):
        run_files.read_config(tmp_path)
    run_files.write_json(tmp_path / "config.json", {**config, "new_section": {"key": 1}})
    with pytest.raises(UserError, match="new_section.key unknown"):
        run_files.read_config(tmp_path)
