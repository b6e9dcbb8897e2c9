"""What the README tells people to do works."""

import re
import subprocess
import sys
from pathlib import Path

from detectron2.config import get_cfg
from support.stock_configs import stock_config_file

from retina_plugin import add_retina_config
from retina_plugin.config.config_file import load_config
from retina_plugin.data.digits import prepare_digits

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def example(file_name):
    """The code block that follows the mention of a file."""
    return re.search(rf"`{re.escape(file_name)}`:\n\n```python\n(.*?)```", README, re.DOTALL)[1]


def test_names_both_commands():
    assert "make demo" in README and "make test" in README


def test_links_and_pictures_exist():
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    assert len(targets) >= 4
    assert [t for t in targets if "://" not in t and not (ROOT / t).exists()] == []


def test_the_new_loss_is_short_and_trains(tmp_path):
    code = example("log_cosh_loss.py")
    assert len([line for line in code.splitlines() if line.strip()]) <= 15
    (tmp_path / "log_cosh_loss.py").write_text(code)
    data = prepare_digits(tmp_path / "digits", train_images=4, val_images=2)
    overrides = re.search(r"configs/digits\.yaml \\\n +(MODEL\..*)\n", README)[1].split()
    assert "LogCoshLoss" in overrides
    command = [sys.executable, "-W", "ignore", "train_net.py", "--import"]
    command += [str(tmp_path / "log_cosh_loss.py"), "--config-file", "configs/quick.yaml"]
    command += [*overrides, "OUTPUT_DIR", str(tmp_path / "out"), "SOLVER.MAX_ITER", "2"]
    for split, name in (("TRAIN", "train"), ("TEST", "val")):
        command += [f"DATASETS.COCO.{split}.JSON", str(data[name].json)]
        command += [f"DATASETS.COCO.{split}.IMAGES", str(data[name].images)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    saved = (tmp_path / "out" / "config.yaml").read_text()
    assert re.search(r"LogCoshLoss:\s+SCALE: 2\.0", saved)
    assert "loss_box_reg" in (tmp_path / "out" / "metrics.json").read_text() or "AP" in done.stdout


def test_the_python_snippet_builds_the_zoos_model(tmp_path, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    snippet = next(block for block in blocks if "merge_from_file" in block)
    file = stock_config_file("COCO-Detection/retinanet_R_50_FPN_1x.yaml")
    (tmp_path / file.name).write_text(f"_BASE_: {file}\n")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(snippet.replace("model = ", "cfg.MODEL.DEVICE = 'cpu'; model = "), names)
    assert type(names["model"]).__name__ == "FocalRetinaNet"


def test_the_changed_line_makes_a_stock_config_ours(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(re.search(r"```yaml\n(.*?)```", README, re.DOTALL)[1])
    cfg = load_config(file)
    assert cfg.MODEL.META_ARCHITECTURE == "FocalRetinaNet" and cfg.SOLVER.MAX_ITER == 90000


def test_the_keys_that_it_names_exist():
    cfg = add_retina_config(get_cfg())
    keys = set(re.findall(r"\b(?:MODEL|DATASETS|INPUT|SOLVER|TEST)(?:\.\w+)+|VIS_PERIOD", README))
    assert len(keys) > 15
    wrong = "MODEL.RETINANET.NUM_CLASES"  # shown with the answer it gets
    for key in keys - {"MODEL.RETINANET.BOX_LOSS.LogCoshLoss.SCALE", wrong}:
        node = cfg
        for part in key.split("."):
            assert part in node, key
            node = node[part]
