"""Renders formulas as MathML at build time, so that pages need no script.

Select it with ``html_math_renderer = "mathml"``.
"""

import html
import re

from docutils import nodes
from latex2mathml import converter
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number
from sphinx.writers.html5 import HTML5Translator

_LOGGER = logging.getLogger(__name__)


def to_mathml(latex: str, *, display: bool) -> str:
    """Convert LaTeX to MathML, with the source as its alternative text.

    Raises:
      ValueError: for a command that the converter does not know.

    >>> to_mathml("x^2", display=False)[:5]
    '<math'
    """
    result = converter.convert(latex, display="block" if display else "inline")
    # The converter writes an unknown command as text.
    if unknown := re.findall(r"\\[A-Za-z]+", result):
        raise ValueError(f"latex2mathml does not know {', '.join(unknown)}")
    return result.replace("<math", f'<math alttext="{html.escape(latex)}"', 1)


def _converted(node: nodes.Node, *, display: bool) -> str:
    try:
        return to_mathml(node.astext(), display=display)
    except Exception as error:  # the converter has a dozen exceptions without a common base
        _LOGGER.warning("formula %r: %s", node.astext(), error, location=node)
        return html.escape(node.astext())


def _visit_inline(self: HTML5Translator, node: nodes.math) -> None:
    self.body.append(_converted(node, display=False))
    raise nodes.SkipNode


def _visit_block(self: HTML5Translator, node: nodes.math_block) -> None:
    self.body.append(self.starttag(node, "div", CLASS="math notranslate"))
    if node["number"]:
        self.body.append(f'<span class="eqno">({get_node_equation_number(self, node)})')
        self.add_permalink_ref(node, "Link to this equation")
        self.body.append("</span>")
    self.body.append(f"{_converted(node, display=True)}</div>\n")
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the renderer."""
    app.add_html_math_renderer("mathml", (_visit_inline, None), (_visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
