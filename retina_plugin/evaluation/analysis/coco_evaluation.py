"""COCO's evaluation of a case by hotcoco, as arrays over the rows of its columns."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import hotcoco
import numpy as np

from retina_plugin.evaluation.analysis.breakdowns import Number
from retina_plugin.evaluation.analysis.columns import Columns
from retina_plugin.evaluation.analysis.shares import shares

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
AREAS = {  # square pixels
    "all": (0.0, 1e5**2),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e5**2),
}
OUTSIDE = 2 * AREAS["all"][1]  # the area that makes COCO ignore an object


@dataclass(kw_only=True)
class Verdicts:
    """Which of D detections find which of M objects, at one IoU and one score threshold.

    Attributes:
        hit: (D,) bool, finds an object that counts.
        miss: (D,) bool, finds nothing, or nothing new. A detection that neither hits nor misses
            is ignored.
        object: (D,) row of the object that a hit finds, -1 for the other detections.
        counts: (M,) bool, objects that count; the others are ignored.
        kept: (D,) bool, the score is at least the threshold.
    """

    hit: np.ndarray
    miss: np.ndarray
    object: np.ndarray
    counts: np.ndarray
    kept: np.ndarray

    @property
    def reached(self) -> np.ndarray:
        """(M,) bool, objects that any detection finds."""
        return self._found_by(self.hit)

    @property
    def found(self) -> np.ndarray:
        """(M,) bool, objects that a kept detection finds."""
        return self._found_by(self.hit & self.kept)

    def shares(
        self,
        detections: np.ndarray | slice = slice(None),
        objects: np.ndarray | slice = slice(None),
    ) -> dict[str, int | Number]:
        """Recall and precision of the kept detections, see :func:`shares`.

        Args:
            detections: (D,) bool, which. All by default.
            objects: (M,) bool, which. All by default.
        """
        return shares(
            objects=int(self.counts[objects].sum()),
            hit=int((self.hit & self.kept)[detections].sum()),
            miss=int((self.miss & self.kept)[detections].sum()),
        )

    def _found_by(self, hits: np.ndarray) -> np.ndarray:
        found = np.zeros(len(self.counts), dtype=bool)
        found[self.object[hits]] = True
        return found


class Evaluation:
    """A case evaluated by COCO's rules; hotcoco's numbers are those of pycocotools.

    Args:
        columns: the case.
        iou_thresh: from which a detection finds an object, for all numbers that COCO does not fix.
        ignored: (M,) bool, objects to ignore besides the crowds, as COCO ignores those outside a
            range of areas. None: only the crowds.
    """

    def __init__(
        self, columns: Columns, iou_thresh: float = 0.5, *, ignored: np.ndarray | None = None
    ) -> None:
        self.columns = columns
        self.iou_thresh = iou_thresh
        area = columns.objects.area
        area = area if ignored is None else np.where(ignored, OUTSIDE, area)
        self._data = _as_coco(columns, area)

    @cached_property
    def coco(self) -> hotcoco.COCOeval:
        """hotcoco's evaluation at COCO's ten IoU thresholds and four ranges of area."""
        return self._evaluate(IOU_THRESHOLDS.tolist(), AREAS)

    @cached_property
    def at_iou(self) -> hotcoco.COCOeval:
        """hotcoco's evaluation at ``iou_thresh`` and COCO's ten, with objects of all sizes."""
        extra = [] if np.isclose(IOU_THRESHOLDS, self.iou_thresh).any() else [self.iou_thresh]
        return self._evaluate([*IOU_THRESHOLDS.tolist(), *extra], {"all": AREAS["all"]})

    @cached_property
    def _arrays(self) -> dict[str, np.ndarray]:
        self.coco.accumulate()
        arrays = {name: self.coco.eval[name] for name in ("precision", "scores", "recall")}
        for name in ("precision", "recall"):
            arrays[name][arrays[name] < 0] = np.nan
        return arrays

    @property
    def undefined(self) -> bool:
        """Whether no object counts, so that no number is defined."""
        return bool(np.isnan(self.recall[:, :, 0]).all())

    @property
    def precision(self) -> np.ndarray:
        """(10, 101, K, 4) precision over recall by area; NaN for a class without objects."""
        return self._arrays["precision"][..., -1]

    @property
    def scores(self) -> np.ndarray:
        """(10, 101, K, 4) score at each recall by area; 0 where the recall is not reached."""
        return self._arrays["scores"][..., -1]

    @property
    def recall(self) -> np.ndarray:
        """(10, K, 4, 3) largest recall by area, with 1, 10 and all detections per image and class;
        NaN for a class without objects.
        """
        return self._arrays["recall"]

    def verdicts(self, *, area: str = "all") -> Verdicts:
        """Hits and misses at ``iou_thresh``, with all detections kept.

        Args:
            area: one of ``AREAS``; objects of another size are ignored, and so are the detections
                that find them or that find nothing and have another size.
        """
        if area == "all":
            return self._verdicts(self.at_iou, self.iou_thresh)
        of_size = self._evaluate([self.iou_thresh], {"all": AREAS[area]})
        return self._verdicts(of_size, self.iou_thresh)

    def verdicts_of_coco(self) -> list[Verdicts]:
        """Hits and misses at each of COCO's IoU thresholds, with all detections kept."""
        return [self._verdicts(self.at_iou, threshold) for threshold in IOU_THRESHOLDS]

    def confusion(self) -> np.ndarray:
        """(K + 1, K + 1) hotcoco's confusion matrix at ``iou_thresh``, background last."""
        coco = hotcoco.COCOeval(*self._data, "bbox")
        most = max(1, len(self.columns.detections))
        return coco.confusion_matrix(iou_thr=self.iou_thresh, max_det=most)["matrix"]

    def keep(self, verdicts: Verdicts, score_thresh: float | None) -> Verdicts:
        """The verdicts at a score threshold; None keeps no detection."""
        kept = self.columns.detections.score >= (np.inf if score_thresh is None else score_thresh)
        return replace(verdicts, kept=kept)

    def _verdicts(self, coco: hotcoco.COCOeval, iou_thresh: float) -> Verdicts:
        # a score threshold that no detection reaches skips the search for wrong labels
        result = coco.image_diagnostics(iou_thr=iou_thresh, score_thr=np.inf)
        detections, objects = len(self.columns.detections), len(self.columns.objects)
        found = np.full(detections, -1)
        pairs = _ids(result["dt_match"].keys()), _ids(result["dt_match"].values())
        found[pairs[0]] = pairs[1]
        judged = np.zeros(detections, dtype=bool)
        judged[_ids(result["dt_status"].keys())] = True
        counts = np.zeros(objects, dtype=bool)
        counts[_ids(result["gt_status"].keys())] = True
        return Verdicts(
            hit=found >= 0,
            miss=judged & (found < 0),
            object=found,
            counts=counts,
            kept=np.ones(detections, dtype=bool),
        )

    def _evaluate(
        self, thresholds: list[float], areas: dict[str, tuple[float, float]]
    ) -> hotcoco.COCOeval:
        coco = hotcoco.COCOeval(*self._data, "bbox")
        coco.params.iou_thrs = thresholds
        # the columns hold no more detections per image and class than count
        coco.params.max_dets = [1, 10, max(11, len(self.columns.detections))]
        coco.params.area_rng = [list(limits) for limits in areas.values()]
        coco.params.area_rng_lbl = list(areas)
        coco.evaluate()
        return coco


def part_of(columns: Columns, objects: np.ndarray, detections: np.ndarray) -> Columns:
    """The same case with some of its objects, (M,) bool, and detections, (D,) bool."""
    return replace(
        columns,
        objects=columns.objects.some(objects),
        detections=columns.detections.some(detections),
    )


def _as_coco(columns: Columns, area: np.ndarray) -> tuple[hotcoco.COCO, hotcoco.COCO]:
    """The ground truth and the detections; ids are the rows of the columns, from 1 on."""
    objects, found = columns.objects, columns.detections
    truth = hotcoco.COCO.from_arrays(
        [{"id": i + 1} for i in range(len(columns.images))],
        [{"id": k + 1, "name": str(k + 1)} for k in range(len(columns.classes))],
        objects.image + 1,
        objects.label + 1,
        objects.box,
        ids=np.arange(len(objects)) + 1,
        area=area,
        iscrowd=objects.crowd,
    )
    rows = np.column_stack([found.image + 1, found.box, found.score, found.label + 1])
    return truth, truth.load_res(rows.astype(float))


def _ids(values: Any) -> np.ndarray:
    """hotcoco's ids -> rows."""
    return np.fromiter(values, dtype=np.int64, count=len(values)) - 1
