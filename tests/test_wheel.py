"""The wheel holds what a training, a prediction and a report need, with no checkout in sight."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from support.block_data import as_overrides, write_blocks

ROOT = Path(__file__).parents[1]
PARTS = ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md")
SOURCES = (*PARTS, "retina_cli.py", "train_net.py", "retina_plugin", "configs")
OFFLINE = {"PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_CONFIG_FILE": os.devnull}
TINY = (
    *("MODEL.WEIGHTS", "", "MODEL.DEVICE", "cpu", "MODEL.RETINANET.NUM_CONVS", "1"),
    *("INPUT.MIN_SIZE_TRAIN", "(96,)", "INPUT.MIN_SIZE_TEST", "96"),
    *("SOLVER.MAX_ITER", "1", "SOLVER.IMS_PER_BATCH", "1", "SOLVER.BASE_LR", "0.0001"),
    *("DATALOADER.NUM_WORKERS", "0", "OUTPUT_DIR", "run"),
)


def run(*command, cwd, **environment):
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    command = [sys.executable, "-W", "ignore", *map(str, command)]
    done = subprocess.run(
        command, cwd=cwd, env={**kept, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def build_wheel(source, folder):
    """Build it from a folder or a source archive, with the setuptools of this environment."""
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", folder)
    run("-m", "pip", "wheel", *options, source, cwd=folder.parent, **OFFLINE)
    (wheel,) = folder.glob("retina_plugin-*.whl")
    return wheel


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A copy of what a checkout has, since building writes into it."""
    folder = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory):
    return build_wheel(source, tmp_path_factory.mktemp("wheel") / "dist")


@pytest.fixture(scope="module")
def site_packages(wheel, tmp_path_factory):
    """The wheel alone, installed where nothing else is; the rest is this environment's."""
    folder = tmp_path_factory.mktemp("installed")
    options = ("--quiet", "--no-deps", "--target", folder)
    run("-m", "pip", "install", *options, wheel, cwd=folder, **OFFLINE)
    return folder


def contents(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_wheel_has_every_file_of_the_package_and_every_config(source, wheel):
    expected = {"retina_cli.py"}
    for folder, place in (("retina_plugin", "retina_plugin"), ("configs", "retina_plugin/configs")):
        files = [path for path in (source / folder).rglob("*") if path.is_file()]
        expected |= {f"{place}/{path.relative_to(source / folder).as_posix()}" for path in files}
    found = {name for name in contents(wheel) if ".dist-info/" not in name}
    assert found == expected
    assert "retina_plugin/configs/_base_/recipes/atss.yaml" in found


def test_the_source_archive_builds_the_same_wheel(source, wheel, tmp_path):
    code = "from setuptools.build_meta import build_sdist; print(build_sdist('dist'))"
    name = run("-c", code, cwd=source).split()[-1]
    again = build_wheel(source / "dist" / name, tmp_path / "dist")
    first, second = contents(wheel), contents(again)
    assert first.keys() == second.keys()
    assert [file for file in first if first[file] != second[file]] == []
    with tarfile.open(source / "dist" / name) as archive:
        assert any(file.endswith("/train_net.py") for file in archive.getnames())


def test_a_training_a_prediction_and_a_report_from_the_installed_wheel(site_packages, tmp_path):
    splits = ("train", "test")
    data = [write_blocks(tmp_path / "data", split, 1, seed=i) for i, split in enumerate(splits)]
    empty = tmp_path / "empty"
    empty.mkdir()

    def python(*words):
        return run(*words, cwd=empty, PYTHONPATH=str(site_packages), OMP_NUM_THREADS="1")

    def retina(*words):
        return python(site_packages / "bin" / "retina", *words)

    code = "import retina_plugin, retina_cli as cli; print(retina_plugin.__file__, cli.__file__)"
    for path in python("-c", code).split():
        assert site_packages in Path(path).parents
    words = [*TINY, *as_overrides(*data)]
    assert "fine" in retina("doctor", "modern/atss_R_50_FPN_1x", *words).lower()
    retina("train", "modern/atss_R_50_FPN_1x", *words)
    assert (empty / "run" / "report.html").is_file()
    assert "FocalRetinaNet" in (empty / "run" / "config.yaml").read_text()
    found = retina(
        *("predict", "run/config.yaml", "run/model_final.pth", data[1].images),
        *("--out", "found", "--score-thresh", "0"),
    )
    assert "1 image in" in found and list((empty / "found").rglob("*.json"))
    retina("report", "run", "--out", "page.html")
    assert "<html" in (empty / "page.html").read_text()
