"""`load_config` gives what Detectron2 gives, runs no code, and names every mistake."""

import pickle
from pathlib import Path

import pytest
import yaml
from detectron2.config import CfgNode, get_cfg
from support.stock_configs import stock_config_file

from retina_plugin.config.config_file import (
    ConfigKeyError,
    SafeCfgNode,
    find_keys,
    load_config,
    own_keys,
    parse_overrides,
)
from retina_plugin.config.defaults import add_retina_config
from retina_plugin.config.safe_yaml import ConfigFileError, UnsafeYamlError

ZOO = ["retinanet_R_50_FPN_1x", "retinanet_R_50_FPN_3x", "retinanet_R_101_FPN_3x"]


@pytest.fixture
def write(tmp_path):
    def write(text: str, name: str = "config.yaml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text if "VERSION" in text else f"{text}VERSION: 2\n")
        return path

    return write


def stock(path: str | Path) -> CfgNode:
    """What Detectron2 itself makes of a file, with the plugin's keys added."""
    cfg = get_cfg()
    add_retina_config(cfg)
    cfg.MODEL.RETINANET.NUM_CLASSES = None
    cfg.merge_from_file(str(path))
    return cfg


# ---- equal to Detectron2


@pytest.mark.parametrize("name", ZOO)
def test_zoo_files_load_as_in_detectron2(name):
    path = str(stock_config_file(f"COCO-Detection/{name}.yaml"))
    assert repr(load_config(path)) == repr(stock(path))
    assert repr(load_config(path, allow_unsafe=True)) == repr(stock(path))


def test_list_of_bases_merges_in_order(write):
    write("SOLVER: {MAX_ITER: 1, BASE_LR: 0.1}\nMODEL: {RETINANET: {NORM: BN}}\n", "a.yaml")
    write("SOLVER: {MAX_ITER: 2, GAMMA: 0.2}\n", "sub/b.yaml")
    write("_BASE_: b.yaml\nSOLVER: {IMS_PER_BATCH: 3}\n", "sub/c.yaml")
    path = write("_BASE_: [a.yaml, sub/c.yaml]\nMODEL: {RETINANET: {NORM: GN}}\n")
    cfg = load_config(path)
    solver = cfg.SOLVER
    assert (solver.MAX_ITER, solver.BASE_LR, solver.GAMMA, solver.IMS_PER_BATCH) == (2, 0.1, 0.2, 3)
    assert cfg.MODEL.RETINANET.NORM == "GN"
    assert repr(cfg) == repr(stock(path))


def test_a_base_may_give_a_key_another_type_than_the_leaf(write):
    """A key that defaults to None takes any type; only the merged value counts."""
    write("DATASETS: {COCO: {TRAIN: {JSON: a.json}}}\n", "a.yaml")
    path = write("_BASE_: a.yaml\nDATASETS: {COCO: {TRAIN: {JSON: [b.json, c.json]}}}\n")
    assert load_config(path).DATASETS.COCO.TRAIN.JSON == ["b.json", "c.json"]


def test_no_file_is_the_defaults_and_overrides():
    cfg = load_config("", ["SOLVER.MAX_ITER", "7"])
    assert cfg.SOLVER.MAX_ITER == 7
    cfg.SOLVER.MAX_ITER = get_cfg().SOLVER.MAX_ITER
    cfg.MODEL.RETINANET.NUM_CLASSES = 80
    expected = get_cfg()
    add_retina_config(expected)
    assert cfg == expected


def test_old_version_is_upgraded(write):
    text = (
        "VERSION: 1\nMODEL: {META_ARCHITECTURE: RetinaNet, WEIGHT: w.pkl, "
        "RETINANET: {INFERENCE_SCORE_THRESHOLD: 0.2, NUM_CLASSES: 5}}\n"
    )
    path = write(text)
    cfg = load_config(path)
    assert (cfg.VERSION, cfg.MODEL.WEIGHTS) == (2, "w.pkl")
    assert (cfg.MODEL.RETINANET.SCORE_THRESH_TEST, cfg.MODEL.RETINANET.NUM_CLASSES) == (0.2, 5)
    assert cfg == stock(path)
    with pytest.raises(ConfigFileError, match="VERSION must be from 1 to 2, got 7"):
        load_config(write("VERSION: 7\n"))


def test_result_is_a_normal_config(write, tmp_path):
    path = write("MODEL: {WEIGHTS: w.pkl}\nDATASETS: {TRAIN: [a, b]}\nSOLVER: {STEPS: '(1, 2)'}\n")
    cfg = load_config(path)
    assert type(cfg) is CfgNode and not cfg.is_frozen()
    assert cfg.clone() == cfg and pickle.loads(pickle.dumps(cfg)) == cfg
    (tmp_path / "dump.yaml").write_text(cfg.dump())
    again = load_config(tmp_path / "dump.yaml")
    assert again == stock(tmp_path / "dump.yaml")
    assert yaml.safe_load(again.dump()) == yaml.safe_load(cfg.dump())
    cfg.freeze()
    with pytest.raises(AttributeError):
        cfg.SOLVER.MAX_ITER = 1


def test_base_config_is_copied_and_keeps_its_keys(write):
    base = get_cfg()
    base.MINE = CfgNode({"KEY": 1})
    base.OPEN = CfgNode(new_allowed=True)
    base.freeze()
    cfg = load_config(write("MINE: {KEY: 2}\nOPEN: {ANY: {THING: 3}}\n"), base=base)
    assert (cfg.MINE.KEY, cfg.OPEN.ANY.THING, base.MINE.KEY) == (2, 3, 1)
    assert cfg.MODEL.RETINANET.NUM_CLASSES == 80 and "ASSIGNER" not in cfg.MODEL.RETINANET


# ---- NUM_CLASSES


def test_num_classes_is_none_unless_set(write):
    assert load_config(write("")).MODEL.RETINANET.NUM_CLASSES is None
    by_file = load_config(write("MODEL: {RETINANET: {NUM_CLASSES: 80}}\n"))
    by_override = load_config(write(""), ["MODEL.RETINANET.NUM_CLASSES=80"])
    assert by_file.MODEL.RETINANET.NUM_CLASSES == by_override.MODEL.RETINANET.NUM_CLASSES == 80


@pytest.mark.parametrize("value", ["ten", "2.0", "0", "-1", "True", "[3]"])
def test_num_classes_is_a_whole_number(write, value):
    with pytest.raises(ConfigFileError, match=r"NUM_CLASSES takes a whole number from 1; got"):
        load_config(write(""), ["MODEL.RETINANET.NUM_CLASSES", value])


def test_keys_of_the_users_own(write, tmp_path):
    write("MODEL: {DEVICE: cpu}\nSEED: 1\n", "base.yaml")
    path = write("_BASE_: base.yaml\nSEED: 2\n", "leaf.yaml")
    own = own_keys(path, ["VIS_PERIOD=5"])
    assert own["SEED"] == f"{path}:2" and own["VIS_PERIOD"] == "override"
    assert "MODEL.DEVICE" not in own


# ---- code in a file


def test_file_and_base_run_no_code(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("MODEL: {WEIGHTS: !!python/object/apply:os.system ['touch pwned']}\n", "evil.yaml")
    for path in (tmp_path / "evil.yaml", write("_BASE_: evil.yaml\n", "leaf.yaml")):
        with pytest.raises(UnsafeYamlError, match=r"evil\.yaml:1: MODEL\.WEIGHTS has the tag"):
            load_config(path)
        for allow_unsafe in (False, True):
            with pytest.raises(UnsafeYamlError):
                SafeCfgNode(get_cfg()).merge_from_file(str(path), allow_unsafe=allow_unsafe)
    assert not (tmp_path / "pwned").exists()


def test_override_runs_no_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = "__import__('os').system('touch pwned')"
    assert code == load_config("", [f"OUTPUT_DIR={code}"]).OUTPUT_DIR
    assert not (tmp_path / "pwned").exists()


def test_allow_unsafe_is_detectron2s_own_way(write):
    path = write("OUTPUT_DIR: !!python/object/apply:eval [\"'a' * 3\"]\n")
    assert load_config(path, allow_unsafe=True).OUTPUT_DIR == "aaa"
    path = write("MODELS: !!python/tuple [1]\n")
    with pytest.raises(ConfigKeyError, match="Did you mean MODEL"):
        load_config(path, allow_unsafe=True)


def test_safe_node_merges_as_detectron2s():
    path = str(stock_config_file("COCO-Detection/retinanet_R_50_FPN_3x.yaml"))
    ours, theirs = SafeCfgNode(get_cfg()), get_cfg()
    ours.merge_from_file(path)
    theirs.merge_from_file(path)
    assert ours == theirs


# ---- _BASE_


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        ("nowhere.yaml", "'nowhere.yaml' does not exist"),
        ("[nowhere.yaml]", "'nowhere.yaml' does not exist"),
        ("config.yaml", "'config.yaml' leads back to itself"),
        ("https://example.org/a.yaml", "is a URL"),
        ("http://example.org/a.yaml", "is a URL"),
        ("detectron2://a.yaml", "is a URL"),
        ("3", "must be a path or a list of paths, got 3"),
        ("[[a.yaml]]", "must be a path or a list of paths"),
    ],
)
def test_bad_base_names_both_files(write, base, expected):
    path = write(f"VERSION: 2\n_BASE_: {base}\n")
    with pytest.raises(ConfigFileError) as error:
        load_config(path)
    assert f"{path}:2: _BASE_" in str(error.value) and expected in str(error.value)


