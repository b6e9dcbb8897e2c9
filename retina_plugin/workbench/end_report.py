"""The page about a training, written at its end."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.utils import comm

from retina_plugin.workbench.report import write_report

logger = logging.getLogger(__name__)


def report_run(cfg: CfgNode) -> Path | None:
    """Write ``OUTPUT_DIR/report.html`` where ``REPORT`` says so, on the first worker alone.

    Whatever goes wrong is logged: a training is never lost to its report.

    Returns:
        The page; None where none was written.
    """
    if not cfg.get("REPORT", True) or not comm.is_main_process():
        return None
    begin = time.monotonic()
    try:
        page = write_report(cfg.OUTPUT_DIR)
    except Exception as error:
        logger.warning(
            f"There is no report of this run: {error}. Its results are in {cfg.OUTPUT_DIR} all the "
            f"same; to try again: retina report {cfg.OUTPUT_DIR}",
            exc_info=not isinstance(error, ValueError),
        )
        return None
    logger.info(f"Report in {time.monotonic() - begin:.0f} s: {page}")
    return page
