"""Private names of Detectron2 and fvcore that the package uses: each is listed here, with why.

A private name may go with any version. One that is new in the package, or gone from the installed
Detectron2, fails here; so does a name of ours that happens to be one of theirs in a base class.
"""

import ast
import importlib
import inspect
import pkgutil
import textwrap
from functools import cache
from pathlib import Path

import pytest
from torch import nn

import retina_plugin

PACKAGE = Path(retina_plugin.__file__).parent
FOREIGN = ("detectron2", "fvcore", "iopath", "yacs")
OURSELVES = {"self", "cls"}
NAMEDTUPLE = {"_replace", "_fields", "_asdict", "_make"}  # documented, in spite of their names

BACKBONE = "Detectron2's own backbones set it; Backbone.output_shape() reads it"
EVALUATOR = "COCOEvaluator offers no public way to replace COCOeval by another implementation"
CHECKPOINTER = "detectron2.checkpoint.detection_checkpoint:DetectionCheckpointer"
# Where it is defined, name: why it is used
USED = {
    (CHECKPOINTER, "_load_file"): (
        "every file is read safely, whatever its format: no public hook reads a file"
    ),
    (CHECKPOINTER, "_load_model"): (
        "foreign names are mapped before, and what was loaded is reported after"
    ),
    (
        "detectron2.checkpoint.detection_checkpoint:DetectionCheckpointer",
        "_parsed_url_during_load",
    ): ("the stock _load_file, which is called for files of Detectron2's own format, wants it set"),
    (CHECKPOINTER, "_torch_load"): ("replaced so that a checkpoint is read with weights_only=True"),
    ("detectron2.config.config:CfgNode", "_open_cfg"): (
        "the one place where fvcore opens a file of `_BASE_`: it gets plain values"
    ),
    ("yacs.config:CfgNode", "_decode_cfg_value"): (
        "the value that an override's text means, for the message about a wrong type"
    ),
    ("detectron2.data.dataset_mapper:DatasetMapper", "_transform_annotations"): (
        "fields of our own go through the mapper; a subclass that replaces it is left alone"
    ),
    ("detectron2.data.samplers.distributed_sampler:TrainingSampler", "_infinite_indices"): (
        "the order of images goes on where a resumed training stopped"
    ),
    ("detectron2.data.samplers.distributed_sampler:TrainingSampler", "_seed"): (
        "the seed that all workers share, to make the same order again"
    ),
    ("detectron2.engine.hooks:EvalHook", "_do_eval"): "an evaluation's results reach our hooks",
    ("detectron2.engine.hooks:EvalHook", "_eval_after_train"): "no second evaluation at the end",
    ("detectron2.engine.hooks:EvalHook", "_period"): "the steps after which it evaluates",
    ("detectron2.engine.hooks:PeriodicWriter", "_period"): "the steps after which it writes",
    ("detectron2.engine.hooks:PeriodicWriter", "_writers"): "the writers of DefaultTrainer's hook",
    ("detectron2.engine.train_loop:SimpleTrainer", "_data_loader_iter"): (
        "the iterator that SimpleTrainer makes once and keeps"
    ),
    ("detectron2.engine.train_loop:SimpleTrainer", "_write_metrics"): (
        "the step is ours, the metrics are written as in stock"
    ),
    ("detectron2.engine.defaults:DefaultTrainer", "_last_eval_results"): (
        "what train() returns; our evaluation hook sets it as the stock one does"
    ),
    ("detectron2.engine.defaults:DefaultTrainer", "_trainer"): (
        "the step that DefaultTrainer runs; Detectron2 documents replacing it by a subclass"
    ),
    ("detectron2.utils.events:EventStorage", "_vis_data"): (
        "the pictures of a step; Detectron2's TensorboardXWriter reads it too"
    ),
    ("detectron2.evaluation.coco_evaluation:COCOEvaluator", "_coco_api"): EVALUATOR,
    ("detectron2.evaluation.coco_evaluation:COCOEvaluator", "_derive_coco_results"): EVALUATOR,
    ("detectron2.evaluation.coco_evaluation:COCOEvaluator", "_do_evaluation"): EVALUATOR,
    ("detectron2.evaluation.coco_evaluation:COCOEvaluator", "_eval_predictions"): EVALUATOR,
    ("detectron2.evaluation.coco_evaluation:COCOEvaluator", "_max_dets_per_image"): EVALUATOR,
    ("detectron2.evaluation.coco_evaluation:COCOEvaluator", "_metadata"): EVALUATOR,
    ("detectron2.evaluation.coco_evaluation:COCOEvaluator", "_output_dir"): EVALUATOR,
    ("detectron2.evaluation.coco_evaluation:COCOEvaluator", "_results"): EVALUATOR,
    ("detectron2.evaluation.coco_evaluation:COCOEvaluator", "_tasks"): EVALUATOR,
    ("detectron2.evaluation.coco_evaluation:COCOEvaluator", "_tasks_from_predictions"): EVALUATOR,
    ("detectron2.modeling.backbone.backbone:Backbone", "_out_feature_channels"): BACKBONE,
    ("detectron2.modeling.backbone.backbone:Backbone", "_out_feature_strides"): BACKBONE,
    ("detectron2.modeling.backbone.backbone:Backbone", "_out_features"): BACKBONE,
    ("detectron2.modeling.backbone.fpn:FPN", "_size_divisibility"): "what images are padded to",
    ("detectron2.modeling.backbone.vit:SimpleFeaturePyramid", "_size_divisibility"): (
        "what images are padded to: SimpleFeaturePyramid gives no public way to set it"
    ),
    ("detectron2.modeling.meta_arch.dense_detector:DenseDetector", "_move_to_current_device"): (
        "how stock moves images and boxes to the model's device, overridden to move fields too"
    ),
    ("fvcore.common.registry:Registry", "_do_register"): (
        "register() returns a decorator; this registers one object under a name"
    ),
}


