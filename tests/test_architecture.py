"""Structure of the code: direction of imports, sizes, and names that belong to one file.

The table below is the design. A row is a folder or a group of files of at_jax; it may import the rows it
names. When a change needs another import, change the row and give the reason in the commit message.
"""

import ast
import graphlib
import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "at_jax"

# Packages of the trainer, each of which imports only those before it, and these modules.
PARTS_OF_THE_TRAINER = ["training.settings", "training.files", "training.components"]
BELOW_THE_PARTS = {"training.config", "training.schedules", "training.console"}
LEAVES = {"errors", "version", "extras", "process"}
ARRAYS = LEAVES | {"arrays", "models"}
TRAINING = ARRAYS | {"options", "paths", "terms", "objective", "data", "distributed"}
MAY_IMPORT = {
    "errors": set(),
    "version": set(),
    "extras": {"errors"},
    "process": set(),  # its arguments, its signals and its output
    "options": {"errors"},
    "paths": {"errors"},
    "arrays": {"errors"},
    "models": {"errors", "extras", "arrays"},  # safetensors is in an extra
    "data": {"errors", "extras", "paths"},  # the digits of scikit-learn
    "distributed": {"errors", "process"},
    "terms": ARRAYS | {"options"},
    "objective": ARRAYS | {"terms"},
    "training": TRAINING,
    "figures": TRAINING | {"training"},
    "entry": TRAINING | {"training", "figures"},
    "tables": TRAINING | {"training", "figures", "entry"},
    # The command line: imports the subcommands.
    "cli": TRAINING | {"training", "figures", "entry", "tables"},
}
# Files directly in at_jax/ that form a row together.
GROUPS = {
    "arrays": {
        "maps", "norms", "attention", "losses", "gradients", "precision", "conv", "conv_lowerings",
        "intermediates", "agreement", "pooling", "freezing", "checks",
    },
    "entry": {"loop", "checkpoint"},
    "process": {"signals", "output", "parser"},
    "cli": {"cli", "__main__"},
}  # fmt: skip
# Packages that a row does not import, beyond what `import at_jax` needs.
HEAVY = {
    "ml_collections",
    "orbax",
    "tensorflow_datasets",
    "sklearn",
    "PIL",
    "tqdm",
    "matplotlib",
    "grain",
}
LIGHT_ROWS = {"errors", "options", "paths", "arrays", "models", "distributed", "terms", "objective"}
# Dotted names that only these files may use, imported or written in an expression.
ONLY_IN = {
    "jax.interpreters": {"conv"},
    "jax.pmap": {"distributed.devices"},
    "jax.devices": {"distributed.devices"},
    "jax.local_devices": {"distributed.devices"},
    "jax.device_count": {"distributed.devices"},
    "jax.local_device_count": {"distributed.devices"},
    "jax.shard_map": {"distributed.devices"},
    "jax.sharding": {"distributed.devices"},
    "jax.process_index": {"distributed.processes"},
    "jax.process_count": {"distributed.processes"},
    "jax.distributed": {"distributed.launch"},
    "jax.experimental.multihost_utils": {"distributed.processes"},
    "absl.flags": {"cli.train", "cli.config_flag", "data.streaming"},  # Grain has flags of its own
    "absl.app": {"cli.train"},
}
MOST_LINES, MOST_FUNCTION_LINES, MOST_CONFIG_MODULES = 250, 60, 10


def sources():
    """Dotted name below at_jax to syntax tree; a package's __init__ has the package's name."""
    trees = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        trees[".".join(parts)] = ast.parse(path.read_text())
    return trees


SOURCES = sources()


