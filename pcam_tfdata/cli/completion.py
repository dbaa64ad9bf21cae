"""Prints a script with which a shell completes commands, flags and choices.

`pcam completion bash` or `pcam completion zsh`. For bash, write it to
~/.local/share/bash-completion/completions/pcam, or to a file that ~/.bashrc sources.
For zsh, write it to a file _pcam in a folder of fpath, or source it after compinit. The
script holds what there was when it was printed: print it anew after an upgrade.
"""

import shlex

from absl import flags

from pcam_tfdata.cli import main, quiet

REQUIRED_FLAGS = ("shell",)
POSITIONAL_FLAG = "shell"  # It may be given as a word alone.

flags.DEFINE_enum("shell", None, ("bash", "zsh"), "Shell to write for.")


def run() -> None:
    """Prints the script."""
    with quiet.imports():
        import jinja2

        from pcam_tfdata.cli import flag_tables
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"quote": shlex.quote, "zsh": _escape}
    template = environment.get_template(f"completion.{flags.FLAGS.shell}.j2")
    commands = flag_tables.read_commands()
    print(template.render(commands=commands, summaries=main.COMMANDS))


def _escape(text: str) -> str:
    """Returns text for a description of zsh's, where : and brackets part."""
    return text.translate({ord(sign): f"\\{sign}" for sign in "\\:[]"})
