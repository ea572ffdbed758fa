"""The command around training: order, failures, locks, shards, resuming. Nothing is trained here."""

import json
import pathlib
import re
import threading

import filelock
import pytest

from at_jax import loop, paths
from at_jax.tables import command as program
from at_jax.tables import plan, plots, runner
from at_jax.training.files import run_files, workdir_lock

NONE, AT = "wrn_10_0.25-none", "wrn_10_0.25-wrn_10_0.5-at"
TEACHER = "teachers/wrn_10_0.5"


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    """Figures take a second each; test_reports.py draws them."""
    monkeypatch.setattr(plots, "draw", lambda *_: [])


def run(out: pathlib.Path, *arguments: str) -> int:
    return program.main(["tiny", "--out", str(out), *arguments])


def test_run_trains_the_teacher_once_and_then_every_seed(fake_training, tmp_path):
    assert run(tmp_path, "--seeds", "2") == 0
    assert fake_training.calls == [
        [TEACHER], [f"{NONE}/seed0"], [f"{AT}/seed0"], [f"{NONE}/seed1"], [f"{AT}/seed1"]
    ]  # fmt: skip


def test_run_finished_table_trains_nothing_again(fake_training, tmp_path, read_table):
    assert run(tmp_path, "--seeds", "2") == 0
    before = read_table(tmp_path)
    fake_training.calls.clear()
    assert run(tmp_path, "--seeds", "2") == 0
    assert run(tmp_path, "--merge") == 0
    assert fake_training.calls == []
    assert read_table(tmp_path) == before


def test_run_seeds_and_rows_can_be_added(fake_training, tmp_path, read_table):
    assert run(tmp_path, "--seeds", "1", "--rows", "*none") == 0
    assert run(tmp_path, "--seeds", "2", "--rows", "*-at") == 0
    assert fake_training.calls[1:] == [[TEACHER], [f"{AT}/seed0"], [f"{AT}/seed1"]]
    # A merge takes the rows of all commands, and the seeds that exist.
    assert run(tmp_path, "--merge") == 0
    none, at = read_table(tmp_path)["rows"]
    assert [len(row["seeds"]) for row in (none, at)] == [1, 2] and none["missing"] == []


def test_run_failed_run_is_reported_and_tried_again(fake_training, tmp_path, read_table, capsys):
    fake_training.failures["at"] = RuntimeError("out of memory")
    assert run(tmp_path, "--seeds", "1") == 1
    printed = capsys.readouterr().out
    assert f"{AT}/seed0 FAILED, the other runs continue: RuntimeError: out of memory" in printed
    assert "2 of 3 runs done, 1 failed, 0 left" in printed
    none, at = read_table(tmp_path)["rows"]
    assert len(none["seeds"]) == 1 and at["seeds"] == []
    assert at["failed"] == [{"seed": 0, "reason": "RuntimeError: out of memory"}]
    assert "seed 0 failed: RuntimeError: out of memory" in (tmp_path / "table.md").read_text()
    stored = json.loads((tmp_path / "runs" / AT / "seed0" / "failure.json").read_text())
    assert "conftest.py" in stored["traceback"]

    fake_training.failures.clear()
    assert run(tmp_path, "--seeds", "1") == 0
    assert read_table(tmp_path)["rows"][1]["failed"] == []


def test_run_retries_failed_runs_last_and_alone(fake_training, tmp_path):
    fake_training.failures["none"] = RuntimeError("out of memory")
    assert run(tmp_path, "--seeds", "1", "--rows", "*none") == 1
    fake_training.failures.clear()
    fake_training.calls.clear()
    assert run(tmp_path, "--seeds", "2", "--together") == 0
    assert fake_training.calls == [
        [TEACHER], [f"{AT}/seed0"], [f"{NONE}/seed1", f"{AT}/seed1"], [f"{NONE}/seed0"]
    ]  # fmt: skip


def test_run_group_continues_without_the_run_that_failed(fake_training, tmp_path, monkeypatch):
    tried = []

    def together(runs):
        tried.append([workdir for _, workdir in runs])
        raise loop.NonFinite("step 3: loss is not finite", runs[0][1].absolute())

    monkeypatch.setattr(loop, "train_together", together)
    assert run(tmp_path, "--seeds", "1", "--together") == 1
    ((first, second),) = tried
    assert runner.failure_of(first)["reason"].startswith("NonFinite: step 3")
    assert run_files.read_result(second) and not runner.failure_of(second)
    assert fake_training.calls[-1] == [f"{AT}/seed0"]  # alone


def test_run_group_of_an_error_without_a_run_tries_each_alone(
    fake_training, tmp_path, monkeypatch, capsys
):
    def together(runs):
        raise MemoryError

    monkeypatch.setattr(loop, "train_together", together)
    assert run(tmp_path, "--seeds", "1", "--together") == 0
    assert fake_training.calls == [[TEACHER], [f"{NONE}/seed0"], [f"{AT}/seed0"]]
    assert (
        "The program of 2 runs failed, each is trained alone: MemoryError"
        in capsys.readouterr().out
    )


def test_run_failed_teacher_fails_its_students_only(
    fake_training, tmp_path, monkeypatch, read_table
):
    def fails(config, workdir):
        if config.student == "wrn_10_0.5":
            raise loop.NonFinite("step 1: loss is not finite", workdir)
        fake_training.train_and_evaluate(config, workdir)

    monkeypatch.setattr(loop, "train_and_evaluate", fails)
    assert run(tmp_path, "--seeds", "1") == 1
    none, at = read_table(tmp_path)["rows"]
    assert len(none["seeds"]) == 1
    assert at["failed"][0]["reason"].startswith("its teacher, ")
    # Its students did not fail themselves: they are still trained together.
    monkeypatch.setattr(loop, "train_and_evaluate", fake_training.train_and_evaluate)
    fake_training.calls.clear()
    assert run(tmp_path, "--seeds", "2", "--together", "--set", "data.order_seed=0") == 2
    assert run(tmp_path, "--seeds", "2", "--together") == 0
    assert fake_training.calls == [
        [TEACHER], [f"{AT}/seed0"], [f"{NONE}/seed1", f"{AT}/seed1"]
    ]  # fmt: skip


