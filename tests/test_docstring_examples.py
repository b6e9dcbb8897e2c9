"""Every example in a docstring (``>>>``) runs and gives what it says."""

import doctest
from importlib import import_module

import pytest
from support.doc_pages import ROOT

import retina_plugin.public

PACKAGE = ROOT / "retina_plugin"
# evaluation/analysis needs files: tests/evaluation/analysis/test_docstring_example.py
ELSEWHERE = {"retina_plugin.evaluation.analysis"}


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        if ">>>" in path.read_text():
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts).removesuffix(".__init__")


MODULES = sorted(set(modules()) - ELSEWHERE)


def test_there_are_examples():
    assert len(MODULES) >= 5 and ELSEWHERE.issubset(modules())
    assert retina_plugin.public.__all__


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_of_a_module_run(module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    results = doctest.testmod(import_module(module))
    assert results.attempted and not results.failed
