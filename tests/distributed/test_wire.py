"""Messages between processes: what is sent arrives, what is damaged is refused, nothing is unpickled."""

import pickle
import zlib

import jax.numpy as jnp
import numpy as np
import pytest

from at_jax.distributed import processes, wire
from at_jax.errors import UserError

VALUES = {
    "config": {"epochs": 3, "drop_epochs": (1, 2), "path": None, "nested": {"β": [True, "a\nb"]}},
    "floats": [0.1, float("inf"), 1e-300, 10**40],
    "state": {
        "kernel": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
        "transposed": np.arange(6.0).reshape(2, 3).T,
        "half": jnp.ones((3, 5), jnp.bfloat16) / 3,
        "empty": np.zeros((0, 4), np.int8),
        "step": np.asarray(7, np.int32),
        0: np.float64(0.5),
    },
}


def same(a, b):
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if hasattr(a, "dtype"):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    return (type(a), a) == (type(b), b)


def test_decode_returns_what_encode_was_given():
    content = wire.encode(VALUES)
    found = wire.decode(content, zlib.crc32(content))
    assert same(VALUES, found) and isinstance(found["state"][0], np.float64)


@pytest.mark.parametrize(
    "value",
    [object(), {1.5: 0}, {1, 2}, np.array(["a"]), np.array([{}]), np.ones(2, ">f4"), b"bytes", len],
    ids=str,
)
def test_encode_of_another_type_raises(value):
    with pytest.raises(TypeError, match="cannot send"):
        wire.encode([value])


def messages():
    """Bodies that another program could send, with their own valid checksums."""
    text = b'{"array": ["float32", [2], 0]}'
    for json_text in (
        b"", b"{", b"\xff", b'{"dict": 3}', b'{"dict": [[[], 1]]}', b'{"a": 1, "b": 2}', b"{}",
        b'{"object": []}', b'{"array": ["object", [1], 0]}', b'{"array": ["str", [1], 0]}',
        b'{"array": ["float32", [-1], 0]}', b'{"array": ["float32", [1], -4]}', b'{"array": [[], [1], 0]}',
        b'{"array": ["float32", [4611686018427387904, 8], 0]}', b'{"array": ["float32", ["2"], 0]}',
        b'{"array": ["float32", [0.5], 0]}', text, b"[" * 100_000, b'{"list": ' * 50_000,
        b'{"scalar": ["float32", [0], 0]}', b'{"array": ["number", [1], 0]}',
    ):  # fmt: skip
        yield len(json_text).to_bytes(8) + json_text
    yield (2**63).to_bytes(8) + text  # longer than the message
    yield b"\0\0"
    yield pickle.dumps({"a": 1})


@pytest.mark.parametrize("message", list(messages()), ids=lambda m: ascii(m[8:40]))
def test_decode_of_a_garbled_message_raises_one_line(message):
    content = np.frombuffer(message, np.uint8)
    with pytest.raises(wire.MessageError) as caught:
        wire.decode(content, zlib.crc32(content))
    assert "\n" not in str(caught.value)


def test_every_flipped_bit_and_cut_is_noticed():
    content = wire.encode({"a": np.arange(3), "b": "text"})
    whole = zlib.crc32(content)
    for bit in range(0, 8 * len(content), 7):
        damaged = content.copy()
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(wire.MessageError, match="checksum"):
            wire.decode(damaged, whole)
    for cut in range(0, len(content), 5):
        with pytest.raises(wire.MessageError):
            wire.decode(content[:cut], whole)


def test_head_of_a_length_above_32_bits_is_read_back():
    packed = wire._HEAD.pack(b"at_jax 1", 5 * 2**30, 7)
    assert wire.body(np.frombuffer(packed, np.uint8)) == (5 * 2**30, 7)
    with pytest.raises(wire.MessageError, match="expected b'at_jax 1'"):
        wire.body(np.frombuffer(b"at_jax 0" + packed[8:], np.uint8))


class Lines:
    """Two processes in one: what process 0 sends is kept, and read again as process 1."""

    def __init__(self, monkeypatch):
        self.sent, self.index, self.damage = [], 0, lambda array: array
        monkeypatch.setattr(processes.jax, "process_count", lambda: 2)
        monkeypatch.setattr(processes.jax, "process_index", lambda: self.index)
        monkeypatch.setattr(processes.multihost_utils, "broadcast_one_to_all", self.broadcast)

    def broadcast(self, array, is_source):
        assert array.dtype == np.uint8 and is_source == (self.index == 0)
        if is_source:
            self.sent.append(array.copy())
            return array
        sent = self.sent.pop(0)
        assert sent.shape == array.shape  # a collective needs equal shapes
        return self.damage(sent)


@pytest.fixture
def lines(monkeypatch):
    return Lines(monkeypatch)


@pytest.mark.parametrize("chunk", [1 << 6, 1 << 10, 1 << 26])
def test_broadcast_in_chunks_of_any_size_arrives(lines, monkeypatch, chunk):
    monkeypatch.setattr(processes, "_CHUNK", chunk)
    assert processes.broadcast_from_primary(lambda: VALUES) is VALUES
    assert max(len(part) for part in lines.sent) <= max(chunk, 1024)
    lines.index = 1
    assert same(processes.broadcast_from_primary(lambda: None), VALUES)
    assert not lines.sent


@pytest.mark.parametrize(
    ("error", "received"),
    [(UserError("no such folder"), UserError("no such folder")),
     (KeyError("x"), RuntimeError("KeyError: 'x'"))],
)  # fmt: skip
def test_broadcast_of_an_error_sends_its_text(lines, error, received):
    def fails():
        raise error

    with pytest.raises(type(error)):
        processes.broadcast_from_primary(fails)
    lines.index = 1
    with pytest.raises(type(received), match=str(received)):
        processes.broadcast_from_primary(fails)


def test_broadcast_of_a_value_that_cannot_be_sent_raises_on_all(lines):
    with pytest.raises(TypeError, match="cannot send a object"):
        processes.broadcast_from_primary(object)
    lines.index = 1
    with pytest.raises(RuntimeError, match="TypeError: cannot send a object"):
        processes.broadcast_from_primary(object)


@pytest.mark.parametrize("at", [0, 9, 17, 40], ids=["format", "length", "checksum", "body"])
def test_broadcast_of_a_garbled_message_raises_one_line(lines, at):
    def damage(array):
        start = wire.HEAD if len(array) > wire.HEAD else 0
        if start <= at < start + len(array):
            array[at - start] ^= 0x40
        return array

    processes.broadcast_from_primary(lambda: "value")
    lines.index, lines.damage = 1, damage
    with pytest.raises(
        wire.MessageError, match="process 0 sent what process 1 cannot read"
    ) as caught:
        processes.broadcast_from_primary(lambda: None)
    line = processes.failure_line(caught.value)
    assert line and "\n" not in line
    assert processes.failure_line(ValueError("x")) is None