def test_long_circle_of_bases_is_spelt_out(write, tmp_path):
    write("_BASE_: b.yaml\n", "a.yaml")
    write("_BASE_: [c.yaml]\n", "b.yaml")
    write(f"_BASE_: ../{tmp_path.name}/a.yaml\n", "c.yaml")
    with pytest.raises(ConfigFileError, match=r"a\.yaml -> .*b\.yaml -> .*c\.yaml -> .*a\.yaml"):
        load_config(tmp_path / "a.yaml")


def test_a_diamond_of_bases_is_no_circle(write):
    write("SOLVER: {MAX_ITER: 3}\n", "root.yaml")
    write("_BASE_: root.yaml\n", "a.yaml")
    write("_BASE_: root.yaml\n", "b.yaml")
    assert load_config(write("_BASE_: [a.yaml, b.yaml]\n")).SOLVER.MAX_ITER == 3


def test_base_and_leaf_disagree_whether_a_key_is_a_group(write):
    write("MODEL: {RETINANET: 3}\n", "a.yaml")
    path = write("_BASE_: a.yaml\nMODEL: {RETINANET: {NORM: GN}}\n")
    with pytest.raises(ConfigFileError, match=r"config\.yaml: Cannot inherit key 'RETINANET'"):
        load_config(path)


