"""Settings of the documentation site; ``nox -s docs`` builds it."""

import sys
import tomllib
from pathlib import Path

from sphinx.ext.autodoc.mock import _MockObject

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "adapters"), str(Path(__file__).parent / "extensions")]

project = "inna"
author = copyright = "The inna developers"
release = version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "docstrings",
    "mathml",
    "pictures",
    "summary_tables",
]

# pages
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
exclude_patterns = ["figures", "static", "extensions"]

# the API reference, from docstrings alone: no framework has to be installed
autodoc_mock_imports = [
    "array_api_compat.torch",
    *("jax", "jaxlib", "keras", "optax", "tensorflow", "torch"),
    *("ml_dtypes", "numpy", "safetensors", "scipy"),
]
_MockObject.__or__ = _MockObject.__ror__ = lambda self, other: self  # as in `Tensor | None`
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autosummary_generate = False
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
default_role = "py:obj"
add_module_names = False
python_maximum_signature_line_length = 88

# the look
html_theme = "furo"
html_title = f"inna {release}"
html_show_sphinx = False
html_copy_source = False
html_static_path = ["static"]
html_css_files = ["site.css"]
toc_object_entries_show_parents = "hide"
html_theme_options = {"top_of_page_buttons": []}
