"""Several processes: two on the loopback give what one gives, save once, stop and go on together."""

import json
import os
import pathlib
import pickle
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import chex
import numpy as np
import pytest
import small_run
import tiny
from test_parallel import dispatch

from at_jax import checkpoint, launch, loop, parallel, processes, settings

REPOSITORY = pathlib.Path(__file__).parents[1]
# The longest that two processes may take, so that a wait for one that is gone ends the test.
SECONDS = 200
# Augmentation is on: it is keyed by the place in the batch of both.
CHANGES = {"method": "kd", "student": "wrn_10_0.25", "data__pad": 1, "data__mirror": True}


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Two devices in each process, and programs that are compiled once, and quickly."""
    return {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0",
        "PYTHONPATH": str(REPOSITORY),
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("cache")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def start(environment, *commands):
    return [
        subprocess.Popen(
            [sys.executable, *map(str, command)],
            cwd=REPOSITORY,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for command in commands
    ]


def finish(started):
    """Of each process: exit code, what it printed, what it complained of, without Gloo's greetings."""
    deadline = time.monotonic() + SECONDS
    try:
        ends = []
        for process in started:
            texts = process.communicate(timeout=max(1, deadline - time.monotonic()))
            # Gloo greets from several threads at once, so that its lines may come in pieces.
            greeting = r".*(\[Gloo\]|peer ranks).*\n"
            ends.append((process.returncode, *(re.sub(greeting, "", t) for t in texts)))
        return ends
    finally:
        for process in started:
            process.kill()


def training(workdir, *arguments, **changes):
    """The two commands of a run; process 1 is given a folder of its own, which it must not touch."""
    config = small_run.config(**CHANGES).to_dict()
    flags = ["--config=configs/digits.py:student=wrn_10_0.25,teacher=wrn_10_0.5,method=kd"]
    for key in ("epochs", "batch_size"):
        flags.append(f"--config.{key}={changes.get(key, config[key])}")
    flags += [
        "--config.data.train_examples=60",
        "--config.data.pad=1",
        "--config.data.mirror=True",
        "--config.teacher.train_examples=60",
        "--config.teacher.epochs=1",
        "--config.teacher.drop_epochs=()",
        "--config.optimizer.drop_epochs=(1,)",
        "--config.runtime.checkpoint_every=1",
        f"--coordinator=127.0.0.1:{free_port()}",
        "--processes=2",
        *arguments,
    ]
    folders = workdir, workdir.parent / f"{workdir.name}_of_another_machine"
    return [
        ["train.py", *flags, f"--process={index}", f"--workdir={folder}"]
        for index, folder in enumerate(folders)
    ]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, environment):
    workdir = tmp_path_factory.mktemp("two") / "run"
    return workdir, finish(start(environment, *training(workdir)))


@pytest.fixture(scope="module")
def found(tmp_path_factory, environment):
    """What two processes of process_of_two.py found: (JSON, step) of each, and how they ended."""
    folder, port = tmp_path_factory.mktemp("found"), free_port()
    program = REPOSITORY / "tests" / "process_of_two.py"
    ends = finish(start(environment, *([program, port, index, folder] for index in (0, 1))))
    assert [code for code, _, _ in ends] == [1, 7], ends
    return [
        (
            json.loads((folder / f"found{index}.json").read_text()),
            pickle.loads((folder / f"step{index}.pickle").read_bytes()),
        )
        for index in (0, 1)
    ]


def test_a_step_of_two_processes_equals_one_of_one(found):
    (_, (state, measured)), (_, other) = found
    chex.assert_trees_all_equal((state, measured), other)
    one, of_one = dispatch(4, parallel.AXIS_NAME, tiny.batch(16))
    assert tiny.largest_deviation(state, one) < 1e-5
    for name, pair in of_one.items():
        np.testing.assert_allclose(measured[name], pair, rtol=1e-5, err_msg=name)


