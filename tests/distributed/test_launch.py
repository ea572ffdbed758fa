"""Set-up of several processes: flags, cluster variables, and a process that does not connect."""

import os

import commands
import pytest

from at_jax.distributed import launch
from at_jax.errors import UserError


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a:1", None, 0), "go together, got no --processes: pass all three"),
        (("", 2, None), "go together, got no --coordinator and no --process: pass"),
        (("auto", 2, 0), "must be HOST:PORT of process 0, got 'auto'"),
        (("a", 2, 0), "must be HOST:PORT of process 0, got 'a'"),
        (("a:1", 2, 2), "--process must be 0 to 1 with --processes=2, got 2: count from 0"),
        (("a:1", 0, 0), "--processes must be 1 or more, got 0"),
    ],
)
def test_initialize_with_inconsistent_flags_raises(arguments, message):
    with pytest.raises(UserError, match=message):
        launch.initialize(*arguments)


def test_train_py_with_a_missing_flag_ends_with_code_2(tmp_path):
    ((code, out, err),) = commands.run(
        commands.environment(tmp_path), ["train.py", "--processes=2"]
    )
    assert (code, out, len(err.splitlines())) == (2, "", 1), err
    assert err.startswith(
        "error: --coordinator=HOST:PORT, --processes=N and --process=I go together"
    )


def test_initialize_without_the_other_process_ends_with_code_2(tmp_path):
    code = (
        "from at_jax.distributed import launch; "
        "launch.PATIENCE = 0; "
        f"launch.initialize('127.0.0.1:{commands.free_port()}', 2, 1, timeout=2)"
    )
    ((code, out, err),) = commands.run(commands.environment(tmp_path), ["-c", code])
    waiting, error = err.splitlines()
    assert (code, out) == (2, "") and waiting.startswith(
        "Waiting for all 2 processes to connect to 127.0.0.1:"
    )
    assert error.startswith("error: 2 processes must connect to 127.0.0.1:")
    assert "not within 2 seconds: start all" in error


SLURM = {"SLURM_JOB_ID": "1", "SLURM_STEP_NODELIST": "a", "SLURM_NTASKS": "4"}


@pytest.mark.parametrize(
    ("variables", "several"),
    [
        ({}, False),
        (SLURM | {"SLURM_STEP_NUM_TASKS": "4"}, True),
        (SLURM | {"SLURM_NTASKS": "1"}, False),
        # An interactive step of one task in an allocation of four, and the batch script.
        (SLURM | {"SLURM_STEP_NUM_TASKS": "1"}, False),
        ({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "4"}, False),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, True),
        ({"OMPI_COMM_WORLD_SIZE": "1"}, False),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, True),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),
        ({"JAX_COORDINATOR_ADDRESS": "a:1"}, True),
    ],
)
def test_initialize_without_flags_follows_the_cluster_variables(monkeypatch, variables, several):
    for name in os.environ:
        if name.startswith(("SLURM_", "OMPI_", "TPU_", "JAX_COORDINATOR")):
            monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    calls = []
    monkeypatch.setattr(launch.jax.distributed, "initialize", lambda **given: calls.append(given))
    launch.initialize()
    assert bool(calls) == several
    assert not calls or "coordinator_address" not in calls[0]  # left to JAX's cluster detection
    launch.initialize(processes=1)
    assert len(calls) == several
    launch.initialize("node0:1234", 3, 2)
    assert calls[-1]["num_processes"] == 3 and calls[-1]["process_id"] == 2


@pytest.mark.parametrize("coordinator", ["", launch.AUTOMATIC])
def test_wait_for_a_coordinator_of_the_cluster_does_not_name_a_flag(coordinator, capsys):
    launch._announce(coordinator, None)
    expected = (
        "Waiting for the other processes to connect to the coordinator that the cluster names ..."
    )
    assert capsys.readouterr().err.strip() == expected
