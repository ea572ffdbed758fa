"""Files of torch.save, read without PyTorch: equal arrays, and refusal of everything that is not data."""

import math
import pickle
import struct
import tracemalloc
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest
import torch_writer as writer
from parity import networks
from parity.cases import FOLDER
from torch_writer import Call, Persistent, Raw

from at_jax.errors import UserError
from at_jax.models import pretrained

WEIGHTS = networks.generated(networks.FILE_SHAPES)
ARRAYS = {"weight": np.arange(24, dtype=np.float32).reshape(4, 6), "bias": np.ones(3, np.float32)}
FORMATS = {"zip": writer.zip_file, "legacy": writer.legacy_file}
ORDERED = ("collections", "OrderedDict")


@pytest.fixture
def read(tmp_path):
    def read_bytes(content):
        path = tmp_path / "weights.pth"
        path.write_bytes(content)
        return pretrained.read(path)

    return read_bytes


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype, name
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def of_torch():
    """Expected content of the files of make_torch_files.py."""
    plain = WEIGHTS | {"bn.num_batches_tracked": np.int64(7)}
    base = WEIGHTS["conv.weight"]
    kinds = {"half": np.float16, "bfloat16": jnp.bfloat16, "double": np.float64}
    views = {
        "transposed": base.transpose(3, 1, 2, 0), "part": base[1:, :, 2:, ::2], "whole": base,
        "parameter": WEIGHTS["fc.weight"], "empty": base[:0], "scalar": base[0, 0, 0, 0],
    }  # fmt: skip
    dtypes = {
        f"{name}.{kind}": value.astype(dtype)
        for name, value in WEIGHTS.items()
        for kind, dtype in kinds.items()
    }
    return {"plain": plain, "training": plain, "views": views, "dtypes": dtypes}


@pytest.mark.parametrize("suffix", [".pth", ".legacy.pth"])
@pytest.mark.parametrize("name", ["plain", "views", "training", "dtypes"])
def test_file_of_torch_gives_its_arrays(name, suffix):
    found = pretrained.read(FOLDER / "torch_files" / f"{name}{suffix}")
    assert_equal(found, of_torch()[name])


