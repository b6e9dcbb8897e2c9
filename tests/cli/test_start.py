"""Help is there at once: it does not import PyTorch or Detectron2."""

import subprocess
import sys
from importlib import import_module

import click
import pytest

from retina_plugin.checkpoint import convert as conversions
from retina_plugin.checkpoint.torchvision_retinanet import EPS
from retina_plugin.cli import VerbGroup, anchors, benchmark, convert, main, predict, report
from retina_plugin.inference.prediction import sources, writers
from retina_plugin.workbench.anchors import fitting
from retina_plugin.workbench.report.page import PAGE

HEAVY = ("torch", "torchvision", "detectron2", "retina_plugin.public", "numpy", "matplotlib")
VERBS = VerbGroup().list_commands(click.Context(main))
RUN = f"""
import sys, retina_cli
try:
    retina_cli.main()
finally:
    print("HEAVY", [name for name in {HEAVY} if name in sys.modules])
"""


def retina(*arguments):
    """Standard output of the command in a process of its own, which also says what it imported."""
    done = subprocess.run([sys.executable, "-c", RUN, *arguments], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("arguments", [(), *((verb,) for verb in VERBS)])
def test_help_imports_nothing_heavy(arguments):
    code, output = retina(*arguments, "--help")
    assert (code == 0 and "Usage: retina" in output) or "usage: retina" in output, output
    assert output.splitlines()[-1] == "HEAVY []"


@pytest.mark.parametrize("verb", VERBS)
def test_a_wrong_option_neither(verb):
    code, output = retina(verb, "--no-such-option")
    assert code == 2 and "--no-such-option" in output
    assert "HEAVY []" in output


def test_python_m_is_the_same():
    command = [sys.executable, "-X", "importtime", "-m", "retina_plugin.cli", "doctor", "--help"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "retina doctor [OPTIONS]" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "retina_plugin.cli._verb" in imported and not imported & set(HEAVY)


def test_what_help_says_is_what_the_modules_have():
    """Choices and defaults whose home takes seconds to import are written in the verb again."""
    assert (convert.OWN, convert.TORCHVISION, convert.MMDETECTION, convert.EPS) == (
        conversions.OWN,
        conversions.TORCHVISION,
        conversions.MMDETECTION,
        EPS,
    )
    assert report.PAGE == PAGE
    assert list(anchors.GENERATORS) == list(fitting.GENERATORS)
    assert list(predict.FORMATS) == list(writers.FORMATS)
    assert predict.STDIN == sources.STDIN
    for module in benchmark.PARTS.values():
        parts = import_module(f"retina_plugin.workbench.benchmark.{module}")
        assert callable(getattr(parts, f"measure_{module}"))
