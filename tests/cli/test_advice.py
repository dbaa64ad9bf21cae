"""Every `--flag` in a message is one of the command that prints it.

What a command may print is found in the code: the strings of all functions that
its module names, that these name, and so on. That a function is named does not
mean that it says all that it can say: `UNSAID` holds what is known of that.
"""

import ast
import collections
import functools
import pathlib
import re
from collections.abc import Iterator

import pytest

import pcam_tfdata
from pcam_tfdata.cli import main

PACKAGE = "pcam_tfdata"
ROOT = pathlib.Path(pcam_tfdata.__file__).parent
FLAG = re.compile(r"(?<![\w-])--([a-z]\w+)")
# `pcam COMMAND ... --flag` is advice to run another command.
OF_ANOTHER = re.compile(r"pcam (\w+)[^.;]*?--([a-z]\w+)")
DEFINITION = (ast.FunctionDef, ast.ClassDef)
OTHER_ROOMS = (
    "(beam|conversion|data_service|distribution|evaluation|images|pipeline|runs"
    "|sources|system|training)"
)
UNSAID = re.compile(
    "|".join(
        (
            # Flags of other programs, and words for any flag.
            r".* --(flink_master|flag|help)",
            r"doctor doctor\.check_gpus\.QUERY --(format|query)",
            r"benchmark benchmark\.input_rates\..*",
            # A benchmark does what other commands do, in a new folder, and asks
            # for nothing but one device.
            rf"benchmark {OTHER_ROOMS}\..*",
            # It computes on one device, and neither scores nor reads batches.
            r"explain (distribution|evaluation|models|pipeline)\..*",
            # Of several workers, a service, or the cache of training alone.
            r"\w+ distribution\.\w+\..* --worker_wait_seconds",
            # It trains networks as they come.
            r"benchmark models\..* --(head|weights)",
            # Patches that are read once are neither shuffled nor cached.
            r"\w+ pipeline\.input_choice\..* --(shuffle_megabytes|cache)",
            # It joins networks in a folder of its own, which is new.
            r"export evaluation\.ensemble\.make_run --output_dir",
            # Only who may skip patches says how many would be left.
            r"join system\.faults\.BadInputError --on_bad_patch",
            # Files are read by predict alone, and it reads no slides.
            r"(evaluate|train) images\.tiff\..* --on_bad_patch",
            r"predict sources\.kaggle\.\w+ --slide_csv",
        )
    )
)

Node = tuple[str, str]  # A module, and what it defines at its top.


class Code:
    """What a module defines at its top, and what each of that names."""

    def __init__(self, module: str, path: pathlib.Path) -> None:
        self.tree = ast.parse(path.read_text())
        self.module = module
        self.defined = collections.defaultdict(list)
        for statement in self.tree.body:
            for name in _names_of(statement):
                self.defined[name].append(statement)
        self.imported = collections.defaultdict(set)
        for found in ast.walk(self.tree):
            if isinstance(found, ast.ImportFrom) and (
                found.module or ""
            ).startswith(PACKAGE):
                for alias in found.names:
                    self.imported[alias.asname or alias.name].add(
                        (found.module, alias.name)
                    )


def _names_of(statement: ast.stmt) -> list[str]:
    if isinstance(statement, DEFINITION):
        return [statement.name]
    if isinstance(statement, (ast.Assign, ast.AnnAssign)):
        targets = getattr(statement, "targets", None) or [statement.target]
        names = [found for t in targets for found in ast.walk(t)]
        return [found.id for found in names if isinstance(found, ast.Name)]
    return []


@functools.cache
def read_code() -> dict[str, Code]:
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = [PACKAGE, *path.relative_to(ROOT).with_suffix("").parts]
        if parts[-1] == "__init__":
            parts.pop()
        found[".".join(parts)] = Code(".".join(parts), path)
    return found


@functools.cache
def resolve(module: str, name: str) -> list[Node]:
    """Returns what a name stands for; a module has no name of its own."""
    code = read_code()
    found = [(f"{module}.{name}", "")] * (f"{module}.{name}" in code)
    if module in code:
        found += [(module, name)] * (name in code[module].defined)
        for other in code[module].imported.get(name, ()):
            if other != (module, name):  # A module that its package imports.
                found += resolve(*other)
    return found


