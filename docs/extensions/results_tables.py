"""Directive ``results``: a table of numbers, read from a committed file of results/ at build time."""

import json

from docutils import nodes
from measured import KINDS, ROOT
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class Results(SphinxDirective):
    """``results KIND FILE``: a table and its setting; FILE is below results/."""

    required_arguments = 2

    def run(self) -> list[nodes.Node]:
        """Build the table."""
        kind, file = self.arguments
        path = ROOT / "results" / file
        self.env.note_dependency(str(path))
        make, describe = KINDS[kind]
        content = json.loads(path.read_text())
        header, rows = make(content)
        table = nodes.table()
        group = nodes.tgroup(cols=len(header))
        table += group
        group += [nodes.colspec(colwidth=1) for _ in header]
        group += nodes.thead("", _row(header))
        group += nodes.tbody("", *map(_row, rows))
        # Not a caption, which would be as wide as the table.
        return [nodes.paragraph("", describe(content)), table]


def _row(cells: list[str]) -> nodes.row:
    return nodes.row("", *(nodes.entry("", nodes.paragraph("", cell)) for cell in cells))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("results", Results)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
