"""Tables that train: what they leave, and that they survive what happens to long jobs."""

import json
import pathlib
import re
import shutil
import subprocess
import sys
import threading
import time

import filelock
import pytest
import small_run

from at_jax import loop, run_directory
from at_jax.tables import __main__ as program
from at_jax.tables import command, pictures, plan, runner, studies
from at_jax.tables.paper import Figure
from at_jax.tables.studies import Row, Table

ROOT = pathlib.Path(__file__).parents[1]
PAIR = ("wrn_10_0.25", "wrn_10_0.5")


def tiny_table() -> Table:
    """Two rows of the smallest run, and a figure that a paper might have for one."""

    def config():
        return small_run.config(optimizer__drop_epochs=()).copy_and_resolve_references()

    rows = (
        Row(*PAIR, "none", label="none", paper=Figure(8.77, "verified")),
        Row(*PAIR, "at", label="at"),
    )
    return Table("A tiny table", config, rows)


@pytest.fixture
def tiny_tables(monkeypatch):
    monkeypatch.setitem(studies.TABLES, "tiny", tiny_table)


def without_clock(numbers):
    """table.json without what differs from start to start."""
    text = json.dumps(numbers)
    return re.sub(r'"(finished|wall_seconds|commit)": ("[^"]*"|[\d.]+)', "", text)


def test_another_plan_in_the_same_folder_is_refused(tiny_tables, tmp_path, capsys):
    base = ["tiny", "--out", str(tmp_path), "--seeds", "1"]
    options = program._parser().parse_args([*base, "--epochs", "1"])
    command.job(options)
    assert program.main([*base, "--epochs", "2"]) == 2
    assert "epochs: 1 there, 2 now" in capsys.readouterr().err
    assert program.main(["digits", "--out", str(tmp_path), "--merge"]) == 2
    assert "table: 'tiny' there, 'digits' now" in capsys.readouterr().err
    # A label is no part of the runs.
    labelled = program._parser().parse_args([*base, "--epochs", "1", "--label", "small"])
    assert command.job(labelled).label == "small"


@pytest.fixture(scope="module")
def trained(tmp_path_factory, compiled_once):
    """The tiny table, of three seeds: (folder, exit code)."""
    out = tmp_path_factory.mktemp("table")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(studies.TABLES, "tiny", tiny_table)
        code = program.main(["tiny", "--out", str(out), "--seeds", "3"])
    return out, code


def test_what_a_table_leaves(trained):
    out, code = trained
    assert code == 0
    numbers = json.loads((out / "table.json").read_text())
    alone, at = numbers["rows"]
    for row in (alone, at):
        assert [seed["seed"] for seed in row["seeds"]] == [0, 1, 2]
        errors = sorted(seed["test_error"] for seed in row["seeds"])
        assert (row["lowest"], row["median"], row["highest"]) == tuple(errors)
        assert row["mean"] == pytest.approx(sum(errors) / 3)
        for seed in row["seeds"]:
            stored = json.loads(
                (out / "runs" / row["name"] / f"seed{seed['seed']}" / "result.json").read_text()
            )
            assert seed["test_error"] == stored["test_error"] == seed["errors"][-1]
            assert seed["epochs"] == 2 and len(seed["errors"]) == 2
            assert seed["wall_seconds"] > 0 and "cpu" in seed["device"]
            assert {"commit", "finished", "versions"} <= seed.keys()
    # The teacher is trained once, and every student of its row learned from that run.
    assert [path.name for path in (out / "runs" / "teachers").glob("*.5")] == [PAIR[1]]
    assert numbers["teachers"][0]["run"]["seed"] == plan.TEACHER_SEED
    text = (out / "table.md").read_text()
    assert re.search(
        r"\| `none` \| [\d.]+ \| [\d.]+ \| [\d. to]+ \| 3 of 3 \| 8\.77 \| verified \|", text
    )
    assert ("the paper's" in text and "2026" in text) or re.search(r"Measured \d{4}-", text)
    for name in ("errors.png", "curves.png"):
        assert 3_000 < (out / name).stat().st_size < 300_000


def test_a_finished_table_trains_nothing_again(trained, tiny_tables, monkeypatch):
    out, _ = trained
    before = json.loads((out / "table.json").read_text())
    monkeypatch.setattr(loop, "train_and_evaluate", None)
    monkeypatch.setattr(pictures, "draw", lambda *_: [])
    assert program.main(["tiny", "--out", str(out), "--seeds", "3"]) == 0
    assert program.main(["tiny", "--out", str(out), "--merge"]) == 0
    assert json.loads((out / "table.json").read_text()) == before


