"""Checks that what a shell block names exists: targets, flags, keys, configs, extras, files."""

import contextlib
import functools
import io
import pathlib
import re
import shlex
import tomllib

from at_jax import cli, models, terms
from at_jax.errors import UserError
from at_jax.training.config import default_values

ROOT = pathlib.Path(__file__).parents[1]
KEYS = set(default_values())
PLACES = {"data", "init", "weights"}
CONFIG_PARTS = {"student", "teacher", "method"} | PLACES
COMMANDS = ("train", "evaluate", "predict", "figures", "tables", "weights", "data")
MODULES = {
    "at_jax.tables": "tables", "at_jax.figures": "figures", "at_jax.models.pretrained": "weights",
    "at_jax": "at-jax",
}  # fmt: skip


@functools.cache
def flags_of(command: str) -> frozenset[str]:
    """Flags of a subcommand of at-jax, from its help."""
    text = io.StringIO()
    kinds = ("maps", "gradients", "mappings", "curves") if command == "figures" else ("",)
    for kind in kinds:
        with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
            cli.main([command, *filter(None, [kind]), "--help"])
    return frozenset(re.findall(r"--[a-z][\w-]*", text.getvalue())) | {"--help"}


def all_flags() -> set[str]:
    """Flags of all subcommands of at-jax."""
    return set().union(*map(flags_of, COMMANDS))


def check_line(line: str, *, runs: bool) -> None:
    """Check one command.

    Args:
      line: of a shell block, without its continuation marks.
      runs: whether its block is not marked; then only programs of this repository may be in it.
    """
    words = shlex.split(line, comments=True)
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words.pop(0)  # an environment variable
    if words[:1] == ["srun"]:
        words = words[1:]
        while words and words[0].startswith("--"):
            words.pop(0)
    if not words:
        return
    for inner in (word for word in words if word.startswith("at-jax ")):
        check_line(inner, runs=runs)  # a command in quotes
    program, *rest = words
    program = program.removeprefix(".venv/bin/")
    if program == "make":
        _check_make(rest)
    elif program == "pip":
        _check_pip(rest)
    elif program == "at-jax":
        _check_command(rest)
    elif program == "python" and rest[:1] == ["train.py"]:
        _check_command(["train", *rest[1:]])
    elif program == "python" and rest[:1] == ["-m"]:
        _check_module(rest[1], rest[2:])
    else:
        assert not runs, f"unknown program {program!r}: mark the block as not run"


def _check_make(words: list[str]) -> None:
    text = (ROOT / "Makefile").read_text()
    for word in words:
        name, equals, value = word.partition("=")
        pattern = rf"^{name} \?=" if equals else rf"^{name}:"
        assert re.search(pattern, text, re.M), f"the Makefile has no {name}"
        if name == "ARGS" and words[0] == "table":
            _check_command(["tables", *shlex.split(value)])
        elif name == "ARGS" and words[0] == "train":
            _check_command(["train", *shlex.split(value)])
        elif name == "ARGS" and words[0] == "bench":
            _check_module("benchmarks.double_backprop", shlex.split(value))


def _check_pip(words: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["tool"]["setuptools"]["dynamic"]["optional-dependencies"]
    for word in words:
        if match := re.match(r"(?:\.|at_jax)\[(.*)\]", word):
            assert set(match[1].split(",")) <= set(extras), word


def _check_module(name: str, words: list[str]) -> None:
    if name in MODULES:
        _check_command([MODULES[name], *words] if name != "at_jax" else words)
        return
    path = ROOT.joinpath(*name.split("."))
    files = [*path.glob("*.py"), path.with_suffix(".py"), ROOT / "benchmarks" / "command.py"]
    text = "".join(file.read_text() for file in files if file.exists())
    if name == "benchmarks.faults":  # the names of its kinds are flags
        from benchmarks.faults.__main__ import _MODULES

        text += "".join(f'DEFINE_integer("{kind}"' for kind in _MODULES)
    assert path.is_dir() or path.with_suffix(".py").exists(), f"no module {name}"
    for word in words:
        flag = word.partition("=")[0]
        defined = rf'(?:DEFINE_\w+\(\s*"|add_argument\("--){re.escape(flag[2:])}"'
        assert not flag.startswith("--") or re.search(defined, text), f"{name} has no {flag}"


def _check_command(words: list[str]) -> None:
    command, *rest = words
    assert command in COMMANDS, command
    for index, word in enumerate(rest):
        flag, _, value = word.partition("=")
        if flag == "--config":
            check_config(value)
        elif flag == "--set":
            assert rest[index + 1].partition("=")[0] in KEYS, rest[index + 1]
        elif flag.startswith("--config."):
            assert flag.removeprefix("--config.") in KEYS, f"there is no key {flag}"
        elif flag.startswith("--"):
            assert flag in flags_of(command), f"at-jax {command} has no {flag}"


def check_config(value: str) -> None:
    """Check NAME:PARTS of --config."""
    name, _, parts = value.partition(":")
    path = pathlib.Path(name)
    assert (ROOT / "configs" / f"{path.stem}.py").exists() or path.name == "my_study.py", name
    for part in filter(None, parts.split(",")):
        key, _, chosen = part.partition("=")
        assert key in CONFIG_PARTS, part
        if key == "method":
            terms.parts(chosen)
        elif key not in PLACES:
            models.build(chosen)


def check_error(value: str) -> bool:
    """Whether a config is rejected, for the test of these checks."""
    try:
        check_config(value)
    except (AssertionError, UserError):
        return True
    return False
