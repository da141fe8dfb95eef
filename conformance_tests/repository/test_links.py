"""Links between README, the changelog and the docs lead somewhere, headings included."""

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]

CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^()\s]+)\)")


@cache
def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


@cache
def anchors(page: Path) -> set[str]:
    """Return a page's anchors, as GitHub and the site make them of headings."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text_of(page), flags=re.M | re.S), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    if not page.exists():
        pytest.skip("the docs are not here")
    for target in LINK.findall(CODE.sub("", text_of(page))):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), target
        assert found.is_relative_to(ROOT), target
        assert not anchor or anchor in anchors(found), target


def test_every_page_is_on_the_site() -> None:
    index = ROOT / "docs" / "index.md"
    if not index.exists():
        pytest.skip("the docs are not here")
    listed = "\n".join(re.findall(r"^```{toctree}\n(.*?)^```", text_of(index), re.M | re.S)).split("\n")
    names = {
        page.relative_to(index.parent).with_suffix("").as_posix() for page in PAGES if index.parent in page.parents
    }
    assert names - {"index"} == {line for line in listed if line and not line.startswith(":")}