def test_where_a_key_stands_is_where_it_last_stands(write):
    base = write("SOLVER: {MAX_ITER: 1,\n  BASE_LR: 0.1}\n", "a.yaml")
    leaf = write("_BASE_: a.yaml\nSOLVER: {MAX_ITER: 2}\n")
    keys = find_keys(leaf)
    assert (keys["SOLVER.MAX_ITER"], keys["SOLVER.BASE_LR"]) == (f"{leaf}:2", f"{base}:2")


# ---- unknown keys


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("MODEL: {RETINANET: {ASIGNER: {NAME: x}}}", "MODEL.RETINANET.ASSIGNER.NAME"),
        ("MODEL: {RETINANET: {SCORE_TRESH_TEST: 0.1}}", "MODEL.RETINANET.SCORE_THRESH_TEST"),
        ("MODEL: {RETINANETT: {NUM_CLASSES: 1}}", "MODEL.RETINANET.NUM_CLASSES"),
        ("MODEL: {NUM_CLASSES: 1}", "MODEL.RETINANET.NUM_CLASSES"),
        ("SOLVER: {max_iter: 1}", "SOLVER.MAX_ITER"),
        ("SOLVERS: {NONE_SUCH: 1}", "SOLVER"),
    ],
)
def test_unknown_key_says_what_may_be_meant(write, text, meant):
    path = write(text + "\n")
    with pytest.raises(ConfigKeyError) as error:
        load_config(path)
    message = str(error.value)
    assert message.startswith(f"{path}:1: unknown key ") and f"Did you mean {meant}" in message
    assert "Valid keys" in message and not message.startswith("'")


