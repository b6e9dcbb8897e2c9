"""The job of ``train_net.py`` and ``retina train``: the doctor, the training, the report."""

from __future__ import annotations

import logging
from argparse import Namespace
from typing import Any

from detectron2.config import CfgNode

from retina_plugin.data.findings import Findings
from retina_plugin.engine.setup import check_data, setup
from retina_plugin.engine.trainer import RetinaTrainer, evaluate
from retina_plugin.engine.user_errors import user_errors
from retina_plugin.runs.load_run import keys_set_in
from retina_plugin.workbench.doctor.doctor import CONFIG, examine
from retina_plugin.workbench.end_report import report_run

logger = logging.getLogger(__name__)


def run_job(args: Namespace) -> dict[str, Any]:
    """The job of one worker; returns the evaluation's results."""
    with user_errors():
        cfg = setup(args, consult_doctor)
        if args.eval_only:
            return evaluate(cfg, resume=args.resume)
        trainer = RetinaTrainer(cfg)
        trainer.resume_or_load(resume=args.resume)
        results = trainer.train()
        report_run(cfg)
        return results


def consult_doctor(cfg: CfgNode, args: Namespace) -> None:
    """Log what the doctor finds; with ``DOCTOR.ENABLED`` False, what is wrong with the data alone.

    Raises:
        DataError: there are errors.
    """
    train = not args.eval_only
    if not (cfg.get("DOCTOR") or {}).get("ENABLED", True):
        check_data(cfg, args)
        return
    # of a file with Python tags nobody knows the lines
    own = None if args.allow_unsafe_yaml else keys_set_in(args.config_file, args.opts)
    command = args.config_file or CONFIG
    diagnosis = examine(cfg, train=train, command=command, own=own, built_next=True)
    findings = Findings()
    findings.extend(diagnosis.findings)
    findings.log()
    findings.raise_errors()
    logger.info(
        f"doctor: {diagnosis.seconds:.1f} s. Fine: {', '.join(diagnosis.fine) or 'nothing'}."
    )