@pytest.mark.parametrize("make", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize(
    "value",
    [
        writer.state_dict(ARRAYS),
        {"state_dict": writer.state_dict(ARRAYS), "epoch": 3, "best": 0.5, "args": {"lr": [0.1, None]}},
        {"model": writer.state_dict(ARRAYS), "ema": writer.state_dict(ARRAYS)},
        {"epoch": 3, "best_acc1": writer.state_dict(ARRAYS).items["bias"],
         "state_dict": writer.state_dict(ARRAYS)},
        {"accuracy": writer.tensor(ARRAYS["bias"], "1", shape=(), strides=()),
         "student": writer.state_dict(ARRAYS)},
        {"n_averaged": writer.state_dict(ARRAYS).items["bias"],
         **{f"module.{name}": each for name, each in writer.state_dict(ARRAYS).items.items()}},
        {"params": {"weight": writer.state_dict(ARRAYS).items["weight"]}, "epoch": 1,
         "stats": {"bias": writer.state_dict(ARRAYS).items["bias"]}},
        {f"module.{name}": tensor for name, tensor in writer.state_dict(ARRAYS).items.items()},
        # As Python 2 pickles an OrderedDict.
        Call(*ORDERED, ([list(pair) for pair in writer.state_dict(ARRAYS).items.items()],)),
    ],
    ids=["alone", "among values", "among others", "next to a tensor", "next to a scalar", "averaged",
         "authors", "data parallel", "python 2"],
)  # fmt: skip
def test_state_dict_is_found(read, make, value):
    assert_equal(read(make(value, writer.contents(ARRAYS))), ARRAYS)


def test_part_of_a_legacy_storage_is_a_view(read):
    array = np.arange(10, dtype=np.float32)
    part = writer.tensor(array, "0", shape=(2, 2), strides=(2, 1), view=(("1", 3, 5),))
    assert_equal(
        read(writer.legacy_file({"part": part}, {"0": array.tobytes()})),
        {"part": array[3:7].reshape(2, 2)},
    )


class Attack:
    """Python's pickle makes this call os.mkdir of a folder, wherever it is loaded."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        import os

        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("make", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_code_of_a_pickle_is_not_executed(read, make, protocol, tmp_path):
    folder = tmp_path / "made"
    content = pickle.dumps({"weight": Attack(folder)}, protocol)
    with pytest.raises(
        UserError, match=r"names (posix|nt).mkdir, which is not supported: save the"
    ):
        read(make(content, {}))
    assert not folder.exists()
    pickle.loads(content)
    assert folder.exists()  # it would have been


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Call("builtins", "eval", ("1",)), "names builtins.eval, which"),
        (Call("torch._utils", "_rebuild_tensor", ()), "names torch._utils._rebuild_tensor,"),
        (Call("torch", "FloatStorage", ()), "calls something that is not a function"),
        (Call("torch", "ComplexFloatStorage", ()), "names torch.ComplexFloatStorage"),
        (Call("torch", "QInt8Storage", ()), "names torch.QInt8Storage"),
        (Call("a\x1b[31m", "b", ()), r"names 'a\\x1b\[31m.b'"),
        (Raw(b"cos\nsystem\n(X\x01\x00\x00\x00aR"), "names os.system"),
        (Raw(b"(ios\nsystem\n"), "uses INST"),
        (Raw(b"(c" + b"os\nsystem\no"), "names os.system"),
        (Raw(b"\x82\x01"), "uses EXT1"),
        (Raw(b"ccollections\nOrderedDict\n)\x81"), "uses NEWOBJ"),
        (Raw(b"}}b"), "sets attributes"),
        (Raw(b"ctorch._utils\n_rebuild_tensor_v2\n}b"), "sets attributes"),
        (Call(*ORDERED, (), {}, (None, {"a": 1})), "sets attributes"),
        (Call(*ORDERED, ({},)), "different arguments than Python's"),
        (Call(*ORDERED, ([[1, 2, 3]],)), "different arguments than Python's"),
        ({((1,),): 2}, "key of type tuple"),
        ({10**500: 2}, "key of type int"),
        (Persistent("weights"), "not described as in PyTorch"),
        (Persistent(("module", 1, 2, 3, 4)), "not described as in PyTorch"),
        (Raw(b"("), "damaged or cut off"),
        (Raw(b"N0"), "uses POP"),
        (Raw(b"h\x07"), "damaged or cut off"),
        (Raw(b"(Nu"), "damaged or cut off"),
        (Raw(b"Na"), "damaged or cut off"),
        (Raw(b"\xff"), "damaged or cut off"),
        (Call("torch._utils", "_rebuild_parameter", (1, 2, 3)), "a parameter of its pickle has different"),
        ("weights", "it holds a str, not a state dict"),
        ([1], "it holds a list, not"),
        ({"a": 1, "b\n": {}}, r"it holds no state dict \(its keys are a, 'b\\n'\)"),
        ({"a": {"x": writer.tensor(ARRAYS["bias"], "0")}, "b": {"x": writer.tensor(ARRAYS["bias"], "0")}},
         r"several state dicts \(its keys are a, b\)"),
    ],
)  # fmt: skip
def test_everything_but_data_is_refused(read, value, message):
    with pytest.raises(UserError, match=message) as error:
        read(writer.zip_file(value, {"0": ARRAYS["bias"].tobytes()}))
    assert str(error.value).isprintable()


VECTOR = np.arange(12, dtype=np.float32)
OTHER = {"shape": (2,), "strides": (1,), "offset": 0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"offset": 11}, r"of size \(2,\), strides \(1,\) and offset 11 is not within its storage of 12"),
        ({"strides": (12,)}, "not within its storage"),
        ({"shape": (13,)}, "not within its storage"),
        ({"shape": (0,), "offset": 13}, "not within its storage"),
        ({"shape": (10**6, 10**6), "strides": (0, 0)}, "not within its storage"),
        ({"shape": (2**40,) * 4, "strides": (1,) * 4}, "not within its storage"),
        ({"strides": (-1,)}, "not a whole number of at least 0"),
        ({"offset": -1}, "not a whole number of at least 0"),
        ({"shape": (-2,)}, "not a whole number of at least 0"),
        ({"shape": (2.0,)}, "not a whole number of at least 0"),
        ({"shape": (True,)}, "not a whole number of at least 0"),
        ({"shape": (2**60,)}, "not a whole number of at least 0"),
        ({"shape": [2]}, "not a whole number of at least 0"),
        ({"shape": (1,) * 9, "strides": (1,) * 9}, "not a whole number of at least 0"),
        ({"strides": (1, 1)}, "1 sizes and 2 strides"),
        ({"length": 13}, "storage 0 must have 52 bytes"),
        ({"length": 11}, "storage 0 must have 44 bytes"),
        ({"length": 2**40}, "storage 0 must have 4,398,046,511,104 bytes"),
        ({"length": -1}, "size that is not a whole number"),
        ({"kind": "Double"}, "storage 0 must have 96 bytes"),
        ({"view": (("1", 10, 3),)}, "elements 10 to 13 are not within a storage of 12"),
        ({"view": ((0, 1),)}, "not described as in PyTorch"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("make", FORMATS.values(), ids=FORMATS)
def test_tensor_that_is_not_within_the_file_is_refused(read, make, change, message):
    tensor = writer.tensor(VECTOR, "0", **OTHER | change)
    with pytest.raises(UserError, match=message):
        read(make({"weight": tensor}, {"0": VECTOR.tobytes()}))


def test_storage_that_is_described_in_two_ways_is_refused(read):
    value = {"a": writer.tensor(VECTOR, "0"), "b": writer.tensor(VECTOR, "0", kind="Int")}
    with pytest.raises(UserError, match="storage 0 is described in two ways"):
        read(writer.zip_file(value, {"0": VECTOR.tobytes()}))


STATE, CONTENTS = writer.state_dict(ARRAYS), writer.contents(ARRAYS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it was not written by torch.save: download it again"),
        (b"<html>404</html>", "it was not written by torch.save"),
        (writer.zip_file(STATE, CONTENTS, compression=zipfile.ZIP_DEFLATED), "is compressed"),
        (writer.zip_file(STATE, {"0": b""}), "storage 0 must have 96 bytes, got 0"),
        (writer.zip_file(STATE, {}), "storage 0 must have 96 bytes, got none"),
        (writer.zip_file(STATE, CONTENTS, extra={"byteorder": b"big"}), "byte order is not little"),
        (writer.zip_file(STATE, CONTENTS, extra={"../../x": b""}), "a path outside of its folder"),
        (writer.zip_file(STATE, CONTENTS, extra={"constants.pkl": b""}), "TorchScript program"),
        (writer.zip_file(STATE, CONTENTS).replace(b"data.pkl", b"data.pk1"), "is not one of torch.save"),
        (writer.legacy_file(STATE, CONTENTS, header=(*writer.LEGACY[:2], {"little_endian": False})),
         "byte order is not little-endian"),
        (writer.legacy_file(STATE, CONTENTS, header=(writer.LEGACY[0], 1002, {})), "version is not 1001"),
        (writer.legacy_file(STATE, {"0": b"", (("0",),): b""}, lengths={"0": 0, (("0",),): 0}),
         "list of storages does not match its tensors"),
        (writer.legacy_file(STATE, {"0": CONTENTS["0"]}), "list of storages does not match its tensors"),
        (writer.legacy_file(STATE, CONTENTS, lengths={"0": 24, "1": 2**50}), "storage 1 must have 12"),
        (writer.legacy_file(STATE, CONTENTS, lengths={"0": -24, "1": 3}), "storage 0 must have 96"),
    ],
)  # fmt: skip
def test_damaged_container_is_refused(read, content, message):
    with pytest.raises(UserError, match=message):
        read(content)


def duplicated():
    """A zip file with two members of the same name."""
    content = writer.zip_file(STATE, CONTENTS, extra={"data/X": b"12345678"})
    return content.replace(b"data/X", b"data/0")


def overlapping():
    """A zip file whose members claim more bytes than the file has: their entries share a part of it."""
    content = bytearray(writer.zip_file(STATE, CONTENTS))
    place = content.rindex(b"PK\x01\x02")
    content[place + 20 : place + 28] = struct.pack("<II", 10**9, 10**9)  # both sizes
    return bytes(content)


@pytest.mark.parametrize(
    ("make", "message"), [(duplicated, "have the same name"), (overlapping, "larger than the file")]
)
def test_zip_with_misleading_members_is_refused(read, make, message):
    with pytest.raises(UserError, match=message):
        read(make())


@pytest.mark.parametrize("make", FORMATS.values(), ids=FORMATS)
def test_file_cut_off_anywhere_is_refused(read, make):
    content = make(STATE, CONTENTS)
    for length in range(0, len(content) - 1, 7):
        with pytest.raises(UserError, match="cannot be read as weights: "):
            read(content[:length])


@pytest.mark.parametrize("make", FORMATS.values(), ids=FORMATS)
def test_file_with_a_changed_byte_is_read_or_refused(read, make):
    content, random = make(STATE, CONTENTS), np.random.default_rng(0)
    refused = 0
    for place in random.permutation(len(content))[:150]:
        changed = bytearray(content)
        changed[place] ^= 1 << random.integers(8)
        try:
            read(bytes(changed))
        except UserError as error:
            refused += 1
            assert str(error).isprintable()
    assert refused > 50


@pytest.mark.parametrize(
    "content",
    [
        b"X" + struct.pack("<I", 2**32 - 1),  # a string of 4 GiB
        b"\x8d" + struct.pack("<Q", 2**62),
        b"\x8b" + struct.pack("<i", 2**31 - 1),  # an integer of 2 GiB
        b"Nr" + struct.pack("<I", 2**32 - 1) + b"0}",  # the last of 4 billion places of the memo
        # A value with 2^200 leaves, if it were copied or printed.
        b"]q\x00(" + b"".join(b"h\x00h\x00t]q\x00(" for _ in range(200)) + b"t",
        writer.code({"a": Raw(b"](" + b"}" * 1000 + b"e")}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("make", FORMATS.values(), ids=FORMATS)
def test_claimed_sizes_are_not_allocated(read, make, content):
    file = make(b"\x80\x02" + content + b".", {})
    tracemalloc.start()
    try:
        with pytest.raises(UserError):
            read(file)
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()


def test_many_views_of_a_storage_take_its_memory_once(read):
    array = np.zeros(2**18, np.float32)  # 1 MiB
    tensors = {str(n): writer.tensor(array, "0") for n in range(64)}
    file = writer.zip_file(tensors, {"0": array.tobytes()})
    tracemalloc.start()
    try:
        found = read(file)
        assert len(found) == 64 and math.prod(found["7"].shape) == 2**18
        assert tracemalloc.get_traced_memory()[1] < 6 * 2**20
    finally:
        tracemalloc.stop()
