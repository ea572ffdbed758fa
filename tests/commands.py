"""Python programs started as processes of their own."""

import os
import pathlib
import re
import socket
import subprocess
import sys
import time

REPOSITORY = pathlib.Path(__file__).parents[1]
# Limit for all processes of a test, so that waiting for one that hangs fails the test.
SECONDS = 200


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


def free_port():
    """Find a free TCP port of this machine."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


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


def finish(started):
    """Wait for each process; return exit code, stdout and stderr, without the log lines of Gloo."""
    deadline = time.monotonic() + SECONDS
    try:
        ends = []
        for process in started:
            texts = process.communicate(timeout=max(1, deadline - time.monotonic()))
            # Several threads of Gloo log at once, so that its lines may be broken.
            gloo = r".*(\[Gloo\]|peer ranks).*\n"
            ends.append((process.returncode, *(re.sub(gloo, "", t) for t in texts)))
        return ends
    finally:
        for process in started:
            process.kill()


def run(environment, *commands):
    """Start processes and wait for them."""
    return finish(start(environment, *commands))