def imports(tree):
    """All dotted names that a file imports, at any depth of the code: "at_jax.maps.sum_map"."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import: write at_jax in full"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def used_names(tree):
    """All dotted names that a file imports or writes, with `from jax import lax` resolved."""
    aliases = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            prefix = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            for alias in node.names:
                yield prefix + alias.name
                if alias.asname or prefix:
                    aliases[alias.asname or alias.name] = prefix + alias.name
    for node in ast.walk(tree):
        parts = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if parts and isinstance(node, ast.Name):
            yield ".".join([aliases.get(node.id, node.id), *reversed(parts)])


def modules_imported(tree):
    """Modules of at_jax that a file imports, by dotted name below at_jax."""
    for name in imports(tree):
        first, _, rest = name.partition(".")
        if first == "at_jax":
            # The longest prefix that is a module: the rest is a name in it.
            parts = rest.split(".")
            while parts and ".".join(parts) not in SOURCES:
                parts.pop()
            yield ".".join(parts)


def row(name):
    """The row of the table in which a module is."""
    first, *_, last = name.split(".")[0], *name.split(".")
    if last == "__main__":
        return "cli"  # a program, in whichever folder
    return next((group for group, members in GROUPS.items() if first in members), first)


def public_modules():
    return [name for name in SOURCES if name and not name.endswith("__main__")]


def test_table_names_every_file():
    rows = {row(name) for name in SOURCES if name}
    assert rows == set(MAY_IMPORT), "add new folders to MAY_IMPORT, remove old ones"


def test_table_points_in_one_direction():
    tuple(graphlib.TopologicalSorter(MAY_IMPORT).static_order())
    assert [name for name, allowed in MAY_IMPORT.items() if "entry" in allowed] == ["tables", "cli"]


@pytest.mark.parametrize("name", [name for name in SOURCES if name])
def test_module_imports_only_its_rows(name):
    allowed = MAY_IMPORT[row(name)] | {row(name)}
    wrong = {other for other in modules_imported(SOURCES[name]) if row(other) not in allowed}
    assert not wrong, f"at_jax.{name} may not import {sorted(wrong)}: see MAY_IMPORT"
    if row(name) in LIGHT_ROWS:
        heavy = {imported.split(".")[0] for imported in imports(SOURCES[name])} & HEAVY
        assert not heavy, f"at_jax.{name} may not import {sorted(heavy)}"


def test_modules_have_no_import_cycle():
    graph = {
        name: {other for other in modules_imported(tree) if other != name}
        for name, tree in SOURCES.items()
    }
    tuple(graphlib.TopologicalSorter(graph).static_order())


def in_package(package):
    """Names of the modules directly in a package, without its packages."""
    below = {name.rpartition(".")[2] for name in SOURCES if name.rpartition(".")[0] == package}
    return {
        name
        for name in below
        if not any(other.startswith(f"{package}.{name}.") for other in SOURCES)
    }


@pytest.mark.parametrize("package", ["training", *PARTS_OF_THE_TRAINER])
def test_docstring_of_a_package_names_each_module_once(package):
    named = re.findall(r"``(\w+)``", ast.get_docstring(SOURCES[package]))
    assert sorted(named) == sorted(in_package(package))


@pytest.mark.parametrize("package", PARTS_OF_THE_TRAINER)
def test_part_of_the_trainer_imports_only_those_before_it(package):
    before = PARTS_OF_THE_TRAINER[: PARTS_OF_THE_TRAINER.index(package) + 1]
    for name, tree in SOURCES.items():
        if f"{name}.".startswith(f"{package}."):
            wrong = {
                other
                for other in modules_imported(tree)
                if row(other) == "training"
                and not f"{other}.".startswith(tuple(f"{each}." for each in before))
                and other not in BELOW_THE_PARTS
            }
            assert not wrong, f"at_jax.{name} may not import {sorted(wrong)}"


def test_package_gives_no_other_object_the_name_of_its_module():
    # `package.name` would be either, depending on the order of imports, and the API page has both.
    for name, tree in SOURCES.items():
        package = f"at_jax.{name}" if name else "at_jax"
        modules = {
            other.rpartition(".")[2] for other in SOURCES if other.rpartition(".")[0] == name
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module != package:
                shadowed = modules & {alias.asname or alias.name for alias in node.names}
                assert not shadowed, f"{package} imports another {shadowed}"


def test_configs_import_only_the_config():
    allowed = {"training.config", "training.config_files", "errors"}
    for path in sorted((ROOT / "configs").glob("*.py")):
        wrong = set(modules_imported(ast.parse(path.read_text()))) - allowed
        assert not wrong, path.name


@pytest.mark.parametrize("owned", ONLY_IN)
def test_owned_name_is_used_by_its_owner_only(owned):
    for name, tree in SOURCES.items():
        uses = any(used == owned or used.startswith(f"{owned}.") for used in used_names(tree))
        assert not uses or name in ONLY_IN[owned], f"at_jax.{name} uses {owned}"


@pytest.mark.parametrize(
    "code",
    ["import jax\njax.pmap(f)", "from jax import pmap", "import jax as j\nj.pmap(f)",
     "from jax import interpreters", "from jax.interpreters import ad"],
)  # fmt: skip
def test_used_names_finds_every_spelling(code):
    found = set(used_names(ast.parse(code)))
    assert any(name.startswith(("jax.pmap", "jax.interpreters")) for name in found)


def checked_files():
    folders = (PACKAGE, ROOT / "benchmarks", ROOT / "configs", ROOT / "examples")
    return [ROOT / "train.py", *(path for folder in folders for path in folder.rglob("*.py"))]


@pytest.mark.parametrize("path", checked_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_file_and_functions_are_short(path):
    text = path.read_text()
    assert len(text.splitlines()) <= MOST_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            length = node.end_lineno - node.lineno + 1
            assert length <= MOST_FUNCTION_LINES, f"{node.name} has {length} lines"


def test_whole_config_reaches_few_modules():
    named = [name for name, tree in SOURCES.items() if "ConfigDict" in ast.unparse(tree)]
    assert len(named) <= MOST_CONFIG_MODULES, f"pass the settings of a section instead: {named}"


@pytest.mark.parametrize("name", public_modules())
def test_public_module_defines_all(name):
    tree = SOURCES[name]
    targets = [
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    ]
    has_public = any(
        isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
        for node in tree.body
    )
    assert "__all__" in targets or not has_public, f"at_jax.{name} lacks __all__"


def test_import_needs_only_jax_flax_optax_and_chex():
    blocked = sorted(HEAVY | {"tensorflow", "tensorboardX", "safetensors"})
    modules = "agreement figures models.pretrained objective terms distributed.devices"
    # None in sys.modules makes an import fail as if the package were not installed.
    block = f"import sys; sys.modules.update(dict.fromkeys({blocked})); "
    code = block + "import at_jax; " + "; ".join(f"import at_jax.{m}" for m in modules.split())
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    done = subprocess.run(
        [sys.executable, "-c", block + "import tqdm"], capture_output=True, text=True
    )
    assert "ModuleNotFoundError" in done.stderr  # the blocking works