def test_run_interrupt_writes_the_table_and_exits_130(
    fake_training, tmp_path, monkeypatch, read_table
):
    def interrupted(config, workdir):
        if config.method == "at":
            raise loop.Interrupted("saved")
        fake_training.train_and_evaluate(config, workdir)

    monkeypatch.setattr(loop, "train_and_evaluate", interrupted)
    assert run(tmp_path, "--seeds", "1") == 130
    none, at = read_table(tmp_path)["rows"]
    assert len(none["seeds"]) == 1
    assert (at["missing"], at["failed"]) == ([0], [])


def test_run_waits_for_the_teacher_of_another_process(fake_training, tmp_path, monkeypatch):
    assert run(tmp_path, "--seeds", "1") == 0
    teacher = tmp_path / "runs" / TEACHER
    result = (teacher / "result.json").read_text()
    (teacher / "result.json").unlink()
    (tmp_path / "table.json").unlink()  # its results would count as done
    fake_training.calls.clear()
    held, waiting = threading.Event(), threading.Event()

    def other():
        with workdir_lock.hold(teacher):
            held.set()
            waiting.wait()
            (teacher / "result.json").write_text(result)

    def log(line):
        if "waiting for another process" in line:
            waiting.set()

    monkeypatch.setattr(runner, "log", log)
    monkeypatch.setattr(workdir_lock, "_POLL_SECONDS", 0.1)
    thread = threading.Thread(target=other, daemon=True)
    thread.start()
    held.wait()
    assert run(tmp_path, "--seeds", "1") == 0
    assert waiting.is_set()
    thread.join()
    assert fake_training.calls == []


def test_run_skips_what_another_process_trains(fake_training, tmp_path, read_table, capsys):
    lock = tmp_path / "runs" / NONE / "seed0" / workdir_lock.LOCK
    lock.parent.mkdir(parents=True)
    with filelock.FileLock(lock):
        assert run(tmp_path, "--seeds", "1") == 0
    assert "skipped, another process is training it" in capsys.readouterr().out
    assert read_table(tmp_path)["rows"][0]["missing"] == [0]
    assert f"- `{NONE}`: seed 0\n" in (tmp_path / "table.md").read_text()


def test_run_shards_and_a_merge_make_the_whole_table(fake_training, tmp_path, read_table):
    whole, out = tmp_path / "whole", tmp_path / "shards"
    assert run(whole, "--seeds", "3", "--together") == 0
    assert run(out, "--seeds", "3", "--together", "--shard", "1/2") == 0
    assert "Open:" in (out / "table.md").read_text()
    assert run(out, "--seeds", "3", "--together", "--shard", "2/2") == 0
    assert run(out, "--merge") == 0
    assert without_ids(read_table(out)) == without_ids(read_table(whole))
    assert fake_training.calls.count([TEACHER]) == 2  # once for each folder


def without_ids(table):
    return re.sub(r'"[0-9a-f]{32}"', "", json.dumps(table))


def test_run_continues_a_folder_of_the_first_version(fake_training, tmp_path, read_table):
    # Version 0.1 wrote fewer keys into config.json, and no record of arguments.
    assert run(tmp_path, "--seeds", "1") == 0
    newer = {"arguments", "jacobian", "sobolev", "map_gradient"}
    for path in tmp_path.rglob("config.json"):
        config = {k: v for k, v in json.loads(path.read_text()).items() if k not in newer}
        for section in ("at", "kd", "f_actt", "transfer", "gradient_at"):
            config[section].pop("begin_epoch", None)
        for key in ("name", "schedule", "warmup_epochs", "nesterov", "decay_mask", "clip_norm"):
            config["optimizer"].pop(key, None)
        path.write_text(json.dumps(config))
    fake_training.calls.clear()
    assert run(tmp_path, "--seeds", "2") == 0
    assert fake_training.calls == [[f"{NONE}/seed1"], [f"{AT}/seed1"]]
    assert [len(row["seeds"]) for row in read_table(tmp_path)["rows"]] == [2, 2]


def test_progress_estimates_by_kind(tiny_table, tmp_path):
    common = plan.common_config(tiny_table)
    specs = plan.expand(tiny_table, tiny_table.rows, common, 5, tmp_path)
    took = {"none": 10.0, "at": 40.0}
    for spec in specs:
        if spec.seed < 3:
            result = {"wall_seconds": took[spec.config.method]}
            run_files.write_json(spec.workdir / run_files.RESULT, result)
    # 3 of 5 seeds of both rows and the teacher are finished: 2 x 10 s + 2 x 40 s are left.
    assert runner.Progress(specs).line() == "7 of 11 runs done, 4 left, about 1:40"


def test_run_in_cloud_storage_has_no_locks_and_says_so(fake_training, in_memory, capsys):
    out = paths.parse("gs://bucket/table")
    assert run(out, "--seeds", "1") == 0
    assert "No file locks in cloud storage: run one command at a time" in capsys.readouterr().out
    assert fake_training.calls == [[TEACHER], [f"{NONE}/seed0"], [f"{AT}/seed0"]]
    rows = json.loads((out / "table.json").read_text())["rows"]
    assert [row["median"] for row in rows] == [20, 10]
    assert run(out, "--merge") == 0 and len(fake_training.calls) == 3
    assert not any(name.endswith(".lock") for name in in_memory.store)
