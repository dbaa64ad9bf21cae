"""Sphinx's settings: `make docs` builds this folder into build/docs."""

import pathlib
import re
import subprocess
import sys

from docutils import nodes
from sphinx import application
from sphinx.util import docutils

_ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(_ROOT / "tools"))

import draw_diagrams  # noqa: E402

_INIT = (_ROOT / "pcam_tfdata" / "__init__.py").read_text()

project = "pcam_tfdata"
release = re.search(r'__version__ = "(.+)"', _INIT)[1]
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["images"]
myst_heading_anchors = 3
myst_fence_as_directive = ["mermaid"]
html_theme = "furo"
html_title = f"pcam_tfdata {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
html_use_index = False


class Mermaid(docutils.SphinxDirective):
    """A fence of Mermaid, as the SVG that tools/draw_diagrams.py drew of it."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Returns the picture, whose text says what the diagram says."""
        source = "\n".join(self.content)
        path = draw_diagrams.find_image(source)
        if not path.is_file():
            raise self.error(
                "this diagram is not drawn: run tools/draw_diagrams.py."
            )
        return [nodes.image(uri=f"images/{path.name}", alt=source)]


def _write_commands() -> None:
    """Writes what docs/commands.md includes, from the flags of each command."""
    page = _ROOT / "build" / "commands.md"
    page.parent.mkdir(exist_ok=True)
    program = [sys.executable, "-m", "pcam_tfdata.cli.flag_tables"]
    page.write_bytes(subprocess.check_output(program, cwd=_ROOT))


def setup(app: application.Sphinx) -> None:
    """Adds what the pages of this folder need."""
    app.add_directive("mermaid", Mermaid)
    _write_commands()
