"""The loader of training batches: Detectron2's with the plugin's mapper, mixing and sampler."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import build_detection_train_loader, get_detection_dataset_dicts
from detectron2.utils import comm
from torch.utils.data import IterableDataset

from retina_plugin.data.mapper import RetinaDatasetMapper
from retina_plugin.data.mixing import Mix, MixingMapper
from retina_plugin.data.samplers import GroupBalancedSampler, NearbyTilesSampler, groups_of
from retina_plugin.data.tile_records import KEY as TILES
from retina_plugin.data.tile_records import tile_records
from retina_plugin.registry import unknown_name

# Detectron2 has them in a chain of ifs, which names none of them in its error
STOCK_SAMPLERS = (
    "TrainingSampler",
    "RepeatFactorTrainingSampler",
    "RandomSubsetTrainingSampler",
    "WeightedTrainingSampler",
    "WeightedCategoryTrainingSampler",
)
LOADS_ITSELF = ("WeightedTrainingSampler", "WeightedCategoryTrainingSampler")  # whole images
GROUP_BALANCED = GroupBalancedSampler.__name__

logger = logging.getLogger(__name__)


class MixingLoader:
    """Batches of a loader whose mapper mixes images, and must know at which step it begins."""

    def __init__(self, loader: Iterable[Any], mapper: MixingMapper) -> None:
        self.loader = loader
        self.mapper = mapper

    def start_at(self, step: int) -> None:
        """The next iterator's first batch is for that step."""
        self.mapper.start_at(step)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.loader)


def build_train_loader(
    cfg: CfgNode, mapper: RetinaDatasetMapper | None = None, *, batch_size: int | None = None
) -> Iterable[Any]:
    """Detectron2's loader with ``INPUT.MIX``, ``INPUT.TILES`` and ``DATALOADER.SAMPLER_TRAIN``.

    Args:
        cfg: of the training.
        mapper: makes the model's input from a record; None for the config's.
        batch_size: images of a batch of all GPUs together; ``SOLVER.IMS_PER_BATCH`` unless a step
            takes several batches.

    Returns:
        A loader; where images are mixed a :class:`MixingLoader`, see :func:`start_at`.

    Raises:
        UnknownNameError: an unknown sampler or key of ``INPUT.MIX``; lists the valid ones.
        ValueError: see :class:`Mix`, :class:`GroupBalancedSampler` and :func:`tile_records`; or
            tiles are asked for together with what does not know them.
    """
    batch_size = batch_size or cfg.SOLVER.IMS_PER_BATCH
    mapper = mapper or RetinaDatasetMapper(cfg, is_train=True)
    mix = Mix.from_config(cfg)
    data = _data(cfg)
    if not mix.is_on:
        return build_detection_train_loader(cfg, mapper=mapper, total_batch_size=batch_size, **data)
    mixing = _mixing_mapper(mapper, mix, cfg, batch_size)
    loader = build_detection_train_loader(cfg, mapper=mixing, total_batch_size=batch_size, **data)
    return MixingLoader(loader, mixing)


def start_at(loader: Iterable[Any], step: int) -> None:
    """Tell a loader that has to know at which step the training begins, or goes on."""
    if isinstance(loader, MixingLoader):
        loader.start_at(step)


def _mixing_mapper(
    mapper: RetinaDatasetMapper, mix: Mix, cfg: CfgNode, batch_size: int
) -> MixingMapper:
    steps, gpus = cfg.SOLVER.MAX_ITER, comm.get_world_size()
    if mix.close_steps >= steps:
        logger.warning(
            f"INPUT.MIX.CLOSE_STEPS is {mix.close_steps} of SOLVER.MAX_ITER {steps}: no image is "
            "mixed."
        )
    grouped = cfg.DATALOADER.ASPECT_RATIO_GROUPING  # then the workers send images one by one
    return MixingMapper(
        mapper,
        mix=mix,
        last_step=steps - mix.close_steps if mix.close_steps else None,
        images_per_step=cfg.SOLVER.IMS_PER_BATCH // gpus,
        images_per_chunk=1 if grouped else batch_size // gpus,
    )


