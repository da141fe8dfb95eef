"""A `<picture>` with a source for dark pages, as GitHub shows it, becomes two images; the theme shows one of them."""

import re
from typing import Any

from docutils import nodes
from sphinx.transforms import SphinxTransform

PICTURE = re.compile(
    r'<picture>\s*<source media="\(prefers-color-scheme: dark\)" srcset="(?P<dark>[^"]+)">'
    r'\s*<img alt="(?P<alt>[^"]*)" src="(?P<light>[^"]+)">\s*</picture>\s*'
)


class TwoImages(SphinxTransform):
    """Replaces pictures, before Sphinx collects images: it copies both files, and warns if one is absent."""

    default_priority = 100

    def apply(self, **_: Any) -> None:
        for node in list(self.document.findall(nodes.raw)):
            if not node.astext().lstrip().startswith("<picture>"):
                continue
            if (found := PICTURE.fullmatch(node.astext())) is None:
                raise ValueError(
                    f"{self.env.docname}: not a picture of the form that pictures.py reads: {node.astext()}"
                )
            images = [
                nodes.image(uri=found[name], alt=found["alt"], classes=[f"only-{name}"]) for name in ("light", "dark")
            ]
            node.replace_self(images)


def setup(app: Any) -> dict[str, bool]:
    app.add_transform(TwoImages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
