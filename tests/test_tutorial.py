"""The tutorial's commands and programs, run in order on a few small images."""

import os
import shlex
import subprocess
import sys

import yaml
from support.block_data import write_blocks
from support.doc_pages import DOCS, ROOT, blocks

SMALLER = {
    "MODEL": {"WEIGHTS": ""},
    "INPUT": {"MIN_SIZE_TRAIN": [96], "MIN_SIZE_TEST": 96},
    "SOLVER": {"MAX_ITER": 4, "IMS_PER_BATCH": 2, "WARMUP_ITERS": 2},
    "TEST": {"EVAL_PERIOD": 2},
}


def write_photographs(folder):
    """``images``, ``train.json`` and ``val.json``, as the tutorial asks for them."""
    (folder / "images").mkdir()
    for split, images in (("train", 6), ("val", 3)):
        paths = write_blocks(folder / "made", split, images)
        text = paths.json.read_text()
        for image in sorted(paths.images.iterdir()):
            new = image.name if split == "train" else f"val_{image.name}"
            image.rename(folder / "images" / new)
            text = text.replace(f'"{image.name}"', f'"{new}"')
        (folder / f"{split}.json").write_text(text)


def shrunk(config):
    """The tutorial's config with few iterations of small images."""
    values = yaml.safe_load(config)
    for node, settings in SMALLER.items():
        values.setdefault(node, {}).update(settings)
    return yaml.safe_dump(values)


def test_the_tutorial_runs_from_the_first_command_to_the_last(tmp_path):
    write_photographs(tmp_path)
    python = f"{shlex.quote(sys.executable)} -W ignore"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ran = []
    for block in blocks(DOCS / "tutorial.md"):
        if block.language == "yaml":
            (tmp_path / block.title).write_text(shrunk(block.text))
        elif block.language in ("bash", "python"):
            command = block.text
            if block.language == "python":
                (tmp_path / block.title).write_text(block.text)
                command = f"{python} {block.title}"
            script = f'set -e\nretina() {{ {python} -m retina_plugin.cli "$@"; }}\n{command}'
            done = subprocess.run(
                ["bash", "-c", script],
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                timeout=300,
            )
            assert done.returncode == 0, (block.text, done.stdout, done.stderr)
            ran.append(block.text)
    assert len(ran) == 7, ran
    output = tmp_path / "output" / "mine"
    for name in ("model_final.pth", "config.yaml", "metrics.json", "curves.png", "report.html"):
        assert (output / name).is_file(), name
    assert (tmp_path / "fitted.yaml").is_file() and (tmp_path / "found.png").is_file()
    assert (tmp_path / "output" / "found").is_dir() and (tmp_path / "detector.ts").is_file()
