"""The images of a page: the worst, the best, and those that another run saw otherwise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from retina_plugin.evaluation.analysis.results import Id, ImageResult
from retina_plugin.report.pictures import Outcome, Picture, draw, outcomes_of
from retina_plugin.report.set_page import Judged

Read = Callable[[Path], Tensor]
WORST, BEST = 6, 3
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
    names: tuple[str, str] = ("", ""),
) -> Gallery:
    """Draw the images that say most.

    Args:
        judged: a data set and what was found on it.
        read: gives an image as ``(3, H, W)`` uint8 RGB.
        most_bytes: of all pictures; when it is used up, the rest is left out.
        other: what another run found on it.
        names: of the two runs.
    """
    folder = judged.source.images
    if folder is None:
        return Gallery([], "", NO_FOLDER, [])
    if not folder.is_dir():
        reason = f"there is no folder {folder} on this machine; --images FOLDER names another"
        return Gallery([], "", reason, [])
    chosen = _chosen(judged, other, names[1])
    ids = list(dict.fromkeys(image for images in chosen.values() for image in images))
    runs = [judged] if other is None else [judged, other]
    outcomes = [_outcomes(run, ids) for run in runs]
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
            views=_views(pixels, [outcome[image] for outcome in outcomes], names),
        )
        groups[title].append(shot)
        left -= sum(len(view.data) for view in shot.views)
    shots = {title: images for title, images in groups.items() if images}
    if not shots:
        return Gallery([], "", f"none of the images in {folder} could be read", notes[:3])
    return Gallery(list(shots.items()), _lead(judged), "", notes[:3])


def _chosen(judged: Judged, other: Judged | None, name: str) -> dict[str, list[Id]]:
    """Titles with the ids of images; ``name`` is the other run's."""
    analysis = judged.analysis
    f1 = {x.image_id: x.f1 for x in analysis.images}
    share = 1 if other is None else 2
    worst = [x for x in analysis.worst[: WORST // share] if f1[x] < 1]
    best = [x for x in analysis.best if x not in worst][: BEST // share]
    chosen = {}
    if other is not None:
        before = {x.image_id: x.f1 for x in other.analysis.images}
        change = {image: f1[image] - before[image] for image in f1 if image in before}
        order = sorted(change, key=lambda image: change[image])
        chosen[f"Worse than {name}"] = [x for x in order[:CHANGED] if change[x] < 0]
        chosen[f"Better than {name}"] = [x for x in order[: -CHANGED - 1 : -1] if change[x] > 0]
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


def _outcomes(run: Judged, ids: Sequence[Id]) -> dict[Id, Outcome]:
    settings = run.analysis.settings
    return outcomes_of(
        run.truth,
        run.found,
        ids,
        score_thresh=settings.score_thresh,
        iou_thresh=settings.iou_thresh,
        max_detections=settings.max_detections,
    )


def _views(pixels: Tensor, outcomes: Sequence[Outcome], names: tuple[str, str]) -> list[Picture]:
    first, *others = outcomes
    views = [
        draw(
            pixels, first.objects, "objects" if not others else f"objects, as {names[0]} found them"
        ),
        draw(pixels, first.detections, "detections" if not others else names[0]),
    ]
    return [*views, *(draw(pixels, x.detections, names[1]) for x in others)]


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
    return (
        f"Objects on the left, detections with a score of {score:.2f} or more on the right. "
        "Images are ranked by F1, the worst by their mistakes as well."
    )
