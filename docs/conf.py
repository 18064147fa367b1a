"""Settings of the documentation: ``sphinx-build -W docs build/docs``, without network.

Pages that other files hold (changelog, security) are read from those files, links to files of the
repository lead to the pages made of them, and the reference and the gallery are made anew.
"""

import os
import re
import sys
import warnings
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path[:0] = [str(ROOT), str(HERE)]
os.environ.pop("DEEPOD_DATA", None)  # the gallery's examples run on data that everyone has
os.environ.setdefault("OMP_NUM_THREADS", "1")

import reference  # noqa: E402

import deepod  # noqa: E402

project = "deepod"
author = "the deepod developers"
project_copyright = "the deepod developers, BSD-2-Clause licence"
release = version = deepod.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "numpydoc",
    "myst_parser",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["gallery/**/*.ipynb", "gallery/*.ipynb", "gallery/*.py", "gallery/*.zip"]

myst_heading_anchors = 4
numpydoc_show_class_members = False
autodoc_typehints = "none"  # the Parameters sections say what is accepted
autodoc_member_order = "bysource"

sphinx_gallery_conf = {
    "examples_dirs": [str(ROOT / "examples")],
    "gallery_dirs": ["gallery"],
    "filename_pattern": r"\.py$",
    "download_all_examples": False,
    "min_reported_time": 1,
    "write_computation_times": False,  # such a page asks a network for scripts
    "show_memory": False,
    "show_signature": False,
    "capture_repr": (),
    "remove_config_comments": True,
    "abort_on_example_error": True,
}

html_theme = "pydata_sphinx_theme"
html_title = "deepod"
html_static_path = ["_static"]
html_css_files = ["deepod.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "logo": {"text": "deepod"},
    "navbar_align": "left",
    "header_links_before_dropdown": 6,
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "show_prev_next": True,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": ["theme-version"],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
# Pages that stand alone have nothing to show beside them.
ALONE = ("start", "benchmarks", "protocol", "papers", "changelog", "security", "contributing")
html_sidebars: dict[str, list[str]] = {page: [] for page in ALONE}

# Pages of the site that are files elsewhere in the repository.
WHOLE = {
    "changelog": "CHANGELOG.md",
    "contributing": "CONTRIBUTING.md",
    "index": "README.md",
    "protocol": "benchmarks/README.md",
    "security": "SECURITY.md",
}
LINK = re.compile(r"\]\((?!https?:|#)([^)\s#]+)(#[^)\s]*)?\)")


def pages_of_files() -> dict[Path, str]:
    """Return the page of the site, relative to docs/, for files of the repository."""
    pages = {ROOT / file: f"{page}.md" for page, file in WHOLE.items()}
    pages[ROOT / "README.md"] = "index.md"
    pages |= {file: f"gallery/{file.stem}.rst" for file in (ROOT / "examples").glob("*.py")}
    pages[ROOT / "examples"] = "gallery/index.rst"
    pages |= {ROOT / f"deepod/{m}.py": f"api/deepod.{m}.rst" for m in reference.modules()}
    pages |= {ROOT / f"deepod/{m}/__init__.py": f"api/deepod.{m}.rst" for m in reference.modules()}
    pages[ROOT / "deepod/__init__.py"] = "api/index.rst"
    return pages | reference.pages_of_files()


def fill(app, docname, source) -> None:
    """Put the whole file in place of a page, and lead links to files to their pages."""
    here = HERE / docname
    if docname in WHOLE:
        here = ROOT / WHOLE[docname]
        contents = re.search(r"```{toctree}.*?```", source[0], re.DOTALL)
        source[0] = here.read_text(encoding="utf-8") + (f"\n{contents[0]}\n" if contents else "")
        app.env.note_dependency(str(here))
    if docname.startswith(("api/", "gallery/")):
        return
    if docname == "guide/index":  # pages that no list names join the guide
        lists = source[0] + (HERE / "index.md").read_text(encoding="utf-8")
        found = sorted(page.stem for page in HERE.glob("*.md") if page.stem != "index")
        more = [f"../{name}\n" for name in found if not re.search(rf"\b{name}\b", lists)]
        source[0] = source[0].rstrip().removesuffix("```") + "".join(more) + "```\n"

    def led(match: re.Match[str]) -> str:
        target = (here.parent / match[1]).resolve()
        page = HERE / PAGES[target] if target in PAGES else target
        path = os.path.relpath(page, (HERE / docname).parent)  # a file that is no page: to download
        return f"]({path}{match[2] or ''})"

    source[0] = LINK.sub(led, source[0])


PAGES = pages_of_files()
# Docstrings are plain English: outside of `code` and **bold words**, a star or a bar is itself, and
# x_ is no link.
CODE = re.compile(r"(``.+?``|:[\w:]+:`.+?`|`.+?`|(?<![\w*])\*\*[A-Z][^*`]*\*\*(?![\w*]))")
MARKUP = re.compile(r"(?<!\\)([*|]|(?<=\w)_(?!\w))")
LINKED = re.compile(r":obj:`(\w+) <[^>`]*>`")
NAMES = re.compile(r"[*\w][*\w, ]* : ")


def escape(app, what, name, obj, options, lines) -> None:
    """Take docstrings as plain text but for code, links and sections; before numpydoc."""
    literal = None  # how far the text is indented that a block of literal text belongs to
    for i, line in enumerate(lines):
        plain = line.lstrip()
        indent = len(line) - len(plain)
        if literal is not None and (not plain or indent > literal):
            continue
        literal = indent if plain.endswith("::") else None
        if plain.startswith((">>>", "...", "..", "---")):
            continue
        named = NAMES.match(plain)
        start = indent + named.end() if named else 0
        parts = CODE.split(line[start:])
        text = "".join(s if k % 2 else MARKUP.sub(r"\\\1", s) for k, s in enumerate(parts))
        lines[i] = line[:start] + text


def unlink(app, what, name, obj, options, lines) -> None:
    """Show attributes by name, where numpydoc would look for a page of each; after numpydoc."""
    lines[:] = [LINKED.sub(r"**\1**", line) for line in lines]


def shorten(app, what, name, obj, options, signature, returned):
    """Leave out the signatures of detectors: their Parameters section has all of it."""
    return ("", None) if what == "class" and hasattr(obj, "fit") else None


def setup(app) -> None:
    """Write the reference, and hook into the reading of pages."""
    warnings.filterwarnings("ignore", module="matplotlib")
    reference.write(HERE / "api")
    app.connect("source-read", fill)
    app.connect("autodoc-process-docstring", escape, priority=100)
    app.connect("autodoc-process-docstring", unlink, priority=900)
    app.connect("autodoc-process-signature", shorten, priority=900)
