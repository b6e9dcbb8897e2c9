"""Every key has a meaning, which stands once; what `retina config` and the reference page say."""

import subprocess
import sys
from pathlib import Path

import pytest
from detectron2.config import CfgNode, get_cfg

import retina_plugin
from retina_plugin.config.defaults import add_retina_config
from retina_plugin.config.docstrings import described_settings
from retina_plugin.config.explain import HAS_NO_EFFECT, explain_all, find_keys_like
from retina_plugin.config.keys import OWN_KEYS, check_choice, defaults_below
from retina_plugin.config.keys.detectron2 import NO_EFFECT, STOCK_KEYS
from retina_plugin.config.mistakes import leaves
from retina_plugin.registry import ROLES, UnknownNameError

ROOT = Path(__file__).parents[2]
PAPERS = [
    str(path)
    for path in sorted((ROOT / "examples" / "papers").glob("*.py"))
    if ".register(" in path.read_text()
]
ALL = {x.key: x for x in explain_all()}


def keys_of(cfg: CfgNode) -> list[str]:
    return [".".join(keys) for keys, value in leaves(cfg) if not isinstance(value, CfgNode)]


def test_every_key_is_explained_once():
    assert sorted(x.key for x in explain_all()) == sorted(keys_of(add_retina_config(get_cfg())))
    components = {
        f"{role.node}.{component.node}.{key}"
        for role in ROLES
        for component in role.schema.components.values()
        for key in component.defaults
    }
    assert len(components) > 60
    tables = [set(OWN_KEYS), set(STOCK_KEYS), components]
    for index, table in enumerate(tables):
        assert not any(table & other for other in tables[index + 1 :])


@pytest.mark.parametrize("key", [key for key, x in ALL.items() if x.owner != "Detectron2"])
def test_every_key_of_the_plugin_has_a_meaning(key):
    """Of a component: the entry of its settings in its docstring, see CONTRIBUTING."""
    meaning = ALL[key].meaning
    assert len(meaning.split()) >= 1 and len(meaning) > 8, f"{key} has no meaning: {meaning!r}"
    assert meaning[0].isupper() or meaning[0] == "`"
    assert meaning.endswith("."), meaning
    assert ":class:" not in meaning and "``" not in meaning


def test_every_key_of_detectron2_has_one_or_is_known_to_have_no_effect():
    stock = keys_of(get_cfg())
    assert set(STOCK_KEYS) <= set(stock)
    unknown = [x for x in stock if x not in STOCK_KEYS and not x.startswith(NO_EFFECT)]
    assert unknown == [], "give them a meaning in config/keys/detectron2.py, or say: no effect"
    assert not any(key.startswith(NO_EFFECT) for key in STOCK_KEYS)
    assert ALL["MODEL.ROI_HEADS.NAME"].meaning == HAS_NO_EFFECT


