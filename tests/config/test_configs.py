"""Every config loads safely, is short, says how to run it, and is what it claims to be."""

from pathlib import Path

import pytest
import torch
import yaml
from detectron2.config import CfgNode, get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_anchor_generator, build_model
from detectron2.utils.events import EventStorage
from support.batches import make_batch
from support.stock_configs import stock_config
from support.tiny_models import tiny_focal_cfg

import retina_plugin
from retina_plugin.config.config_file import load_config
from retina_plugin.data.augmentations import build_augmentations

CONFIGS = Path(__file__).parents[2] / "configs"
FILES = sorted(CONFIGS.rglob("*.yaml"))
LEAVES = [path for path in FILES if "_base_" not in path.parts]
BASES = [path for path in FILES if "_base_" in path.parts]
ZOO = ["retinanet_R_50_FPN_1x", "retinanet_R_50_FPN_3x", "retinanet_R_101_FPN_3x"]
STOCK = {"detectron2", "COCO-Detection"}  # for a Detectron2 without its configs
PAPER = sorted((CONFIGS / "paper").glob("*.yaml"))


def name(path: Path) -> str:
    return path.relative_to(CONFIGS).as_posix()


def test_there_are_configs():
    assert len(LEAVES) >= 9 and len(PAPER) == 2
    kinds = {path.parent.name for path in BASES}
    own = {"model", "anchors", "schedules", "datasets", "recipes", "augmentations"}
    assert kinds == own | STOCK


@pytest.mark.parametrize("path", FILES, ids=name)
def test_loads_safely_and_as_in_detectron2(path):
    ours = load_config(path)
    theirs = retina_plugin.add_retina_config(get_cfg())
    theirs.MODEL.RETINANET.NUM_CLASSES = None
    theirs.merge_from_file(str(path), allow_unsafe=False)
    assert repr(ours) == repr(theirs)
    assert "!!" not in path.read_text()


@pytest.mark.parametrize("path", LEAVES, ids=name)
def test_leaf_is_short_and_says_how_to_run_it(path):
    lines = path.read_text().splitlines()
    assert len([line for line in lines if line and not line.startswith("#")]) <= 10
    comments = [line.removeprefix("#").strip() for line in lines if line.startswith("#")]
    command, time, expected = (
        next(line for line in comments if line.startswith(start))
        for start in ("command:", "time:", "expected:")
    )
    assert "_BASE_" in yaml.safe_load(path.read_text())
    assert f"train_net.py --config-file configs/{name(path)}" in command
    assert time.removeprefix("time:").strip() and expected.removeprefix("expected:").strip()
    architecture = "RetinaNet" if path.stem.startswith("stock_") else "FocalRetinaNet"
    assert architecture == load_config(path).MODEL.META_ARCHITECTURE


def test_every_base_is_used():
    used = set()
    for path in FILES:
        bases = yaml.safe_load(path.read_text()).get("_BASE_", [])
        bases = [bases] if isinstance(bases, str) else bases
        used |= {(path.parent / base).resolve() for base in bases}
    for_users = {"anchors", *STOCK}
    assert {path.resolve() for path in BASES if path.parent.name not in for_users} <= used


@pytest.mark.parametrize("model", ZOO)
def test_resolves_to_the_model_zoos_values(model):
    ours = load_config(CONFIGS / f"{model}.yaml")
    theirs = stock_config(f"COCO-Detection/{model}.yaml")
    theirs.MODEL.META_ARCHITECTURE = "FocalRetinaNet"
    retina_plugin.add_retina_config(theirs)  # the plugin's keys, at their defaults
    ours.MODEL.RETINANET.NUM_CLASSES = 80  # from COCO's json when it trains
    # repr, not ==: equal types as well, and anchor sizes to the last bit
    assert _sorted_repr(ours) == _sorted_repr(theirs)


def test_r101_1x_is_3x_but_for_the_schedule():
    one, three = (load_config(CONFIGS / f"retinanet_R_101_FPN_{s}.yaml") for s in ("1x", "3x"))
    assert one != three
    one.SOLVER = three.SOLVER
    assert one == three
    r50 = load_config(CONFIGS / "retinanet_R_50_FPN_1x.yaml")
    assert load_config(CONFIGS / "retinanet_R_101_FPN_1x.yaml").SOLVER == r50.SOLVER


