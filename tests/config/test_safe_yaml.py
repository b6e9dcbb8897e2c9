"""A config file is plain values: nothing runs, nothing is silently dropped."""

import string
from pathlib import Path

import pytest
import yaml
from support.stock_configs import stock_config_file

from retina_plugin.config.safe_yaml import ConfigFileError, UnsafeYamlError, read_yaml

STOCK = '["[[x, x * 2**(1.0/3), x * 2**(2.0/3) ] for x in [32, 64, 128, 256, 512 ]]"]'


@pytest.fixture
def file(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "config.yaml"
        path.write_text(text)
        return path

    return write


def test_plain_yaml_is_read_as_yaml_reads_it(file):
    text = "A: {b: 1, c: [1.5, null, true, 'x']}\nD: &d {e: 1e-3}\nF:\n  <<: *d\n  g: 2\n"
    values, lines = read_yaml(file(text))
    assert values == yaml.safe_load(text)
    assert (lines["A.c"], lines["D.e"], lines["F.g"]) == (1, 2, 5)


def test_stock_file_is_understood_bit_for_bit():
    path = stock_config_file("Base-RetinaNet.yaml")
    ours, theirs = read_yaml(path).values, yaml.unsafe_load(path.read_text())
    assert repr(ours) == repr(theirs)  # the same types and the shortest digits that round-trip
    assert ours["MODEL"]["ANCHOR_GENERATOR"]["SIZES"][4][2] == 512 * 2 ** (2.0 / 3)


@pytest.mark.parametrize(
    "text",
    [
        '["[[x,x*2**(1.0/3),x*2**(2.0/3)]for x in[32,64,128,256,512]]"]',
        '["  [[ x, x * 2 ** (1.0 / 3), x * 2 ** (2.0 / 3) ]  for x in [ 8, 12.5 ] ]"]',
    ],
)
def test_stock_expression_with_other_spaces_and_sizes(file, text):
    text = f"SIZES: !!python/object/apply:eval {text}\n"
    assert read_yaml(file(text)).values == yaml.unsafe_load(text)


@pytest.mark.parametrize(
    "expression",
    [
        "[[x, x * 2**(1.0/3), x * 2**(2.0/3)] for x in [open('pwned', 'w').fileno()]]",
        "[[x, x * 2**(1.0/3), x * 2**(2.0/3)] for x in ['a']]",
        "[[x, x * 2**(1.0/3), x * 2**(2.0/3)] for x in [True]]",
        "[[x, x * 2**(1.0/3), x * 2**(2.0/3)] for x in range(5)]",
        "[[x, x * 2**(1.0/3), x * 2**(2.0/3)] for x in [32] if open('pwned', 'w')]",
        "[[x, x * 2**(1.0/3), x * 2**(2.0/3)] for x in [32] for y in [32]]",
        "[[x, x * 2**(1.0/3), x * 2**(2.0/4)] for x in [32]]",
        "[[x, x * 2**(1.0/3), x * 2**(2.0/3)] for y in [32]]",
        "{x: 1 for x in [32]}",
        "32",
        "[",
        "(" * 900,
        "[[x, x * 2**(1.0/3), x * 2**(2.0/3)] for x in [" + "32, " * 1000 + "]]",
    ],
)
def test_no_other_expression_is(file, tmp_path, monkeypatch, expression):
    monkeypatch.chdir(tmp_path)
    text = yaml.safe_dump([expression], default_flow_style=True, width=10**6)
    with pytest.raises(UnsafeYamlError):
        read_yaml(file(f"SIZES: !!python/object/apply:eval {text}"))
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    ("value", "tag"),
    [
        ("!!python/object/apply:os.system ['touch pwned']", "!!python/object/apply:os.system"),
        ("[1, {B: !!python/tuple [1, 2]}]", "!!python/tuple"),
        ("!!python/name:os.system", "!!python/name:os.system"),
        ("!!python/object/new:os.system ['touch pwned']", "!!python/object/new:os.system"),
        ("!mine {a: 1}", "!mine"),
        (f"!!python/object/apply:exec {STOCK}", "!!python/object/apply:exec"),
    ],
)
def test_tag_is_refused_with_place_reason_and_remedy(file, tmp_path, monkeypatch, value, tag):
    monkeypatch.chdir(tmp_path)
    path = file(f"VERSION: 2\nMODEL:\n  A: {value}\n")
    with pytest.raises(UnsafeYamlError) as error:
        read_yaml(path)
    message = str(error.value)
    assert message.startswith(f"{path}:3: MODEL.A") and f"the tag {tag}," in message
    for part in (
        "must not run code",
        "[[32, 40.3, 50.8]",
        "SCALES_PER_OCTAVE: 3",
        "--allow-unsafe",
    ):
        assert part in message
    assert not (tmp_path / "pwned").exists()


