"""Sphinx configuration. ``make docs`` builds the site into docs/_build/html, without a network."""

import os
import pathlib
import sys

DOCS = pathlib.Path(__file__).parent
ROOT = DOCS.parent
sys.path[:0] = [str(ROOT), str(DOCS / "extensions")]
# The notebook runs in a process of its own, which inherits these.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# The notebook's programs run for seconds: most of its time would be LLVM's.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=1")

from at_jax.version import __version__  # noqa: E402

project = "at_jax"
author = "The at_jax authors"
release = version = __version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "myst_nb",
    "api_pages",
    "mathml",
    "results_tables",
    "settings_page",
]
exclude_patterns = ["_build", "extensions"]

myst_enable_extensions = ["deflist", "dollarmath"]
myst_heading_anchors = 3
myst_update_mathjax = False

nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True
nb_output_stderr = "remove"
nb_ipywidgets_js: dict[str, dict[str, str]] = {}  # its default loads scripts from other hosts

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
add_module_names = False
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

smartquotes = False  # defaults of keys are Python

html_theme = "furo"
html_title = f"at_jax {release}"
html_math_renderer = "mathml"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
html_theme_options = {"top_of_page_buttons": []}
pygments_style = "friendly"
pygments_dark_style = "monokai"