def _data(cfg: CfgNode) -> dict[str, Any]:
    """Data set and sampler for Detectron2's builder, where they are not its own."""
    name, field = cfg.DATALOADER.SAMPLER_TRAIN, cfg.DATALOADER.get("GROUP_FIELD", "")
    if name not in (*STOCK_SAMPLERS, GROUP_BALANCED):
        raise unknown_name("DATALOADER.SAMPLER_TRAIN", name, [*STOCK_SAMPLERS, GROUP_BALANCED])
    if name != GROUP_BALANCED and field:
        logger.warning(
            f"DATALOADER.GROUP_FIELD has no effect: DATALOADER.SAMPLER_TRAIN is {name}, not "
            f"{GROUP_BALANCED}."
        )
    is_tiled = (cfg.INPUT.get("TILES") or {}).get("TRAIN_SIZE", 0) != 0
    if name != GROUP_BALANCED and not is_tiled:
        return {}
    records = _load(cfg, f"{TILES}.TRAIN_SIZE" if is_tiled else f"SAMPLER_TRAIN {name}")
    data: dict[str, Any] = {"dataset": _tiled(cfg, records) if is_tiled else records}
    if name == GROUP_BALANCED:
        data["sampler"] = GroupBalancedSampler(
            groups_of(data["dataset"], field),
            power=cfg.DATALOADER.get("GROUP_POWER", 1.0),
            seed=cfg.SEED if cfg.SEED >= 0 else None,
        )
    elif name == "TrainingSampler":
        files = [record["file_name"] for record in data["dataset"]]
        data["sampler"] = NearbyTilesSampler(files, together=cfg.INPUT.TILES.CACHE)
    return data


def _load(cfg: CfgNode, asked_by: str) -> list[dict[str, Any]]:
    """As Detectron2's builder does."""
    keypoints = cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE
    records = get_detection_dataset_dicts(
        cfg.DATASETS.TRAIN,
        filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS,
        min_keypoints=keypoints if cfg.MODEL.KEYPOINT_ON else 0,
        proposal_files=cfg.DATASETS.PROPOSAL_FILES_TRAIN if cfg.MODEL.LOAD_PROPOSALS else None,
    )
    if isinstance(records, IterableDataset):
        raise ValueError(
            f"{asked_by} needs a list of images, but {cfg.DATASETS.TRAIN} is iterable: it decides "
            "its order itself. Leave DATALOADER.SAMPLER_TRAIN at TrainingSampler and "
            f"{TILES}.TRAIN_SIZE at 0"
        )
    return records


def _tiled(cfg: CfgNode, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records' tiles, and a word on what else the config asks for."""
    tiles, sampler = cfg.INPUT.TILES, cfg.DATALOADER.SAMPLER_TRAIN
    for key, is_on in (
        ("MODEL.MASK_ON True", cfg.MODEL.MASK_ON),
        ("MODEL.KEYPOINT_ON True", cfg.MODEL.KEYPOINT_ON),
        (f"DATALOADER.SAMPLER_TRAIN {sampler}", sampler in LOADS_ITSELF),
    ):
        if is_on:
            raise ValueError(
                f"{TILES}.TRAIN_SIZE cuts images and boxes alone, it does not go with {key}: "
                "change that, or set TRAIN_SIZE 0"
            )
    if sampler != "TrainingSampler" or Mix.from_config(cfg).is_on:
        logger.warning(
            f"{TILES}: with INPUT.MIX or DATALOADER.SAMPLER_TRAIN {sampler} tiles of one image do "
            f"not follow each other; what is not among the last {tiles.CACHE} images of {TILES}."
            "CACHE is decoded again, whole, for each tile."
        )
    return tile_records(
        records,
        size=tiles.TRAIN_SIZE,
        overlap=tiles.TRAIN_OVERLAP,
        min_visible=tiles.MIN_VISIBLE,
        filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS,
        ignore_crowd=cfg.INPUT.IGNORE_CROWD,
    )
