"""Installs the packages that tools/compare_peers.py compares with.

Each by itself, so that one that fails leaves the others; none may change a
package that the project stands on. Run by `make peers`, with the Python of an
environment that has the project; `peers_failed.json` in that environment then
says which failed, and why.
"""

import json
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile

FAILED_FILE = pathlib.Path(sys.prefix) / "peers_failed.json"
_REQUIREMENTS = pathlib.Path(__file__).with_name("peers_requirements.txt")
_PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")


def main() -> None:
    """Installs line by line, and prints which failed."""
    freeze = [*_PIP, "freeze", "--exclude-editable"]
    installed = subprocess.run(freeze, check=True, capture_output=True)
    failed = {}
    with tempfile.NamedTemporaryFile(suffix=".txt") as constraints:
        constraints.write(installed.stdout)
        constraints.flush()
        for requirement in _read_requirements():
            print(f"installing {requirement}", flush=True)
            reason = _install(requirement, constraints.name)
            if reason:
                failed[requirement] = reason
                print(f"  failed: {reason}", flush=True)
    FAILED_FILE.write_text(json.dumps(failed, indent=1) + "\n")
    print(f"{len(failed)} could not be installed: {', '.join(failed) or '-'}")


def _read_requirements() -> list[str]:
    lines = _REQUIREMENTS.read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def _install(requirement: str, constraints: str) -> str | None:
    """Returns why a requirement cannot be installed, None if it is."""
    line = shlex.split(requirement)
    command = [*_PIP, "install", "-q", "-c", constraints, *line]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode == 0:
        return None
    lines = [line.strip(" │╰─>") for line in result.stderr.splitlines()]
    # The error itself comes before pip's account of it.
    errors = [line for line in lines if re.match(r"\w*Error: |ERROR: ", line)]
    return (errors or lines or ["pip said nothing"])[0][:300]


if __name__ == "__main__":
    main()
