"""at-jax train from the command line: output, files and exit codes of a process of its own."""

import json
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys

import commands
import pytest
import small_run

from at_jax import terms
from at_jax.training import config
from at_jax.training.files.workdir_lock import HOLDER, LOCK

REPOSITORY = pathlib.Path(__file__).parents[2]
SMALL = [
    "--config=digits:student=wrn_10_0.25,teacher=wrn_10_0.25,method=at",
    "--config.batch_size=20",
    "--config.data.train_examples=40",
    "--config.teacher.train_examples=40",
    "--config.teacher.epochs=1",
    "--config.teacher.drop_epochs=()",
]


@pytest.fixture(scope="module")
def environment(compiled):
    """One device, as on a laptop, and a compilation cache that the processes here share."""
    return {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": str(compiled),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


def start(arguments, environment=None, cwd=REPOSITORY, stdout=subprocess.PIPE):
    return subprocess.Popen(
        [sys.executable, str(REPOSITORY / "train.py"), *map(str, arguments)],
        cwd=cwd,
        env=environment,
        text=True,
        stdout=stdout,
        stderr=subprocess.PIPE,
    )


def run(arguments, environment=None, cwd=REPOSITORY, **options):
    (end,) = commands.finish([start(arguments, environment, cwd, **options)])
    return end


@pytest.fixture(scope="module")
def finished(tmp_path_factory, environment):
    workdir = tmp_path_factory.mktemp("finished")
    code, out, err = run([*SMALL, "--config.epochs=4", f"--workdir={workdir}"], environment)
    assert code == 0, err
    return workdir, out


def test_run_ends_with_errors_and_workdir(finished):
    workdir, out = finished
    teacher, student, where = out.strip().splitlines()[-3:]
    result = json.loads((workdir / "result.json").read_text())
    assert teacher == f"teacher error  {result['teacher_test_error']:.2f} %"
    assert student.startswith(f"at wrn_10_0.25 error  {result['test_error']:.2f} %")
    assert where == f"Results written to {workdir}"
    assert re.search(r"epoch 4/4 .*test error .* ETA 0:00", out)


def test_evaluate_repeats_the_error_of_the_run(finished, environment):
    workdir, _ = finished
    code, out, err = run(["--evaluate", f"--workdir={workdir}"], environment)
    result = json.loads((workdir / "result.json").read_text())
    assert code == 0, err
    assert f"error {result['test_error']:.2f} % (best checkpoint" in out


@pytest.mark.slow
def test_profile_writes_a_trace(tmp_path, environment):
    alone = [*SMALL, "--config.method=none", "--config.epochs=14", f"--workdir={tmp_path}"]
    code, out, err = run([*alone, "--profile", "--config.runtime.tensorboard=False"], environment)
    assert code == 0, err
    assert f"Profiler trace written to {tmp_path / 'profile'}" in out
    assert list(tmp_path.glob("profile/**/*.xplane.pb"))
    assert not list(tmp_path.glob("events*"))


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_interrupted_run_resumes_exactly(finished, tmp_path, environment, how):
    many = [*SMALL, f"--config.teacher.checkpoint={finished[0] / 'teacher'}", "--config.epochs=14"]
    many.append("--config.runtime.checkpoint_every=2")
    workdir, release = tmp_path / "run", tmp_path / "release"
    held = commands.held(environment, workdir, 10, release)
    log = tmp_path / "log"
    with open(log, "w") as file:
        process = start([*many, f"--workdir={workdir}"], held, stdout=file)
    commands.wait_until(lambda: small_run.count_lines(workdir) >= 3, process)
    process.send_signal(how)
    if how == signal.SIGKILL:
        ((code, _, _),) = commands.finish([process])
        assert code == -signal.SIGKILL
    else:
        announced = f"Stopping after the steps that are queued ({how.name}); a second"
        commands.wait_until(lambda: announced in log.read_text())
        release.touch()
        ((code, _, err),) = commands.finish([process])
        assert code == 128 + how, err
        assert err == ""
        # The command can be copied.
        saved = rf"saved in {workdir}: run the same command to resume: (.*)"
        assert shlex.split(re.search(saved, log.read_text())[1])[1:] == process.args[1:]
    assert small_run.count_lines(workdir) < 14
    code, out, err = run([*many, f"--workdir={workdir}"], environment)
    assert code == 0, err
    assert re.search(r"Resuming after step \d+ of 28", out)
    # Nobody can read its lines: that changes neither the run nor its exit code.
    with open("/dev/full", "w") as full:
        whole = [*many, f"--workdir={tmp_path / 'whole'}"]
        code, _, err = run(whole, environment, stdout=full)
    assert (code, err) == (0, "")
    assert small_run.lines_of(workdir) == small_run.lines_of(tmp_path / "whole")


def test_ctrl_c_while_importing_prints_one_line(tmp_path):
    # In place of jax, which is imported after the restart with huge pages: a module that takes minutes.
    started = tmp_path / "started"
    (tmp_path / "jax.py").write_text(
        f"import pathlib, time; pathlib.Path({str(started)!r}).touch(); time.sleep({commands.SECONDS})"
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    process = start(
        ["--config=digits", f"--workdir={tmp_path / 'run'}"], os.environ | {"PYTHONPATH": path}
    )
    commands.wait_until(started.exists, process)
    process.send_signal(signal.SIGINT)
    ((code, out, err),) = commands.finish([process])
    assert (code, out) == (130, "")
    assert re.fullmatch(
        "Stopped at once by SIGINT: run the same command to resume: .*train.py .*\n", err
    )
    # The lock may have been taken.
    assert {path.name for path in (tmp_path / "run").glob("*")} <= {LOCK, HOLDER}


def test_help_does_not_import_jax():
    code, out, err = run(["--help"], os.environ | {"PYTHONPROFILEIMPORTTIME": "1"})
    assert code == 0 and all(line.startswith("import time:") for line in err.splitlines()), err
    for word in ("--config", "student=", "method=", *terms.TERMS, "--help-config", "--module"):
        assert word in out
    imported = {line.split("|")[-1].strip().partition(".")[0] for line in err.splitlines()}
    assert "at_jax" in imported
    assert not imported & {"jax", "jaxlib", "flax", "numpy", "orbax"}


def test_help_config_lists_every_key():
    code, out, err = run(["--help-config"])
    assert (code, err) == (0, "")
    for key in config.flatten(config.default_config().to_dict()):
        assert f"  {key}: " in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.at.bata=3"], "error: --config.at.bata: there is no such key; did you mean .*at.beta"),
        (["--config.epochs=many"], "epochs.*many"),
        (["--config.data.mirror=perhaps"], "mirror.*perhaps"),
        (["--config=configs/cifar.py"], "or a file, got 'configs/cifar.py': did you mean cifar10?"),
        (["--config=configs/cifar10.py:methud=at"], "'methud=at' is not one of .* did you mean 'method'"),
        (["--config=configs/base.py:method=at"], "base.py cannot be loaded, got TypeError: .* takes"),
        (["--config=diggits"], "got 'diggits': did you mean digits?"),
        (["--config=configs/__init__.py"], "__init__.py cannot be loaded, .* must define get_config"),
        (["--config=README.md"], "must be a config or a Python file, got README.md"),
        (["--config.epohcs", "3", "--config", "configs/cifar10.py"], "did you mean --config.epochs?"),
        (["--processes=x"], "--processes=x: invalid literal"),
        (["--epochs=3"], "unknown flag --epochs: did you mean --config.epochs?"),
        (["--wrokdir=x"], "unknown flag --wrokdir: did you mean --workdir?"),
        (["--data=x"], "unknown flag --data: did you mean --config.data.data_dir?"),
        (["--resume"], "unknown flag --resume: leave it out: a run resumes when its command"),
        (["stray"], "unknown argument 'stray'"),
    ],
)  # fmt: skip
def test_bad_flag_prints_one_line_and_exits_with_2(arguments, message):
    code, out, err = run(arguments)
    assert code == 2
    assert out == ""
    assert len(err.strip().splitlines()) == 1, err
    assert "Traceback" not in err
    assert re.search(message, err), err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.method=bt"], "error: method must be none, one of kd, at"),
        (
            ["--config=configs/folder.py:data=/nowhere"],
            "error: image folder /nowhere does not exist",
        ),
        (["--evaluate", "--workdir=/nowhere"], "error: --workdir: /nowhere holds no run"),
        (["--workdir=gs:/run"], "error: cannot use the path 'gs:/run': .* begin with gs://"),
    ],
)
def test_bad_value_prints_one_line_and_exits_with_2(tmp_path, arguments, message):
    code, _, err = run([f"--workdir={tmp_path / 'run'}", *arguments])
    assert code == 2
    assert len(err.strip().splitlines()) == 1, err
    assert re.search(message, err), err
    assert not (tmp_path / "run").exists() and not (REPOSITORY / "gs:").exists()


@pytest.mark.parametrize(
    "text", ['{"a": 1}', *(pytest.param(t, marks=pytest.mark.slow) for t in ('{"a":', "[]"))]
)
def test_evaluate_of_a_damaged_run_exits_with_2(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    code, _, err = run(["--evaluate", f"--workdir={tmp_path}"])
    assert (code, len(err.strip().splitlines())) == (2, 1), err
    assert re.search(
        r"config.json (is not readable as a config|was written by another version)", err
    )


def test_train_starts_from_any_directory(tmp_path):
    code, _, err = run(["--config.method=bt"], cwd=tmp_path)
    assert code == 2
    assert "method must be none, one of" in err


def test_another_config_in_the_same_workdir_exits_with_2(finished, environment):
    workdir, _ = finished
    code, _, err = run([*SMALL, "--config.seed=5", f"--workdir={workdir}"], environment)
    assert code == 2
    assert "seed: 0 there, 5 now" in err
