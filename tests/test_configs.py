"""Configs: every file loads, every key has a reader and a comment, the command line says what is wrong."""

import ast
import importlib
import pathlib
import re
import sys

import pytest

from at_jax import run_directory, settings
from configs import base

REPOSITORY = pathlib.Path(__file__).parents[1]
FILES = sorted(
    p.stem for p in (REPOSITORY / "configs").glob("*.py") if p.stem not in ("__init__", "parts")
)
KEYS = run_directory.flatten(base.get_config().to_dict())


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_a_complete_config_that_passes_the_checks(name):
    config = importlib.import_module(f"configs.{name}").get_config()
    assert set(run_directory.flatten(config.to_dict())) == set(KEYS)
    settings.check(config)


def test_parts_set_what_they_name():
    from configs import folder

    config = folder.get_config("data=/some/dir,student=nin_thin,teacher=nin_wide,method=at+kd")
    chosen = (config.data.data_dir, config.student, config.teacher.model, config.method)
    assert chosen == ("/some/dir", "nin_thin", "nin_wide", "at+kd")


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ("studnet=wrn_16_1", "'studnet=wrn_16_1' is not one of student=.*did you mean 'student'"),
        ("wrn_16_1", "'wrn_16_1' is not one of .*write for example"),
        ("data=DIR", "'data=DIR' is not one of"),
    ],
)
def test_bad_parts(parts, message):
    from configs import cifar10

    with pytest.raises(ValueError, match=message):
        cifar10.get_config(parts)


def _attribute_chains(tree):
    """Every dotted name that is read: config.at.beta -> "config.at.beta"."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield ast.unparse(node)


def test_every_key_has_a_reader():
    read = set()
    for path in (REPOSITORY / "at_jax").glob("*.py"):
        for chain in _attribute_chains(ast.parse(path.read_text())):
            if match := re.search(r"\bconfig\.(.+)$", chain):
                read.add(match[1])
    unread = {key for key in KEYS if key not in read}
    assert not unread, f"no one reads {sorted(unread)}: remove the keys, or the code has lost them"


def test_the_config_is_read_by_those_who_assemble_a_run_alone():
    readers = {
        path.name
        for path in (REPOSITORY / "at_jax").rglob("*.py")
        if path.name != "run_directory.py"  # where any mapping is called config
        and any(
            re.match(r"(self\.)?config\.", chain)
            for chain in _attribute_chains(ast.parse(path.read_text()))
        )
    }
    assert readers == {
        "experiment.py", "inputs.py", "ledger.py", "loop.py", "outcome.py", "pairing.py", "plan.py",
        "settings.py", "trainer.py",
    }  # fmt: skip


def test_every_key_of_base_has_a_comment_before_it():
    lines = (REPOSITORY / "configs" / "base.py").read_text().splitlines()
    commented = 0
    for number, line in enumerate(lines):
        if re.match(r"    \w+(\.\w+)? = (?!.*ConfigDict)", line) and not line.strip().startswith(
            "config = "
        ):
            # A comment may speak for the keys that follow it directly.
            above = number - 1
            while re.match(r"    \w+\.\w+ = ", lines[above]):
                above -= 1
            assert lines[above].strip().startswith("#"), (
                f"configs/base.py: no comment above {line.strip()}"
            )
            commented += 1
    assert commented == len(KEYS)


def test_configs_are_data():
    for path in (REPOSITORY / "configs").glob("*.py"):
        imported = {
            (node.module if isinstance(node, ast.ImportFrom) else alias.name).split(".")[0]
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        assert imported <= {"configs", "ml_collections", "difflib"}, path


@pytest.fixture
def train(monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY))
    monkeypatch.chdir(REPOSITORY)
    yield importlib.import_module("train")
    sys.modules.pop("train", None)


def test_default_workdir(train):
    default = train.default_workdir
    assert default(["--config=configs/digits.py"]) == "runs/digits"
    assert default(["--config=a/cifar10.py:method=at+kd"]) == "runs/cifar10-method=at+kd"
    # Folders must not grow inside the name, and the last --config wins, as it does for absl.
    assert default(["--config=x.py", "--config=folder.py:data=/a/b"]) == "runs/folder-data=_a_b"
