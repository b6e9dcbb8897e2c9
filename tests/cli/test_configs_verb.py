"""`retina configs`: the names that every verb takes; and each verb takes them."""

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from retina_plugin.cli import VerbGroup, main
from retina_plugin.cli._config_path import ConfigPath
from retina_plugin.config.names import find_config, list_configs
from retina_plugin.engine.arguments import argument_parser
from retina_plugin.workbench.compare.contenders import parse_contender

VERBS = VerbGroup().list_commands(click.Context(main))


def configs(*words, code=0):
    result = CliRunner().invoke(main, ["configs", *words], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


def test_every_name_with_its_description():
    lines = configs().stdout.splitlines()
    assert lines[0].split() == ["name", "measured", "description"]
    assert [line.split()[0] for line in lines[1:]] == list_configs()
    rows = {line.split()[0]: line.split(maxsplit=2)[1:] for line in lines[1:]}
    assert rows["crowns"] == ["yes", "Tree crowns in aerial photographs, one class."]
    assert rows["retinanet_R_101_FPN_1x"][0] == "no"


def test_a_pattern_and_json():
    rows = json.loads(configs("atss*", "--json").stdout)
    assert [row["name"] for row in rows] == list_configs("atss*")
    assert all(Path(row["path"]).is_file() and row["description"] for row in rows)
    crowns = next(row for row in rows if row["name"] == "modern/atss_crowns")
    assert crowns["measured"] and crowns["expected"].startswith("after 3,000 images")


def test_descriptions_are_one_sentence():
    for row in json.loads(configs("--json").stdout):
        assert row["description"].endswith((".", "way.")) and len(row["description"]) < 110, row


def test_a_pattern_that_nothing_matches():
    assert "No config matches 'nothing*'" in configs("nothing*", code=1).stderr
    assert json.loads(configs("nothing*", "--json", code=1).stdout) == []


@pytest.mark.parametrize("verb", VERBS)
def test_config_arguments_of_every_verb_take_names(verb):
    for parameter in main.get_command(click.Context(main), verb).params:
        if parameter.name in ("config", "config_file"):
            assert isinstance(parameter.type, ConfigPath), (verb, parameter)


@pytest.mark.parametrize("words", [["doctor"], ["benchmark", "--config-file"]])
def test_an_unknown_name_is_refused_before_anything_else(words):
    result = CliRunner().invoke(main, [*words, "atss_crown"])
    assert result.exit_code == 2 and "Did you mean modern/atss_crowns" in result.output


def test_train_net_takes_names(capsys):
    arguments = argument_parser().parse_args(["--config-file", "atss_crowns", "--eval-only"])
    assert arguments.config_file == str(find_config("atss_crowns")) and arguments.eval_only
    assert argument_parser().parse_args([]).config_file == ""
    with pytest.raises(SystemExit):
        argument_parser().parse_args(["--config-file", "atss_crown"])
    assert "--config-file: atss_crown: there is no such config file" in capsys.readouterr().err


def test_compare_takes_names():
    found = parse_contender("a=atss_crowns SEED=1")
    assert (found.label, found.config_file) == ("a", find_config("atss_crowns"))
    assert parse_contender("modern/atss_crowns").label == "atss_crowns"
    with pytest.raises(ValueError, match="Did you mean modern/atss_crowns"):
        parse_contender("atss_crown")


def test_listing_does_not_import_torch():
    """Torch alone takes seconds; a name is wanted at once."""
    script = "import sys\nfrom retina_plugin.cli import main\n"
    script += (
        "main(['configs', 'atss*'], standalone_mode=False)\nassert 'torch' not in sys.modules\n"
    )
    run = "import sys, types; sys.modules['retina_cli'] = types.SimpleNamespace(starting=True)\n"
    result = subprocess.run([sys.executable, "-c", run + script], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "modern/atss_R_50_FPN_1x" in result.stdout
