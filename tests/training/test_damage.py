"""Files of a run that are damaged, one at a time: the same data, a warning, or one line."""

import errno
import json
import os
import shutil

import pytest
import small_run

from at_jax import checkpoint, loop
from at_jax.errors import UserError
from at_jax.training.files import checkpoint_meta, json_files, metrics_file, run_files, storage
from at_jax.training.files.checkpoints import FOLDER, Checkpoints
from benchmarks.faults import damages

NAMES = ("params", "batch_stats")


@pytest.fixture
def run(finished, tmp_path):
    """A copy of a finished run of two epochs, of 3 steps each."""
    shutil.copytree(finished[0], tmp_path / "run")
    return tmp_path / "run"


def of_version_0_1(run):
    """As older versions wrote it: nothing but the arrays has a checksum; scores are Orbax's."""
    for step in checkpoint_meta.steps(run / FOLDER):
        path = run / FOLDER / str(step) / "meta" / "metadata"
        meta = json.loads(path.read_text())
        score = 100 - meta.pop("test_error")
        for key in ("step", "config"):
            del meta[key]
        del meta["progress"]["lines"]
        path.write_text(json.dumps(json_files.sealed(meta)))
        (path.parents[1] / "metrics").mkdir()
        (path.parents[1] / "metrics" / "metrics").write_text(json.dumps({"score": score}))
    for name in ("config.json", "result.json"):
        content = json.loads((run / name).read_text())
        del content["checksum"]
        (run / name).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")


@pytest.mark.parametrize(
    "damage",
    [
        lambda lines: ['{"epo', *lines],  # a bad line before the good ones
        lambda lines: [],
        lambda lines: lines[1:],
        lambda lines: lines + lines,
        lambda lines: [lines[0].replace('"test_error": ', '"test_error": 1'), lines[1]],
        lambda lines: ["[1]", '{"epoch": 1}', lines[0].replace('"step": 3', '"step": "3"'), lines[1]],
        lambda lines: ["\x00\x01", *lines],
    ],
)  # fmt: skip
def test_damaged_lines_of_metrics_are_restored(run, finished, damage):
    path = run / run_files.METRICS
    path.write_text("\n".join(damage(path.read_text().splitlines())) + "\n")
    with pytest.warns(UserWarning, match="metrics.jsonl is damaged"):
        assert small_run.lines_of(finished[0]) == [
            {k: v for k, v in line.items() if k != "images_per_second"}
            for line in run_files.read_metrics(run)
        ]
    with pytest.warns(UserWarning):
        run_files.keep_metrics(run, 6)
    assert small_run.lines_of(run) == small_run.lines_of(finished[0])
    assert len(run_files.read_metrics(run)) == 2  # without a warning


def test_lines_without_a_copy_are_kept_and_the_missing_epoch_is_named(run):
    of_version_0_1(run)
    path = run / run_files.METRICS
    lines = path.read_text().splitlines()
    assert len(run_files.read_metrics(run)) == 2
    path.write_text("\n".join(["{", lines[1]]))
    with pytest.warns(UserWarning, match="damaged in 1 line, left out: it lacks epochs 1"):
        assert [line["epoch"] for line in run_files.read_metrics(run)] == [2]


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"\xff", b"3", "folder"])
@pytest.mark.parametrize("name", ["config.json", "result.json", "metrics.jsonl"])
def test_small_files_of_any_content_are_read_or_reported(run, name, content):
    path, before = run / name, run_files.read_config(run)
    path.unlink()
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    if name == "config.json":
        with pytest.warns(UserWarning, match="the copy in checkpoint 6 is used"):
            assert run_files.read_config(run) == before
        with pytest.warns(UserWarning), pytest.raises(UserError, match="seed: 0 there, 7 now"):
            run_files.check(run, small_run.config(seed=7).to_dict())
    elif name == "result.json" and content is not None:
        with pytest.warns(UserWarning, match="result.json is damaged .*writes it again"):
            assert run_files.read_result(run) is None
    elif name == "metrics.jsonl" and content == "folder":
        with pytest.raises(UserError, match="cannot be read .*: move it away"):
            run_files.read_metrics(run)
    elif name == "metrics.jsonl":
        with pytest.warns(UserWarning):
            assert len(run_files.read_metrics(run)) == 2


def test_changed_number_in_a_json_file_is_found(run):
    path = run / "result.json"
    text = path.read_text()
    assert '"epochs": 2' in text
    path.write_text(text.replace('"epochs": 2', '"epochs": 3'))
    with pytest.warns(UserWarning, match="its checksum differs"):
        assert run_files.read_result(run) is None
    # A program that changes the file writes it in its own format: no damage.
    path.write_text(json.dumps(json.loads(text) | {"epochs": 3}))
    assert run_files.read_result(run)["epochs"] == 3


