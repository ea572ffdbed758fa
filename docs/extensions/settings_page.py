"""Directive ``at-jax-settings``: every key of a config, from the settings of the package."""

import dataclasses
import inspect

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from at_jax.terms import TERMS
from at_jax.training import settings


def sections() -> dict[str, tuple[str, list[tuple[str, dataclasses.Field]]]]:
    """Section to its description and its keys; the top level has the name ``""``."""
    top = [
        (field.name, field)
        for field in dataclasses.fields(settings.Settings)
        if field.default is not dataclasses.MISSING
    ]
    found = {"": ("Keys without a section.", top)}
    for name, section in settings.SECTIONS.items():
        keys = [(field.name, field) for field in dataclasses.fields(section)]
        found[name] = (_summary(section), keys)
    for name, term in TERMS.items():
        found[name] = (_summary(term), list(settings.term_options(term).items()))
    return found


def _summary(described: type) -> str:
    return inspect.getdoc(described).split("\n\n")[0].replace("\n", " ")


class Settings(SphinxDirective):
    """Writes a section for each section of the config, with a definition of each key."""

    def run(self) -> list[nodes.Node]:
        """Build the sections."""
        return [self._section(name, *section) for name, section in sections().items()]

    def _section(
        self, name: str, summary: str, keys: list[tuple[str, dataclasses.Field]]
    ) -> nodes.section:
        title = name or "Top level"
        section = nodes.section(ids=[f"config-{name or 'top'}"], names=[title])
        section += nodes.title(title, title)
        section += nodes.paragraph("", summary)
        listed = nodes.definition_list(classes=["settings"])
        for key, field in keys:
            listed += self._key(f"{name}.{key}" if name else key, field)
        section += listed
        self.state.document.note_implicit_target(section)
        return section

    def _key(self, dotted: str, field: dataclasses.Field) -> nodes.definition_list_item:
        rule, default = field.metadata["rule"], field.default
        kind = f"{type(default).__name__}, {rule.text}" if rule else type(default).__name__
        term = nodes.term("", "", nodes.strong(dotted, dotted), ids=[f"config-{dotted}"])
        shown = f"  = {default!r}  ({kind})"
        term += nodes.inline(shown, shown, classes=["default"])
        meaning = nodes.paragraph("", field.metadata["meaning"])
        return nodes.definition_list_item("", term, nodes.definition("", meaning))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("at-jax-settings", Settings)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
