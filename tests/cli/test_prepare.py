import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from retina_plugin import cli
from retina_plugin.cli import main, prepare
from retina_plugin.data.example_data import EXAMPLES, ExampleData
from retina_plugin.data.package_files import PackageFileError


def run(*args):
    return CliRunner().invoke(main, args)


@pytest.fixture
def made(monkeypatch):
    """Folders that were asked for, instead of making the real sets."""
    folders = []
    recorded = {name: ExampleData(folders.append, {}) for name in EXAMPLES}
    monkeypatch.setattr(prepare, "EXAMPLES", recorded)
    return folders


def test_help_lists_the_verbs_without_importing_them(monkeypatch):
    monkeypatch.delitem(sys.modules, "retina_plugin.cli.prepare")
    result = run("--help")
    assert result.exit_code == 0
    assert "prepare Make a data set" in " ".join(result.output.split())
    assert "retina_plugin.cli.prepare" not in sys.modules


def test_a_new_module_is_a_new_verb(tmp_path, monkeypatch):
    (tmp_path / "say_hello.py").write_text(
        '"""Greet."""\nimport click\n\n@click.command()\ndef command():\n    click.echo("hello")\n'
    )
    monkeypatch.setattr(cli, "__path__", [*cli.__path__, str(tmp_path)])
    assert "say-hello  Greet." in run("--help").output
    assert run("say-hello").output == "hello\n"
    monkeypatch.delitem(sys.modules, "retina_plugin.cli.say_hello")
    monkeypatch.delattr(cli, "say_hello")


def test_a_verb_without_command_is_named(tmp_path, monkeypatch):
    (tmp_path / "broken.py").write_text('"""No command here."""\n')
    monkeypatch.setattr(cli, "__path__", [*cli.__path__, str(tmp_path)])
    with pytest.raises(TypeError, match=r"broken\.py.*`command`"):
        CliRunner().invoke(main, ["broken"], catch_exceptions=False)


def test_unknown_verb_lists_the_valid_ones():
    result = run("prepair")
    assert result.exit_code == 2
    assert "prepair" in result.output
    assert "prepare" in result.output.replace("prepair", "")


def test_unknown_data_set_lists_the_valid_ones():
    result = run("prepare", "oranges")
    assert result.exit_code == 2
    assert "'crowns', 'digits'" in result.output


@pytest.mark.parametrize("name", ["crowns", "digits"])
def test_default_folder_is_detectron2s(made, monkeypatch, name):
    monkeypatch.delenv("DETECTRON2_DATASETS", raising=False)
    assert run("prepare", name).exit_code == 0
    monkeypatch.setenv("DETECTRON2_DATASETS", "/somewhere")
    assert run("prepare", name).exit_code == 0
    assert run("prepare", name, "--out", "here").exit_code == 0
    assert made == [Path("datasets") / name, Path("/somewhere") / name, Path("here")]


def test_missing_package_is_one_message(monkeypatch):
    def fail(out):
        raise PackageFileError("get it with pip")

    monkeypatch.setattr(prepare, "EXAMPLES", {"crowns": ExampleData(fail, {})})
    result = run("prepare", "crowns")
    assert result.exit_code == 1
    assert result.output == "Error: get it with pip\n"


def test_module_runs():
    result = subprocess.run(
        [sys.executable, "-m", "retina_plugin.cli", "prepare", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.startswith("Usage: retina prepare")
