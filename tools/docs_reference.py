"""The reference pages that are made from the package, as Markdown.

``python tools/docs_reference.py PAGE`` prints one of them.
"""

import inspect
import re
import sys
from collections.abc import Callable
from pathlib import Path

import click
from click.testing import CliRunner

ROOT = Path(__file__).resolve().parents[1]


def commands_page() -> str:
    """Return the help of every verb of ``retina``."""
    from retina_plugin.cli import VerbGroup, _first_line, main

    context = click.Context(main, info_name="retina")
    verbs = {verb: main.get_command(context, verb) for verb in VerbGroup().list_commands(context)}
    parts = [
        "# Commands",
        "`retina VERB --help` prints the same text. `python -m retina_plugin.cli` is the same "
        "program as `retina`.",
        table(
            ("command", "what it does"),
            [(f"[`retina {verb}`](#retina-{verb})", escape(_first_line(verb))) for verb in verbs],
        ),
    ]
    for verb, command in verbs.items():
        parts += [f"## retina {verb}", command_text(verb, command, context)]
    return "\n\n".join(parts) + "\n"


def command_text(verb: str, command: click.Command, parent: click.Context) -> str:
    """Return one verb's usage, description, examples and options."""
    if not command.params:  # argparse reads the command line and writes the help
        shown = CliRunner().invoke(parent.command, [verb, "--help"], prog_name="retina").output
        return f"```text\n{shown.rstrip()}\n```"
    context = click.Context(command, info_name=verb, parent=parent)
    usage = " ".join(command.collect_usage_pieces(context))
    parts = [f"```text\nretina {verb} {usage}\n```"]
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(command.help or "")):
        parts += paragraph_text(paragraph)
    records = [p.get_help_record(context) for p in command.get_params(context)]
    rows = [(f"`{names}`", escape(text)) for names, text in filter(None, records) if text]
    return "\n\n".join([*parts, table(("option", "meaning"), rows)])


def paragraph_text(paragraph: str) -> list[str]:
    """Return a paragraph of a help text: what click does not wrap (after ``\\b``) as code."""
    lines = paragraph.splitlines()
    if lines[0].strip() != "\b":
        return [escape(" ".join(line.strip() for line in lines))]
    title = [line for line in lines[1:2] if line.rstrip().endswith(":")]
    code = [x for x in lines[1 + len(title) :] if x.startswith(" ") or not title]
    rest = [x for x in lines[1 + len(title) :] if x not in code]
    block = "\n".join(
        ["```bash" if title else "```text", inspect.cleandoc("\n" + "\n".join(code)), "```"]
    )
    return [*map(escape, title), block, *([escape(" ".join(rest))] if rest else [])]


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return a Markdown table."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in x)} |" for x in lines
    )


def escape(text: str) -> str:
    """Return plain text with what Markdown or HTML would interpret escaped."""
    return re.sub(r"([\\*_<>\[\]])", r"\\\1", text)


def page_of_root(name: str) -> Callable[[], str]:
    """Return a function that reads a file of the root, its links made relative to ``docs/``."""

    def read() -> str:
        text = (ROOT / name).read_text(encoding="utf-8")
        return re.sub(r"\]\((?!docs/|[a-z]+:|#)", "](../", text).replace("](docs/", "](")

    return read


GENERATED: dict[str, Callable[[], str]] = {
    "reference/commands.md": commands_page,
    "contributing.md": page_of_root("CONTRIBUTING.md"),
    "changelog.md": page_of_root("CHANGELOG.md"),
}

if __name__ == "__main__":
    print(GENERATED[sys.argv[1]](), end="")
