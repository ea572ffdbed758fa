"""Config files: each is complete, parts are checked, and every key of the config has a reader."""

import ast
import dataclasses
import functools
import importlib
import inspect
import itertools
import pathlib

import pytest

from at_jax import freezing, models
from at_jax.cli import train
from at_jax.errors import UserError
from at_jax.terms import TERMS
from at_jax.training import config as configs
from at_jax.training.components import compatibility, tracing
from at_jax.training.settings import SECTIONS, Settings

REPOSITORY = pathlib.Path(__file__).parents[1]
PACKAGE = REPOSITORY / "at_jax"
FILES = sorted(p.stem for p in (REPOSITORY / "configs").glob("*.py") if p.stem != "__init__")
KEYS = set(configs.flatten(configs.default_config().to_dict()))


@pytest.mark.parametrize("name", FILES)
def test_config_file_is_complete_and_passes_the_checks(name):
    config = importlib.import_module(f"configs.{name}").get_config()
    assert set(configs.flatten(config.to_dict())) == KEYS
    settings = configs.settings_of(config)
    assert settings.student == config.student


def test_config_base_holds_the_defaults():
    from configs import base

    assert base.get_config().to_dict() == configs.default_config().to_dict()


def test_parts_of_a_config_file_set_the_keys_that_they_name():
    from configs import folder

    config = folder.get_config("data=/some/dir,student=nin_thin,teacher=nin_wide,method=at+kd")
    chosen = (config.data.data_dir, config.student, config.teacher.model, config.method)
    assert chosen == ("/some/dir", "nin_thin", "nin_wide", "at+kd")


@pytest.mark.parametrize("name", ["imagenet", "cub", "scenes"])
def test_configs_of_photographs_name_modules_and_points_of_their_networks(name):
    file = importlib.import_module(f"configs.{name}")
    part = {"imagenet": "weights", "cub": "init", "scenes": "init"}[name]
    config = file.get_config(f"{part}=a.pth")
    assert (config.teacher.weights if part == "weights" else config.init.weights) == "a.pth"
    settings = configs.settings_of(config)
    taps = {}
    for network in (settings.student, settings.teacher.model):
        found = tracing.shapes(models.build(network, 5), (32, 32, 3), network)
        taps[network] = found.taps
        # Both are fine-tuned with this config.
        freezing.check(settings.init.freeze, found.variables["params"])
    pairs = compatibility.pair_points(settings.transfer.points, *taps.values())
    compatibility.check_points(pairs, *taps.values())
    frozen = {"imagenet": ()}.get(name, ("conv1", "bn1", "stage1"))
    assert settings.init.freeze == frozen


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ("studnet=wrn_16_1", "'studnet=wrn_16_1' is not one of student=.*did you mean 'student'"),
        ("wrn_16_1", "'wrn_16_1' is not one of .*write for example"),
        ("data=DIR", "'data=DIR' is not one of"),
    ],
)
def test_parts_with_an_unknown_name_raise_usererror(parts, message):
    from configs import cifar10

    with pytest.raises(UserError, match=message):
        cifar10.get_config(parts)


def chains(tree):
    """Every dotted name that is read, in parts: settings.at.beta -> ["settings", "at", "beta"]."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield ast.unparse(node).split(".")


def functions(tree):
    """Functions with their parameters: (function, [(name, annotation), ...])."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            parameters = [*node.args.args, *node.args.kwonlyargs]
            yield node, [(p.arg, ast.unparse(p.annotation)) for p in parameters if p.annotation]


@functools.cache
def sources():
    return {path: ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}


def keys_read():
    """Keys that the library reads: `settings.epochs`, `data.pad`, or `pad` of a DataSettings."""
    sections = {section.__name__: f"{name}." for name, section in SECTIONS.items()}
    sections["Settings"] = ""
    read = set()
    for tree in sources().values():
        for parts in chains(tree):
            read |= {f"{a}.{b}".removeprefix("settings.") for a, b in itertools.pairwise(parts)}
        for function, parameters in functions(tree):
            prefixes = {name: sections.get(kind.split(".")[-1]) for name, kind in parameters}
            for first, *rest in chains(function):
                if prefixes.get(first) is not None:
                    read.add(prefixes[first] + ".".join(rest))
    return read


def test_every_key_of_a_section_has_a_reader():
    keys = [f.name for f in dataclasses.fields(Settings) if f.default is not dataclasses.MISSING]
    for name, section in SECTIONS.items():
        keys += [f"{name}.{field.name}" for field in dataclasses.fields(section)]
    read = keys_read()
    unread = [key for key in keys if key not in read]
    assert not unread, f"nothing reads {unread}: remove the keys, or the code has lost them"
    assert not {"student_model", "data.padding", "optimizer.rate"} & read


def test_every_option_of_a_term_is_read_by_the_term():
    for term in TERMS.values():
        source = "".join(inspect.getsource(each) for each in term.__mro__[:-1])
        for field in dataclasses.fields(term):
            assert f"self.{field.name}" in source or "asdict(self)" in source, field.name


def test_the_whole_config_is_passed_to_at_most_ten_modules():
    # Modules with a parameter or an attribute of type ConfigDict.
    holding = set()
    for path, tree in sources().items():
        annotations = [kind for _, parameters in functions(tree) for _, kind in parameters]
        annotations += [
            ast.unparse(node.annotation)
            for node in ast.walk(tree)
            if isinstance(node, ast.AnnAssign)
        ]
        if any("ConfigDict" in kind for kind in annotations):
            holding.add(path.relative_to(PACKAGE).as_posix())
    assert {"loop.py", "training/config.py"} <= holding
    assert len(holding) <= 10, sorted(holding)


def test_config_files_import_nothing_that_trains():
    for path in (REPOSITORY / "configs").glob("*.py"):
        imported = {
            node.module if isinstance(node, ast.ImportFrom) else alias.name
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        allowed = {"at_jax.training.config", "at_jax.training.config_files", "at_jax.errors"}
        assert imported <= allowed | {"ml_collections", "difflib"}, path


@pytest.mark.parametrize(
    ("arguments", "workdir"),
    [
        (["--config=configs/digits.py"], "runs/digits"),
        (["--config=a/cifar10.py:method=at+kd"], "runs/cifar10-method=at+kd"),
        # A path in the parts adds no directories, and the last --config wins, as it does for absl.
        (["--config=x.py", "--config=folder.py:data=/a/b"], "runs/folder-data=_a_b"),
    ],
)
def test_default_workdir_is_named_after_the_config(arguments, workdir):
    assert train.default_workdir(arguments) == workdir


def test_help_config_prints_every_key_without_training(capsys):
    with pytest.raises(SystemExit) as stopped:
        train.parse(["train.py", "--help-config"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == configs.help_text()
