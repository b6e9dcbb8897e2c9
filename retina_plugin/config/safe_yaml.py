"""Read one yaml config file as plain values: no code runs, no mistake is passed over.

PyYAML's own loaders either run python tags or stop at them without saying where, let the last of
two equal keys win, and follow aliases however far they multiply.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any, NamedTuple

import yaml

YAML_PREFIX = "tag:yaml.org,2002:"
EVAL_TAG = YAML_PREFIX + "python/object/apply:eval"
MERGE_TAG = YAML_PREFIX + "merge"
PLAIN_TAGS = {YAML_PREFIX + kind for kind in ("null", "bool", "int", "float", "str", "seq", "map")}
# Detectron2's full config has under 500 values, five deep.
MAX_VALUES = 100_000
MAX_DEPTH = 50
MAX_EXPRESSION = 1000

STOCK_SCALES = ast.dump(ast.parse("[x, x * 2**(1.0/3), x * 2**(2.0/3)]", mode="eval").body)


class ConfigFileError(ValueError):
    """A config file cannot be read, or holds a wrong value; the message names file and key."""


class UnsafeYamlError(ConfigFileError):
    """A config file holds a tag that would make Python objects or run code."""


class ConfigYaml(NamedTuple):
    """What one file says.

    Attributes:
        values: nested dicts of plain values, `_BASE_` not yet followed.
        lines: the line on which each dotted key stands.
    """

    values: dict[str, Any]
    lines: dict[str, int]


class _Loader(yaml.SafeLoader):
    """yaml.SafeLoader that understands the one expression of Detectron2's Base-RetinaNet.yaml."""


