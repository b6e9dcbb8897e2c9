"""The data sets that a run was evaluated on: its detections, and where the truth about them is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retina_plugin.data.coco_json import SplitPaths
from retina_plugin.data.coco_places import declared_places, recorded_place, registered_place
from retina_plugin.workbench.report.run_folder import RunFolder

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
        places: where data sets lie, if not where the config, the results' own record or
            Detectron2's catalog says.
        names: only these.

    Raises:
        ValueError: one of ``names`` was not evaluated; lists those that were.
    """
    known = [*run.detections, *run.results]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(
            f"--dataset {unknown[0]}: {run.path} was not evaluated on it, but on: "
            f"{', '.join(known) or 'none'}"
        )
    datasets: dict[str, Any] = run.config.get("DATASETS") or {}
    declared = declared_places((datasets.get("COCO") or {}).get("TEST") or {})
    order = [*(datasets.get("TEST") or []), *run.detections]
    found = []
    for name in dict.fromkeys(name for name in order if name in run.detections):
        if names and name not in names:
            continue
        detections = run.detections[name]
        possible = [
            (places or {}).get(name),
            declared.get(name),
            recorded_place(detections.parent),
            registered_place(name),
        ]
        place = _first_there([_seen(place, run) for place in possible if place is not None])
        found.append(EvaluatedSet(name=name, detections=detections, **place))
    return found


def _seen(place: SplitPaths, run: RunFolder) -> SplitPaths:
    """The place as the run saw it: relative to where it was started, if it is not here."""
    started_in = run.environment.get("folder")
    if place.json.exists() or not isinstance(started_in, str):
        return place
    moved = SplitPaths(Path(started_in) / place.json, Path(started_in) / place.images)
    return moved if moved.json.exists() else place


def _first_there(possible: list[SplitPaths]) -> dict[str, Path]:
    """The first place that is on this machine, else the first."""
    for place in [*(x for x in possible if x.json.is_file()), *possible]:
        return {"json": place.json, "images": place.images}
    return {}