def test_the_examples_keys_have_one():
    """In a process of its own, for other tests take the keys of this one to be all."""
    code = f"""
import retina_plugin
from retina_plugin.config.explain import explain_all
from retina_plugin.config.extensions import import_extension
before = {{x.key for x in explain_all()}}
for path in {PAPERS}:
    import_extension(path)
new = [x for x in explain_all() if x.key not in before]
assert len(new) >= 9 and all(len(x.meaning) > 8 for x in new), new
"""
    words = [sys.executable, "-W", "ignore", "-c", code]
    result = subprocess.run(words, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_defaults_are_of_their_choices():
    for key, own in OWN_KEYS.items():
        values = own.default if isinstance(own.default, list) else [own.default]
        assert not own.choices or set(values) <= set(own.choices), key
    for key, stock in STOCK_KEYS.items():
        assert not stock.choices or ALL[key].default in stock.choices, key


def test_choices_of_components():
    """Those that the component refuses others than, by the same table."""
    for role in ROLES:
        for component in role.schema.components.values():
            for key, choices in component.choices.items():
                assert component.defaults[key] in choices
                assert ALL[f"{role.node}.{component.node}.{key}"].valid == tuple(choices)
    assert ALL["MODEL.RETINANET.HEAD.QualityHead.TARGET"].valid == ("centreness", "iou")


def test_choices_are_checked():
    check_choice("SOLVER.OPTIMIZER", "AdamW")
    with pytest.raises(UnknownNameError, match=r"SOLVER.OPTIMIZER: 'Adam' .*Did you mean AdamW"):
        check_choice("SOLVER.OPTIMIZER", "Adam")


def test_defaults_below_a_node_are_copies():
    defaults_below("INPUT.MIX")["MOSAIC_SCALE"].append(2)
    assert defaults_below("INPUT.MIX")["MOSAIC_SCALE"] == [0.5, 1.0]
    assert set(defaults_below("SOLVER.NON_FINITE")) == {
        *("ACTION", "MAX_SKIPS", "WRITE", "CHECK_GRADIENTS")
    }
    assert "NON_FINITE" not in defaults_below("SOLVER")


def test_selectors_list_what_is_registered():
    now = {x.key: x for x in explain_all()}  # other tests register components
    for role in ROLES:
        valid = now[role.selector].valid
        if role.selector != "MODEL.META_ARCHITECTURE":
            assert {*role.names(), *dict(role.mirror or ())} == set(valid)
    assert "giou" in ALL["MODEL.RETINANET.BBOX_REG_LOSS_TYPE"].valid
    assert "build_retinanet_resnet_fpn_backbone" in ALL["MODEL.BACKBONE.NAME"].valid


class Base:
    """One.

    Args:
        alpha: the first, which
            takes two lines.
        beta, gamma: both.
    """

    def method(self) -> None: ...


class Derived(Base):
    """Two.

    Args:
        beta: its own.

    Raises:
        delta: no setting.
    """


def build_something(cfg: CfgNode) -> None:
    """A function of :class:`Derived`.

    Settings:
        epsilon: of the function.
    """


def test_docstrings_of_classes_bases_and_functions():
    of_class = {"alpha": "the first, which takes two lines.", "beta": "its own.", "gamma": "both."}
    assert described_settings(Derived) == of_class
    assert described_settings(build_something) == {**of_class, "epsilon": "of the function."}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("SOLVER.BASE_LR", ["SOLVER.BASE_LR"]),
        ("BASE_LR", ["SOLVER.BASE_LR"]),
        ("NUM_CLASSES", ["MODEL.RETINANET.NUM_CLASSES"]),  # not those of ROI heads
        (
            "SOLVER.NON_FINITE",
            [f"SOLVER.NON_FINITE.{x}" for x in defaults_below("SOLVER.NON_FINITE")],
        ),
        ("NON_FINITE", [f"SOLVER.NON_FINITE.{x}" for x in defaults_below("SOLVER.NON_FINITE")]),
        ("SOLVER.AMP.*", ["SOLVER.AMP.ENABLED", "SOLVER.AMP.PRECISION"]),
    ],
)
def test_keys_by_name_part_group_and_pattern(text, found):
    assert sorted(x.key for x in find_keys_like(text, list(ALL.values()))) == sorted(found)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("SOLVER.BASE_RL", "SOLVER.BASE_LR"),
        ("solver.base_lr", "SOLVER.BASE_LR"),
        ("MODEL.RETINANET.SCORE_TRESH", "SCORE_THRESH_TEST"),
        ("OPTIMISER", "SOLVER.OPTIMIZER"),
        ("NO_SUCH_*", "lists all keys"),
    ],
)
def test_a_misspelt_key_says_what_is_meant(text, meant):
    with pytest.raises(UnknownNameError) as error:
        find_keys_like(text, list(ALL.values()))
    assert f"{text}: there is no such config key" in str(error.value) and meant in str(error.value)


def test_the_reference_page_is_current():
    """In a process of its own: other tests register components."""
    assert retina_plugin.__version__
    words = ["-m", "retina_plugin.cli", "config", "--markdown"]
    result = subprocess.run(
        [sys.executable, "-W", "ignore", *words], capture_output=True, text=True, check=True
    )
    page = (ROOT / "docs" / "reference" / "config.md").read_text()
    assert result.stdout == page, "docs/reference/config.md is out of date: make reference"
