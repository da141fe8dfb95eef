"""LaTeX in the pages becomes MathML, which browsers show without a script or a network."""

from typing import Any

from docutils import nodes
from latex2mathml.converter import convert


def mathml(node: Any, display: str) -> str:
    """Return the MathML of a formula.

    Raises:
        ValueError: if it holds a command or an environment that the converter leaves as it is.
    """
    found = convert(node.astext(), display=display)
    if "\\" in found or "<mi>&</mi>" in found:
        raise ValueError(f"no MathML for {node.astext()!r}")
    return found


def visit_inline(translator: Any, node: Any) -> None:
    translator.body.append(mathml(node, "inline"))
    raise nodes.SkipNode


def visit_block(translator: Any, node: Any) -> None:
    translator.body.append(f'<div class="math">{mathml(node, "block")}</div>\n')
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    app.config.html_math_renderer = "mathml"
    return {"parallel_read_safe": True, "parallel_write_safe": True}
