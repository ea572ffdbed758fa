"""One of two processes that connect, run one step of a tiny network together and fail on purpose.

Started by test_processes.py as process_of_two.py PORT INDEX FOLDER; writes its results to FOLDER.
"""

import json
import pathlib
import pickle
import sys
import zlib

import commands
import jax
import numpy as np
import sharded
import tiny

from at_jax.distributed import devices, launch, processes
from at_jax.errors import UserError


def step(used):
    """Run the step of sharded.py on four devices, with this process's half of the batch."""
    objective = sharded.make_objective(devices.AXIS_NAME)
    bound = tiny.bound(objective, beta=1e3, axis_name=devices.AXIS_NAME)
    start = tiny.create(objective), tiny.teacher_variables(objective), jax.random.key(sharded.SEED)
    index, count = processes.index_and_count()
    part = slice(index * 16 // count, (index + 1) * 16 // count)
    half = {name: x[part] for name, x in tiny.batch(16).items()}
    shards = devices.shard(half, devices.local_count(used))
    return jax.device_get(devices.map_train(bound, used)(*devices.replicate(start, used), shards))


def error_of(function, *arguments):
    """Return the error that a function raises, as text."""
    try:
        function(*arguments)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def fail_if(here, error):
    """Return a function that raises in this process if `here`."""

    def function():
        if here:
            raise error

    return function


def listening(port):
    """Addresses on which this machine listens to a port, in hexadecimal."""
    tables = [pathlib.Path(f"/proc/net/{name}") for name in ("tcp", "tcp6")]
    rows = [line.split() for table in tables for line in table.read_text().splitlines()[1:]]
    ends = [row[1].split(":") for row in rows if row[3] == "0A"]
    return [address for address, end in ends if int(end, 16) == int(port)]


def chunks(index):
    """Send an array in many parts; return its checksum."""
    processes._CHUNK, before = 3000, processes._CHUNK
    sent = processes.broadcast_from_primary(lambda: {"x": np.arange(index, 20_000)})
    processes._CHUNK = before
    return zlib.crc32(sent["x"])


def main(port, index, folder):
    launch.initialize(f"127.0.0.1:{port}", 2, index, timeout=commands.SECONDS)
    used = devices.select(0, 16)
    missing = UserError("no such folder: mount it")
    found = {
        "index_and_count": processes.index_and_count(),
        "devices": devices.describe(used),
        "order": [device.process_index for device in used],
        "largest": [processes.largest(0), processes.largest(15 * index)],
        "broadcast_from_primary": processes.broadcast_from_primary(lambda: {"of": index}),
        "primary fails": error_of(processes.broadcast_from_primary, fail_if(True, missing)),
        "unexpected": error_of(processes.broadcast_from_primary, lambda: {}["key"]),
        "chunks": chunks(index),
        "listening": listening(port),
        "run_on_all": processes.run_on_all(lambda: index),
        "one fails": error_of(processes.run_on_all, fail_if(index == 1, missing)),
        # A ValueError that is no UserError is a bug.
        "bug": error_of(processes.run_on_all, fail_if(index == 1, ValueError("x"))),
        "same": error_of(processes.check_same, {"seed": 0, "epochs": 3}),
        "differs": error_of(processes.check_same, {"seed": index, "epochs": 3}),
        "batch": error_of(devices.select, 2, 6),
    }
    (folder / f"found{index}.json").write_text(json.dumps(found))
    (folder / f"step{index}.pickle").write_bytes(pickle.dumps(step(used)))
    if index == 1:
        launch.leave(7)  # as after an error in this process only
    try:
        processes.largest(1)
    except Exception:
        launch.leave(1)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), pathlib.Path(sys.argv[3]))