def test_what_one_process_knows_all_know(found):
    first, second = (of_process for of_process, _ in found)
    assert (first["index_and_count"], second["index_and_count"]) == ([0, 2], [1, 2])
    assert (first.pop("on_all"), second.pop("on_all")) == (0, 1)
    assert second.pop("one fails") == "ValueError: no such folder: mount it"
    assert first.pop("one fails") == "ValueError: process 1: no such folder: mount it"
    assert second.pop("unexpected") == "RuntimeError: KeyError: 'key'"
    assert first.pop("unexpected") == "KeyError: 'key'"
    assert "seed: 0 in process 0, 1 in process 1: start them" in second.pop("differs")
    assert "seed: 0 in process 0, 1 in process 1: start them" in first.pop("differs")
    assert first | {"index_and_count": [1, 2]} == second
    assert first["devices"] == "4 x cpu in 2 processes" and first["order"] == [0, 0, 1, 1]
    assert first["any_of"] == [False, True] and first["from_primary"] == {"of": 0}
    assert first["primary fails"] == "ValueError: no such folder: mount it"
    assert first["same"] is None
    assert "devices x processes x accumulation = 2 x 2 x 1 = 4, got 6: use 4 or 8" in first["batch"]


def test_a_run_of_two_processes_is_that_of_one(finished, tmp_path, compiled_once):
    workdir, ends = finished
    assert [code for code, _, _ in ends] == [0, 0], ends
    (_, out, _), (_, nothing, err) = ends
    assert f"everything is in {workdir}" in out and "on 4 x cpu in 2 processes" in out
    assert (nothing, "Traceback" in err) == ("", False), ends
    # The second machine has not even a folder: all is written, and read, by process 0.
    assert [path.name for path in workdir.parent.iterdir()] == ["run"]
    assert len(list(workdir.glob("events*"))) == 1 and (workdir / "teacher/result.json").exists()
    result = json.loads((workdir / "result.json").read_text())
    lines = small_run.lines_of(workdir)
    assert [line["step"] for line in lines] == [3, 6]
    assert result["test_error"] == lines[-1]["test_error"]
    # Of the two networks one is compared: each takes a while to compile.
    alone = loop.train_and_evaluate(settings.teacher_config(small_run.config(**CHANGES)), tmp_path)
    (line,), (of_one,) = (small_run.lines_of(path) for path in (workdir / "teacher", tmp_path))
    assert result["teacher_test_error"] == line["test_error"]
    # After three steps a ReLU may have switched: looser than after one. An error is one of 355 images.
    assert line["loss"] == pytest.approx(of_one["loss"], rel=1e-3)
    assert line["test_error"] == pytest.approx(alone["test_error"], abs=1.5)
    ours, theirs = (checkpoint.load(path)[1] for path in (workdir / "teacher", tmp_path))
    assert tiny.largest_deviation(ours, theirs) < 1e-2


