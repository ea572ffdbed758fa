"""Python programs started as processes of their own."""

import atexit
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import time

REPOSITORY = pathlib.Path(__file__).parents[1]
# Limit for all processes of a test, so that waiting for one that hangs fails the test.
SECONDS = 600


def environment(cache):
    """Environment with two devices per process and a shared compilation cache."""
    return {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0",
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")]),
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


def held(environment, workdir, epochs, release=""):
    """Environment in which the run in `workdir` waits after some epochs until the file `release` exists."""
    hold = json.dumps([str(workdir), epochs, str(release)])
    path = os.pathsep.join([str(REPOSITORY / "tests" / "held"), environment.get("PYTHONPATH", "")])
    return {**environment, "PYTHONPATH": path, "HOLD": hold}


def free_port():
    """Reserve a TCP port of this machine until this process ends.

    Nothing listens to it yet. Another process gets it only if it asks for this one, by a socket with
    SO_REUSEADDR or SO_REUSEPORT, as servers do.
    """
    reserved = socket.socket()
    for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
        reserved.setsockopt(socket.SOL_SOCKET, option, 1)
    reserved.bind(("127.0.0.1", 0))
    atexit.register(reserved.close)
    return reserved.getsockname()[1]


def start(environment, *commands):
    """Start one Python process for each list of arguments."""
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


def wait_until(condition, *running):
    """Wait for a condition while processes run."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        for process in running:
            assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def finish(started):
    """Wait for each process; return exit code, stdout and stderr, without the log lines of Gloo.

    An output that was redirected is empty.
    """
    deadline = time.monotonic() + SECONDS
    try:
        ends = []
        for process in started:
            texts = process.communicate(timeout=max(1, deadline - time.monotonic()))
            # Several threads of Gloo log at once, so that its lines may be broken.
            gloo = r".*(\[Gloo\]|peer ranks).*\n"
            ends.append((process.returncode, *(re.sub(gloo, "", t or "") for t in texts)))
        return ends
    finally:
        for process in started:
            process.kill()


def run(environment, *commands):
    """Start processes and wait for them."""
    return finish(start(environment, *commands))
