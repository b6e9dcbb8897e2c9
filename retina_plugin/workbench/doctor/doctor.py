"""All checks of a config, its data and this machine, in their order."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from logging import ERROR, WARNING
from typing import Any

from detectron2.config import CfgNode, get_cfg
from detectron2.utils import comm

from retina_plugin.data.checks import CheckedSet, find_problems
from retina_plugin.data.coco_registration import register_datasets
from retina_plugin.data.findings import DataError, Finding, Findings
from retina_plugin.workbench.anchors.coverage import Coverage, coverage_of
from retina_plugin.workbench.anchors.seen_boxes import seen_boxes
from retina_plugin.workbench.doctor.boxes import check_boxes
from retina_plugin.workbench.doctor.classes import check_classes
from retina_plugin.workbench.doctor.idle_keys import check_idle_keys
from retina_plugin.workbench.doctor.leaks import check_leaks
from retina_plugin.workbench.doctor.machine import check_disk, check_loader, check_machine
from retina_plugin.workbench.doctor.memory import check_memory
from retina_plugin.workbench.doctor.meta_model import MetaModel, build_meta_model
from retina_plugin.workbench.doctor.reach import check_reach, check_tiny
from retina_plugin.workbench.doctor.schedule import check_schedule

CONFIG = "CONFIG"
ENOUGH_BOXES = (
    20_000  # for a share that is right to a percent; of larger sets some images are drawn
)

logger = logging.getLogger(__name__)


@dataclass
class Diagnosis:
    """What the doctor found.

    Attributes:
        findings: in the order of the checks, errors first, then warnings, then information.
        fine: names of the checks that found no error and no warning.
        sets: the data sets that could be loaded.
        leaked: records to train on that are evaluated on too.
        seconds: that it took.
    """

    findings: list[Finding] = field(default_factory=list)
    fine: list[str] = field(default_factory=list)
    sets: list[CheckedSet] = field(default_factory=list)
    leaked: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    def count(self, level: int) -> int:
        """Findings of a level."""
        return sum(x.level == level for x in self.findings)


def diagnose(
    cfg: CfgNode,
    *,
    train: bool = True,
    command: str = CONFIG,
    own: Collection[str] | None = None,
) -> Diagnosis:
    """Register the data sets of ``cfg`` and look at everything; nothing is trained or written.

    Args:
        cfg: of ``load_config`` or any with the keys of ``add_retina_config``; changed as
            ``register_datasets`` does.
        train: False looks at what matters for an evaluation alone.
        command: how the config is called in the fixes that are commands.
        own: the keys that the user wrote, see ``check_idle_keys``.
    """
    findings = Findings()
    try:
        register_datasets(cfg, findings)
    except DataError as error:  # no data can be looked at, but the rest can
        findings.extend(error.findings)
        if cfg.MODEL.RETINANET.NUM_CLASSES is None:
            cfg.MODEL.RETINANET.NUM_CLASSES = get_cfg().MODEL.RETINANET.NUM_CLASSES
        return examine(cfg, train=train, command=command, own=own, known=findings, data=False)
    return examine(cfg, train=train, command=command, own=own, known=findings)


def examine(
    cfg: CfgNode,
    *,
    train: bool = True,
    command: str = CONFIG,
    own: Collection[str] | None = None,
    known: Findings | None = None,
    data: bool = True,
    built_next: bool = False,
) -> Diagnosis:
    """:func:`diagnose` after ``register_datasets``.

    Args:
        cfg: not changed.
        train: see :func:`diagnose`.
        command, own: see :func:`diagnose`.
        known: what was found before.
        data: False if there are no data sets to look at.
        built_next: the model is built right afterwards, and says itself what it has to say.

    Raises:
        UnknownNameError, ValueError, ImportError: see ``find_problems``.
    """
    examination = _Examination(cfg, train=train, own=own, built_next=built_next)
    start = time.perf_counter()
    examination.run(known or Findings(), data=data)
    found = examination.found
    found.findings = sorted(
        (replace(x, fix=x.fix.replace(CONFIG, command)) for x in examination.findings),
        key=lambda x: -x.level,
    )
    found.seconds = time.perf_counter() - start
    return found


class _Examination:
    """One pass of all checks, and what they hand on to each other."""

    def __init__(
        self, cfg: CfgNode, *, train: bool, own: Collection[str] | None, built_next: bool
    ) -> None:
        self.cfg = cfg
        self.own = own
        self.train = train
        self.built_next = built_next
        self.findings = Findings()
        self.found = Diagnosis()

    def run(self, known: Findings, *, data: bool) -> None:
        """All checks."""
        self.findings.extend(known)
        with self._check("environment"):
            check_machine(self.cfg, self.findings)
        if data:
            with self._check("images and boxes"):
                self.found.sets = find_problems(self.cfg, self.findings, train=self.train)
                if not self._broken():
                    check_boxes(self.cfg, self.found.sets, self.findings)
        built = MetaModel()
        with self._check("keys"):
            built = build_meta_model(self.cfg)
            check_idle_keys(
                self.cfg, built, self.findings, own=self.own, settings=not self.built_next
            )
            self._said(built)
        if not self.train:
            return
        with self._check("schedule"):
            check_schedule(self.cfg, self._images(), self.findings)
        coverage = self._check_data() if data and self.found.sets else None
        with self._check("memory, disk, loader"):
            self._check_resources(built, coverage)

    def _check_data(self) -> Coverage | None:
        with self._check("classes"):
            if not self._broken():
                check_classes(self.cfg, self.found.sets, self.findings)
        with self._check("train and test apart"):
            self.found.leaked = check_leaks(self.found.sets, self.findings)
        coverage = None
        with self._check("anchors"):
            coverage = self._coverage()
            if coverage is not None:
                check_reach(self.cfg, coverage, self.findings)
                check_tiny(self.cfg, coverage, self.findings)
        return coverage

    def _check_resources(self, built: MetaModel, coverage: Coverage | None) -> None:
        cfg, size = self.cfg, _largest(self.cfg, coverage)
        check_loader(cfg, size, self.findings)
        if built.model is None:
            return
        check_memory(cfg, built.model, size, comm.get_world_size(), self.findings)
        check_disk(cfg, built.model, self.findings)

    def _coverage(self) -> Coverage | None:
        """None where boxes or the config do not allow it: other findings say so."""
        if self._broken() or not self._images():
            return None
        try:
            boxes = seen_boxes(self.cfg, "train", draws=1, max_boxes=ENOUGH_BOXES)
            return coverage_of(self.cfg, "train", boxes=boxes)
        except (ValueError, KeyError) as error:
            logger.info(f"anchors and boxes were not compared: {error}")
            return None

    def _said(self, built: MetaModel) -> None:
        """What the model would say if it were built, where it is not going to be."""
        if self.built_next:
            return
        if built.error:
            self.findings.add(ERROR, "MODEL", f"cannot be built: {built.error}")
        for text in built.warnings:
            if " has no effect: " not in text:  # check_idle_keys says it with its fix
                self.findings.add(WARNING, "MODEL", text.rstrip("."))

    def _images(self) -> int:
        train = [x for x in self.found.sets if "TRAIN" in x.splits]
        return sum(len(x.records) for x in train)

    def _broken(self) -> bool:
        """Whether boxes are so wrong that nothing can be computed of them."""
        words = ("boxes ", "category_id", "annotations")
        return any(x.level == ERROR and x.what.startswith(words) for x in self.findings)

    @contextmanager
    def _check(self, name: str) -> Iterator[None]:
        """Note the check as fine if it adds no error and no warning."""
        before = _serious(self.findings)
        yield
        if _serious(self.findings) == before:
            self.found.fine.append(name)


def _serious(findings: Findings) -> int:
    return sum(x.level >= WARNING for x in findings)


def _largest(cfg: CfgNode, coverage: Coverage | None) -> tuple[int, int]:
    """Height and width of the largest image that the network is trained on."""
    if coverage is not None:
        sizes = coverage.seen.image_size
        return tuple(map(int, sizes[sizes.prod(axis=1).argmax()]))
    short, long = max(cfg.INPUT.MIN_SIZE_TRAIN, default=0), cfg.INPUT.MAX_SIZE_TRAIN
    return (short, long) if short else (long, long)
