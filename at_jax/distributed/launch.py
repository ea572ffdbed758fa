"""Set-up and tear-down of ``jax.distributed``."""

import contextlib
import ipaddress
import os
import re
import socket
import sys
import threading
from typing import Any, NoReturn

import jax

from at_jax.distributed import peers
from at_jax.errors import UserError

__all__ = [
    "AUTOMATIC", "HEARTBEAT_TIMEOUT", "INIT_TIMEOUT", "SHUTDOWN_TIMEOUT", "initialize", "leave",
]  # fmt: skip

AUTOMATIC = "auto"
# All in seconds. The time for all processes to connect, and that after which the wait is announced.
INIT_TIMEOUT = 120
PATIENCE = 5
# The time after which a silent process counts as dead. A killed one is usually noticed earlier, because
# its connections close (see peers).
HEARTBEAT_TIMEOUT = 40
# The time that a process waits at its end for the others. They end together unless one has crashed.
SHUTDOWN_TIMEOUT = 60


def initialize(
    coordinator: str = "",
    processes: int | None = None,
    process: int | None = None,
    *,
    timeout: float = INIT_TIMEOUT,
) -> None:
    """Connect this process to the others of the run, if there are any.

    Call it before any JAX computation. If the others do not connect in time, the function prints an error
    and ends the process with exit code 2, because JAX would abort it.

    Args:
      coordinator: ``"host:port"`` of process 0, on which it listens; ``"auto"`` for JAX's cluster
        detection; empty to use cluster detection only if environment variables announce several tasks.
      processes: total number of processes; 1 disables cluster detection.
      process: index of this process, from 0.
      timeout: seconds to wait for the other processes.

    Raises:
      UserError: if the arguments are inconsistent, cluster detection fails, or process 0 cannot listen on
        the port.
    """
    _check(coordinator, processes, process)
    if processes == 1 or not (coordinator or _cluster_has_several_tasks()):
        return
    address: dict[str, Any] = {}
    if coordinator and coordinator != AUTOMATIC:
        address = {
            "coordinator_address": coordinator,
            "num_processes": processes,
            "process_id": process,
            "cluster_detection_method": "deactivate",
        }
        # JAX would listen on all addresses of the machine: whoever reaches the port could join the run.
        if "JAX_COORDINATOR_BIND_ADDRESS" not in os.environ:
            address["coordinator_bind_address"] = coordinator
        if process == 0:
            _warn_of_loopback(coordinator)
    timers = _timers(coordinator, processes, timeout)
    try:
        jax.distributed.initialize(
            **address,
            # Later than the timer, so that its message is printed and not JAX's.
            initialization_timeout=int(timeout) + 60,
            heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT,
            shutdown_timeout_seconds=SHUTDOWN_TIMEOUT,
        )
    except (ValueError, RuntimeError, KeyError) as error:
        raise UserError(
            "jax.distributed.initialize failed for a run of several processes "
            f"({' '.join(str(error).split())}): pass --coordinator=HOST:PORT with a free port of the first "
            "machine, --processes and --process, or --processes=1 to train in one process"
        ) from error
    finally:
        for timer in timers:
            timer.cancel()
    if address:
        peers.watch(_host(coordinator))


def _timers(coordinator: str, processes: int | None, timeout: float) -> list[threading.Timer]:
    """Start timers that announce the wait for other processes, and end it."""
    waiting = threading.Timer(PATIENCE, _announce, (coordinator, processes))
    ending = threading.Timer(timeout, _give_up, (coordinator, processes, timeout))
    for timer in (waiting, ending):
        timer.daemon = True
        timer.start()
    return [waiting, ending]


def _host(coordinator: str) -> str:
    """Host of ``host:port``; an IPv6 address is written in brackets."""
    return coordinator.rpartition(":")[0].strip("[]")


def _announce(coordinator: str, processes: int | None) -> None:
    expected = f"all {processes} processes" if processes else "the other processes"
    print(f"Waiting for {expected} to connect to {_shown(coordinator)} ...", file=sys.stderr)


def _shown(coordinator: str) -> str:
    is_known = coordinator not in ("", AUTOMATIC)
    return coordinator if is_known else "the coordinator that the cluster names"


def _warn_of_loopback(coordinator: str) -> None:
    """Warn if a name is only an address of this machine, as a host's own name often is in /etc/hosts."""
    host = _host(coordinator)
    try:
        found = {info[4][0] for info in socket.getaddrinfo(host, None)}
        alone = found and all(ipaddress.ip_address(each).is_loopback for each in found)
    except (OSError, ValueError):
        return  # jax.distributed reports it
    if alone and host != "localhost" and host not in found:
        print(
            f"note: {host} is {' and '.join(sorted(map(str, found)))} on this machine, so processes "
            "on other machines cannot connect: they need --coordinator with a network address",
            file=sys.stderr,
        )


def _check(coordinator: str, count: int | None, index: int | None) -> None:
    """Check the three command-line flags together."""
    given = {"--coordinator": coordinator or None, "--processes": count, "--process": index}
    missing = [flag for flag, value in given.items() if value is None]
    single = count == 1 and not coordinator and index in (None, 0)
    automatic = coordinator == AUTOMATIC and count is None and index is None
    if len(missing) == 3 or single or automatic:
        return
    if count is None or index is None or not coordinator:
        raise UserError(
            f"--coordinator=HOST:PORT, --processes=N and --process=I go together, got no "
            f"{' and no '.join(missing)}: pass all three, or none of them on a cluster that JAX detects"
        )
    if not re.fullmatch(r".+:\d{1,5}", coordinator):
        raise UserError(
            f"--coordinator must be HOST:PORT of process 0, got {coordinator!r}: pass, for example, "
            "--coordinator=node0:12345"
        )
    if count < 1:
        raise UserError(
            f"--processes must be 1 or more, got {count}: pass the total number of processes"
        )
    if not 0 <= index < count:
        raise UserError(
            f"--process must be 0 to {count - 1} with --processes={count}, got {index}: count from 0"
        )


def _cluster_has_several_tasks() -> bool:
    """Return whether SLURM, Open MPI or a TPU pod started this process as one of several.

    Reads the variables that JAX's cluster detection reads (jax/_src/clusters). A batch script that SLURM
    runs once has no SLURM_STEP_NODELIST.
    """
    env = os.environ
    counts = [env.get("OMPI_COMM_WORLD_SIZE", "")]
    # An interactive step of one task runs alone, even in an allocation of several tasks.
    if "SLURM_STEP_NODELIST" in env and env.get("SLURM_STEP_NUM_TASKS") != "1":
        counts.append(env.get("SLURM_NTASKS", ""))
    hosts = env.get("TPU_PROCESS_ADDRESSES", env.get("TPU_WORKER_HOSTNAMES", ""))
    return (
        any(count.isdigit() and int(count) > 1 for count in counts)
        or "," in hosts
        or bool(env.get("JAX_COORDINATOR_ADDRESS"))
    )


def _give_up(coordinator: str, processes: int | None, seconds: float) -> NoReturn:
    expected = f"{processes} processes" if processes else "all processes"
    print(
        f"error: {expected} must connect to {_shown(coordinator)}, but did not within {seconds:g} seconds: "
        "start all of them with the same --coordinator and --processes, and check that every machine "
        "can reach that address",
        file=sys.stderr,
    )
    leave(2)


def leave(code: int) -> NoReturn:
    """End this process at once, after an error that occurred in this process only.

    A normal exit would wait for the other processes while they wait for this one. They stop when its
    heartbeat is missing.

    Args:
      code: exit code.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):  # closed, or gone
            stream.flush()
    os._exit(code)
