"""Runs the code of README.md and docs/*.md, each page in a new folder.

    python tools/run_docs.py [--python=PYTHON] [PAGE ...]

Shell blocks run in their order, each in a shell of its own. What stands in a
comment of Markdown right before a block, or alone, is for this program:

    <!-- not run: needs a GPU -->     leaves out the block, and says so
    <!-- run first: COMMANDS -->      what the reader has by now, made small
    <!-- run with: torch, numpy -->   a Python block, where these are installed

The folder has configs/, tools/ and notebooks/, as a checkout has.
"""

import argparse
import dataclasses
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).parents[1]
_LINKED = ("configs", "notebooks", "tools")
_PART = re.compile(
    r"^<!-- run first:(?P<first>.*?)-->$"
    r"|(?:^<!-- (?P<how>not run|run with): (?P<what>[^>]*?) -->\n\n?)?"
    r"^```(?P<language>[\w-]*)[^\n]*\n(?P<code>.*?)^```$",
    re.M | re.S,
)
_SHELLS = ("sh", "bash", "console", "shell")


@dataclasses.dataclass(frozen=True)
class Block:
    """A piece of a page that is run, or why it is not.

    Attributes:
        name: Page and line, as `docs/start.md:12`.
        is_shell: Whether `code` is for bash, or for Python.
        code: What to run.
        skipped: Why it is not run; empty if it is.
        modules: What a Python block imports.
    """

    name: str
    is_shell: bool
    code: str
    skipped: str = ""
    modules: tuple[str, ...] = ()


def list_pages() -> list[pathlib.Path]:
    """Returns README.md and the pages of docs/."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def list_blocks(page: pathlib.Path) -> list[Block]:
    """Returns the blocks of a page that are to be run or named."""
    text = page.read_text(encoding="utf-8")
    blocks = []
    for part in _PART.finditer(text):
        line = text.count("\n", 0, part.start()) + 1
        name = f"{os.path.relpath(page, ROOT)}:{line}"
        how, what = part["how"], part["what"]
        if part["first"]:
            blocks.append(Block(name, True, part["first"].strip()))
        elif part["language"] in _SHELLS:
            skipped = what if how == "not run" else ""
            code = re.sub(r"^\$ ", "", part["code"], flags=re.M)
            blocks.append(Block(name, True, code, skipped))
        elif part["language"] == "python" and how == "run with":
            modules = tuple(re.split(r",\s*", what))
            blocks.append(Block(name, False, part["code"], "", modules))
    return blocks


def run_page(page: pathlib.Path, python: str = sys.executable) -> bool:
    """Runs the blocks of a page up to the first that fails.

    Returns:
        Whether none failed. What each did is printed.
    """
    with tempfile.TemporaryDirectory(prefix=f"{page.stem}-") as folder:
        for name in _LINKED:
            if (ROOT / name).exists():
                os.symlink(ROOT / name, pathlib.Path(folder) / name)
        return all(_run(block, folder, python) for block in list_blocks(page))


def _run(block: Block, folder: str, python: str) -> bool:
    skipped = block.skipped or _name_missing(block.modules, python)
    title = block.code.strip().split("\n")[0]
    if skipped:
        print(f"{block.name}: not run, {skipped}: {title}", flush=True)
        return True
    program = ["bash", "-euo", "pipefail"] if block.is_shell else [python]
    started = time.monotonic()
    result = subprocess.run(
        [*program, "-c", block.code],
        cwd=folder,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    seconds = time.monotonic() - started
    state = f"exit code {result.returncode}" if result.returncode else "done"
    print(f"{block.name}: {state} in {seconds:.1f} s: {title}", flush=True)
    if result.returncode:
        print(f"{block.code}\n{result.stdout}", flush=True)
    return not result.returncode


def _environment() -> dict[str, str]:
    """Returns an environment whose `pcam` and `python` are of this Python."""
    programs = os.path.dirname(sys.executable)
    return os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"}


def _name_missing(modules: tuple[str, ...], python: str) -> str:
    for module in modules:
        command = [python, "-c", f"import {module}"]
        if subprocess.run(command, stderr=subprocess.DEVNULL).returncode:
            return f"{module} is not installed"
    return ""


def main() -> None:
    """Runs the pages that are named, or all; ends with 1 where one fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("pages", nargs="*", type=pathlib.Path)
    given = parser.parse_args()
    pages = [path.resolve() for path in given.pages] or list_pages()
    failed = [page.name for page in pages if not run_page(page, given.python)]
    if failed:
        sys.exit(f"run_docs.py: failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
