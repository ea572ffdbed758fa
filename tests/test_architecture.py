"""Who may import whom: the house of the design as a table, read from the source without importing it."""

import ast
import graphlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "at_jax"

# A module of at_jax -> the modules of at_jax that it may import. A package stands for all inside it,
# and its files may import one another. `train.py -> loop -> ... -> maps`: always downward.
MAY_IMPORT = {
    "__init__": {"conv", "gradients", "intermediates", "losses", "maps", "models", "version"},
    # Leaves.
    "version": set(),
    "precision": set(),
    "conv_spellings": set(),
    "conv": {"conv_spellings"},
    "intermediates": set(),
    "provenance": {"version"},
    "metrics": set(),
    "schedules": set(),
    "processes": set(),
    "launch": set(),
    "methods": set(),
    "terms": set(),
    "data": set(),
    # What knows of devices and files: each says itself what only the first process does.
    "parallel": {"processes"},
    "report": {"processes"},
    "interrupt": {"processes"},
    "run_directory": {"methods", "processes"},
    # The mathematics.
    "maps": {"precision"},
    "losses": {"maps", "precision"},
    "gradients": {"maps", "precision"},
    "models": {"conv", "intermediates", "precision"},
    "weights": {"models"},
    "agreement": {"maps"},
    # Training.
    "objective": {"gradients", "losses", "intermediates", "terms"},
    "state": {"objective"},
    "step": {"objective", "state", "metrics", "losses"},
    "checkpoint": {"models", "processes"},
    # From a config to a run.
    "settings": {"losses", "methods", "parallel", "processes", "schedules", "run_directory"},
    "evaluation": {"data", "metrics", "parallel", "processes", "step"},
    "profiling": {"processes", "report"},
    "pairing": {"data", "intermediates", "methods", "models", "objective", "terms"},
    "inputs": {"data", "processes"},
    "experiment": {
        "checkpoint", "data", "methods", "models", "objective", "pairing", "parallel",
        "run_directory", "schedules", "settings", "state", "step", "terms",
    },
    "resume": {"checkpoint", "experiment", "processes", "state"},
    "ledger": {
        "checkpoint", "experiment", "metrics", "processes", "report", "resume", "run_directory",
        "state",
    },
    # Pictures of networks and runs: it opens runs as anyone may, and says nothing to those who train.
    "figures": {
        "agreement", "checkpoint", "data", "experiment", "gradients", "inputs", "intermediates",
        "losses", "maps", "methods", "models", "report", "run_directory", "weights",
    },
    "trainer": {
        "evaluation", "experiment", "interrupt", "ledger", "parallel", "processes", "profiling",
        "provenance", "report", "resume", "settings", "state", "step",
    },
    "outcome": {
        "evaluation", "experiment", "figures", "parallel", "processes", "provenance", "report",
        "resume", "run_directory",
    },
    "loop": {
        "checkpoint", "data", "evaluation", "experiment", "inputs", "interrupt", "methods",
        "outcome", "pairing", "parallel", "report", "run_directory", "settings", "trainer",
    },
    # A program on top of it, as train.py is; it alone knows configs/.
    "tables": {"checkpoint", "figures", "inputs", "loop", "methods", "report", "run_directory", "settings"},
}  # fmt: skip

# What a library module may not know, by the first name of the imported package.
FORBIDDEN = {
    name: frozenset({"flax", "ml_collections", "orbax"})
    for name in ("maps", "losses", "gradients", "conv", "conv_spellings", "precision")
} | {
    name: frozenset({"ml_collections", "orbax"})
    for name in (
        "models",
        "objective",
        "step",
        "state",
        "metrics",
        "schedules",
        "parallel",
        "processes",
        "launch",
    )
}
# What only these files may name: dotted names, as imported or as written in an expression.
ONLY_IN = {
    "jax.interpreters": {"conv"},
    "jax.pmap": {"parallel"},
    "jax.devices": {"parallel"},
    "jax.local_devices": {"parallel", "processes"},
    "jax.device_count": {"parallel"},
    "jax.local_device_count": {"parallel"},
    "jax.process_index": {"processes"},
    "jax.process_count": {"processes"},
    "jax.distributed": {"launch"},
    "jax.experimental.multihost_utils": {"processes"},
    "jax.shard_map": {"parallel"},
    "jax.sharding": {"parallel"},
    "absl.flags": {"data.prepare"},
    "absl.app": {"data.prepare"},
    "configs": {"tables.__main__", "tables.plan", "tables.studies"},
}