def test_unknown_key_lists_all_valid_ones(write):
    with pytest.raises(ConfigKeyError) as error:
        load_config(write("MODEL: {RETINANET: {ZZZ: 1}}\n"))
    assert "Did you mean" not in str(error.value)
    listed = str(error.value).split("Valid keys of MODEL.RETINANET: ")[1].rstrip(".").split(", ")
    assert listed == sorted(load_config("").MODEL.RETINANET)


def test_settings_of_a_component_that_nobody_imported(write):
    """A run's config with a backbone of its user's own, read without the file that has it."""
    with pytest.raises(ConfigKeyError, match="--import its file") as error:
        load_config(write("MODEL: {BACKBONE: {Own: {WIDTH: 1}}}\n"))
    assert "unknown key MODEL.BACKBONE.Own.WIDTH" in str(error.value)
    with pytest.raises(ConfigKeyError) as error:
        load_config(write("MODEL: {BACKBONE: {FREEZ: 1}, FPN: {Own: {WIDTH: 1}}}\n"))
    assert "--import" not in str(error.value)


def test_all_mistakes_of_file_and_bases_at_once(write):
    write("SOLVER:\n  LR: 0.1\n", "a.yaml")
    path = write("_BASE_: a.yaml\nMODEL: {WEIGHT: w}\nTEST: {EVALPERIOD: 1}\nSEED: x\n")
    with pytest.raises(ConfigKeyError) as error:
        load_config(path)
    for part in ("a.yaml:2: unknown key SOLVER.LR", "config.yaml:2: unknown key MODEL.WEIGHT"):
        assert part in str(error.value)
    for part in (
        "config.yaml:3: unknown key TEST.EVALPERIOD",
        "config.yaml:4: SEED must be of type int",
    ):
        assert part in str(error.value)


def test_dotted_key_in_a_file(write):
    with pytest.raises(ConfigKeyError, match=r"not dotted: write 'MODEL: \{WEIGHTS: \.\.\."):
        load_config(write("MODEL.WEIGHTS: w.pkl\n"))


def test_renamed_key_tells_its_new_name(write):
    base = get_cfg()
    base.register_renamed_key("SOLVER.OLD", "SOLVER.NEW")
    with pytest.raises(ConfigKeyError, match=r"config\.yaml:1: Key SOLVER\.OLD was renamed to"):
        load_config(write("SOLVER: {OLD: 1}\n"), base=base)


# ---- values of a wrong type


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "SOLVER: {BASE_LR: 1}",
            "must be of type float, such as 0.001; got 1 (int). Write 1.0",
        ),
        (
            "SOLVER: {MAX_ITER: 1.5}",
            "MAX_ITER must be of type int, such as 40000; got 1.5 (float)",
        ),
        ("DATASETS: {TRAIN: coco}", "got 'coco' (str). Write ['coco']."),
        ("OUTPUT_DIR: 2024", "got 2024 (int). Put the text in quotes."),
        ("MODEL: {MASK_ON: 'no thanks'}", "must be of type bool, such as False"),
        ("MODEL: {RETINANET: {ASSIGNER: X}}", "got 'X' (str). Set MODEL.RETINANET.ASSIGNER.NAME"),
        ("MODEL: ", "MODEL is a group of the keys ANCHOR_GENERATOR, "),
        ("SOLVER: {MAX_ITER: {A: 1}}", "SOLVER.MAX_ITER takes a single value such as 40000; 'A'"),
        ("SOLVER: {MAX_ITER: {}}", "SOLVER.MAX_ITER must be of type int"),
        ("SOLVER: {MAX_ITER: '{[]: 1}'}", "SOLVER.MAX_ITER must be of type int"),
    ],
)
def test_wrong_type_names_key_type_value_and_remedy(write, text, expected):
    path = write(text + "\n")
    with pytest.raises(ConfigFileError) as error:
        load_config(path)
    assert str(error.value).startswith(f"{path}:1: ") and expected in str(error.value)


