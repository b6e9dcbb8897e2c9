"""Images a second that a config's training loader delivers, and Detectron2's with its mapper."""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import (
    DatasetMapper,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from detectron2.structures import BoxMode
from detectron2.utils.file_io import PathManager
from PIL import Image

from retina_plugin.data.coco_registration import register_datasets
from retina_plugin.data.findings import DataError
from retina_plugin.data.mapper import RetinaDatasetMapper
from retina_plugin.runs.load_run import run_of
from retina_plugin.workbench.benchmark.cases import Case
from retina_plugin.workbench.benchmark.rows import PLUGIN, STOCK, interleave

REPEATS = 5
# As most of COCO's images: 480 x 640 pixels in about 160 KB, seven boxes on average.
SYNTHETIC = Case(images=16, boxes=10, height=480, width=640, classes=80)
JPEG_QUALITY = 90


def measure(cfg: CfgNode, *, images: int, workers: int) -> dict[str, Any]:
    """Throughput of the training mapper in this process, and through a loader.

    Stock is Detectron2's ``DatasetMapper`` with the same augmentations. Files are read once before,
    so what is measured is the work, not the disk.

    Args:
        cfg: names the data; where they are not there, synthetic JPEG files take their place.
        images: how many a sample loads.
        workers: processes of the loader; 0 is this one.

    Returns:
        ``mapper`` and ``loader``: contender -> images/s, one number for each of ``REPEATS`` turns.
        ``data`` says what was loaded, ``decoder``, ``images`` and ``workers`` how.

    Raises:
        ValueError: ``images`` or ``workers`` is too small.
        UnknownNameError, ImportError, ...: what the mapper refuses.
    """
    if images < 1 or workers < 0:
        raise ValueError(
            f"expected at least 1 image and 0 workers, got {images} images, {workers} workers"
        )
    cfg = cfg.clone()
    cfg.defrost()
    mappers = build_mappers(cfg)
    with TemporaryDirectory() as folder:
        records, data = _find_records(cfg, images, Path(folder))
        for record in records:
            mappers[PLUGIN](record)  # reads the files and warms up
        return {
            "data": data,
            "decoder": cfg.INPUT.get("DECODER", "PIL"),
            "images": images,
            "workers": workers,
            "mapper": interleave(
                {
                    name: lambda mapper=mapper: _mapper_rate(mapper, records, images)
                    for name, mapper in mappers.items()
                },
                REPEATS,
            ),
            "loader": interleave(
                {
                    name: lambda mapper=mapper: _loader_rate(cfg, mapper, records, images, workers)
                    for name, mapper in mappers.items()
                },
                REPEATS,
            ),
        }


def build_mappers(cfg: CfgNode) -> dict[str, DatasetMapper]:
    """Detectron2's and the plugin's training mapper, which differ in their work alone."""
    plugin = run_of(cfg).build_mapper(True)
    if not isinstance(plugin, RetinaDatasetMapper):
        raise ValueError(
            f"the config's mapper is {type(plugin).__name__}, not Detectron2's: leave out --part "
            "data"
        )
    stock = DatasetMapper.from_config(cfg, is_train=True)
    stock |= {
        "augmentations": [plugin.augmentations],
        "image_format": plugin.image_format,
        "use_instance_mask": plugin.use_instance_mask,
    }
    return {STOCK: DatasetMapper(**stock), PLUGIN: plugin}


def _find_records(cfg: CfgNode, images: int, folder: Path) -> tuple[list[dict[str, Any]], str]:
    """At most ``images`` records of the config's training data, else synthetic ones; which."""
    try:
        register_datasets(cfg)
        names = list(cfg.DATASETS.TRAIN)
        if names:
            filter_empty = cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
            records = get_detection_dataset_dicts(names, filter_empty=filter_empty)[:images]
            for record in records:
                PathManager.open(record["file_name"], "rb").close()
            return records, ", ".join(names)
        reason = "DATASETS.TRAIN names no data"
    except (DataError, OSError) as error:
        reason = " ".join(str(error).split())
    text = f"{SYNTHETIC.images} synthetic JPEG files of {SYNTHETIC.width}x{SYNTHETIC.height} pixels"
    return _write_records(folder), f"{text} with {SYNTHETIC.boxes} boxes each, since {reason}"


def _write_records(folder: Path) -> list[dict[str, Any]]:
    """``SYNTHETIC`` as files in ``folder``."""
    records = []
    for index, made in enumerate(SYNTHETIC.batch()):
        path = folder / f"{index}.jpg"
        pixels = made["image"].permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(path, quality=JPEG_QUALITY)
        instances = made["instances"]
        annotations = [
            {"bbox": box, "bbox_mode": BoxMode.XYXY_ABS, "category_id": category, "iscrowd": 0}
            for box, category in zip(
                instances.gt_boxes.tensor.tolist(), instances.gt_classes.tolist(), strict=True
            )
        ]
        size = {"height": made["height"], "width": made["width"]}
        record = {"file_name": str(path), "image_id": index, **size, "annotations": annotations}
        records.append(record)
    return records


def _mapper_rate(mapper: DatasetMapper, records: list[dict[str, Any]], images: int) -> float:
    begin = time.perf_counter()
    for index in range(images):
        mapper(records[index % len(records)])
    return images / (time.perf_counter() - begin)


def _loader_rate(
    cfg: CfgNode, mapper: DatasetMapper, records: list[dict[str, Any]], images: int, workers: int
) -> float:
    """One image after the other, as the loader gets them before it makes batches."""
    loader = build_detection_train_loader(
        records,
        mapper=mapper,
        total_batch_size=1,
        aspect_ratio_grouping=cfg.DATALOADER.ASPECT_RATIO_GROUPING,
        num_workers=workers,
    )
    delivered = iter(loader)
    for _ in range(2 * workers + 1):  # the workers start; what they have prefetched is used up
        next(delivered)
    begin = time.perf_counter()
    for _ in range(images):
        next(delivered)
    return images / (time.perf_counter() - begin)