def test_a_signal_to_one_stops_all_and_they_go_on(finished, environment, tmp_path):
    workdir = pathlib.Path(shutil.copytree(finished[0], tmp_path / "run"))
    before = small_run.lines_of(workdir)
    started = start(environment, *training(workdir, epochs=400))
    deadline = time.monotonic() + SECONDS
    while len(small_run.lines_of(workdir)) < 4 and started[1].poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    started[1].send_signal(signal.SIGTERM)
    ends = finish(started)
    assert [code for code, _, _ in ends] == [130, 130], ends
    (_, out, _), (_, of_second, _) = ends
    assert "Resuming after step 6 of 1200" in out
    lines = small_run.lines_of(workdir)
    stopped = int(re.search(r"Stopped after step (\d+) of 1200, saved in", out)[1])
    assert stopped == lines[-1]["step"] and lines[:2] == before
    assert [line["epoch"] for line in lines] == list(range(1, stopped // 3 + 1))
    assert of_second == "\nStopping after this epoch; once more to stop at once, unsaved.\n"
    assert [path.name for path in workdir.parent.iterdir()] == ["run"]
    with checkpoint.Checkpoints(workdir, create=False) as checkpoints:
        assert checkpoints.latest(("params",)).step == stopped


def test_what_does_not_fit_ends_all_in_one_line(tmp_path, environment):
    ends = finish(start(environment, *training(tmp_path / "run", batch_size=15)))
    for code, out, err in ends:
        assert (code, out, len(err.splitlines())) == (2, "", 1), err
        assert "devices x processes x accumulation = 1 x 2 x 1 = 2, got 15: use 14 or 16" in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a:1", None, 0), "go together, got no --processes: give all three"),
        (("", 2, None), "go together, got no --coordinator and no --process: give"),
        (("auto", 2, 0), "must be HOST:PORT of process 0, got 'auto'"),
        (("a", 2, 0), "must be HOST:PORT of process 0, got 'a'"),
        (("a:1", 2, 2), "--process must be 0 to 1 of --processes=2, got 2: count from 0"),
        (("a:1", 0, 0), "--processes must be 1 or more, got 0"),
    ],
)
def test_flags_that_do_not_go_together(arguments, message):
    with pytest.raises(ValueError, match=message):
        launch.initialize(*arguments)


def test_a_missing_flag_is_one_line_and_exit_code_2(environment):
    ((code, out, err),) = finish(start(environment, ["train.py", "--processes=2"]))
    assert (code, out, len(err.splitlines())) == (2, "", 1), err
    assert err.startswith(
        "error: --coordinator=HOST:PORT, --processes=N and --process=I go together"
    )


def test_others_that_do_not_come_are_not_waited_for(environment):
    code = (
        f"from at_jax import launch; launch.initialize('127.0.0.1:{free_port()}', 2, 1, seconds=2)"
    )
    ((code, out, err),) = finish(start(environment, ["-c", code]))
    assert (code, out, len(err.splitlines())) == (2, "", 1), err
    assert "error: 2 processes must meet at 127.0.0.1:" in err and "in 2 seconds: start all" in err


SLURM = {"SLURM_JOB_ID": "1", "SLURM_STEP_NODELIST": "a", "SLURM_NTASKS": "4"}


@pytest.mark.parametrize(
    ("variables", "several"),
    [
        ({}, False),
        (SLURM | {"SLURM_STEP_NUM_TASKS": "4"}, True),
        (SLURM | {"SLURM_NTASKS": "1"}, False),
        # A shell of one task within an allocation of four, and the batch script itself.
        (SLURM | {"SLURM_STEP_NUM_TASKS": "1"}, False),
        ({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "4"}, False),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, True),
        ({"OMPI_COMM_WORLD_SIZE": "1"}, False),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, True),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),
        ({"JAX_COORDINATOR_ADDRESS": "a:1"}, True),
    ],
)
def test_what_the_cluster_says(monkeypatch, variables, several):
    for name in os.environ:
        if name.startswith(("SLURM_", "OMPI_", "TPU_", "JAX_COORDINATOR")):
            monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    met = []
    monkeypatch.setattr(launch.jax.distributed, "initialize", lambda **named: met.append(named))
    launch.initialize()
    assert bool(met) == several
    assert not met or "coordinator_address" not in met[0]  # JAX asks the cluster itself
    launch.initialize(processes=1)
    assert len(met) == several
    launch.initialize("node0:1234", 3, 2)
    assert met[-1]["num_processes"] == 3 and met[-1]["process_id"] == 2


def test_one_process_waits_for_nobody():
    assert processes.index_and_count() == (0, 1)
    assert processes.is_primary() and not processes.several()
    assert [processes.any_of(flag) for flag in (True, False)] == [True, False]
    processes.check_same({"seed": 0})
    with pytest.raises(KeyError):
        processes.on_all(lambda: {}["key"])
