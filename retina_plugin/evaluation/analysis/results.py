"""What an analysis of detections says, as plain numbers, texts and lists.

Every fraction is in 0..1. ``None`` is a number that the data do not define, such as the AP of a
class without objects (pycocotools writes -1 there). Boxes are ``[x0, y0, x1, y1]`` in pixels. A
detection is kept at a threshold where its score is at least that. Every class here turns into json
and back: :mod:`retina_plugin.evaluation.analysis.json_form`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from retina_plugin.evaluation.analysis.breakdowns import (
    Calibration,
    ConfusionMatrix,
    ErrorKind,
    Grouping,
    Id,
    ImageResult,
    Number,
    SizeBin,
)
from retina_plugin.evaluation.analysis.json_form import from_json, to_json


@dataclass(kw_only=True)
class Settings:
    """What the analysis was asked for.

    Attributes:
        iou_thresh: IoU from which a detection finds an object, but for what COCO fixes itself.
        score_thresh: of everything that needs one: confusion, images, groups, sizes. None: no
            detection hits anything, and none is kept.
        score_thresh_is_best: nobody gave it; it is the one that is best for F1 over all classes.
        max_detections: detections that count for an image and class, the surest first.
        group_by: fields of the json's images or annotations.
        resamples: of the images, for the intervals.
        seed: of the resamples.
    """

    iou_thresh: float
    score_thresh: Number
    score_thresh_is_best: bool
    max_detections: int
    group_by: list[str]
    resamples: int
    seed: int


@dataclass(kw_only=True)
class Counts:
    """How many there were.

    Attributes:
        images: in the json.
        empty_images: those without an object that counts.
        objects: that count.
        ignored_objects: crowds: what is found on them counts neither way.
        detections: of known images and classes, within ``max_detections``.
        ignored_detections: of them, those on crowds.
        kept_detections: of the others, those at ``score_thresh``.
    """

    images: int
    empty_images: int
    objects: int
    ignored_objects: int
    detections: int
    ignored_detections: int
    kept_detections: int


@dataclass(kw_only=True)
class Interval:
    """95 % interval of a number by the bootstrap over images.

    Attributes:
        low: 2.5 % of the samples are below.
        high: 2.5 % of the samples are above.
        samples: the number for each resample; two runs on the same images have the same resamples.
    """

    low: float
    high: float
    samples: list[float]


@dataclass(kw_only=True)
class OperatingPoint:
    """What a detector does at one threshold.

    Attributes:
        threshold: detections with this score or more are kept. None: no threshold hits anything, or
            each class has its own.
        precision: hits of what is kept.
        recall: objects found of all.
        f1: harmonic mean of the two.
        true_positives: hits; None in a mean over classes.
        false_positives: kept detections that hit nothing new.
        false_negatives: objects not found.
    """

    threshold: Number
    precision: Number
    recall: Number
    f1: Number
    true_positives: int | None = None
    false_positives: int | None = None
    false_negatives: int | None = None


@dataclass(kw_only=True)
class PRCurve:
    """Precision over recall, as COCO's AP averages it.

    Attributes:
        iou_thresh: of a hit.
        recall: 0, 0.01, ... 1.
        precision: the best at that recall or more; 0 where it is not reached.
        score: the threshold there; 0 where it is not reached.
    """

    iou_thresh: float
    recall: list[float]
    precision: list[float]
    score: list[float]


@dataclass(kw_only=True)
class ThresholdCurve:
    """Precision, recall and F1 over the score threshold, at ``Settings.iou_thresh``.

    Attributes:
        threshold: 101 of them from 0 to 1, or over the scores' range where they leave that.
        precision: None where nothing is kept.
        recall: of the objects.
        f1: 0 where nothing is hit.
    """

    threshold: list[float]
    precision: list[Number]
    recall: list[Number]
    f1: list[Number]


@dataclass(kw_only=True)
class ClassResult:
    """The numbers of one class.

    Attributes:
        category_id: in the json.
        name: in the json.
        objects: that count.
        detections: that count.
        AP: COCO's, mean over IoU 0.5 to 0.95.
        AP50: at IoU 0.5.
        AP75: at IoU 0.75.
        AR: COCO's mean recall over IoU 0.5 to 0.95.
        best: at the threshold that is best for this class' F1.
        at_threshold: at ``Settings.score_thresh``.
        pr50: at IoU 0.5; None without objects.
        pr75: at IoU 0.75; None without objects.
        thresholds: over the score threshold; None without objects.
    """

    category_id: Id
    name: str
    objects: int
    detections: int
    AP: Number
    AP50: Number
    AP75: Number
    AR: Number
    best: OperatingPoint
    at_threshold: OperatingPoint
    pr50: PRCurve | None
    pr75: PRCurve | None
    thresholds: ThresholdCurve | None


@dataclass(kw_only=True)
class Overall:
    """All classes together.

    Attributes:
        micro: all detections and objects counted together, at the one threshold best for that.
        macro: mean of the classes' precision, recall and F1, at the one threshold best for its F1.
        own_thresholds: mean of the classes' numbers, each class at its own best threshold; what
            thresholds a class would bring over ``macro``.
        at_threshold: micro, at ``Settings.score_thresh``.
        pr50: mean of the classes' curves at IoU 0.5.
        pr75: mean of the classes' curves at IoU 0.75.
        thresholds_micro: over the score threshold.
        thresholds_macro: over the score threshold.
    """

    micro: OperatingPoint
    macro: OperatingPoint
    own_thresholds: OperatingPoint
    at_threshold: OperatingPoint
    pr50: PRCurve | None
    pr75: PRCurve | None
    thresholds_micro: ThresholdCurve
    thresholds_macro: ThresholdCurve


@dataclass(kw_only=True)
class Analysis:
    """Everything that the report says about detections.

    Attributes:
        settings: what was asked for.
        counts: how many there were.
        notes: what was left out or counted otherwise than one may think, in sentences.
        coco: COCO's twelve: AP, AP50, AP75, APs, APm, APl, AR1, AR10, AR100, ARs, ARm, ARl; the
            ninth is called after ``max_detections``.
        intervals: of AP and AP50; empty where none was asked for or nothing defines them.
        overall: all classes together.
        classes: in the order of their category ids.
        confusion: at the threshold.
        errors: TIDE's six kinds.
        sizes: all, small, medium and large.
        octaves: finer sizes, each twice the side of the one before.
        groupings: one for each field of ``group_by``.
        calibration: None where scores leave 0..1.
        images: in the order of their ids.
        worst: ids of the images with the lowest F1, the worst first; most mistakes first in a tie.
        best: ids of the images with the highest F1 that have objects; most objects first in a tie.
    """

    settings: Settings
    counts: Counts
    notes: list[str]
    coco: dict[str, Number]
    intervals: dict[str, Interval]
    overall: Overall
    classes: list[ClassResult]
    confusion: ConfusionMatrix
    errors: list[ErrorKind]
    sizes: list[SizeBin]
    octaves: list[SizeBin]
    groupings: list[Grouping] = field(default_factory=list)
    calibration: Calibration | None = None
    images: list[ImageResult] = field(default_factory=list)
    worst: list[Id] = field(default_factory=list)
    best: list[Id] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The same as dicts and lists, for ``json.dump``."""
        return to_json(self)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Analysis:
        """What :meth:`to_dict` gave, read back.

        Raises:
            ValueError: a key is missing, unknown or of another type; names it.
        """
        return from_json(cls, content)
