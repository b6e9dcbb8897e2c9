"""A page at the end of a training, which no mistake in it can harm."""

import logging

import pytest
from detectron2.config import get_cfg
from support.made_run import MadeRun

from retina_plugin.config.defaults import add_retina_config
from retina_plugin.workbench import end_report
from retina_plugin.workbench.end_report import report_run


@pytest.fixture
def cfg(tmp_path):
    cfg = add_retina_config(get_cfg())
    cfg.OUTPUT_DIR = str(MadeRun(tmp_path).folder)
    return cfg


def test_the_page(cfg, caplog):
    with caplog.at_level(logging.INFO):
        page = report_run(cfg)
    assert page.read_text().startswith("<!doctype html>")
    assert str(page) in caplog.text


def test_off_by_its_key_and_on_other_workers(cfg, monkeypatch):
    monkeypatch.setattr(end_report.comm, "is_main_process", lambda: False)
    assert report_run(cfg) is None
    monkeypatch.undo()
    cfg.REPORT = False
    assert report_run(cfg) is None


def test_a_config_that_never_saw_the_key(cfg):
    del cfg["REPORT"]
    assert report_run(cfg) is not None


@pytest.mark.parametrize("error", [ValueError("no json"), MemoryError("full"), KeyError("x")])
def test_a_mistake_is_logged(cfg, monkeypatch, caplog, error):
    def fail(_):
        raise error

    monkeypatch.setattr(end_report, "write_report", fail)
    assert report_run(cfg) is None
    assert f"There is no report of this run: {error}" in caplog.text
    assert f"retina report {cfg.OUTPUT_DIR}" in caplog.text