def test_tag_on_a_key_and_on_the_file(file):
    with pytest.raises(ConfigFileError, match=r"config\.yaml:1: a config key is text"):
        read_yaml(file("!!python/name:os.system : 1\n"))
    with pytest.raises(UnsafeYamlError, match="the file has the tag !!python/dict"):
        read_yaml(file("!!python/dict {A: 1}\n"))


def test_tag_behind_a_merge_key(file):
    with pytest.raises(UnsafeYamlError, match=r"config\.yaml:1: A\.b has"):
        read_yaml(file("A: {<<: [{b: !!python/tuple [1]}]}\n"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("MODEL: {A: 1}\nX: 2\nMODEL: {B: 1}\n", "MODEL stands twice, on lines 1 and 3"),
        ("MODEL:\n  A: 1\n  A: 1\n", "MODEL.A stands twice, on lines 2 and 3"),
        ("A: [{NAME: x, NAME: y}]\n", "A.NAME stands twice"),
        ("- A\n", "holds a sequence"),
        ("just text\n", "holds a scalar"),
        ("", "is empty"),
        ("# only a comment\n", "is empty"),
        ("A: [1\nB: 2\n", "line 2"),
        ("A: 1\n---\nB: 2\n", "another document"),
        ("\tA: 1\n", "cannot start any token"),
        ("A: !!int x\n", "does not fit its tag"),
        ("A: *nowhere\n", "undefined alias"),
        ("DATE: 2024-01-01\n", "config.yaml:1: DATE is read as !!timestamp"),
        ("on: 1\n", "'on' is read as !!bool. Put it in quotes"),
        ("A: {3: 1}\n", "'3' is read as !!int"),
        ("A: &a [*a]\n", "nests over"),
        ("A: &a {b: *a}\n", "nests over"),
        ("A: " + "[" * 2000, "nested too deeply"),
    ],
)
def test_a_file_that_is_no_config_says_why(file, text, expected):
    path = file(text)
    with pytest.raises(ConfigFileError) as error:
        read_yaml(path)
    assert str(path) in str(error.value) and expected in str(error.value)


def test_aliases_that_multiply_are_refused(file):
    laughs = "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
    for before, name in zip(string.ascii_lowercase, string.ascii_lowercase[1:10], strict=False):
        laughs += f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n"
    with pytest.raises(ConfigFileError, match="with its aliases expanded the file has over"):
        read_yaml(file(laughs))


def test_missing_unreadable_and_binary_file(tmp_path):
    with pytest.raises(ConfigFileError, match=r"none\.yaml: there is no such config file"):
        read_yaml(tmp_path / "none.yaml")
    with pytest.raises(ConfigFileError, match="cannot be read as a config file"):
        read_yaml(tmp_path)
    (tmp_path / "weights.yaml").write_bytes(b"\x80\x02\xff")
    with pytest.raises(ConfigFileError, match=r"weights\.yaml: cannot be read as a config file"):
        read_yaml(tmp_path / "weights.yaml")
