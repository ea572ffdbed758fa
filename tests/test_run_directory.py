"""A workdir belongs to one config; metrics survive crashes."""

import json

import pytest
import small_run

from at_jax import run_directory


def claim(workdir, **changes):
    run_directory.claim(workdir, small_run.config(**changes).to_dict())


def test_the_same_config_may_come_back(tmp_path):
    claim(tmp_path)
    claim(tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())
    assert run_directory.flatten(stored) == run_directory.flatten(small_run.config().to_dict())


def test_another_config_is_named_key_by_key(tmp_path):
    claim(tmp_path)
    with pytest.raises(ValueError, match=r"at.beta: 50.0 there, 3.0 now; seed: 0 there, 7 now"):
        claim(tmp_path, at__beta=3.0, seed=7)
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == 0


def test_how_a_run_is_carried_out_may_change(tmp_path):
    claim(tmp_path)
    claim(tmp_path, runtime__devices=1)


@pytest.mark.parametrize("decay", ["constant", "steps"])
def test_more_epochs_where_no_schedule_depends_on_them(tmp_path, decay):
    claim(tmp_path, transfer__decay=decay)
    claim(tmp_path, transfer__decay=decay, epochs=5)
    with pytest.raises(ValueError, match="epochs: 5 there, 3 now"):
        claim(tmp_path, transfer__decay=decay, epochs=3)


def test_no_more_epochs_where_the_teacher_would_be_trained_on(tmp_path):
    claim(tmp_path, teacher__epochs=0)
    with pytest.raises(ValueError, match="epochs: 2 there, 5 now"):
        claim(tmp_path, teacher__epochs=0, epochs=5)
    claim(tmp_path / "named", teacher__epochs=0, teacher__checkpoint="somewhere")
    claim(tmp_path / "named", teacher__epochs=0, teacher__checkpoint="somewhere", epochs=5)


@pytest.mark.parametrize("decay", ["linear", "cosine"])
def test_no_more_epochs_where_beta_decays_over_them(tmp_path, decay):
    claim(tmp_path, transfer__decay=decay)
    with pytest.raises(ValueError, match="epochs: 2 there, 5 now"):
        claim(tmp_path, transfer__decay=decay, epochs=5)


def test_unreadable_and_unwritable_places(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="not readable as a config"):
        claim(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be written .*choose another --workdir"):
        claim(tmp_path / "file" / "run")


def test_metrics_lose_a_torn_line_and_what_comes_after_a_checkpoint(tmp_path):
    for step in (3, 6, 9):
        run_directory.append_metrics(tmp_path, {"step": step, "loss": float("nan")})
    with open(tmp_path / run_directory.METRICS, "a") as file:
        file.write('{"step": 12, "lo')  # killed while writing
    assert [line["step"] for line in run_directory.read_metrics(tmp_path)] == [3, 6, 9]
    assert run_directory.read_metrics(tmp_path)[0]["loss"] is None
    assert [line["step"] for line in run_directory.keep_metrics(tmp_path, 6)] == [3, 6]
    run_directory.append_metrics(tmp_path, {"step": 9})
    assert [line["step"] for line in run_directory.read_metrics(tmp_path)] == [3, 6, 9]