def test_finished_run_without_its_checkpoints_is_not_trained_again(run):
    shutil.rmtree(run / FOLDER)
    config = small_run.config().to_dict()
    with pytest.raises(UserError, match="is finished, but its checkpoints/ is missing or empty"):
        run_files.claim(run, config)
    (run / "result.json").unlink()
    with pytest.raises(UserError, match="has metrics.jsonl, but its checkpoints/ is missing"):
        run_files.claim(run, config)
    (run / FOLDER).mkdir()  # as a kill in the first epoch leaves it
    run_files.claim(run, config)
    (run / "config.json").unlink()
    (run / FOLDER / "6" / "params").mkdir(parents=True)
    with pytest.raises(UserError, match=r"it is missing. Restore it"):
        run_files.claim(run, config)


def test_exchanged_checkpoints_are_not_taken_for_each_other(run):
    folder = run / FOLDER
    (folder / "6").rename(folder / "aside")
    (folder / "3").rename(folder / "6")
    (folder / "aside").rename(folder / "3")
    with (
        pytest.warns(UserWarning, match="is damaged .it holds step [36]: its folder was renamed"),
        pytest.raises(UserError, match="restore them from a copy"),
    ):
        checkpoint.load(run)


@pytest.mark.parametrize(
    "content", ['{"score! 50.0}', "", "[]", '{"score": "a"}', '{"score": 1e9}']
)
def test_damaged_score_of_an_old_run_hides_no_checkpoint(run, content):
    of_version_0_1(run)
    best = {3: 50.0, 6: 10.0}
    for step, error in best.items():
        path = run / FOLDER / str(step) / "metrics" / "metrics"
        path.write_text(json.dumps({"score": 100 - error}))
    with Checkpoints(run, create=False) as checkpoints:
        assert checkpoints.best(NAMES).step == 6
    path.write_text(content)
    with Checkpoints(run, create=False) as checkpoints:
        assert checkpoints.latest(NAMES).step == 6
        with pytest.warns(UserWarning, match="6 is damaged .its score"):
            assert checkpoints.best(NAMES).step == 3


def test_removed_best_checkpoint_is_named(run):
    lines = [line["test_error"] for line in run_files.read_metrics(run)]
    assert lines[0] <= lines[1]
    meta = run / FOLDER / "6" / "meta" / "metadata"
    content = json.loads(meta.read_text())
    content["progress"]["lines"][0]["test_error"] = 1.5
    meta.write_text(json.dumps(json_files.sealed(content)))
    shutil.rmtree(run / FOLDER / "3")
    with pytest.warns(
        UserWarning, match="of step 3 with an error of 1.50 %, is gone; using step 6"
    ):
        checkpoint.load(run, which="best")


def test_leftovers_of_a_kill_are_deleted_and_checkpoints_are_not(run):
    folder = run / FOLDER
    (folder / "2" / "meta").mkdir(parents=True)
    (folder / "2" / "meta" / "commit_success.txt").write_text("")
    (folder / "9.orbax-checkpoint-tmp" / "params").mkdir(parents=True)
    (folder / "deleted" / "1").mkdir(parents=True)
    for name in ("ahead-6", "ahead-9"):  # set aside by a resume that has reached step 6
        shutil.copytree(folder / "6", folder / name)
    (folder / "6" / "meta" / "metadata").unlink()  # damaged, but not empty
    with Checkpoints(run) as checkpoints:
        checkpoints.clean()
    assert sorted(os.listdir(folder)) == ["3", "6", "ahead-9"]


def test_file_in_place_of_a_folder_is_one_line(tmp_path):
    (tmp_path / FOLDER).write_text("")
    with pytest.raises(UserError, match="must be a directory, got a file: move it away"):
        Checkpoints(tmp_path)


def test_full_disk_is_one_line_that_names_the_last_checkpoint(run, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    shutil.rmtree(run / FOLDER / "6")
    (run / "result.json").unlink()
    monkeypatch.setattr(metrics_file.os, "fsync", full)
    message = (
        r"run cannot be written \(No space left on device\); the last good .*3, step 3: free some"
    )
    with pytest.raises(loop.StorageError, match=message):
        loop.train_and_evaluate(small_run.config(), run)
    monkeypatch.undo()
    for error, text in (
        (
            ValueError("RESOURCE_EXHAUSTED: [os_error_code='ENOSPC'] No space left on device"),
            "space",
        ),
        (RuntimeError("Read-only file system"), "Read-only"),
    ):
        with pytest.raises(OSError, match=text), storage.conversion(run):
            raise error
    with pytest.raises(ValueError, match="RESOURCE_EXHAUSTED"), storage.conversion(run):
        raise ValueError("RESOURCE_EXHAUSTED: Out of memory")  # of a device
    with pytest.raises(PermissionError), storage.reported(run):
        raise PermissionError(errno.EACCES, "Permission denied", "/elsewhere")


@pytest.mark.slow
def test_damages_of_the_benchmark_all_end_well(tmp_path):
    row = damages.run(24, tmp_path, 0)
    assert (row.tried, row.failures) == (24, ())