def copy_of(trained, tmp_path, *missing):
    """The trained table without some of its runs."""
    out = tmp_path / "copy"
    shutil.copytree(trained[0], out)
    for name in missing:
        shutil.rmtree(out / "runs" / name)
    for path in out.rglob("config.json"):  # their teacher lies in the copy
        path.write_text(path.read_text().replace(str(trained[0]), str(out)))
    return out


def test_a_row_that_crashes_is_reported_and_the_others_go_on(
    trained, tiny_tables, tmp_path, monkeypatch, capsys
):
    at = f"{PAIR[0]}-{PAIR[1]}-at"
    out = copy_of(trained, tmp_path, f"{PAIR[0]}-none/seed1", f"{at}/seed2")
    original = loop.train_and_evaluate

    def fails(config, workdir, **rest):
        if config.method == "none":
            raise RuntimeError("out of memory")
        return original(config, workdir, **rest)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_and_evaluate", fails)
        assert program.main(["tiny", "--out", str(out), "--seeds", "3"]) == 1
    said = capsys.readouterr().out
    assert "seed1 FAILED, the others go on: RuntimeError: out of memory" in said
    assert "6 of 7 cells done, 1 failed, 0 left" in said
    alone, at_row = json.loads((out / "table.json").read_text())["rows"]
    assert len(alone["seeds"]) == 2 and len(at_row["seeds"]) == 3
    assert alone["failed"] == [{"seed": 1, "reason": "RuntimeError: out of memory"}]
    assert "seed 1 failed: RuntimeError: out of memory" in (out / "table.md").read_text()
    # Started again it is tried again.
    assert program.main(["tiny", "--out", str(out), "--seeds", "3"]) == 0
    assert json.loads((out / "table.json").read_text())["rows"][0]["failed"] == []


def test_a_group_goes_on_without_the_one_that_fails(trained, tiny_tables, tmp_path, monkeypatch):
    out = copy_of(trained, tmp_path, f"{PAIR[0]}-none/seed0", f"{PAIR[0]}-{PAIR[1]}-at/seed0")
    tried = []

    def together(runs):
        tried.append([workdir for _, workdir in runs])
        raise loop.NonFinite("step 3: loss is not finite", runs[0][1].absolute())

    monkeypatch.setattr(loop, "train_together", together)
    assert program.main(["tiny", "--out", str(out), "--seeds", "3", "--together"]) == 1
    (group,) = tried
    assert len(group) == 2
    first, second = group
    assert runner.failure_of(first)["reason"].startswith("NonFinite: step 3")
    assert run_directory.read_result(second) and not runner.failure_of(
        second
    )  # alone, by train_and_evaluate


def test_where_nobody_is_to_blame_each_is_tried_alone(trained, tiny_tables, tmp_path, monkeypatch):
    names = (f"{PAIR[0]}-none/seed0", f"{PAIR[0]}-{PAIR[1]}-at/seed0")
    out = copy_of(trained, tmp_path, *names)

    def together(runs):
        raise MemoryError

    monkeypatch.setattr(loop, "train_together", together)
    assert program.main(["tiny", "--out", str(out), "--seeds", "3", "--together"]) == 0
    assert all(run_directory.read_result(out / "runs" / name) for name in names)


def test_together_by_the_command_line(trained, tiny_tables, tmp_path):
    """Groups that train, by the same orders of images: what runs alone leave, to what seeds differ by."""
    names = [
        f"{row}/seed{n}" for row in (f"{PAIR[0]}-none", f"{PAIR[0]}-{PAIR[1]}-at") for n in (0, 1)
    ]
    out = copy_of(trained, tmp_path, *names)
    assert program.main(["tiny", "--out", str(out), "--seeds", "3", "--together"]) == 0
    ours, theirs = (json.loads((o / "table.json").read_text()) for o in (out, trained[0]))
    for row, other in zip(ours["rows"], theirs["rows"], strict=True):
        assert [seed["trained_together"] for seed in row["seeds"]] == [2, 2, 1]
        for seed, alone in zip(row["seeds"], other["seeds"], strict=True):
            assert seed["test_error"] == pytest.approx(alone["test_error"], abs=15)
    assert "trained up to 2 in one program" in (out / "table.md").read_text()


def test_shards_and_a_merge_make_the_whole_table(trained, tiny_tables, tmp_path):
    out = tmp_path / "shards"
    base = ["tiny", "--out", str(out), "--seeds", "1"]
    assert program.main([*base, "--shard", "1/2"]) == 0
    text = (out / "table.md").read_text()
    assert "are not finished" in text
    assert program.main([*base, "--shard", "2/2"]) == 0
    assert program.main(["tiny", "--out", str(out), "--merge"]) == 0
    merged = json.loads((out / "table.json").read_text())
    whole = json.loads((trained[0] / "table.json").read_text())
    for row, other in zip(merged["rows"], whole["rows"], strict=True):
        assert row["missing"] == row["failed"] == []
        (seed,), (same, *_) = row["seeds"], other["seeds"]
        assert seed["errors"] == same["errors"]


