"""pyproject.toml: packages, console script and extras agree with the repository."""

import importlib
import pathlib
import tomllib

from at_jax import extras

ROOT = pathlib.Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_package_is_installed():
    folders = [path.parent for path in (ROOT / "at_jax").rglob("__init__.py")]
    expected = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    setuptools = PYPROJECT["tool"]["setuptools"]
    assert set(setuptools["packages"]) == expected | {"at_jax.configs"}
    assert setuptools["package-dir"]["at_jax.configs"] == "configs"


def test_console_script_exists():
    module, _, function = PYPROJECT["project"]["scripts"]["at-jax"].partition(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_extras_exist_and_install_the_packages_that_the_messages_name():
    declared = PYPROJECT["tool"]["setuptools"]["dynamic"]["optional-dependencies"]
    names = {"PIL": "pillow", "absl": "absl-py", "orbax": "orbax-checkpoint", "sklearn": "scikit-learn",
             "tensorflow": "tensorflow-cpu", "yaml": "ml-collections"}  # fmt: skip
    for package, extra in extras._EXTRAS.items():
        text = "".join((ROOT / file).read_text() for file in declared[extra]["file"])
        wanted = names.get(package, package).lower()
        assert wanted.replace("_", "-") in text.lower().replace("_", "-"), package


def test_source_distribution_contains_what_the_tests_read():
    manifest = (ROOT / "MANIFEST.in").read_text()
    for name in ("tests", "configs", "benchmarks", "examples", "results", "requirements"):
        assert f"graft {name}\n" in manifest
    for name in ("train.py", "Makefile", "README.md", "requirements.txt"):
        assert name in manifest
