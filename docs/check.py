"""Check a built site: ``python docs/check.py build/docs``.

Every link within the site leads to a page and a place that exist, and no page asks a network for a
script, a style, a font or a picture. Links to other sites are listed, not followed. Every notebook
is one that Jupyter opens, and all its code is Python.
"""

from __future__ import annotations

import json
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

# What a browser loads by itself, by tag.
LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}


class Page(HTMLParser):
    """What a page links to, loads, and can be linked to by."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.ids: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what an element says."""
        found = {name: value or "" for name, value in attrs}
        self.ids |= {found[name] for name in ("id", "name") if name in found}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if found.get(LOADED.get(tag, "")) and found.get("rel") not in ("canonical", "author"):
            self.loads.append(found[LOADED[tag]])


def problems(site: Path) -> tuple[list[str], set[str]]:
    """Return what is wrong with a site, and the links to others."""
    site = site.resolve()
    pages = {path: Page(path) for path in site.rglob("*.html") if "_static" not in path.parts}
    wrong, outside = [], set()
    for path, page in pages.items():
        for target in [*page.links, *page.loads]:
            if urlsplit(target).scheme in ("http", "https", "mailto"):
                outside.add(target)
                if target in page.loads:
                    wrong.append(f"{path.relative_to(site)} loads {target}")
                continue
            if urlsplit(target).scheme in ("data", "javascript"):
                continue
            file, place = urldefrag(target)
            there = (path.parent / unquote(urlsplit(file).path)).resolve() if file else path
            there = there / "index.html" if there.is_dir() else there
            if not there.is_file():
                wrong.append(f"{path.relative_to(site)}: no file {target}")
            elif place and there in pages and unquote(place) not in pages[there].ids:
                wrong.append(f"{path.relative_to(site)}: no place {target}")
    for path in site.rglob("*.css"):
        text = path.read_text(encoding="utf-8", errors="replace")
        if "url(http" in text or 'url("http' in text or "@import url(//" in text:
            wrong.append(f"{path.relative_to(site)} loads from a network")
    for path in site.rglob("*.ipynb"):
        wrong += [f"{path.relative_to(site)}: {what}" for what in wrong_in_notebook(path)]
    return sorted(wrong), outside


def wrong_in_notebook(path: Path) -> list[str]:
    """Return what keeps a notebook from opening or its code from being compiled."""
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        version, cells = notebook["nbformat"], notebook["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    except (ValueError, KeyError, TypeError) as error:
        return [f"no notebook ({type(error).__name__}: {error})"]
    wrong = [] if version == 4 else [f"its format is {version}, not 4"]
    wrong += [] if code else ["it has no code"]
    for number, source in enumerate(code, 1):
        try:
            compile(source, path.name, "exec")
        except SyntaxError as error:
            wrong.append(f"cell {number} is no Python: {error.msg}")
    return wrong


def main() -> int:
    """Say what is wrong."""
    site = Path(sys.argv[1])
    if not (site / "index.html").is_file():
        print(f"{site} is no built site")
        return 1
    wrong, outside = problems(site)
    print(f"Links to other sites, not followed: {len(outside)}")
    print("\n".join(sorted(f"  {link}" for link in outside)))
    print(
        "\n".join(wrong)
        or "Every link within the site leads somewhere; nothing is loaded from afar."
    )
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
