"""The documentation: its links lead somewhere, its commands parse, its code runs."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from detectron2.config import get_cfg
from support.doc_pages import (
    DOCS,
    PAGES,
    ROOT,
    anchors,
    assert_parses,
    blocks,
    commands,
    generated_pages,
    links,
)

from retina_plugin import add_retina_config
from retina_plugin.config.config_file import load_config
from retina_plugin.data.digits import prepare_digits
from retina_plugin.registry import ROLES

README = ROOT / "README.md"
TARGETS = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
KEY = re.compile(r"\b(?:MODEL|DATASETS|DATALOADER|INPUT|SOLVER|TEST|DOCTOR)(?:\.\w+)+(?:\.\*)?")
SHOWN_WITH_ITS_ERROR = {"MODEL.RETINANET.NUM_CLASES"}
OF_EXAMPLES = (
    *("MODEL.RETINANET.BOX_LOSS.LogCoshLoss.", "MODEL.RETINANET.SAMPLER", "MODEL.DETECTOR."),
    "MODEL.MY_KEY",
)


def name(page):
    return page.relative_to(ROOT).as_posix()


@pytest.fixture(params=PAGES, ids=name)
def page(request):
    return request.param


def broken_links(page: Path, generated: dict) -> list[str]:
    broken = []
    for link in links(page):
        path, _, anchor = link.partition("#")
        if re.match(r"https?:", link):
            continue
        target = (page.parent / path).resolve() if path else page
        key = target.relative_to(DOCS).as_posix() if target.is_relative_to(DOCS) else ""
        if not target.exists() and key not in generated:
            broken.append(link)
        elif anchor:
            text = target.read_text() if target.exists() else generated[key]()
            if anchor not in anchors(text):
                broken.append(link)
    return broken


def test_links_lead_to_files_and_headings(page):
    assert broken_links(page, generated_pages()) == []


def test_a_broken_link_is_found(tmp_path):
    page = tmp_path / "a.md"
    page.write_text("# A b\n[x](gone.md) [y](#a-b) [z](#gone) ![p](p.png) `[not](code.md)`\n")
    assert broken_links(page, {}) == ["gone.md", "#gone", "p.png"]


def test_every_page_is_in_the_navigation():
    entries = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    named = set(re.findall(r"[\w/-]+\.md", str(entries)))
    written = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    assert named == written | set(generated_pages())


def test_the_site_asks_nobody_for_anything():
    """Fonts and scripts of others would make the pages unreadable offline."""
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    assert settings["theme"]["font"] is False and "offline" in settings["plugins"]
    (polyfill,) = settings["extra"]["polyfills"]
    assert "iframe-worker" in polyfill and (DOCS / polyfill).is_file()


def test_the_readme_is_short():
    assert len(README.read_text().splitlines()) <= 150
    assert "make demo" in README.read_text() and "make test" in README.read_text()


def test_commands_parse(page, capsys):
    for block in blocks(page):
        if block.language == "bash":
            for arguments in commands(block.text):
                assert_parses(arguments, capsys)
            for target in re.findall(r"^make (\w+)", block.text, re.MULTILINE):
                assert target in TARGETS


def test_a_wrong_command_is_found(capsys):
    (arguments,) = commands('X="a.yaml"\nretina doctor $X \\\n --no-such-option | less\n')
    assert arguments == ["doctor", "a.yaml", "--no-such-option"]
    with pytest.raises(Exception, match="no-such-option"):
        assert_parses(arguments, capsys)


def test_code_compiles_and_its_imports_exist(page):
    for block in blocks(page):
        if block.language == "python":
            tree = ast.parse(block.text, name(page))
            imports = [x for x in tree.body if isinstance(x, ast.Import | ast.ImportFrom)]
            exec(compile(ast.Module(imports, []), name(page), "exec"), {})
        elif block.language == "yaml":
            assert yaml.safe_load(block.text)


def test_keys_exist(page):
    cfg = add_retina_config(get_cfg())
    for key in set(KEY.findall(page.read_text())) - SHOWN_WITH_ITS_ERROR:
        if key.startswith(OF_EXAMPLES) or key.endswith((".yaml", ".json")):
            continue
        node = cfg
        for part in key.removesuffix(".*").split("."):
            assert part in node, key
            node = node[part]


def test_all_components_are_listed():
    text = (DOCS / "reference" / "components.md").read_text()
    text += (DOCS / "how-to" / "backbones.md").read_text()
    for role in ROLES:
        for component, class_ in role:
            if class_.__module__.startswith("retina_plugin."):
                names = {
                    component,
                    *(alias for alias, of in role._aliases.items() if of == component),
                }
                assert any(f"`{x}`" in text for x in names), component


def python_block(page: Path, word: str) -> str:
    return next(x.text for x in blocks(page) if x.language == "python" and word in x.text)


STOCK = """
MODEL:
  META_ARCHITECTURE: RetinaNet
  BACKBONE: {NAME: build_retinanet_resnet_fpn_backbone}
  RESNETS: {OUT_FEATURES: [res3, res4, res5]}
  FPN: {IN_FEATURES: [res3, res4, res5]}
VERSION: 2
"""


@pytest.mark.parametrize("page", [README, DOCS / "how-to" / "drop-in.md"], ids=name)
def test_the_changed_line_makes_a_stock_config_ours(tmp_path, monkeypatch, page):
    monkeypatch.chdir(tmp_path)
    Path("retinanet_R_50_FPN_1x.yaml").write_text(STOCK)
    Path("mine.yaml").write_text(next(x.text for x in blocks(page) if x.language == "yaml"))
    ours = load_config("mine.yaml").MODEL
    assert ours.META_ARCHITECTURE == "FocalRetinaNet" and ours.RESNETS.OUT_FEATURES[0] == "res3"
    names = {}
    code = python_block(page, "merge_from_file")
    exec(code.replace("model = ", "cfg.MODEL.DEVICE = 'cpu'; model = "), names)
    assert type(names["model"]).__name__ == "FocalRetinaNet"


def test_the_new_loss_is_short_and_trains(tmp_path):
    code = python_block(README, "LogCoshLoss")
    assert len([line for line in code.splitlines() if line.strip()]) <= 15
    (tmp_path / "log_cosh_loss.py").write_text(code)
    data = prepare_digits(tmp_path / "digits", train_images=4, val_images=2)
    (arguments,) = (
        words for x in blocks(README) if "log_cosh" in x.text for words in commands(x.text)
    )
    arguments = [{"configs/digits.yaml": "quick"}.get(x, x) for x in arguments]
    arguments += ["OUTPUT_DIR", "out", "SOLVER.MAX_ITER", "2"]
    for split, part in (("TRAIN", "train"), ("TEST", "val")):
        arguments += [f"DATASETS.COCO.{split}.JSON", str(data[part].json)]
        arguments += [f"DATASETS.COCO.{split}.IMAGES", str(data[part].images)]
    command = [sys.executable, "-W", "ignore", "-m", "retina_plugin.cli", *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    saved = (tmp_path / "out" / "config.yaml").read_text()
    assert re.search(r"LogCoshLoss:\s+SCALE: 2\.0", saved)
    assert "loss_box_reg" in (tmp_path / "out" / "metrics.json").read_text()
