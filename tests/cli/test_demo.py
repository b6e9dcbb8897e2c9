"""The main job from end to end, four steps long."""

import json
import subprocess
import sys
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[2]
SHORT = ("SOLVER.MAX_ITER", "4", "SOLVER.WARMUP_ITERS", "1", "TEST.EVAL_PERIOD", "2")
QUICK = (*SHORT, "SOLVER.IMS_PER_BATCH", "2", "DATALOADER.NUM_WORKERS", "0")
PICTURES = ("curves.png", "val.png", "yell_541.png", "osbs_029.png")


def demo(*arguments, out, cwd=ROOT):
    command = [sys.executable, "-W", "ignore", "-m", "retina_plugin.cli", "demo", "--out", str(out)]
    return subprocess.run(
        [*command, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=600,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "DETECTRON2_DATASETS": str(out)},
    )


def test_ends_with_the_table_the_pictures_and_their_paths(tmp_path):
    done = demo(*QUICK, out=tmp_path)
    assert done.returncode == 0, done.stderr
    summary = done.stdout[done.stdout.rindex("| data set") :]
    assert all(place in summary for place in ("YELL_528", "YELL_541", "OSBS_029", "AP50"))
    lines = summary[summary.index("in all.") :].splitlines()[1:]
    listed = [Path(line.partition("  ")[0]) for line in lines]
    assert {path.name for path in listed} == {
        *PICTURES, "report.html", "model_final.pth", "metrics.json", "log.txt"
    }  # fmt: skip
    assert all(path.is_file() for path in listed)
    for name in PICTURES:
        with Image.open(tmp_path / name) as picture:
            assert picture.width > 400 and picture.height > 300
    lines = [json.loads(x) for x in (tmp_path / "metrics.json").read_text().splitlines()]
    assert any("bbox/AP50" in line for line in lines)
    dump = "(bottom_up): MobileNetV2"  # Detectron2 logs the whole model
    assert dump in (tmp_path / "log.txt").read_text()
    assert dump not in done.stdout + done.stderr and "total_loss" in done.stdout + done.stderr


def test_mistakes_end_with_the_message_alone(tmp_path):
    done = demo("MODEL.RETINANET.NUM_CLASES", "1", out=tmp_path)
    assert done.returncode == 1
    assert "Did you mean MODEL.RETINANET.NUM_CLASSES" in done.stderr
    assert "Traceback" not in done.stderr
