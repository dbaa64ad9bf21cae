"""Draws the Mermaid diagrams of docs/*.md as SVG files, for the docs site.

    npm install --prefix /tmp/mermaid mermaid@11
    python tools/draw_diagrams.py /tmp/mermaid/node_modules/mermaid

needs chromium and playwright (extra `dev`). A file is named by the hash of its
diagram, so that `make docs` notices a diagram that was changed and not drawn.
"""

import argparse
import hashlib
import pathlib
import re
import shutil

DOCS = pathlib.Path(__file__).parents[1] / "docs"
_BLOCK = re.compile(r"^```mermaid\n(.*?)^```$", re.M | re.S)
# Labels are SVG text, since browsers show no HTML in the SVG of an <img>.
_DRAW = """async source => {
  mermaid.initialize({startOnLoad: false, theme: "neutral", htmlLabels: false,
    flowchart: {htmlLabels: false, nodeSpacing: 24, rankSpacing: 28}});
  return (await mermaid.render("diagram", source)).svg;
}"""


def find_image(source: str) -> pathlib.Path:
    """Returns where the picture of a diagram lies, or would lie."""
    digest = hashlib.sha256(source.strip().encode()).hexdigest()[:12]
    return DOCS / "images" / f"diagram-{digest}.svg"


def list_diagrams() -> list[str]:
    """Returns the Mermaid sources of all pages."""
    pages = sorted(DOCS.glob("*.md"))
    return [
        block for page in pages for block in _BLOCK.findall(page.read_text())
    ]


def main() -> None:
    """Draws all diagrams, and removes pictures of diagrams that are gone."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mermaid_dir", help="The npm package mermaid.")
    program = pathlib.Path(parser.parse_args().mermaid_dir) / "dist"
    from playwright import sync_api  # The docs are built without it.

    for path in (DOCS / "images").glob("diagram-*.svg"):
        path.unlink()
    with sync_api.sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page()
        page.add_script_tag(path=program / "mermaid.min.js")
        for source in list_diagrams():
            svg = page.evaluate(_DRAW, source)
            find_image(source).write_text(svg + "\n")
            print(find_image(source))
        browser.close()


if __name__ == "__main__":
    main()
