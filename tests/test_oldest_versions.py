"""requirements/oldest.txt, which `make test-oldest` tries, are the lower bounds of setup.py."""

import re
import runpy
from pathlib import Path

import pytest
import setuptools
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]
STYLE = {"ruff"}  # of `make test`, the same on every version
DOCS = "docs"  # the extra that builds the site


@pytest.fixture(scope="module")
def bounds():
    """The lowest version of each requirement of setup.py, extras included."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setuptools, "setup", lambda **keywords: found.update(keywords))
        runpy.run_path(str(ROOT / "setup.py"))
    extras = [x for name, extra in found["extras_require"].items() if name != DOCS for x in extra]
    lowest = {}
    for text in [*found["install_requires"], *extras]:
        requirement = Requirement(text)
        versions = [x.version for x in requirement.specifier if x.operator == ">="]
        assert len(versions) == 1, f"{text}: a requirement has one bound >=, which is tried"
        lowest[requirement.name.lower()] = versions[0]
    return {name: version for name, version in lowest.items() if name not in STYLE}


def test_the_lowest_versions_are_those_that_are_tried(bounds):
    lines = (ROOT / "requirements" / "oldest.txt").read_text().splitlines()
    pins = dict(re.fullmatch(r"([\w-]+)==(\S+)", x).groups() for x in lines if x and x[0] != "#")
    assert {name.lower(): Version(pin) for name, pin in pins.items()} == {
        name: Version(version) for name, version in bounds.items()
    }


def test_no_torch_whose_weights_only_can_run_code(bounds):
    """CVE-2025-32434: before 2.6, torch.load(weights_only=True) could be made to run code."""
    assert Version(bounds["torch"]) >= Version("2.6")
