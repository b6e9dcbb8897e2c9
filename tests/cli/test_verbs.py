"""What every verb of `retina` has: examples that parse, exit codes that are said."""

import itertools
import shlex

import click
import pytest
from click.testing import CliRunner

from retina_plugin.cli import VerbGroup, main

VERBS = VerbGroup().list_commands(click.Context(main))


def examples(verb):
    """The arguments of each example in the verb's help."""
    result = CliRunner().invoke(main, [verb, "--help"], terminal_width=200)
    assert result.exit_code == 0, result.output
    lines = result.output.replace("\\\n", " ").splitlines()
    starts = f"retina {verb} "
    found = [words(line)[2:] for line in lines if f"{line.strip()} ".startswith(starts)]
    assert "Examples:" in result.output and found, result.output
    return found


def words(line):
    """Of the line's first command, without what the shell does with it."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    return list(itertools.takewhile(lambda word: word not in {"|", "&&", ">"}, lexer))


@pytest.mark.parametrize("verb", VERBS)
def test_the_examples_parse(verb, capsys):
    command = main.get_command(click.Context(main), verb)
    for arguments in examples(verb):
        try:
            command.make_context(verb, list(arguments))
        except click.BadParameter as error:  # the files of an example are the reader's
            assert "does not exist" in error.message, (arguments, error.message)
        except SystemExit:  # of argparse
            assert "does not exist" in capsys.readouterr().err, arguments


@pytest.mark.parametrize("verb", VERBS)
def test_exit_codes_are_said_and_a_wrong_option_is_2(verb):
    runner = CliRunner()
    assert "Exit codes: 0 " in " ".join(runner.invoke(main, [verb, "--help"]).output.split())
    result = runner.invoke(main, [verb, "--no-such-option"])
    assert result.exit_code == 2 and "--no-such-option" in result.output