def test_a_lazy_config_is_not_yaml(tmp_path):
    (tmp_path / "model.py").touch()
    with pytest.raises(ConfigFileError, match=r"model\.py: a LazyConfig"):
        load_config(tmp_path / "model.py")


# ---- overrides


def test_overrides_in_both_spellings():
    overrides = ["SOLVER.MAX_ITER=7", "MODEL.WEIGHTS", "dir/a=b.pkl", "OUTPUT_DIR=x=y", "SEED", 3]
    assert parse_overrides(overrides) == [
        ("SOLVER.MAX_ITER", "7"),
        ("MODEL.WEIGHTS", "dir/a=b.pkl"),
        ("OUTPUT_DIR", "x=y"),
        ("SEED", 3),
    ]
    cfg = load_config("", [*overrides, "SOLVER.STEPS=(1, 2)", "SOLVER.STEPS=[3]"])
    assert (cfg.SOLVER.MAX_ITER, cfg.SEED, cfg.SOLVER.STEPS) == (7, 3, (3,))
    assert (cfg.MODEL.WEIGHTS, cfg.OUTPUT_DIR) == ("dir/a=b.pkl", "x=y")


def test_overrides_equal_detectron2s(write):
    pairs = ["MODEL.RETINANET.NORM", "GN", "SOLVER.BASE_LR", "1e-3", "TEST.AUG.MIN_SIZES", "[1]"]
    theirs = stock(write(""))
    theirs.merge_from_list(pairs)
    assert load_config(write(""), pairs) == theirs


def test_override_wins_over_file(write):
    assert load_config(write("SEED: 1\n"), ["SEED", "2"]).SEED == 2


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["SEED"], "override SEED has no value"),
        (["SEED", "1", "VIS_PERIOD"], "override VIS_PERIOD has no value"),
        (["--seed", "1"], "override --seed: unknown key --seed"),
        (["MODEL.RETINANET.ASIGNER.NAME=x"], "Did you mean MODEL.RETINANET.ASSIGNER.NAME"),
        (["SEED.X=1"], "SEED takes a single value such as -1; 'X' cannot stand below it"),
        (["SOLVER.BASE_LR=2"], "override SOLVER.BASE_LR: SOLVER.BASE_LR must be of type float"),
        (["_BASE_=a.yaml"], "unknown key _BASE_"),
    ],
)
def test_bad_override_is_named(overrides, expected):
    with pytest.raises((ConfigKeyError, ConfigFileError)) as error:
        load_config("", overrides)
    assert expected in str(error.value)


def test_a_key_without_a_type_takes_a_list_over_a_files_text():
    digits = Path(__file__).parents[2] / "configs" / "digits.yaml"
    overrides = [
        "DATASETS.COCO.TRAIN.JSON",
        "['a.json', 'b.json']",
        "DATASETS.COCO.TRAIN.NAME",
        "7",
    ]
    scales = ["MODEL.ANCHOR_GENERATOR.OctaveAnchorGenerator.SCALES_PER_OCTAVE", "[1, 2, 3, 3, 3]"]
    cfg = load_config(digits, [*overrides, *scales])
    assert cfg.DATASETS.COCO.TRAIN.JSON == ["a.json", "b.json"]
    assert cfg.MODEL.ANCHOR_GENERATOR.OctaveAnchorGenerator.SCALES_PER_OCTAVE == [1, 2, 3, 3, 3]