def test_a_failed_teacher_fails_its_students_alone(tiny_tables, tmp_path, monkeypatch):
    original = loop.train_and_evaluate

    def fails(config, workdir, **rest):
        if config.student == PAIR[1]:
            raise loop.NonFinite("step 1: loss is not finite", workdir)
        return original(config, workdir, **rest)

    monkeypatch.setattr(loop, "train_and_evaluate", fails)
    assert program.main(["tiny", "--out", str(tmp_path), "--seeds", "1"]) == 1
    alone, at = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert len(alone["seeds"]) == 1
    assert at["failed"][0]["reason"].startswith("its teacher, ")


def test_another_process_s_teacher_is_waited_for(
    trained, tiny_tables, tmp_path, monkeypatch, capsys
):
    out = copy_of(trained, tmp_path)
    teacher = out / "runs" / "teachers" / PAIR[1]
    result = (teacher / "result.json").read_text()
    (teacher / "result.json").unlink()
    held = threading.Event()

    def other():
        with filelock.FileLock(teacher.parent / f"{teacher.name}.lock"):
            held.set()
            time.sleep(1.0)
            (teacher / "result.json").write_text(result)

    monkeypatch.setattr(runner, "_SECONDS_BETWEEN_LOOKS", 0.1)
    monkeypatch.setattr(loop, "train_and_evaluate", None)  # nothing is to be trained here
    thread = threading.Thread(target=other)
    thread.start()
    assert held.wait(timeout=10)
    assert program.main(["tiny", "--out", str(out), "--seeds", "3"]) == 0
    thread.join()
    assert "waiting for it" in capsys.readouterr().out


def test_a_run_that_another_process_trains_is_passed_over(trained, tiny_tables, tmp_path, capsys):
    name = f"{PAIR[0]}-none/seed0"
    out = copy_of(trained, tmp_path, name)
    with filelock.FileLock(out / "runs" / f"{name}.lock"):
        assert program.main(["tiny", "--out", str(out), "--seeds", "3"]) == 0
    assert "another process is training it, passed over" in capsys.readouterr().out
    alone, _ = json.loads((out / "table.json").read_text())["rows"]
    assert alone["missing"] == [0]
    assert "seeds 0 are not finished" in (out / "table.md").read_text()


def test_progress_estimates_by_kind(trained, monkeypatch):
    out, _ = trained
    table = tiny_table()
    all_cells = plan.cells_of(table, table.rows, plan.common_config(table), 5, out)
    took = {"none": 10.0, "at": 40.0}
    real = run_directory.read_result

    def result_of(workdir):
        result = real(workdir)
        return result and result | {"wall_seconds": took[result["method"]]}

    monkeypatch.setattr(run_directory, "read_result", result_of)
    # 3 of 5 seeds of both rows and the teacher are there: 2 x 10 s + 2 x 40 s are left.
    assert runner.Progress(all_cells).line() == "7 of 11 cells done, 4 left, about 1:40"


def test_killed_in_the_middle_of_a_row(tmp_path):
    """kill -9, and start again: the same final table as an uninterrupted one."""
    arguments = [
        "digits", "--rows", "wrn_10_1-none,*-at", "--epochs", "12", "--seeds", "1",
        "--set", "runtime.checkpoint_every=1", "--set", "runtime.tensorboard=False",
        "--set", "runtime.devices=1",
    ]  # fmt: skip
    deadline = time.monotonic() + 280

    def start(out):
        return subprocess.Popen(
            [sys.executable, "-m", "at_jax.tables", *arguments, "--out", str(out)],
            cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    row = cut / "runs" / "wrn_10_1-wrn_16_2-at" / "seed0"
    process = start(cut)
    try:
        while not (row / "metrics.jsonl").exists() or not (row / "metrics.jsonl").read_text():
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
    assert not (row / "result.json").exists(), "killed too late to be a test"
    for out in (whole, cut):
        process = start(out)
        try:
            assert process.wait(timeout=max(1, deadline - time.monotonic())) == 0
        finally:
            process.kill()
    ours, theirs = (json.loads((out / "table.json").read_text()) for out in (cut, whole))
    assert without_clock(ours) == without_clock(theirs)
    assert [len(row["seeds"]) for row in ours["rows"]] == [1, 1]


def test_a_table_without_matplotlib_has_no_pictures(trained, tmp_path, monkeypatch, capsys):
    numbers = json.loads((trained[0] / "table.json").read_text())
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert pictures.draw(numbers, tmp_path) == []
    assert "no pictures" in capsys.readouterr().out
