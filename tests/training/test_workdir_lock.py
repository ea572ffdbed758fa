"""A workdir is locked while a run is alive in it, and by nothing else."""

import os
import pathlib
import subprocess
import sys
import threading
import warnings

import filelock
import pytest
import small_run

from at_jax import loop
from at_jax.cli import early_lock
from at_jax.errors import UserError
from at_jax.training.files import json_files, workdir_lock
from at_jax.training.files.workdir_lock import HOLDER, LOCK, InUse, hold

ROOT = pathlib.Path(__file__).parents[2]
HOLD = (
    "import sys; from at_jax.training.files import workdir_lock\n"
    "with workdir_lock.hold(sys.argv[1]): print('held', flush=True); sys.stdin.read()"
)


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock of tmp_path / "run"."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_lock_of_another_process_is_named_and_ends_with_it(holder, tmp_path, monkeypatch):
    workdir = tmp_path / "run"
    message = rf"workdir .*run is in use by process {holder.pid} on .* since 20\d\d-.*: wait until"
    with pytest.raises(InUse, match=message):
        loop.train_and_evaluate(small_run.config(), workdir)
    with pytest.raises(InUse, match=message):
        loop.train_together([(small_run.config(method="none"), workdir)])
    # The command line finds it before jax is imported.
    block = "import sys; sys.modules['jax'] = None; from at_jax.cli import main; "
    command = [sys.executable, "-c", f"{block}main(['train', '--workdir={workdir}'])"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert f"process {holder.pid}" in done.stderr
    # A damaged name changes the message only.
    monkeypatch.setattr(workdir_lock, "_SECONDS_BETWEEN_TRIES", 0)
    for content in (b"", b"\xff", b'{"pid": 1}', b"[]"):
        (workdir / HOLDER).write_bytes(content)
        with pytest.raises(InUse, match="by an unidentified process"):
            hold(workdir).__enter__()
    holder.kill()
    holder.wait()
    with hold(workdir):
        assert json_files.read(workdir / HOLDER)["pid"] == os.getpid()


def test_refused_run_leaves_nothing(tmp_path):
    with hold(tmp_path / "new" / "run"):
        assert sorted(os.listdir(tmp_path / "new" / "run")) == [LOCK, HOLDER]
    assert not list(tmp_path.iterdir())
    with hold(tmp_path):
        pass
    assert not list(tmp_path.iterdir())
    with hold(tmp_path):
        (tmp_path / "config.json").write_text("{}")
    assert sorted(os.listdir(tmp_path)) == ["config.json", LOCK]


def test_thread_may_nest_and_another_thread_may_not(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "run")
    found = []

    def other():
        try:
            with hold(tmp_path / "run"):
                found.append("held twice")
        except InUse as error:
            found.append(str(error))

    with hold(tmp_path / "run"), hold(f"{tmp_path}/link"):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert len(found) == 1 and f"process {os.getpid()}" in found[0]
    other()
    assert found[1:] == ["held twice"]


def test_workdir_without_locks_warns_and_trains_on(tmp_path, monkeypatch):
    def acquire(*_, **__):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(filelock.FileLock, "acquire", acquire)
    with (
        pytest.warns(UserWarning, match=r"cannot be locked \(No locks available\)"),
        hold(tmp_path),
    ):
        (tmp_path / "config.json").write_text("{}")
    # A directory that cannot be made is reported by the first file in it, not here.
    (tmp_path / "file").write_text("")
    with warnings.catch_warnings(), hold(tmp_path / "file" / "run"):
        pass


def test_workdir_with_a_name_too_long_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"cannot be (written|used) \(File name too long\)"):
        loop.train_and_evaluate(small_run.config(method="none"), tmp_path / ("x" * 300))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "default"),
        (["--config=cifar10"], "default"),
        (["--workdir", "a"], "a"),
        (["-workdir=a", "--workdir=b"], "b"),
        (["--workdir=a", "--evaluate=False"], "a"),
        (["--workdir=a", "--evaluate"], ""),
        (["--workdir=a", "--help"], ""),
        (["--workdir=a", "--help-config"], ""),
        (["--workdir=a", "--processes=1"], "a"),
        (["--workdir=a", "--processes=2", "--process=1", "--coordinator=x:1"], ""),
    ],
)
def test_early_lock_is_that_of_a_command_that_trains_alone(arguments, expected):
    found = early_lock.workdir_of(["at-jax train", *arguments], lambda argv: "default")
    assert found == expected
