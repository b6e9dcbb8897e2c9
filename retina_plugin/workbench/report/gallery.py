"""The images of a page: the worst, the best, and those that another run saw otherwise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from retina_plugin.evaluation.analysis.breakdowns import Id, ImageResult
from retina_plugin.evaluation.analysis.comparison import Comparison
from retina_plugin.evaluation.analysis.marks import MarkedBox, mark_boxes
from retina_plugin.workbench.report.pictures import Picture, draw
from retina_plugin.workbench.report.set_page import Judged

Read = Callable[[Path], Tensor]
WORST, BEST = 6, 3
MOST_NOTES = 3
CHANGED = 4  # that are better and that are worse than in another run; then half of the above
NO_FOLDER = "no image folder is named; --images FOLDER does it"


@dataclass(frozen=True)
class Shot:
    """An image: what is there and what was found, side by side."""

    name: str
    text: str
    views: list[Picture]


@dataclass(frozen=True)
class Gallery:
    """The images of a data set.

    Attributes:
        groups: titles with images.
        lead: what they are.
        reason: why there are none; "" if there are.
        notes: files that could not be read.
    """

    groups: list[tuple[str, list[Shot]]]
    lead: str
    reason: str
    notes: list[str]


def draw_gallery(
    judged: Judged,
    *,
    read: Read,
    most_bytes: int,
    other: Judged | None = None,
    comparison: Comparison | None = None,
    names: tuple[str, str] = ("", ""),
) -> Gallery:
    """Draw the images that say most.

    Args:
        judged: a data set and what was found on it.
        read: gives an image as ``(3, H, W)`` uint8 RGB.
        most_bytes: of all pictures; when it is used up, the rest is left out.
        other: what another run found on it.
        comparison: of the two.
        names: of the two runs.
    """
    folder = judged.source.images
    if folder is None:
        return Gallery([], "", NO_FOLDER, [])
    if not folder.is_dir():
        reason = f"there is no folder {folder} on this machine; --images FOLDER names another"
        return Gallery([], "", reason, [])
    chosen = _chosen(judged, comparison, names[1])
    ids = list(dict.fromkeys(image for images in chosen.values() for image in images))
    runs = [judged] if other is None else [judged, other]
    marks = [_marks(run, ids) for run in runs]
    results = [{x.image_id: x for x in run.analysis.images} for run in runs]
    files = {x["id"]: str(x.get("file_name", "")) for x in judged.truth["images"]}
    groups: dict[str, list[Shot]] = {title: [] for title in chosen}
    notes: list[str] = []
    left = most_bytes
    for title, image in _in_turn(chosen):
        if left <= 0:
            break
        try:
            pixels = read(folder / files[image])
        except Exception as error:  # whatever a decoder raises: the other images can be shown
            notes.append(f"{folder / files[image]} cannot be drawn: {error}")
            continue
        shot = Shot(
            name=files[image],
            text=_text([result[image] for result in results], names),
            views=_views(pixels, [mark[image] for mark in marks], names, _is_of_many(judged)),
        )
        groups[title].append(shot)
        left -= sum(len(view.data) for view in shot.views)
    shots = {title: images for title, images in groups.items() if images}
    if not shots:
        reason = f"none of the images could be read in {folder}" if notes else "there are no images"
        return Gallery([], "", reason, notes[:MOST_NOTES])
    return Gallery(list(shots.items()), _lead(judged), "", notes[:MOST_NOTES])


def _chosen(judged: Judged, comparison: Comparison | None, name: str) -> dict[str, list[Id]]:
    """Titles with the ids of images; ``name`` is the other run's."""
    analysis = judged.analysis
    f1 = {x.image_id: x.f1 for x in analysis.images}
    share = 1 if comparison is None else 2
    worst = [x for x in analysis.worst[: WORST // share] if f1[x] < 1]
    best = [x for x in analysis.best if x not in worst][: BEST // share]
    chosen = {}
    if comparison is not None:
        worse, better = comparison.worse[:CHANGED], comparison.better[:CHANGED]
        chosen[f"Worse than {name}"] = [x.value.image_id for x in worse]
        chosen[f"Better than {name}"] = [x.value.image_id for x in better]
    return {**chosen, "The worst": worst, "The best": best}


def _in_turn(chosen: dict[str, list[Id]]) -> list[tuple[str, Id]]:
    """All, so that each title has its share when room runs out; worse ones come first."""
    longest = max(map(len, chosen.values()), default=0)
    return [
        (title, images[rank])
        for rank in range(longest)
        for title, images in chosen.items()
        if rank < len(images)
    ]


def _marks(run: Judged, ids: Sequence[Id]) -> dict[Id, list[MarkedBox]]:
    settings = run.analysis.settings
    return mark_boxes(
        run.truth,
        run.found,
        ids,
        score_thresh=settings.score_thresh,
        iou_thresh=settings.iou_thresh,
        max_detections=settings.max_detections,
    )


def _is_of_many(judged: Judged) -> bool:
    """Whether a box must say what it is."""
    return len(judged.analysis.classes) > 1


def _views(
    pixels: Tensor, marks: Sequence[list[MarkedBox]], names: tuple[str, str], named: bool
) -> list[Picture]:
    """The objects, as the first run found them, and the detections of each run."""
    alone = len(marks) == 1
    objects = [x for x in marks[0] if x.score is None]
    title = "objects" if alone else f"objects, as {names[0]} found them"
    return [
        draw(pixels, objects, title, named=named),
        *(
            draw(
                pixels,
                [x for x in boxes if x.score is not None],
                "detections" if alone else name,
                named=named,
            )
            for boxes, name in zip(marks, names, strict=False)
        ),
    ]


def _text(results: Sequence[ImageResult], names: tuple[str, str]) -> str:
    parts = [
        f"{x.true_positives} found, {x.false_negatives} missed, {x.false_positives} false, "
        f"F1 {100 * x.f1:.1f}"
        for x in results
    ]
    if len(parts) == 1:
        return parts[0]
    return "; ".join(f"{name}: {part}" for name, part in zip(names, parts, strict=True))


def _lead(judged: Judged) -> str:
    score = judged.analysis.settings.score_thresh
    kept = "no detection was kept" if score is None else f"detections from a score of {score:.2f}"
    return f"Objects on the left, {kept} on the right. Images are ranked by F1, then by mistakes."
