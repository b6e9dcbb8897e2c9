"""What every verb of `retina` has: examples that parse, exit codes that are said."""

import click
import pytest
from click.testing import CliRunner
from support.doc_pages import assert_parses, commands

from retina_plugin.cli import VerbGroup, main

VERBS = VerbGroup().list_commands(click.Context(main))


@pytest.mark.parametrize("verb", VERBS)
def test_the_examples_parse(verb, capsys):
    result = CliRunner().invoke(main, [verb, "--help"], terminal_width=200)
    assert result.exit_code == 0 and "Examples:" in result.output, result.output
    lines = map(str.strip, result.output.replace("\\\n", " ").splitlines())
    examples = [line for line in lines if f"{line} ".startswith(f"retina {verb} ")]
    assert examples, result.output
    for arguments in commands("\n".join(examples)):
        assert_parses(arguments, capsys)


@pytest.mark.parametrize("verb", VERBS)
def test_exit_codes_are_said_and_a_wrong_option_is_2(verb):
    runner = CliRunner()
    assert "Exit codes: 0 " in " ".join(runner.invoke(main, [verb, "--help"]).output.split())
    result = runner.invoke(main, [verb, "--no-such-option"])
    assert result.exit_code == 2 and "--no-such-option" in result.output
