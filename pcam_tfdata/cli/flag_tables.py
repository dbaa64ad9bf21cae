"""The flags of all commands as data, and as Markdown for the docs.

`python -m pcam_tfdata.cli.flag_tables` prints a heading for each command, its
docstring and a table of its flags. All of it comes from the modules of the commands,
of which none imports TensorFlow for that.
"""

import dataclasses
import multiprocessing
import re

from absl import flags

from pcam_tfdata.cli import main

_WORDS = {"bool": "a switch", "string": "text"}
_PATH = re.compile(r".*(dirs?|csv|output|submission|weights|flagfile)")
_FOLDER = re.compile(r".*dirs?")
_FLAG = re.compile(r"(?<![\w-])--[a-z]\w*(=[\w:/]*\w)?")


@dataclasses.dataclass(frozen=True)
class Flag:
    """A flag of a command.

    Attributes:
        name: Without dashes.
        type: As absl calls it: bool, int, float, string, string enum, or comma
            separated list of strings.
        takes: What a value has to be, in words.
        choices: All values there are; of a bool, true and false; else none.
        default: As it is given on a command line; None if there is none.
        help: What it does.
        is_required: Whether the command does nothing without it.
    """

    name: str
    type: str
    takes: str
    choices: tuple[str, ...]
    default: str | None
    help: str
    is_required: bool = False

    @property
    def is_list(self) -> bool:
        """Whether it takes several values, parted by commas."""
        return self.type.startswith("comma")

    @property
    def is_path(self) -> bool:
        """Whether its values are files or folders, which its name tells."""
        return not self.choices and bool(_PATH.fullmatch(self.name))

    @property
    def is_folder(self) -> bool:
        """Whether its values are folders."""
        return self.is_path and bool(_FOLDER.fullmatch(self.name))

    @property
    def spellings(self) -> tuple[str, ...]:
        """How it begins on a command line; `=` follows where a value must."""
        if self.type != "bool":
            return (f"--{self.name}=",)
        return (f"--{self.name}", f"--no{self.name}")


@dataclasses.dataclass(frozen=True)
class Command:
    """A command.

    Attributes:
        name: What follows `pcam`.
        summary: Its line in `pcam --help`.
        text: Its docstring.
        flags: Its flags, those first that it requires.
        words: What may follow it as a word, without the flag that it is of.
    """

    name: str
    summary: str
    text: str
    flags: tuple[Flag, ...]
    words: tuple[str, ...]


_FLAGFILE = Flag(
    "flagfile", "string", "a path", (), None, "A file with flags, one a line."
)


def read_commands() -> list[Command]:
    """Returns all commands in the order of `pcam --help`.

    Each is read in a process of its own, since commands have flags of one name.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([main.__name__])
    with context.Pool(maxtasksperchild=1) as pool:
        return pool.map(_read_command, main.COMMANDS, chunksize=1)


def _read_command(name: str) -> Command:
    module = main.import_command(name)
    found = flags.FLAGS.get_key_flags_for_module(module.__name__)
    described = [_describe(f, f.name in module.REQUIRED_FLAGS) for f in found]
    described.sort(key=lambda flag: not flag.is_required)
    alone = getattr(module, "POSITIONAL_FLAG", "")
    return Command(
        name,
        summary=main.COMMANDS[name],
        text=(module.__doc__ or "").strip(),
        flags=(*described, _FLAGFILE),
        words=next((f.choices for f in described if f.name == alone), ()),
    )


def _describe(flag: flags.Flag, is_required: bool) -> Flag:
    kind = flag.flag_type()
    choices = tuple(getattr(flag.parser, "enum_values", ()))
    if kind == "bool":
        choices = ("true", "false")
    takes = flag.parser.syntactic_help or _WORDS.get(kind, "a choice")
    default = flag.default_as_str
    if default is not None:  # It stands in the quotes of Python.
        default = default[1:-1]
    # Before the help of an enum absl puts its choices.
    text = (flag.help or "").removeprefix(f"<{'|'.join(choices)}>: ")
    return Flag(flag.name, kind, takes, choices, default, text, is_required)


def to_markdown(commands: list[Command]) -> str:
    """Returns a page: a heading, the docstring and the flags of each command."""
    parts = ["# Commands\n\n`pcam COMMAND --flag=value ...`\n"]
    for command in commands:
        parts.append(f"\n## pcam {command.name}\n\n{_prose(command.text)}\n\n")
        parts.append("| flag | value | default | meaning |\n|---|---|---|---|\n")
        parts += map(_to_row, command.flags)
    return "".join(parts)


def _to_row(flag: Flag) -> str:
    value = flag.takes
    if flag.choices and flag.type != "bool":
        value = ", ".join(f"`{choice}`" for choice in flag.choices)
    elif flag.is_path:
        value = f"{'folder' if flag.is_folder else 'file'}{'s' * flag.is_list}"
    default = f"`{flag.default}`" if flag.default else ""
    cells = (
        f"`--{flag.name}`",
        value,
        "required" if flag.is_required else default,
        _prose(flag.help),
    )
    return f"| {' | '.join(cells)} |\n"


def _prose(text: str) -> str:
    """Returns plain text as Markdown: flags as code, all else as it reads."""
    escaped = re.sub(r"([\\`*<|])", r"\\\1", text)
    return _FLAG.sub(lambda flag: f"`{flag[0]}`", escaped)


if __name__ == "__main__":
    print(to_markdown(read_commands()), end="")