def sources():
    """Dotted name below at_jax -> syntax tree; a package's __init__ goes by the package's name."""
    trees = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)
        trees[name] = ast.parse(path.read_text())
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


def names(tree):
    """All dotted names that a file imports or writes out, `from jax import lax` resolved."""
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


def ours(tree):
    """Modules of at_jax that a file imports, packages by their first name; `import at_jax` as ""."""
    for name in imports(tree):
        first, _, rest = name.partition(".")
        if first == "at_jax":
            yield rest.split(".")[0]


def room(name):
    """data.folder -> data: where a file stands in the table."""
    return name.split(".")[0]


def test_every_file_has_its_place():
    unknown = {room(name) for name in SOURCES} - set(MAY_IMPORT)
    assert not unknown, f"at_jax has new files, add it to the table MAY_IMPORT: {sorted(unknown)}"
    gone = set(MAY_IMPORT) - {room(name) for name in SOURCES}
    assert not gone, f"take these out of the table MAY_IMPORT, they do not exist: {sorted(gone)}"
    known = set(SOURCES) | {room(name) for name in SOURCES}
    listed = set().union(*MAY_IMPORT.values(), *ONLY_IN.values(), FORBIDDEN)
    assert listed <= known, f"no such files: {sorted(listed - known)}"


def test_the_table_points_downward():
    # A cycle would let everything import everything, one file at a time.
    tuple(graphlib.TopologicalSorter(MAY_IMPORT).static_order())
    importers = {name for name, allowed in MAY_IMPORT.items() if "loop" in allowed}
    assert importers == {"tables"}


@pytest.mark.parametrize("name", SOURCES)
def test_imports(name):
    allowed = MAY_IMPORT.get(room(name), set()) | ({room(name)} if "." in name else set())
    if (PACKAGE / name).is_dir():
        allowed = allowed | {name}
    wrong = set(ours(SOURCES[name])) - allowed
    assert not wrong, f"at_jax.{name} may not import {sorted(wrong)}: see the table MAY_IMPORT"
    known = {imported.split(".")[0] for imported in imports(SOURCES[name])}
    wrong = known & FORBIDDEN.get(room(name), set())
    assert not wrong, f"at_jax.{name} may not know {sorted(wrong)}"


@pytest.mark.parametrize("name", SOURCES)
def test_names_that_belong_to_one_file(name):
    for used in names(SOURCES[name]):
        for owned, owners in ONLY_IN.items():
            if used == owned or used.startswith(f"{owned}."):
                assert name in owners, f"at_jax.{name} names {used}, only {sorted(owners)} may"


def test_the_owners_do_use_what_they_own():
    # Otherwise the reader of names above may have gone blind.
    for owned in ("jax.interpreters", "jax.pmap", "jax.devices", "jax.distributed", "absl.flags"):
        for owner in ONLY_IN[owned]:
            found = any(used.startswith(owned) for used in names(SOURCES[owner]))
            assert found, f"at_jax.{owner} does not use {owned}: is the rule still needed?"


@pytest.mark.parametrize(
    "code",
    ["import jax\njax.pmap(f)", "from jax import pmap", "import jax as j\nj.pmap(f)",
     "from jax import interpreters", "from jax.interpreters import ad"],
)  # fmt: skip
def test_the_reader_of_names(code):
    found = set(names(ast.parse(code)))
    assert any(name.startswith(("jax.pmap", "jax.interpreters")) for name in found)


def test_only_the_entry_point_imports_the_loop():
    # Within at_jax the table says so. Configs are pure data and know nothing of at_jax.
    for path in sorted((ROOT / "configs").glob("*.py")):
        assert not set(ours(ast.parse(path.read_text()))), path.name
    assert "loop" in set(ours(ast.parse((ROOT / "train.py").read_text())))


def test_importing_needs_jax_flax_optax_and_chex_alone():
    blocked = ["tensorflow_datasets", "tensorflow", "sklearn", "PIL", "ml_collections"]
    blocked += ["tensorboardX", "tqdm", "matplotlib", "safetensors"]
    # None in sys.modules makes an import fail as if the package were not installed.
    code = f"import sys; sys.modules.update(dict.fromkeys({blocked})); import at_jax; "
    code += "import at_jax.agreement, at_jax.figures; "
    code += "import at_jax.step, at_jax.parallel, at_jax.weights, at_jax.schedules, at_jax.state"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    code = f"import sys; sys.modules.update(dict.fromkeys({blocked})); import tqdm"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "ModuleNotFoundError" in done.stderr  # the blocking does block
