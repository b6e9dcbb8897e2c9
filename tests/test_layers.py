"""The package's layers, read from its source: imports point downward, and few read the config."""

import ast
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

import retina_plugin

PACKAGE = Path(retina_plugin.__file__).parent
TOP = "__init__"
LEAST_LAYER_OF_CONFIG = "config"

# lowest first; what stands side by side never imports each other
LAYERS = (
    ("dense_targets", "geometry", "norm_folding", "softplus", "tiling"),
    ("contracts", "drawing", "registry", "rep_conv", "version", "detectron2_check"),
    ("environment",),
    (
        *("heads", "losses", "assigners", "coders", "anchors", "backbones", "necks", "normalizers"),
        *("network", "batch_inputs", "front_ends"),
    ),
    ("inference", "checked_backbone"),
    ("detector",),
    ("config", "functional"),
    ("data", "weights"),
    ("anchor_analysis", "evaluation"),
    ("diagnosis", "report"),
    ("engine",),
    ("benchmark", "comparison", "prediction"),
    ("cli",),
    (TOP,),
)
HEIGHT = {unit: height for height, units in enumerate(LAYERS) for unit in units}


def unit_of(path: Path, root: Path) -> str:
    """The module or family at the package's top level that a file belongs to."""
    return path.relative_to(root).with_suffix("").parts[0]


def imported_units(path: Path, root: Path) -> Iterator[tuple[int, str]]:
    """Line and unit of every import of the package's own, wherever in the file it stands."""
    name = root.name
    package = [name, *path.relative_to(root).parent.parts]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*base, *([node.module] if node.module else [])])
            modules = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for module in modules:
            first, *rest = module.split(".")
            if first == name:
                is_unit = rest and ((root / rest[0]).is_dir() or (root / f"{rest[0]}.py").is_file())
                yield node.lineno, rest[0] if is_unit else TOP


def wrong_imports(root: Path) -> list[str]:
    """One line for each import that does not point downward."""
    wrong = []
    for path in sorted(root.rglob("*.py")):
        unit = unit_of(path, root)
        where = path.relative_to(root)
        if unit not in HEIGHT:
            wrong.append(f"{where}: '{unit}' has no place in LAYERS")
            continue
        for line, other in imported_units(path, root):
            if other != unit and not HEIGHT.get(other, len(LAYERS)) < HEIGHT[unit]:
                wrong.append(f"{where}:{line}: {unit} imports {other}")
    return wrong


def may_read_config(function: str) -> bool:
    builds_backbone = function.startswith("build_") and function.endswith("_backbone")
    extends_config = function.startswith("add_") and function.endswith("_config")
    return function == "from_config" or builds_backbone or extends_config


def config_readers(root: Path) -> list[str]:
    """One line for each function below the config's layer that takes a config and must not."""
    wrong = []
    for path in sorted(root.rglob("*.py")):
        unit = unit_of(path, root)
        # the registry is what hands each component its own part of the config
        if unit == "registry" or HEIGHT.get(unit, 0) >= HEIGHT[LEAST_LAYER_OF_CONFIG]:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.FunctionDef) or may_read_config(node.name):
                continue
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            if any(a.arg == "cfg" or _names_cfg_node(a.annotation) for a in arguments):
                wrong.append(f"{path.relative_to(root)}:{node.lineno}: {node.name} takes a config")
    return wrong


def _names_cfg_node(annotation: ast.expr | None) -> bool:
    return annotation is not None and "CfgNode" in ast.unparse(annotation)


def write_package(root: Path, files: dict[str, str]) -> Path:
    for name, source in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(source), encoding="utf-8")
    return root


def test_imports_point_downward():
    assert wrong_imports(PACKAGE) == []


def test_every_layer_exists():
    """A name that is gone would hide that the table is out of date."""
    for unit in HEIGHT:
        assert (PACKAGE / unit).is_dir() or (PACKAGE / f"{unit}.py").is_file(), unit


def test_only_builders_read_the_config():
    assert config_readers(PACKAGE) == []


@pytest.mark.parametrize(
    ("path", "source", "found"),
    [
        ("losses/a.py", "from retina_plugin.detector import X", "losses imports detector"),
        ("losses/a.py", "import retina_plugin.heads.b", "losses imports heads"),
        ("losses/a.py", "from retina_plugin import heads", "losses imports heads"),
        ("losses/a.py", "from retina_plugin import FocalRetinaNet", "losses imports __init__"),
        ("losses/a.py", "import retina_plugin", "losses imports __init__"),
        ("losses/a.py", "from ..heads import b", "losses imports heads"),
        ("losses/a.py", "from .. import heads", "losses imports heads"),
        ("losses/a.py", "def f():\n    from retina_plugin import heads", "losses imports heads"),
        ("contracts.py", "from retina_plugin.registry import X", "contracts imports registry"),
        ("registry.py", "from . import heads", "registry imports heads"),
        ("data/a.py", "from retina_plugin.engine import x", "data imports engine"),
        ("inference.py", "from retina_plugin.config import x", "inference imports config"),
        ("helpers/a.py", "", "'helpers' has no place in LAYERS"),
    ],
)
def test_an_upward_import_is_found(tmp_path, path, source, found):
    files = {f"{unit}/__init__.py": "" for unit in HEIGHT if (PACKAGE / unit).is_dir()}
    files |= {f"{unit}.py": "" for unit in HEIGHT if (PACKAGE / f"{unit}.py").is_file()}
    root = write_package(tmp_path / "retina_plugin", {**files, path: source})
    (line,) = wrong_imports(root)
    assert line.startswith(path)
    assert line.endswith(found)


def test_a_downward_import_is_none(tmp_path):
    files = {
        "losses/__init__.py": "",
        "losses/a.py": "import torch\nfrom . import b\nfrom retina_plugin.losses.b import f",
        "losses/b.py": "from retina_plugin.contracts import IGNORE\nfrom ..registry import ROLES",
        "contracts.py": "",
        "registry.py": "",
        "__init__.py": "from retina_plugin import losses",
    }
    assert wrong_imports(write_package(tmp_path / "retina_plugin", files)) == []


@pytest.mark.parametrize(
    "source",
    ["def f(cfg): ...", "def f(*, settings: CfgNode): ...", "class A:\n    def f(self, cfg): ..."],
)
def test_a_reader_of_the_config_is_found(tmp_path, source):
    root = write_package(tmp_path / "retina_plugin", {"losses/a.py": source, "engine/a.py": source})
    (line,) = config_readers(root)
    assert line.startswith("losses/a.py")


def test_builders_of_the_config_are_none(tmp_path):
    source = """
        class A:
            @classmethod
            def from_config(cls, cfg): ...
        def build_tiny_fpn_backbone(cfg, input_shape): ...
        def add_tiny_config(cfg): ...
    """
    root = write_package(tmp_path / "retina_plugin", {"backbones/a.py": source})
    assert config_readers(root) == []
