"""Directive ``at-jax-settings``: every key of a config, from the settings of the package."""

import dataclasses
import inspect

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from at_jax.terms import TERMS
from at_jax.training import settings


def _summary(section: str) -> str:
    if not section:
        return "Keys without a section."
    described = {**settings.SECTIONS, **TERMS}[section]
    return inspect.getdoc(described).split("\n\n")[0].replace("\n", " ")


class Settings(SphinxDirective):
    """Writes a section for each section of the config, with a definition of each key."""

    def run(self) -> list[nodes.Node]:
        """Build the sections."""
        return [self._section(name, fields) for name, fields in settings.key_fields().items()]

    def _section(self, name: str, fields: dict[str, dataclasses.Field]) -> nodes.section:
        title = name or "Top level"
        section = nodes.section(ids=[f"config-{name or 'top'}"], names=[title])
        section += nodes.title(title, title)
        section += nodes.paragraph("", _summary(name))
        listed = nodes.definition_list(classes=["settings"])
        for key, field in fields.items():
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
