"""Writes the pages of the API reference into docs/api/generated, from ``__all__`` of every module.

A name that a package re-exports is documented with the package, where users import it.
"""

import importlib
import inspect
import pathlib
import pkgutil
import sys
import types
import typing
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

import at_jax

_LOGGER = logging.getLogger(__name__)
_FOLDER = pathlib.Path(__file__).parents[1] / "api" / "generated"
# File to title and modules, or packages, directly in at_jax. Others get a page of their own.
GROUPS = {
    "losses": (
        "Losses, maps and gradients",
        "maps norms attention losses gradients intermediates agreement",
    ),
    "terms": ("Loss terms", "terms objective options"),
    "models": ("Networks", "models"),
    "data": ("Data sets", "data"),
    "loop": ("Training and loading runs", "loop checkpoint"),
    "figures": ("Figures", "figures"),
    "tables": ("Tables of the paper", "tables"),
    "conv": ("Convolutions and precision", "conv conv_lowerings precision"),
    "training": ("Parts of the trainer", "training distributed"),
    "errors": ("Errors, checks and version", "errors checks version"),
}
# Where a name is documented, by where it is defined: signatures use the latter.
ALIASES: dict[str, str] = {}


def modules() -> list[str]:
    """Dotted names of all public modules below at_jax.

    >>> {"at_jax.losses", "at_jax.terms.base"} <= set(modules())
    True
    """
    found = [module.name for module in pkgutil.walk_packages(at_jax.__path__, "at_jax.")]
    return sorted(n for n in found if not any(p.startswith("_") for p in n.split(".")[1:]))


def pages() -> dict[str, tuple[str, list[str]]]:
    """File to title and modules, in the order of the groups."""
    result = {file: (title, list[str]()) for file, (title, _) in GROUPS.items()}
    owner = {first: file for file, (_, names) in GROUPS.items() for first in names.split()}
    for name in modules():
        first = name.split(".")[1]
        file = owner.get(first, first)
        result.setdefault(file, (f"at_jax.{first}", []))[1].append(name)
    for file, (_, names) in GROUPS.items():
        order = names.split()
        result[file][1].sort(key=lambda name: (order.index(name.split(".")[1]), name))
    return {file: page for file, page in result.items() if page[1]}


def _is_documented(value: Any) -> bool:
    return inspect.isclass(value) or inspect.isroutine(value)


def _exported_above(name: str, value: Any, module: str) -> bool:
    """Whether a package above the module exports the same object."""
    parts = module.split(".")
    packages = [importlib.import_module(".".join(parts[:n])) for n in range(2, len(parts))]
    return any(
        name in getattr(p, "__all__", ()) and getattr(p, name, None) is value for p in packages
    )


def module_text(name: str) -> str:
    """The section of one module, in reStructuredText."""
    module = importlib.import_module(name)
    exported = {n: getattr(module, n) for n in getattr(module, "__all__", ())}
    own = {n: v for n, v in exported.items() if not _exported_above(n, v, name)}
    documented = [n for n, v in own.items() if _is_documented(v)]
    lines = [name, "-" * len(name), "", f".. automodule:: {name}"]
    if documented:
        lines.append(f"   :members: {', '.join(documented)}")
    for n, value in own.items():
        if _is_documented(value):
            ALIASES[f"{value.__module__}.{value.__qualname__}"] = f"{name}.{n}"
        elif not isinstance(value, types.ModuleType):
            text = repr(value)
            lines += ["", f".. py:data:: {name}.{n}"]
            lines += [f"   :value: {text}"] if len(text) < 80 and "object at" not in text else []
    return "\n".join(lines) + "\n"


def write_pages(app: Sphinx) -> None:
    """Write one file for each group, unless it is there already; delete those of earlier groups."""
    _FOLDER.mkdir(parents=True, exist_ok=True)
    texts = {}
    for file, (title, names) in pages().items():
        parts = [f"{title}\n{'=' * len(title)}\n", *map(module_text, names)]
        texts[_FOLDER / f"{file}.rst"] = "\n".join(parts)
    for path in _FOLDER.glob("*.rst"):
        if path not in texts:
            path.unlink()
    for path, text in texts.items():
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def _is_variable(target: str) -> bool:
    """Whether a dotted name is that of a type variable, which has no entry of its own."""
    module, _, name = target.rpartition(".")
    return isinstance(getattr(sys.modules.get(module), name, None), typing.TypeVar)


def resolve_own(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement
) -> nodes.reference | None:
    """Resolve a reference to where a name is defined; warn of one to a name that does not exist."""
    target = node.get("reftarget", "")
    if node.get("refdomain") != "py" or not target.startswith("at_jax."):
        return None
    if target in ALIASES:
        domain = env.domains["py"]
        known = ALIASES[target]
        document = node.get("refdoc", app.config.root_doc)
        return domain.resolve_xref(env, document, app.builder, "obj", known, node, content)
    if not any(part.startswith("_") for part in target.split(".")) and not _is_variable(target):
        _LOGGER.warning("the API reference has no %s", target, location=node)
    return None


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the events."""
    app.connect("builder-inited", write_pages)
    app.connect("missing-reference", resolve_own)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
