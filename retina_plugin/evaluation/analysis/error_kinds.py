"""Kinds of mistakes after TIDE (Bolya et al., A General Toolbox for Identifying Object Detection
Errors, 2020): what each detection that hits nothing did wrong, and what AP mending it would bring.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retina_plugin.evaluation.analysis.breakdowns import ErrorKind, Example
from retina_plugin.evaluation.analysis.coco_numbers import mean, precision_of
from retina_plugin.evaluation.analysis.columns import Columns, corners
from retina_plugin.evaluation.analysis.overlaps import overlaps_by_image
from retina_plugin.evaluation.analysis.verdicts import Verdicts

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
    columns: Columns, verdicts: Verdicts, names: list[str], iou_thresh: float, examples: int
) -> list[ErrorKind]:
    """Count, cost and examples of each of TIDE's six kinds.

    Args:
        columns: the case.
        verdicts: of its detections.
        names: of the classes.
        iou_thresh: of the verdicts.
        examples: of each kind, at most.
    """
    mistakes = find_mistakes(columns, verdicts, iou_thresh)
    everything = np.ones(len(columns.detections), dtype=bool)
    missed = _missed(mistakes, verdicts.counts & ~verdicts.reached, everything)
    missed_at_threshold = _missed(mistakes, verdicts.counts & ~verdicts.found, verdicts.kept)
    gains = _gains(columns, verdicts, mistakes, missed)
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


def _gains(
    columns: Columns, verdicts: Verdicts, mistakes: Mistakes, missed: np.ndarray
) -> dict[str, float | None]:
    """AP with the mistakes of one kind mended, less AP as it is.

    A wrong class or box becomes right, but of those meant for one object only the surest, and none
    where the object is found already: the others go. What is of other kinds goes. Objects missed
    are taken out of the ground truth. As in TIDE no gain is below 0.
    """
    truth, found = columns.objects.label, columns.detections
    kinds = len(columns.classes)
    objects = np.bincount(truth[verdicts.counts], minlength=kinds)

    def mean_precision(
        label: np.ndarray, hit: np.ndarray, miss: np.ndarray, objects: np.ndarray
    ) -> float | None:
        order = np.lexsort((-found.score, label))
        return mean(
            precision_of(label, found.score, hit[None], miss[None], objects, order).precision
        )

    before = mean_precision(found.label, verdicts.hit, verdicts.miss, objects)
    if before is None:
        return dict.fromkeys(MEANINGS)
    surest = _surest(mistakes, found.score, verdicts.reached)
    gains = {}
    for i, name in enumerate(DETECTED):
        of_kind = mistakes.kind == i
        mended = of_kind & surest
        label = np.where(mended, truth[mistakes.object], found.label) if len(truth) else found.label
        hit, miss = verdicts.hit | mended, verdicts.miss & ~of_kind
        gains[name] = max(0.0, mean_precision(label, hit, miss, objects) - before)
    # a class of which every object was missed stays in the mean, with AP 0
    fewer = np.bincount(truth[verdicts.counts & ~missed], minlength=kinds)
    fewer = np.where((objects > 0) & (fewer == 0), 1, fewer)
    after = mean_precision(found.label, verdicts.hit, verdicts.miss, fewer)
    gains[MISSED] = max(0.0, after - before)
    return gains


def _surest(mistakes: Mistakes, score: np.ndarray, reached: np.ndarray) -> np.ndarray:
    """(D,) bool: of the near hits on an object that nothing reaches, the surest one each."""
    rows = np.flatnonzero(_near_hits(mistakes))
    rows = rows[~reached[mistakes.object[rows]]]
    rows = rows[np.argsort(-score[rows], kind="stable")]
    _, first = np.unique(mistakes.object[rows], return_index=True)
    surest = np.zeros(len(score), dtype=bool)
    surest[rows[first]] = True
    return surest


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
