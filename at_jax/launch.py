"""How the processes of a run find each other before it, and part where one fails alone."""

import os
import re
import sys
import threading
from typing import NoReturn

import jax

AUTOMATIC = "auto"
_SECONDS_TO_MEET = 120
# A process that is killed is missed after so long where its broken connections do not tell before.
_SECONDS_OF_SILENCE = 60
# Processes end together; one that waits for longer waits for one that has crashed.
_SECONDS_TO_PART = 60


def initialize(
    coordinator: str = "",
    processes: int | None = None,
    process: int | None = None,
    *,
    seconds: float = _SECONDS_TO_MEET,
) -> None:
    """Meet the other processes of the run, if there are any. Before anything is computed.

    Where they do not come, the process says so and ends with exit code 2: JAX would abort it.

    Args:
      coordinator: ``"host:port"`` of process 0; ``"auto"`` where JAX is to ask the cluster; empty to ask it
        only if its variables tell of several tasks.
      processes: how many; 1 to be alone whatever the cluster says.
      process: which this is, from 0.
      seconds: to wait for the others.

    Raises:
      ValueError: if the three do not fit together, JAX cannot find out who the others are, or process 0
        cannot listen there.
    """
    _check(coordinator, processes, process)
    if processes == 1 or not (coordinator or _cluster_has_several_tasks()):
        return
    named = {}
    if coordinator and coordinator != AUTOMATIC:
        named = {
            "coordinator_address": coordinator,
            "num_processes": processes,
            "process_id": process,
            "cluster_detection_method": "deactivate",
        }
    timer = threading.Timer(seconds, _give_up, (coordinator, processes, seconds))
    timer.daemon = True
    timer.start()
    try:
        jax.distributed.initialize(
            **named,
            initialization_timeout=int(seconds) + 60,
            heartbeat_timeout_seconds=_SECONDS_OF_SILENCE,
            shutdown_timeout_seconds=_SECONDS_TO_PART,
        )
    except (ValueError, RuntimeError, KeyError) as error:
        raise ValueError(
            f"several processes are to train together, and JAX could not bring them together "
            f"({' '.join(str(error).split())}): give --coordinator=HOST:PORT with a free port of the first "
            "machine, --processes and --process, or --processes=1 to train alone"
        ) from error
    finally:
        timer.cancel()


def _check(coordinator: str, count: int | None, index: int | None) -> None:
    """The three go together, as flags of train.py; `auto` and a single process stand alone."""
    given = {"--coordinator": coordinator or None, "--processes": count, "--process": index}
    missing = [flag for flag, value in given.items() if value is None]
    alone = count == 1 and not coordinator and index in (None, 0)
    automatic = coordinator == AUTOMATIC and count is None and index is None
    if len(missing) == 3 or alone or automatic:
        return
    if missing:
        raise ValueError(
            f"--coordinator=HOST:PORT, --processes=N and --process=I go together, got no "
            f"{' and no '.join(missing)}: give all three, or none where the cluster tells JAX"
        )
    if not re.fullmatch(r".+:\d{1,5}", coordinator):
        raise ValueError(
            f"--coordinator must be HOST:PORT of process 0, got {coordinator!r}: for example "
            "--coordinator=node0:12345"
        )
    if count < 1:
        raise ValueError(f"--processes must be 1 or more, got {count}: say how many there are")
    if not 0 <= index < count:
        raise ValueError(
            f"--process must be 0 to {count - 1} of --processes={count}, got {index}: count from 0"
        )


def _cluster_has_several_tasks() -> bool:
    """Whether SLURM, Open MPI or a TPU pod started this process as one of several.

    These are the variables that JAX reads (jax/_src/clusters); a batch script that SLURM runs once has
    no SLURM_STEP_NODELIST.
    """
    env = os.environ
    slurm = [env.get(name) for name in ("SLURM_NTASKS", "SLURM_STEP_NUM_TASKS")]
    counts = [env.get("OMPI_COMM_WORLD_SIZE", "")]
    if "SLURM_STEP_NODELIST" in env:
        # An interactive step of one task in an allocation of several is alone.
        counts += ["1" if "1" in slurm else slurm[0] or ""]
    hosts = env.get("TPU_PROCESS_ADDRESSES", env.get("TPU_WORKER_HOSTNAMES", ""))
    return (
        any(count.isdigit() and int(count) > 1 for count in counts)
        or "," in hosts
        or bool(env.get("JAX_COORDINATOR_ADDRESS"))
    )


def _give_up(coordinator: str, processes: int | None, seconds: float) -> NoReturn:
    where = f"at {coordinator}" if coordinator else "where the cluster says"
    others = f"{processes} processes" if processes else "all processes"
    print(
        f"error: {others} must meet {where}, and did not in {seconds:g} seconds: start all of "
        "them with the same --coordinator and --processes, and see that the first machine can be "
        "reached there",
        file=sys.stderr,
    )
    leave(2)


def leave(code: int) -> NoReturn:
    """End this process at once, after an error that the others do not have.

    A usual exit would wait for them while they wait for this one. They end when they miss it.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
