"""The package's rooms, read from its source: imports point downward, and few read the config."""

import ast
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

import retina_plugin

PACKAGE = Path(retina_plugin.__file__).parent
TOP = "__init__"

# The rooms, lowest first; what stands side by side never imports each other
ROOMS = (
    ("version", "detectron2_check", "registry", "drawing"),
    ("config",),
    ("modeling",),
    ("data", "checkpoint"),
    ("evaluation",),
    ("runs",),
    ("inference",),
    ("engine",),
    ("workbench",),
    ("public",),
    ("cli",),
    (TOP,),
)
HEIGHT = {room: height for height, rooms in enumerate(ROOMS) for room in rooms}

# Within `modeling` families know nothing of each other; what composes them stands above them all
FAMILIES = (
    *("anchors", "assigners", "backbones", "coders", "front_ends", "heads", "losses", "necks"),
    *("normalizers", "post_processors"),
)
COMPOSERS = (
    "detector",
    "stock_interface",
    "scripting",
    "checked_backbone",
    "functional",
    "architecture",
)


def imported_modules(path: Path, root: Path) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Line and parts of every module of the package that a file imports, wherever in it."""
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
                yield node.lineno, tuple(rest) if is_unit(root, rest[:1]) else (TOP,)


def is_unit(root: Path, parts: list[str]) -> bool:
    path = root.joinpath(*parts)
    return bool(parts) and (path.is_dir() or path.with_suffix(".py").is_file())


def within_modeling(parts: tuple[str, ...]) -> str:
    """The family, or the module between the families, that a module of `modeling` belongs to."""
    return parts[1] if parts[0] == "modeling" and len(parts) > 1 else ""


def wrong_imports(root: Path) -> list[str]:
    """One line for each import that does not point downward."""
    wrong = []
    for path in sorted(root.rglob("*.py")):
        where = path.relative_to(root)
        own = where.with_suffix("").parts
        if own[0] not in HEIGHT:
            wrong.append(f"{where}: '{own[0]}' has no place in ROOMS")
            continue
        for line, other in imported_modules(path, root):
            mine, theirs = within_modeling(own), within_modeling(other)
            if other[0] != own[0]:
                if not HEIGHT.get(other[0], len(ROOMS)) < HEIGHT[own[0]]:
                    wrong.append(f"{where}:{line}: {own[0]} imports {other[0]}")
            elif mine not in COMPOSERS and theirs != mine and theirs in (*FAMILIES, *COMPOSERS):
                wrong.append(f"{where}:{line}: {mine} imports {theirs}")
    return wrong


def may_read_config(function: str) -> bool:
    builds = function.startswith("build_") and function.endswith("_backbone")
    return function == "from_config" or builds


def config_readers(root: Path) -> list[str]:
    """One line for each function of the model that takes a config and must not."""
    wrong = []
    for path in sorted((root / "modeling").rglob("*.py")):
        if path.stem == "architecture":  # it looks at which detector a config names
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


def skeleton() -> dict[str, str]:
    """Empty rooms and families."""
    units = [*HEIGHT, *(f"modeling/{name}" for name in (*FAMILIES, *COMPOSERS, "contracts"))]
    names = {x: (PACKAGE / f"{x}.py").is_file() for x in units}
    return {f"{x}.py" if is_file else f"{x}/__init__.py": "" for x, is_file in names.items()}


def test_imports_point_downward():
    assert wrong_imports(PACKAGE) == []


def test_every_room_exists():
    """A name that is gone would hide that the table is out of date."""
    for unit in [*HEIGHT, *(f"modeling/{name}" for name in (*FAMILIES, *COMPOSERS))]:
        assert (PACKAGE / unit).is_dir() or (PACKAGE / f"{unit}.py").is_file(), unit


def test_the_top_is_the_house_and_nothing_else():
    units = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert units - {"__pycache__", "configs"} == set(HEIGHT)


def test_only_builders_read_the_config():
    assert config_readers(PACKAGE) == []


@pytest.mark.parametrize(
    ("path", "source", "found"),
    [
        ("modeling/losses/a.py", "from retina_plugin.modeling.detector import X", "detector"),
        ("modeling/losses/a.py", "import retina_plugin.modeling.heads.b", "heads"),
        ("modeling/losses/a.py", "from retina_plugin.modeling import heads", "heads"),
        ("modeling/losses/a.py", "from retina_plugin import FocalRetinaNet", "__init__"),
        ("modeling/losses/a.py", "import retina_plugin", "__init__"),
        ("modeling/losses/a.py", "from ..heads import b", "heads"),
        ("modeling/losses/a.py", "from .. import heads", "heads"),
        ("modeling/losses/a.py", "from ...data import b", "data"),
        ("modeling/losses/a.py", "def f():\n    from retina_plugin.modeling import heads", "heads"),
        ("modeling/contracts.py", "from retina_plugin.modeling.heads import X", "heads"),
        ("modeling/contracts.py", "from retina_plugin.modeling.detector import X", "detector"),
        ("modeling/detector.py", "from retina_plugin.data import X", "data"),
        ("registry/a.py", "from retina_plugin import modeling", "modeling"),
        ("config/a.py", "from retina_plugin.modeling import contracts", "modeling"),
        ("data/a.py", "from retina_plugin.engine import x", "engine"),
        ("data/a.py", "from retina_plugin.checkpoint import x", "checkpoint"),
        ("inference/a.py", "from retina_plugin.engine import x", "engine"),
        ("engine/a.py", "from retina_plugin.workbench import x", "workbench"),
        ("helpers/a.py", "", "'helpers' has no place in ROOMS"),
    ],
)
def test_an_upward_import_is_found(tmp_path, path, source, found):
    root = write_package(tmp_path / "retina_plugin", {**skeleton(), path: source})
    (line,) = wrong_imports(root)
    assert line.startswith(path)
    assert line.endswith(found)


def test_a_downward_import_is_none(tmp_path):
    files = {
        **skeleton(),
        "modeling/losses/a.py": """
            import torch
            from . import b
            from retina_plugin.modeling.losses.b import f
            from ...config import d
        """,
        "modeling/losses/b.py": """
            from retina_plugin.modeling.contracts import IGNORE
            from ...registry import ROLES
        """,
        "modeling/detector.py": "from retina_plugin.modeling.losses.b import f",
        "__init__.py": "from retina_plugin.modeling import losses",
    }
    assert wrong_imports(write_package(tmp_path / "retina_plugin", files)) == []


@pytest.mark.parametrize(
    "source",
    ["def f(cfg): ...", "def f(*, settings: CfgNode): ...", "class A:\n    def f(self, cfg): ..."],
)
def test_a_reader_of_the_config_is_found(tmp_path, source):
    files = {"modeling/losses/a.py": source, "engine/a.py": source}
    (line,) = config_readers(write_package(tmp_path / "retina_plugin", files))
    assert line.startswith("modeling/losses/a.py")


def test_builders_of_the_config_are_none(tmp_path):
    source = """
        class A:
            @classmethod
            def from_config(cls, cfg): ...
        def build_tiny_fpn_backbone(cfg, input_shape): ...
    """
    root = write_package(tmp_path / "retina_plugin", {"modeling/backbones/a.py": source})
    assert config_readers(root) == []