def private(name):
    return name.startswith("_") and not name.startswith("__") and name not in NAMEDTUPLE


def own_modules():
    for found in pkgutil.walk_packages([str(PACKAGE)], f"{PACKAGE.name}."):
        if not found.name.endswith("__main__"):
            yield importlib.import_module(found.name)


@cache
def names_in(cls):
    """Private names that a class defines, sets or reads on itself."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and private(node.name):
            found.add(node.name)
        elif isinstance(node, ast.Attribute) and private(node.attr) and is_ourselves(node.value):
            found.add(node.attr)
    return found


def is_ourselves(node):
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "super"
    return isinstance(node, ast.Name) and node.id in OURSELVES


def shared_with_bases(module):
    """Private names of the module's classes that a base class of Detectron2 or fvcore has too."""
    for cls in vars(module).values():
        if not inspect.isclass(cls) or cls.__module__ != module.__name__:
            continue
        nearest = {}
        for base in cls.__mro__:
            if base.__module__.split(".")[0] in FOREIGN:
                for name in names_in(cls) & names_in(base):
                    nearest.setdefault(name, f"{base.__module__}:{base.__qualname__}")
        yield from nearest.items()


def imported(module):
    """Private names that the module imports from Detectron2 or fvcore."""
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in FOREIGN:
            path = node.module.split(".")
            for alias in node.names:
                if private(alias.name) or any(map(private, path)):
                    yield alias.name, node.module


def read_from_others(module):
    """Private attributes that the module reads from objects other than its own."""
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if not isinstance(node, ast.Attribute) or is_ourselves(node.value):
            continue
        if private(node.attr) and node.attr in foreign_names():
            yield node.attr, ""


@cache
def foreign_names():
    """Every private name that Detectron2 or fvcore defines or sets on its objects."""
    found = set()
    for library in FOREIGN:
        (folder,) = importlib.import_module(library).__path__
        for file in Path(folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.FunctionDef) and private(node.name):
                    found.add(node.name)
                elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                    found.add(node.attr)
    return found - set(vars(nn.Module()))


@cache
def found():
    """Where and name of each private name in use; "" where only the name is known."""
    known = {name: where for where, name in USED}
    finds = (shared_with_bases, imported, read_from_others)
    uses = {(w, n) for module in own_modules() for find in finds for n, w in find(module)}
    return {(where or known.get(name, ""), name) for where, name in uses}


def test_every_private_name_is_listed():
    assert sorted(found() - USED.keys()) == []


def test_every_name_of_the_list_is_used():
    assert sorted(USED.keys() - found()) == []


@pytest.mark.parametrize("use", USED, ids=":".join)
def test_the_installed_version_has_it(use):
    where, name = use
    module, _, qualname = where.partition(":")
    owner = importlib.import_module(module)
    for part in filter(None, qualname.split(".")):
        owner = getattr(owner, part)
    assert hasattr(owner, name) or name in names_in(owner)
    assert len(USED[use]) > 20