def resolve_all(module: str, part: ast.AST) -> list[Node]:
    """Returns what `name`, `module.name` and the like stand for."""
    if isinstance(part, ast.Name):
        return resolve(module, part.id)
    if not isinstance(part, ast.Attribute):
        return []
    return [
        node
        for other, name in resolve_all(module, part.value)
        if not name
        for node in resolve(other, part.attr)
    ]


def list_named(module: str, part: ast.AST) -> Iterator[Node]:
    for found in ast.walk(part):
        yield from resolve_all(module, found)


def list_reached(command: str) -> set[Node]:
    code = read_code()
    module = f"{PACKAGE}.cli.{command}"
    waiting = [(module, name) for name in code[module].defined]
    waiting += list_named(module, code[module].tree)
    reached = set()
    while waiting:
        module, name = node = waiting.pop()
        if node in reached:
            continue
        reached.add(node)
        for part in code[module].defined.get(name, ()):
            waiting += list_named(module, part)
    return reached


def list_texts(part: ast.AST, command: str) -> Iterator[tuple[str, str]]:
    """Yields strings that are no docstrings, each behind its command.

    What is put into a string is {} there. The arguments of a call such as
    `call("evaluate", "--splits=fold0")` are of the command that it names.
    """
    passed = set()
    commands = {
        id(found): call.args[0].value
        for call in ast.walk(part)
        if isinstance(call, ast.Call) and names_command(call)
        for argument in call.args[1:]
        for found in ast.walk(argument)
    }
    for found in ast.walk(part):
        other = commands.get(id(found), command)
        if isinstance(found, (*DEFINITION, ast.Module)):
            passed.add(id(getattr(found.body[0], "value", None)))
        elif isinstance(found, ast.JoinedStr):
            passed |= set(map(id, found.values))
            text = "".join(
                part.value if isinstance(part, ast.Constant) else "{}"
                for part in found.values
            )
            yield other, text
        elif (
            isinstance(found, ast.Constant)
            and isinstance(found.value, str)
            and id(found) not in passed
        ):
            yield other, found.value


def names_command(call: ast.Call) -> bool:
    first = call.args[0] if call.args else None
    return isinstance(first, ast.Constant) and first.value in main.COMMANDS


@functools.cache
def list_flags(command: str) -> set[str]:
    """Returns the flags that a command's module, and what it names, defines.

    Those of every command are defined in `main`.
    """
    code = read_code()
    parts = [code[f"{PACKAGE}.cli.{name}"].tree for name in (command, "main")]
    adopted = set()
    for module, name in list_reached(command):
        parts += code[module].defined.get(name, ())
        other = module.removeprefix(f"{PACKAGE}.cli.")
        if not name and other in main.COMMANDS:
            adopted |= list_flags(other)
    return adopted | {
        next(a.value for a in call.args if isinstance(a, ast.Constant))
        for part in parts
        for call in ast.walk(part)
        if isinstance(call, ast.Call)
        and getattr(call.func, "attr", "").startswith("DEFINE")
    }


def list_advice(command: str) -> Iterator[tuple[Node, str, str]]:
    """Yields who says it, the command that is meant, and the flag."""
    code = read_code()
    for module, name in sorted(list_reached(command)):
        for part in code[module].defined.get(name, ()):
            for other, text in list_texts(part, command):
                for advised, flag in OF_ANOTHER.findall(text):
                    yield (module, name), advised, flag
                for flag in FLAG.findall(OF_ANOTHER.sub("", text)):
                    yield (module, name), other, flag


@pytest.mark.parametrize("command", main.COMMANDS)
def test_every_flag_in_a_message_is_one_of_the_command(command):
    said = {
        f"{command} {module.removeprefix(f'{PACKAGE}.')}.{name} --{flag}"
        for (module, name), other, flag in list_advice(command)
        if flag not in list_flags(other)
    }
    wrong = [line for line in said if not UNSAID.fullmatch(line)]
    assert not wrong, "\n".join(sorted(wrong))


@pytest.mark.parametrize(
    ("command", "flag"),
    [
        ("predict", "on_bad_patch"),
        ("predict", "follow_symlinks"),
        ("predict", "check_ids"),
        ("predict", "output_csv"),
        ("train", "run_dir"),
        ("cross_validate", "folds"),
        ("convert_to_tfrecords", "overwrite"),
    ],
)
def test_advice_is_found_in_the_code(command, flag):
    assert (command, flag) in {
        (other, found) for _, other, found in list_advice(command)
    }
    assert flag in list_flags(command)
