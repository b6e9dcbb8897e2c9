"""The pages that people read, and what is in them: links, headings, blocks of code, commands."""

import itertools
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
import pytest

from retina_plugin.cli import main

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [
    *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG", "configs/README")),
    *sorted(DOCS.rglob("*.md")),
]
FENCE = re.compile(r"^```(\w*)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^)\s]+)\)")


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    title: str
    text: str


def generated_pages() -> dict:
    """The pages that only the built site has, and the functions that make them."""
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        from docs_reference import GENERATED
    finally:
        sys.path.pop(0)
    return GENERATED


def blocks(page: Path) -> list[Block]:
    return [Block(*found.groups(default="")) for found in FENCE.finditer(page.read_text())]


def prose(text: str) -> str:
    """The text without its fenced blocks."""
    return FENCE.sub("", text)


def links(page: Path) -> list[str]:
    return LINK.findall(re.sub(r"`[^`]*`", "``", prose(page.read_text())))


def anchors(text: str) -> set[str]:
    """The ids of a page's headings, as Python-Markdown makes them."""
    titles = re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    plain = [re.sub(r"[^\w\s-]", "", title).strip().lower() for title in titles]
    return {re.sub(r"[-\s]+", "-", title) for title in plain}


def commands(text: str) -> Iterator[list[str]]:
    """The words of each ``retina`` command in a block of shell, its variables replaced."""
    text = text.replace("\\\n", " ")
    for name, value in re.findall(r'^(\w+)="?([^"\n]*)"?$', text, re.MULTILINE):
        text = text.replace(f"${name}", value)
    for line in text.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        parts = itertools.groupby(lexer, lambda word: word in {"|", "&&", ">"})
        for is_operator, words in parts:
            words = list(words)
            if not is_operator and words[0] == "retina":
                yield words[1:]


def assert_parses(arguments: list[str], capsys: pytest.CaptureFixture) -> None:
    """Parse a command; the files that it names are the reader's and need not exist."""
    verb, *rest = arguments
    if verb == "--help":
        return
    context = click.Context(main)
    command = main.get_command(context, verb)
    assert command is not None, arguments
    try:
        command.make_context(verb, rest)
    except click.exceptions.Exit:  # --help
        pass
    except click.BadParameter as error:
        assert "does not exist" in error.message, (arguments, error.message)
    except SystemExit as stop:  # of argparse
        assert not stop.code or "does not exist" in capsys.readouterr().err, arguments
