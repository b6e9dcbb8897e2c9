"""`import retina_plugin` registers every component, but on the command line only when needed."""

import subprocess
import sys

import pytest

import retina_plugin
from retina_plugin import public


def run_python(*words):
    command = [sys.executable, "-W", "ignore", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_the_public_names_are_there():
    assert retina_plugin.__all__ == ["__version__", *public.__all__]
    for name in public.__all__:
        assert getattr(retina_plugin, name) is getattr(public, name)


def test_importing_registers_everything():
    code = """
import retina_plugin
from detectron2.modeling import META_ARCH_REGISTRY
from retina_plugin.registry import ROLES
assert "FocalRetinaNet" in META_ARCH_REGISTRY
print([role.node for role in ROLES if not list(role)])
"""
    assert run_python("-c", code).strip() == "[]"


@pytest.mark.parametrize("start", ["retina_cli", "-m"])
def test_the_command_line_registers_when_a_name_is_used(start):
    code = f"""
import sys
if {start!r} == "-m":  # what Python sets while it imports the package of `-m retina_plugin.cli`
    sys.argv[0], sys.orig_argv = "-m", [sys.executable, "-m", "retina_plugin.cli"]
else:
    import retina_cli
    retina_cli.starting = True
import retina_plugin
assert "torch" not in sys.modules
assert not hasattr(retina_plugin, "no_such_name")
from retina_plugin import FocalRetinaNet, losses
from detectron2.modeling import META_ARCH_REGISTRY
print("FocalRetinaNet" in META_ARCH_REGISTRY, losses.__name__)
"""
    assert run_python("-c", code).strip() == "True retina_plugin.modeling.losses"


def test_a_spawned_worker_of_the_command_line_registers_at_once():
    """It imports the script of the entry point, and with it ``retina_cli``, but calls no main."""
    code = """
import sys
import retina_cli, retina_plugin
print("retina_plugin.public" in sys.modules)
"""
    assert run_python("-c", code).strip() == "True"
