"""Kinds of mistakes after TIDE (Bolya et al., A General Toolbox for Identifying Object Detection
Errors, 2020): what each detection that hits nothing did wrong, and what AP mending it would bring.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retina_plugin.evaluation.analysis.breakdowns import ErrorKind, Example
from retina_plugin.evaluation.analysis.coco_evaluation import Evaluation, Verdicts, part_of
from retina_plugin.evaluation.analysis.columns import Columns, corners
from retina_plugin.evaluation.analysis.overlaps import overlaps_by_image

BACKGROUND_IOU = 0.1  # TIDE's: with less overlap a detection is of background
MEANINGS = {
    "classification": "on an object, of another class",
    "localisation": "on an object of its class, with too small an overlap",
    "both": "near an object of another class, with too small an overlap",
    "duplicate": "on an object that a surer detection has found",
    "background": "on nothing",
    "missed": "an object that has no detection on it or near it",
}
CLASSIFICATION, LOCALISATION, BOTH, DUPLICATE, BACKGROUND, MISSED = MEANINGS
HOTCOCO = dict(zip(MEANINGS, ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss"), strict=True))
DETECTED = tuple(MEANINGS)[:-1]


@dataclass(kw_only=True)
class Mistakes:
    """What is wrong with each detection.

    Attributes:
        kind: (D,) index into ``DETECTED``, -1 for one that is right or ignored.
        object: (D,) row of the object that it was meant for, -1 where there is none.
        iou: (D,) with that object.
    """

    kind: np.ndarray
    object: np.ndarray
    iou: np.ndarray


def find_mistakes(columns: Columns, verdicts: Verdicts, iou_thresh: float) -> Mistakes:
    """Sort each detection that misses into one of TIDE's kinds, in TIDE's order of questions.

    Hits and misses are COCO's, so that the AP mended is the AP of the report; TIDE's own code
    matches a little otherwise (a crowd takes what is left over it, at the end). A detection that
    overlaps an object of its class by exactly ``iou_thresh`` and finds it taken is a duplicate.

    Args:
        columns: the case.
        verdicts: of its detections.
        iou_thresh: of the verdicts.
    """
    number = len(columns.detections)
    kind = np.where(verdicts.miss, DETECTED.index(BACKGROUND), -1)
    meant = np.full(number, -1)
    iou = np.zeros(number)
    label, truth = columns.detections.label, columns.objects.label
    for rows, objects, overlap in overlaps_by_image(columns, verdicts.miss, verdicts.counts):
        same = label[rows][:, None] == truth[objects]
        own, other = np.where(same, overlap, 0.0), np.where(same, 0.0, overlap)
        own_best, other_best = own.max(axis=1), other.max(axis=1)
        answers = (
            (LOCALISATION, (own_best >= BACKGROUND_IOU) & (own_best < iou_thresh), own),
            (CLASSIFICATION, other_best >= iou_thresh, other),
            (DUPLICATE, own_best >= iou_thresh, own),
            (BACKGROUND, overlap.max(axis=1) <= BACKGROUND_IOU, None),
            (BOTH, np.ones(len(rows), dtype=bool), other),
        )
        open_ = np.ones(len(rows), dtype=bool)
        for name, fits, near in answers:
            chosen = np.flatnonzero(open_ & fits)
            open_ &= ~fits
            kind[rows[chosen]] = DETECTED.index(name)
            if near is not None:
                best = near[chosen].argmax(axis=1)
                meant[rows[chosen]] = objects[best]
                iou[rows[chosen]] = near[chosen, best]
    return Mistakes(kind=kind, object=meant, iou=iou)


def error_kinds(
    evaluation: Evaluation, verdicts: Verdicts, names: list[str], examples: int
) -> list[ErrorKind]:
    """Count, cost and examples of each of TIDE's six kinds; hotcoco computes the cost in AP.

    Args:
        evaluation: of the case.
        verdicts: of its detections, at the score threshold.
        names: of the classes.
        examples: of each kind, at most.
    """
    columns = evaluation.columns
    mistakes = find_mistakes(columns, verdicts, evaluation.iou_thresh)
    everything = np.ones(len(columns.detections), dtype=bool)
    missed = _missed(mistakes, verdicts.counts & ~verdicts.reached, everything)
    missed_at_threshold = _missed(mistakes, verdicts.counts & ~verdicts.found, verdicts.kept)
    gains = _gains(evaluation, verdicts)
    area = columns.objects.area
    results = []
    for name, meaning in MEANINGS.items():
        if name == MISSED:
            rows, at_threshold = np.flatnonzero(missed), int(missed_at_threshold.sum())
            rows = rows[np.argsort(-area[rows], kind="stable")]
            shown = [_missed_example(columns, row, names) for row in rows[:examples]]
        else:
            of_kind = mistakes.kind == DETECTED.index(name)
            rows, at_threshold = np.flatnonzero(of_kind), int((of_kind & verdicts.kept).sum())
            rows = rows[np.argsort(-columns.detections.score[rows], kind="stable")]
            shown = [_example(columns, row, mistakes, names) for row in rows[:examples]]
        results.append(
            ErrorKind(
                kind=name,
                meaning=meaning,
                count=len(rows),
                count_at_threshold=at_threshold,
                dAP=gains[name],
                examples=shown,
            )
        )
    return results


def _missed(mistakes: Mistakes, not_found: np.ndarray, detections: np.ndarray) -> np.ndarray:
    """(M,) bool: not found, and no mended class or box of one of the detections would."""
    missed = not_found.copy()
    missed[mistakes.object[_near_hits(mistakes) & detections]] = False
    return missed


def _near_hits(mistakes: Mistakes) -> np.ndarray:
    """(D,) bool: those that a right class or a right box would mend."""
    return np.isin(mistakes.kind, [DETECTED.index(CLASSIFICATION), DETECTED.index(LOCALISATION)])


def _gains(evaluation: Evaluation, verdicts: Verdicts) -> dict[str, float | None]:
    """AP with the mistakes of one kind corrected, less AP as it is.

    TIDE ignores what COCO ignores. hotcoco takes crowds for objects here, so that it is given
    neither crowds nor the detections on them.
    """
    judged, columns = verdicts.hit | verdicts.miss, evaluation.columns
    if not verdicts.counts.any():
        return dict.fromkeys(MEANINGS)
    if not (judged.all() and verdicts.counts.all()):
        columns = part_of(columns, verdicts.counts, judged)
        evaluation = Evaluation(columns, evaluation.iou_thresh)
    gains = evaluation.at_iou.tide_errors(pos_thr=evaluation.iou_thresh, bg_thr=BACKGROUND_IOU)
    return {kind: gains["delta_ap"][name] for kind, name in HOTCOCO.items()}


def _example(columns: Columns, row: int, mistakes: Mistakes, names: list[str]) -> Example:
    found, truth = columns.detections, columns.objects
    meant = int(mistakes.object[row])
    image = columns.images[found.image[row]]
    return Example(
        image_id=image["id"],
        file_name=image.get("file_name"),
        box=corners(found.box[row]),
        class_name=names[found.label[row]],
        score=float(found.score[row]),
        iou=float(mistakes.iou[row]) if meant >= 0 else None,
        object_box=corners(truth.box[meant]) if meant >= 0 else None,
        object_class_name=names[truth.label[meant]] if meant >= 0 else None,
    )


def _missed_example(columns: Columns, row: int, names: list[str]) -> Example:
    truth = columns.objects
    image = columns.images[truth.image[row]]
    return Example(
        image_id=image["id"],
        file_name=image.get("file_name"),
        box=corners(truth.box[row]),
        class_name=names[truth.label[row]],
        score=None,
        iou=None,
        object_box=None,
        object_class_name=None,
    )
