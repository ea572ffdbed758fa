"""Ends this process when another one of the run has died.

A collective operation waits for a process that is gone until its heartbeats are missing, and
jax.distributed then aborts with a stack trace. A connection closes as soon as its process dies. Process 0
has one to each of the others, on the host of the coordinator. They carry a token, and one byte at a normal
end. Clusters that JAX detects are left to the heartbeats: they name no host.
"""

import atexit
import contextlib
import hmac
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from at_jax import signals
from at_jax.distributed import processes

__all__ = ["settle", "watch"]

_TOKEN_BYTES = 32
_INDEX_BYTES = 4
_END = b"."
_SECONDS_TO_CONNECT = 10.0
_SECONDS_TO_NOTICE = 2.0

_connections: list[socket.socket] = []
_is_ending = False


def watch(host: str) -> None:
    """Connect the processes of the run (collective). If that fails, the missing heartbeats end them.

    Args:
      host: name or address of process 0, on which it listens.
    """
    listeners: list[socket.socket] = []
    token = secrets.token_bytes(_TOKEN_BYTES)

    def listen() -> tuple[int, str] | None:
        with contextlib.suppress(OSError):
            family, *_, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
            listeners.append(socket.create_server(address[:2], family=family))
            return listeners[0].getsockname()[1], token.hex()
        return None

    found = processes.broadcast_from_primary(listen)
    if found is None:
        return
    atexit.register(_send_end)  # before jax.distributed waits for the others
    if listeners:
        _start(_accept, listeners[0], token)
        return
    port, expected = found
    with contextlib.suppress(OSError):
        connection = socket.create_connection((host, port), timeout=_SECONDS_TO_CONNECT)
        index, _ = processes.index_and_count()
        connection.sendall(bytes.fromhex(expected) + index.to_bytes(_INDEX_BYTES))
        _follow(connection, 0)


def settle() -> None:
    """Wait after a failed operation: if another process caused it, this one ends meanwhile."""
    if _connections:
        time.sleep(_SECONDS_TO_NOTICE)


def _start(function: Callable[..., None], *arguments: Any) -> None:
    threading.Thread(target=function, args=arguments, name="peers", daemon=True).start()


def _accept(listener: socket.socket, token: bytes) -> None:
    while True:
        connection, _ = listener.accept()
        _start(_greet, connection, token)


def _greet(connection: socket.socket, token: bytes) -> None:
    """Follow a connection if it is of a process of this run; close any other."""
    greeting = b""
    with contextlib.suppress(OSError):
        connection.settimeout(_SECONDS_TO_CONNECT)
        while len(greeting) < _TOKEN_BYTES + _INDEX_BYTES:
            part = connection.recv(_TOKEN_BYTES + _INDEX_BYTES - len(greeting))
            if not part:
                break
            greeting += part
    if hmac.compare_digest(greeting[:_TOKEN_BYTES], token):
        _follow(connection, int.from_bytes(greeting[_TOKEN_BYTES:]))
    else:
        connection.close()


def _follow(connection: socket.socket, index: int) -> None:
    connection.settimeout(None)
    _connections.append(connection)
    _start(_wait_for_end, connection, index)


def _wait_for_end(connection: socket.socket, index: int) -> None:
    received = b""
    with contextlib.suppress(OSError):
        received = connection.recv(1)
    if received == _END or _is_ending:
        return
    line = (
        f"error: process {index} of this run has ended prematurely, see its output: run the same "
        f"command in every process to resume: {signals.command()}\n"
    )
    with contextlib.suppress(OSError):
        os.write(2, line.encode(errors="backslashreplace"))
    os._exit(1)


def _send_end() -> None:
    global _is_ending
    _is_ending = True
    for connection in _connections:
        with contextlib.suppress(OSError):
            connection.sendall(_END)
