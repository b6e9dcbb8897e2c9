"""Whole packages are imported, so that a new file needs no list."""

import importlib
import sys

from retina_plugin.registry import import_submodules


def test_a_new_file_is_discovered(tmp_path, monkeypatch):
    """A component needs a file in its family's folder, and no list of files."""
    family = tmp_path / "family_of_sinks"
    family.mkdir()
    (family / "__init__.py").write_text(
        "from retina_plugin.registry import Role, import_submodules\n"
        "ROLE = Role('sink', node='MODEL.SINK')\n"
        "import_submodules(__name__, __path__)\n"
    )
    (family / "new_sink.py").write_text(
        "from family_of_sinks import ROLE\n\n@ROLE.register\nclass NewSink: ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("family_of_sinks")
    assert "NewSink" in module.ROLE
    for name in ("family_of_sinks", "family_of_sinks.new_sink"):
        del sys.modules[name]


def test_import_submodules_imports_all(tmp_path, monkeypatch):
    package = tmp_path / "some_modules"
    package.mkdir()
    for name in ("__init__", "a", "b"):
        (package / f"{name}.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("some_modules")
    import_submodules("some_modules", module.__path__)
    assert {"some_modules.a", "some_modules.b"} <= sys.modules.keys()
