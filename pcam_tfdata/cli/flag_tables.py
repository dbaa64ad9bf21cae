"""The flags of all commands as data, and as Markdown for the docs.

`python -m pcam_tfdata.cli.flag_tables` prints a heading for each command, its
docstring and a table of its flags, as the modules of the commands have them.
"""

import dataclasses
import multiprocessing
import re

from absl import flags

from pcam_tfdata.cli import main

_PATH = re.compile(r"(.*_)?(dirs?|csv|output|submission|flagfile)|weights")
_FLAG = re.compile(r"(?<![\w-])--[a-z]\w*(=[\w:/]*\w)?")


@dataclasses.dataclass(frozen=True)
class Flag:
    """A flag of a command.

    Attributes:
        name: Without dashes.
        takes: choice, switch, file, folder, text, or a range of numbers in words; in
            the plural where commas part several.
        choices: All values there are; of a switch, true and false; else none.
        default: As it is given on a command line; None if there is none.
        help: What it does.
        is_required: Whether the command does nothing without it.
    """

    name: str
    takes: str
    choices: tuple[str, ...]
    default: str | None
    help: str
    is_required: bool = False


@dataclasses.dataclass(frozen=True)
class Command:
    """A command, its docstring, its flags, and words that follow it without one."""

    name: str
    text: str
    flags: tuple[Flag, ...]
    words: tuple[str, ...]


_FLAGFILE = Flag("flagfile", "file", (), None, "A file with flags, one a line.")


def read_commands() -> list[Command]:
    """Returns all commands in the order of `pcam --help`; imports no TensorFlow.

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
    words = next((f.choices for f in described if f.name == alone), ())
    text = (module.__doc__ or "").strip()
    return Command(name, text, (*described, _FLAGFILE), words)


def _describe(flag: flags.Flag, is_required: bool) -> Flag:
    is_list = flag.flag_type().startswith("comma")
    takes = flag.parser.syntactic_help
    choices = tuple(getattr(flag.parser, "enum_values", ()))
    if flag.flag_type() == "bool":
        takes, choices = "switch", ("true", "false")
    elif choices:
        takes = "choice"
    elif is_list or not takes:
        takes = "folder" if "dir" in flag.name else "file"
        takes = takes if _PATH.fullmatch(flag.name) else "text"
        takes += "s" * is_list
    default = flag.default_as_str and flag.default_as_str[1:-1]  # No quotes.
    # Before the help of an enum absl puts its choices.
    text = (flag.help or "").removeprefix(f"<{'|'.join(choices)}>: ")
    return Flag(flag.name, takes, choices, default, text, is_required)


def to_markdown(commands: list[Command]) -> str:
    """Returns a page: a heading, the docstring and the flags of each command."""
    parts = ["# Commands\n\n`pcam COMMAND --flag=value ...`\n"]
    for command in commands:
        parts.append(f"\n## pcam {command.name}\n\n{_prose(command.text)}\n\n")
        parts.append("| flag | value | default | meaning |\n")
        parts.append("|---|---|---|---|\n")
        parts += map(_to_row, command.flags)
    return "".join(parts)


def _to_row(flag: Flag) -> str:
    choices = ", ".join(f"`{choice}`" for choice in flag.choices)
    value = choices if flag.takes == "choice" else flag.takes
    default = f"`{flag.default}`" if flag.default else ""
    default = "required" if flag.is_required else default
    return f"| `--{flag.name}` | {value} | {default} | {_prose(flag.help)} |\n"


def _prose(text: str) -> str:
    """Returns plain text as Markdown: flags as code, all else as it reads."""
    escaped = re.sub(r"([\\`*<|])", r"\\\1", text)
    return _FLAG.sub(lambda flag: f"`{flag[0]}`", escaped)


if __name__ == "__main__":
    print(to_markdown(read_commands()), end="")