@pytest.mark.parametrize("path", PAPER, ids=name)
def test_paper_departs_from_the_zoo_where_the_paper_does(path):
    cfg = load_config(path)
    stock = load_config(CONFIGS / f"{path.stem}_1x.yaml")
    different = {key for key, value in _flat(cfg).items() if _flat(stock)[key] != value}
    assert different == {
        "INPUT.MIN_SIZE_TRAIN",
        "MODEL.ANCHOR_GENERATOR.NAME",
        "MODEL.ANCHOR_GENERATOR.OctaveAnchorGenerator.SCALES_PER_OCTAVE",
        "MODEL.ANCHOR_GENERATOR.SIZES",
        "MODEL.RETINANET.ASSIGNER.MaxIoUAssigner.ALLOW_LOW_QUALITY_MATCHES",
        "MODEL.RETINANET.NORMALIZER.NAME",
        "MODEL.RETINANET.SMOOTH_L1_LOSS_BETA",
    }
    assert (min(cfg.INPUT.MIN_SIZE_TRAIN), max(cfg.INPUT.MIN_SIZE_TRAIN)) == (500, 800)
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS, cfg.SOLVER.BASE_LR, cfg.SOLVER.WEIGHT_DECAY) == (
        (90000, (60000, 80000), 0.01, 1e-4)
    )
    assert (cfg.INPUT.RANDOM_FLIP, cfg.SOLVER.IMS_PER_BATCH) == ("horizontal", 16)


def test_octave_anchors_are_the_stock_anchors():
    shapes = [ShapeSpec(channels=256, stride=stride) for stride in (8, 16, 32, 64, 128)]
    ours, stock = (
        build_anchor_generator(load_config(CONFIGS / leaf), shapes)
        for leaf in ("paper/retinanet_R_50_FPN.yaml", "retinanet_R_50_FPN_1x.yaml")
    )
    for a, b in zip(ours.cell_anchors, stock.cell_anchors, strict=True):
        assert a.equal(b)


@pytest.mark.parametrize("leaf", ["crowns", "digits", "quick"])
def test_own_data_leaves_build(leaf):
    cfg = load_config(
        CONFIGS / f"{leaf}.yaml", ["MODEL.DEVICE=cpu", "MODEL.RETINANET.NUM_CLASSES=3"]
    )
    model = build_model(cfg)
    assert model.head.cls_score.out_channels == 3 * model.anchor_generator.num_anchors[0]
    assert build_augmentations(cfg)
    for split in (cfg.DATASETS.COCO.TRAIN, cfg.DATASETS.COCO.TEST):
        assert split.JSON and split.IMAGES


@pytest.mark.parametrize("recipe", ["atss", "gfl", "tood", "tv2", "vfl", "one_anchor"])
def test_modern_recipes_are_for_coco_and_the_demos(recipe):
    for data in ("R_50_FPN_1x", "crowns", "digits"):
        assert (CONFIGS / "modern" / f"{recipe}_{data}.yaml").is_file()


@pytest.mark.parametrize("anchors", ["octave_9_small", "octave_1_small"])
@pytest.mark.parametrize("recipe", sorted({p.stem for p in BASES if p.parent.name == "recipes"}))
def test_every_recipe_steps_and_detects(recipe, anchors):
    cfg = tiny_focal_cfg()
    for base in (f"recipes/{recipe}", f"anchors/{anchors}"):
        cfg.merge_from_file(str(CONFIGS / "_base_" / f"{base}.yaml"))
    model, batch = build_model(cfg), make_batch()
    with EventStorage():
        losses = model(batch)
    sum(losses.values()).backward()
    assert all(loss.isfinite() and loss > 0 for loss in losses.values())
    gradients = {n: p.grad for n, p in model.named_parameters()}
    assert all(x is not None and x.isfinite().all() for x in gradients.values())
    with torch.no_grad():
        assert len(model.eval()(batch)) == len(batch)


def _flat(cfg: CfgNode, above: str = "") -> dict:
    values = {}
    for key, value in cfg.items():
        values |= (
            _flat(value, f"{above}{key}.") if isinstance(value, dict) else {above + key: value}
        )
    return values


def _sorted_repr(cfg: CfgNode) -> list[str]:
    return sorted(f"{key}: {value!r}" for key, value in _flat(cfg).items())
