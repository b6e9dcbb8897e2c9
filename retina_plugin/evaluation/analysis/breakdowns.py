"""Parts of an analysis: confusion, kinds of errors, sizes, groups, calibration, images.

Units and ``None`` as in :mod:`retina_plugin.evaluation.analysis.results`.
"""

from __future__ import annotations

from dataclasses import dataclass

Id = int | str  # of an image or class, as the json has it
Number = float | None
BACKGROUND = "background"


@dataclass(kw_only=True)
class ConfusionMatrix:
    """Who is taken for whom at ``Settings.score_thresh`` and ``Settings.iou_thresh``.

    Attributes:
        names: of the classes, ``background`` last.
        counts: row the class of the object, column that of the detection. The last column has the
            objects missed, the last row the detections without an object of their own: on nothing,
            or on an object that another detection has.
    """

    names: list[str]
    counts: list[list[int]]


@dataclass(kw_only=True)
class Example:
    """A mistake to look at.

    Attributes:
        image_id: in the json.
        file_name: of the image, where the json has it.
        box: of the detection, of the object where it was missed.
        class_name: of the detection, of the object where it was missed.
        score: of the detection; None where it was missed.
        iou: with ``object_box``.
        object_box: of the object that the detection was meant for, where there is one.
        object_class_name: its class.
    """

    image_id: Id
    file_name: str | None
    box: list[float]
    class_name: str
    score: Number
    iou: Number
    object_box: list[float] | None
    object_class_name: str | None


@dataclass(kw_only=True)
class ErrorKind:
    """One kind of mistake after TIDE (Bolya et al. 2020).

    Attributes:
        kind: classification, localisation, both, duplicate, background or missed.
        meaning: in a sentence.
        count: over all scores.
        count_at_threshold: of the detections kept at ``Settings.score_thresh``; missed objects are
            those that no detection kept would find if its class or box were mended.
        dAP: what AP at ``Settings.iou_thresh`` would gain if every mistake of the kind were mended.
        examples: the surest, of the missed objects the largest.
    """

    kind: str
    meaning: str
    count: int
    count_at_threshold: int
    dAP: Number
    examples: list[Example]


@dataclass(kw_only=True)
class SizeBin:
    """Objects of one size.

    Attributes:
        name: ``small``, or pixels of side such as ``16-32``.
        low: least side, sqrt(area), in pixels.
        high: largest side; None: without end.
        objects: that count.
        detections: of them, found, or of this size where they hit nothing; kept at the threshold.
        AP: COCO's for small, medium and large; None for others.
        recall: objects found.
        recall_low: 95 % interval (Wilson).
        recall_high: 95 % interval (Wilson).
        precision: found objects of ``detections``.
    """

    name: str
    low: float
    high: Number
    objects: int
    detections: int
    AP: Number
    recall: Number
    recall_low: Number
    recall_high: Number
    precision: Number


@dataclass(kw_only=True)
class Group:
    """Images or objects that share the value of a field.

    Attributes:
        name: the value, or a range of numbers.
        images: with the value, or with an object that has it.
        objects: that count.
        detections: kept at the threshold: hits of the group and those that hit nothing.
        AP: COCO's on the group.
        AP50: at IoU 0.5.
        recall: objects found at the threshold.
        recall_low: 95 % interval (Wilson).
        recall_high: 95 % interval (Wilson).
        precision: at the threshold.
    """

    name: str
    images: int
    objects: int
    detections: int
    AP: Number
    AP50: Number
    recall: Number
    recall_low: Number
    recall_high: Number
    precision: Number


@dataclass(kw_only=True)
class Grouping:
    """One field and its groups.

    Attributes:
        field: its name.
        of: ``images`` (a group is COCO's evaluation of its images alone) or ``annotations`` (of all
            images; objects of other groups are ignored, and a detection that hits none of any group
            counts against each).
        groups: numbers ascending, others by their number of objects.
    """

    field: str
    of: str
    groups: list[Group]


@dataclass(kw_only=True)
class CalibrationBin:
    """Detections of about the same score.

    Attributes:
        low: least score.
        high: largest score.
        detections: that count.
        score: their mean score.
        precision: the part of them that hits; equal to ``score`` in a calibrated detector.
    """

    low: float
    high: float
    detections: int
    score: Number
    precision: Number


@dataclass(kw_only=True)
class Calibration:
    """How far a score can be read as the probability of a hit.

    Attributes:
        bins: of equal width.
        detections: that count.
        ECE: mean distance of score and precision over the bins, weighted by detections
            (expected calibration error).
        MCE: the largest distance.
        brier: mean squared distance of score and hit (1) or not (0).
    """

    bins: list[CalibrationBin]
    detections: int
    ECE: Number
    MCE: Number
    brier: Number


@dataclass(kw_only=True)
class ImageResult:
    """One image at ``Settings.score_thresh``.

    Attributes:
        image_id: in the json.
        file_name: in the json.
        objects: that count.
        true_positives: objects found.
        false_positives: detections of nothing new.
        false_negatives: objects not found.
        f1: 2 TP / (2 TP + FP + FN), 1 where there is nothing and nothing was found.
    """

    image_id: Id
    file_name: str | None
    objects: int
    true_positives: int
    false_positives: int
    false_negatives: int
    f1: float