def read_yaml(path: Path) -> ConfigYaml:
    """Read a yaml config file without running any code.

    Raises:
        UnsafeYamlError: a python tag, or any other tag that is not plain yaml.
        ConfigFileError: no such file, not yaml, not a mapping, a key that stands twice or is not
            text, aliases that expand without bound.
    """
    try:
        loader = _Loader(path.read_text(encoding="utf-8"))
        loader.name = str(path)
        root = loader.get_single_node()
        if not isinstance(root, yaml.MappingNode):
            found = "is empty" if root is None else f"holds a {root.id}"
            raise ConfigFileError(
                f"{path}: a config is a mapping such as 'MODEL: {{...}}'; the file {found}."
            )
        check = _Check(path)
        check.visit(root, ())
        return ConfigYaml(_construct(loader, root, path), check.lines)
    except FileNotFoundError:
        raise ConfigFileError(f"{path}: there is no such config file.") from None
    except (IsADirectoryError, PermissionError, UnicodeDecodeError) as error:
        raise ConfigFileError(f"{path}: cannot be read as a config file: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigFileError(f"{path}: not valid yaml: {error}") from None
    except RecursionError:
        raise ConfigFileError(f"{path}: nested too deeply for a config.") from None


def _construct(loader: _Loader, root: yaml.Node, path: Path) -> dict[str, Any]:
    try:
        return loader.construct_document(root)
    except (ValueError, OverflowError) as error:  # such as !!int abc
        raise ConfigFileError(f"{path}: a value does not fit its tag: {error}") from None


def stock_octave_sizes(node: yaml.Node) -> list[list[float]] | None:
    """The anchor sizes that Detectron2's `Base-RetinaNet.yaml` spells as an expression.

    The tag's text must be, but for white space and the base sizes,
    `[[x, x * 2**(1.0/3), x * 2**(2.0/3)] for x in [32, 64, 128, 256, 512]]`. It is recognised, not
    evaluated; the same arithmetic gives the same bits.

    Returns:
        One list of three sizes for each base size; None for any other node.
    """
    if node.tag != EVAL_TAG or not isinstance(node, yaml.SequenceNode) or len(node.value) != 1:
        return None
    text = node.value[0].value
    if not isinstance(text, str) or len(text) > MAX_EXPRESSION:
        return None
    try:
        expression = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    if not isinstance(expression, ast.ListComp) or ast.dump(expression.elt) != STOCK_SCALES:
        return None
    [loop, *further] = expression.generators
    if further or loop.ifs or loop.is_async or not isinstance(loop.iter, ast.List):
        return None
    if not isinstance(loop.target, ast.Name) or loop.target.id != "x":
        return None
    bases = [base.value for base in loop.iter.elts if isinstance(base, ast.Constant)]
    if len(bases) < len(loop.iter.elts) or not all(type(base) in (int, float) for base in bases):
        return None
    return [[x, x * 2 ** (1.0 / 3), x * 2 ** (2.0 / 3)] for x in bases]


_Loader.add_constructor(EVAL_TAG, lambda _, node: stock_octave_sizes(node))


class _Check:
    """Walks a file's node tree before anything is constructed from it; notes where keys stand."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: dict[str, int] = {}
        self._visited = 0

    def visit(self, node: yaml.Node, keys: tuple[str, ...], depth: int = 0) -> None:
        """Check `node`, the value of the dotted key `keys`, and everything below it."""
        self._visited += 1
        if self._visited > MAX_VALUES or depth > MAX_DEPTH:
            raise ConfigFileError(
                f"{self._at(node)}: with its aliases expanded the file has over {MAX_VALUES} "
                f"values or nests over {MAX_DEPTH} deep. Write the values out, or fewer of them."
            )
        if stock_octave_sizes(node) is not None:
            return
        if node.tag not in PLAIN_TAGS:
            raise self._refusal(node, ".".join(keys))
        if isinstance(node, yaml.SequenceNode):
            for item in node.value:
                self.visit(item, keys, depth + 1)
        elif isinstance(node, yaml.MappingNode):
            self._visit_mapping(node, keys, depth)

    def _visit_mapping(self, node: yaml.MappingNode, keys: tuple[str, ...], depth: int) -> None:
        first_line: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag == MERGE_TAG:
                merged = value_node.value if value_node.id == "sequence" else [value_node]
                for mapping in merged:
                    self.visit(mapping, keys, depth + 1)
                continue
            if key_node.tag != YAML_PREFIX + "str":
                raise ConfigFileError(
                    f"{self._at(key_node)}: a config key is text, but '{key_node.value}' is read "
                    f"as {_written(key_node.tag)}. Put it in quotes."
                )
            key = key_node.value
            if key in first_line:
                raise ConfigFileError(
                    f"{self.path}: {'.'.join((*keys, key))} stands twice, on lines "
                    f"{first_line[key]} and {line}. Yaml would silently take the last: keep one."
                )
            first_line[key] = line
            self.lines[".".join((*keys, key))] = line
            self.visit(value_node, (*keys, key), depth + 1)

    def _at(self, node: yaml.Node) -> str:
        return f"{self.path}:{node.start_mark.line + 1}"

    def _refusal(self, node: yaml.Node, key: str) -> ConfigFileError:
        where, tag = f"{self._at(node)}: {key or 'the file'}", _written(node.tag)
        if node.tag.startswith(YAML_PREFIX) and "python" not in node.tag:
            return ConfigFileError(
                f"{where} is read as {tag}, which no config value can be. If it is text, put it "
                f"in quotes."
            )
        return UnsafeYamlError(
            f"{where} has the tag {tag}, which makes Python objects or runs code, and reading a "
            f"config must not run code. Write plain values: numbers, as in "
            f"'SIZES: [[32, 40.3, 50.8], [64, 80.6, 101.6], ...]'; a tuple as a list. Anchor "
            f"scales need no expression: under ANCHOR_GENERATOR write 'NAME: "
            f"OctaveAnchorGenerator', 'SIZES: [[32], [64], ...]' and 'OctaveAnchorGenerator: "
            f"{{SCALES_PER_OCTAVE: 3}}'. If you trust the file and its bases, pass "
            f"--allow-unsafe-yaml."
        )


def _written(tag: str) -> str:
    """A tag as one writes it: `!!python/tuple`, not `tag:yaml.org,2002:python/tuple`."""
    return "!!" + tag.removeprefix(YAML_PREFIX) if tag.startswith(YAML_PREFIX) else tag
