"""Completion as it works in bash and in zsh, at a terminal."""

import os
import pathlib
import shutil

import loaded
import pexpect
import pytest

# Both start without the user's files. What a command gets is printed by a function
# in its place; nothing else can start, so no key waits for Python.
_SHELLS = {"bash": ("--norc", "--noprofile", "-i"), "zsh": ("-f", "-i")}
_START = {
    "bash": "bind 'set enable-bracketed-paste off'",
    "zsh": "unset zle_bracketed_paste; unsetopt PROMPT_SP; autoload -U compinit;"
    " compinit -u -D",
}
_RECEIVE = "pcam() { printf '<%s>' \"$@\"; echo; }; PATH=/none"


class Shell:
    """A shell that has read the script of its kind."""

    def __init__(self, name: str, script: pathlib.Path) -> None:
        self._shell = pexpect.spawn(
            name, list(_SHELLS[name]), encoding="utf-8", timeout=60,
            dimensions=(50, 400), cwd=str(script.parent),
            env=os.environ | {"TERM": "dumb", "HOME": str(script.parent)},
        )  # fmt: skip
        for line in (_START[name], f". ./{script.name}", _RECEIVE):
            self.enter(line)

    def enter(self, line: str) -> list[str]:
        """Types a line; returns what `pcam` got, once it has ended."""
        self._shell.sendline(line)
        # Of two words, so that the echo of the line does not have it.
        self._shell.sendline("echo 'the ''end'")
        self._shell.expect_exact("the end")
        return [
            line
            for line in self._shell.before.splitlines()
            if line.startswith("<")
        ]


@pytest.fixture(scope="module", params=_SHELLS)
def shell(request, tmp_path_factory) -> Shell:
    if not shutil.which(request.param):
        pytest.skip(f"{request.param} is not installed")
    place = tmp_path_factory.mktemp(request.param)
    for name in ("two words/in", "runs/first", "runs/second"):
        (place / name).mkdir(parents=True)
    for name in ("mine.flags", "two.csv"):
        (place / name).touch()
    script = place / "script"
    result = loaded.run("completion", request.param)
    assert result.returncode == 0, result.stderr
    script.write_text(result.stdout)
    return Shell(request.param, script)


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("tra\t--mod\tsma\t", "train --model=small_cnn"),
        ("train --strategy=mi\t", "train --strategy=mirrored"),
        ("train --strategy mi\t", "train --strategy mirrored"),
        ("evaluate --strategy=mu\t", "evaluate --strategy=mu"),
        ("predict --tta=d\t --ou\tx", "predict --tta=d4 --output_csv=x"),
        ("train --tensorb\t --sync_batch_norm=f\t",
         "train --tensorboard --sync_batch_norm=false"),
        ("doctor --json \ttim\t1", "doctor --json --timeout_seconds=1"),
        ("predict --nocal\t", "predict --nocalibrated"),
        ("train --flagfile=mi\t", "train --flagfile=mine.flags"),
        ("train --records_dir=two\t", "train --records_dir=two words"),
        ("report --run_dir=runs/f\t", "report --run_dir=runs/first"),
        ("report --run_dir=runs/first,runs/s\t",
         "report --run_dir=runs/first,runs/second"),
        ("compl\tz\t", "completion zsh"),
        ("completion --shell=b\t", "completion --shell=bash"),
        ("verify --no_su\t", "verify --no_su"),
        ("no_such --mod\t", "no_such --mod"),
    ],
)  # fmt: skip
def test_key_completes(shell, typed, expected):
    words = expected.replace("two words", "two_words").split()
    line = "".join(f"<{word}>" for word in words).replace("two_", "two ")
    (found,) = shell.enter(f"pcam {typed}")
    assert found.replace("/>", ">") == line


@pytest.mark.parametrize("shell", ["bash"], indirect=True)
def test_bash_that_parts_no_words_at_equal_signs_completes(shell):
    shell.enter("before=$COMP_WORDBREAKS; COMP_WORDBREAKS=${before//=}")
    found = shell.enter("pcam train --strategy=mi\t")
    shell.enter("COMP_WORDBREAKS=$before")
    assert found == ["<train><--strategy=mirrored>"]


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ([], "--shell is missing"),
        (["fish"], "flag --shell=fish"),
        (["bash", "--no_such"], "Unknown command line flag 'no_such'"),
    ],
    ids=["none", "unknown", "stray"],
)
def test_only_known_shells_are_written_for(arguments, found):
    result = loaded.run("completion", *arguments)
    assert (result.returncode, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert found in line
