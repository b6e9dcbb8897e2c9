"""The data sets that a run was evaluated on: its detections, and where the truth about them is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from detectron2.data import MetadataCatalog

from retina_plugin.data.coco_json import SplitPaths
from retina_plugin.data.coco_places import declared_places, located
from retina_plugin.report.run_folder import RunFolder

HOW = "name its files: --dataset NAME --json-gt FILE --images FOLDER"


@dataclass(frozen=True, kw_only=True)
class EvaluatedSet:
    """A data set and what a run detected on it.

    Attributes:
        name: as the run's config has it.
        detections: file in COCO's result format.
        json: ground truth in COCO's format; None: nobody says where it is.
        images: folder that the json's file names are relative to; None: as ``json``.
    """

    name: str
    detections: Path
    json: Path | None = None
    images: Path | None = None

    def problem(self) -> str | None:
        """What keeps this set from being analysed, and the remedy; None: nothing."""
        if self.json is None:
            return f"data set '{self.name}': the run's config does not say where it is; {HOW}"
        if not self.json.is_file():
            return f"data set '{self.name}': there is no file {self.json} (the ground truth); {HOW}"
        return None


def find_sets(
    run: RunFolder,
    *,
    places: Mapping[str, SplitPaths] | None = None,
    names: tuple[str, ...] = (),
) -> list[EvaluatedSet]:
    """The sets that a run has detections of, those of its config first.

    Args:
        run: the folder.
        places: where data sets lie, if not where the config or Detectron2's catalog says.
        names: only these.

    Raises:
        ValueError: one of ``names`` was not evaluated; lists those that were.
    """
    unknown = [name for name in names if name not in run.detections]
    if unknown:
        known = ", ".join(run.detections) or "none"
        raise ValueError(
            f"--dataset {unknown[0]}: {run.path} has no detections on it; it has them on: {known}"
        )
    datasets: dict[str, Any] = run.config.get("DATASETS") or {}
    declared = declared_places((datasets.get("COCO") or {}).get("TEST") or {})
    known = {name: place for name in run.detections if (place := _registered(name)) is not None}
    known |= declared
    known |= places or {}
    order = [*(datasets.get("TEST") or []), *run.detections]
    found = []
    for name in dict.fromkeys(name for name in order if name in run.detections):
        if names and name not in names:
            continue
        one = EvaluatedSet(name=name, detections=run.detections[name])
        if name in known:
            place = known[name]
            one = replace(one, json=_seen(place.json, run), images=_seen(place.images, run))
        found.append(one)
    return found


def _seen(path: Path, run: RunFolder) -> Path:
    """The path as the run saw it: relative to where it was started, if it is not here."""
    started_in = run.environment.get("folder")
    if path.exists() or not isinstance(started_in, str):
        return path
    moved = Path(started_in) / path
    return moved if moved.exists() else path


def _registered(name: str) -> SplitPaths | None:
    """Of a data set that Detectron2 knows, by itself or because it was registered here."""
    if name not in MetadataCatalog:
        return None
    metadata = MetadataCatalog.get(name)
    if not metadata.get("json_file") or not metadata.get("image_root"):
        return None
    return SplitPaths(located(metadata.json_file), located(metadata.image_root))
