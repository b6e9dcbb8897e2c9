"""`make setup` on a small checkout whose packages are tiny wheels made here: no network, no torch.

The interpreter is an empty venv's, so that no Detectron2 of this machine gets in the way.
"""

import json
import os
import shutil
import signal
import sys
import time
import zipfile
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

import pytest
from setup_checkout import PATIENCE, TOOLS, Checkout, modules, write_wheel

sys.path.insert(0, str(TOOLS))
from commands import explain
from half_installed import find_half_installed, remove_half_installed
from setup_env import Setup, State


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    """A checkout that was set up; each test leaves it set up."""
    checkout = Checkout(tmp_path_factory.mktemp("test") / "a folder")
    output = checkout.make()
    stages = [line.split()[2] for line in output.splitlines() if ": done in" in line]
    assert stages == ["venv:", "packages:", "detectron2:", "data:", "check:"]
    assert "Detectron2 fake" in output
    yield checkout
    assert "up to date" in checkout.make()


def test_second_run_does_nothing_and_takes_no_time(checkout: Checkout) -> None:
    before = checkout.state
    begun = time.monotonic()
    output = checkout.make()
    assert time.monotonic() - begun < 10  # a second, where nothing else runs
    assert output.splitlines() == [f"[setup] {checkout.venv} is up to date"]
    assert checkout.state == before


def test_only_the_stages_run_whose_files_changed(checkout: Checkout) -> None:
    file = checkout.root / "requirements" / "data.txt"
    file.write_text(file.read_text() + "# a comment\n")
    output = checkout.make()
    assert "1/2 data: done" in output
    assert "2/2 check: done" in output


def test_activated_environment_and_no_named_python_go_on_with_the_maker(checkout: Checkout) -> None:
    assert "up to date" in checkout.make("setup", f"PYTHON={checkout.venv}/bin/python")
    assert "up to date" in checkout.make("setup")
    assert checkout.state["interpreter"] == str(checkout.bare_python)


def test_what_a_killed_pip_leaves_is_installed_again(checkout: Checkout) -> None:
    packages = checkout.site_packages
    (packages / "torch" / "__init__.py").unlink()
    (packages / "deepforest-1.0.dist-info" / "RECORD").unlink()
    shutil.rmtree(packages / "detectron2")
    (packages / "~orch").mkdir()
    checkout.forget_that_complete()
    output = checkout.make()
    assert "the last set-up did not finish" in output
    assert (packages / "torch" / "__init__.py").is_file()
    assert (packages / "deepforest-1.0.dist-info" / "RECORD").is_file()
    assert (packages / "detectron2" / "engine").is_dir()
    assert not (packages / "~orch").exists()


def test_what_someone_uninstalled_comes_back(checkout: Checkout) -> None:
    info = checkout.site_packages / "deepforest-1.0.dist-info"
    shutil.rmtree(info)
    assert f"gone: {info.name}" in checkout.make()
    assert info.is_dir()


def test_killed_set_up_heals(checkout: Checkout) -> None:
    process = checkout.hang_in_packages()
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not checkout.state["complete"]
    checkout.release()
    output = checkout.make()
    assert "the last set-up did not finish" in output
    assert checkout.state["complete"]


def test_set_up_killed_while_it_makes_the_environment_heals(checkout: Checkout) -> None:
    state = json.dumps(
        {"interpreter": str(checkout.bare_python)}
    )  # what is written before that begins
    (checkout.venv / ".setup" / "state.json").write_text(state)
    shutil.rmtree(checkout.site_packages / "pip")
    (checkout.venv / "bin" / "python").unlink()
    assert "venv: done" in checkout.make()


def test_damaged_pip_means_a_new_environment(tmp_path: Path) -> None:
    setup = Setup(tmp_path)
    setup.site_packages.mkdir(parents=True)
    write_wheel(tmp_path, "pip", {"pip/__init__.py": ""})
    with zipfile.ZipFile(tmp_path / "pip-1.0-py3-none-any.whl") as wheel:
        wheel.extractall(setup.site_packages)
    setup.state = State(interpreter="python", done={"venv": "a", "data": "b"})
    setup.repair()  # pip-1.0.dist-info has no INSTALLER
    assert setup.state == State()


def test_second_set_up_waits_even_for_the_pip_of_a_killed_one(checkout: Checkout) -> None:
    first = checkout.hang_in_packages()
    first.kill()  # and not its pip
    first.wait(timeout=PATIENCE)
    second = checkout.start()
    assert "waiting" in second.stdout.readline()
    assert second.poll() is None
    checkout.release()
    assert "is ready" in second.communicate(timeout=PATIENCE)[0]
    first.communicate()


def test_wrong_hash_is_named_and_mends_with_the_file(checkout: Checkout) -> None:
    file = checkout.root / "requirements" / "detectron2.txt"
    right = file.read_text()
    file.write_text(right.replace(right.split("sha256:")[1][:8], "00000000"))
    output = checkout.make("setup", status=1)
    error = next(line for line in output.splitlines() if "ERROR: stage" in line)
    assert "stage 'detectron2' failed" in error
    assert "sha256 differs" in error
    assert str(checkout.venv / "setup.log") in error
    file.write_text(right)
    assert "is ready" in checkout.make()


def test_missing_package_is_an_error_with_a_cause(checkout: Checkout) -> None:
    wheel = checkout.wheels / "torch-2.9.0-py3-none-any.whl"
    backend = checkout.root / "backend.py"
    text = backend.read_text()
    backend.write_text(text.replace("torch==2.9.0", "torch==3.0"))
    checkout.write("setup.py", f"# {time.monotonic()}")
    output = checkout.make("setup", status=1)
    assert wheel.exists()
    assert "stage 'packages' failed: the package named above has no release" in output
    backend.write_text(text)
    assert "is ready" in checkout.make()


def test_environment_that_someone_else_made_is_left_alone(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path / "checkout")
    (checkout.venv / "bin").mkdir(parents=True)
    for target in ("setup", "clean"):
        output = checkout.make(target, f"PYTHON={checkout.bare_python}", status=1)
        assert "leaves it alone" in output
    assert (checkout.venv / "bin").is_dir()


def test_clean_removes_the_environment(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path / "checkout")
    (checkout.venv / ".setup").mkdir(parents=True)
    (checkout.root / ".venv.discarded-1").mkdir()
    checkout.make("clean", f"PYTHON={checkout.bare_python}")
    assert {entry.name for entry in checkout.root.glob(".venv*")} == {".venv.lock"}


def test_detectron2_of_the_interpreter_is_kept_with_its_torch(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path / "checkout")
    packages = next((checkout.root / "bare").glob("lib/python*/site-packages"))
    clone = tmp_path / "clone"  # as of an editable install: only a .pth file tells of it
    with zipfile.ZipFile(checkout.wheels / "sal_detectron2-1.0-py3-none-any.whl") as wheel:
        wheel.extractall(clone)
    shutil.rmtree(clone / "sal_detectron2-1.0.dist-info")
    (packages / "clone.pth").write_text(str(clone))
    with zipfile.ZipFile(checkout.wheels / "torch-2.9.0-py3-none-any.whl") as wheel:
        wheel.extractall(packages)
    newer = modules("torch")
    write_wheel(checkout.wheels, "torch", newer, version="2.9.1")
    output = checkout.make()
    assert f"kept: {clone}/detectron2/__init__.py" in output
    assert f"Detectron2 fake ({clone}/detectron2/__init__.py)" in output
    assert not list(checkout.site_packages.glob("torch*"))
    assert not list(checkout.site_packages.glob("*detectron2*"))


def without_ensurepip(tmp_path: Path) -> tuple[Checkout, Path]:
    """A checkout whose interpreter is as Debian's without python3-venv, and its packages."""
    checkout = Checkout(tmp_path / "checkout")
    packages = next((checkout.root / "bare").glob("lib/python*/site-packages"))
    (packages / "no_ensurepip.pth").write_text("import sys; sys.modules['ensurepip'] = None\n")
    return checkout, packages


def test_without_ensurepip_the_interpreters_pip_does(tmp_path: Path) -> None:
    checkout, packages = without_ensurepip(tmp_path)
    files = {
        str(file): file.read_text()
        for file in distribution("pip").files or ()
        if file.parts[0] == "pip" and file.suffix in (".py", ".txt", ".pem")
    }
    version = distribution("pip").version
    wheel = checkout.wheels / write_wheel(checkout.wheels, "pip", files, version=version)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    (checkout.wheels / "torch-2.9.0-py3-none-any.whl").unlink()  # to stop after the first stage
    assert "1/5 venv: done" in checkout.make("setup", f"PYTHON={checkout.bare_python}", status=1)
    assert (checkout.site_packages / "pip" / "__main__.py").is_file()


def test_with_neither_ensurepip_nor_pip_the_error_says_what_to_install(tmp_path: Path) -> None:
    checkout, _ = without_ensurepip(tmp_path)
    output = checkout.make("setup", f"PYTHON={checkout.bare_python}", status=1)
    assert "it has no module 'ensurepip' and no pip" in output
    assert "apt-get install python3-venv" in output
    assert not checkout.venv.exists()


def test_broken_detectron2_of_the_interpreter_is_not_kept(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path / "checkout")
    packages = next((checkout.root / "bare").glob("lib/python*/site-packages"))
    (packages / "detectron2").mkdir()
    (packages / "detectron2" / "__init__.py").write_text("import a_missing_dependency")
    output = checkout.make()
    assert "cannot be imported (ModuleNotFoundError: No module named 'a_missing_dep" in output
    assert f"Detectron2 fake ({checkout.site_packages}" in output


@pytest.mark.parametrize("answer", ["Python 3.9.18", "not Python at all"])
def test_wrong_interpreter_gets_one_line(tmp_path: Path, answer: str) -> None:
    checkout = Checkout(tmp_path / "checkout")
    fake = tmp_path / "old"
    fake.write_text(f'#!/bin/sh\necho "{answer}"; exit 1\n')
    fake.chmod(0o755)
    for target in ("setup", "test", "demo"):
        output = checkout.make(target, f"PYTHON={fake}", status=2)
        lines = [line for line in output.splitlines() if not line.startswith("make: ***")]
        assert len(lines) == 1
        assert f"is not a Python >= 3.10 but: {answer}" in lines[0]
        assert f"make {target} PYTHON=" in lines[0]
    assert not checkout.venv.exists()


@pytest.mark.parametrize(
    ("log", "cause"),
    [
        ("OSError: [Errno 28] No space left on device", "disk is full"),
        ("WARNING: Retrying after connection broken by 'NewConnectionError'", "cannot be reached"),
        ("ERROR: ResolutionImpossible: for help visit", "contradict each other"),
        ("ERROR: Hashes are required in --require-hashes mode, but", "has no --hash"),
        ("2026-01-02T03:04:05,678 ERROR: something new\nbye", "ERROR: something new"),
        ("nothing that tells", "messages above"),
    ],
)
def test_cause_of_a_failure_is_told(log: str, cause: str) -> None:
    assert cause in explain(log)
    assert not explain(log).startswith("2026")


def test_only_half_installed_distributions_are_removed(tmp_path: Path) -> None:
    names = ("whole", "cut_short", "no_installer", "not_recorded")
    for name in names:
        write_wheel(tmp_path, name, {f"{name}/__init__.py": "", f"shared/{name}.py": ""})
        with zipfile.ZipFile(tmp_path / f"{name}-1.0-py3-none-any.whl") as wheel:
            wheel.extractall(tmp_path / "packages")
    packages = tmp_path / "packages"
    info = {name: packages / f"{name}-1.0.dist-info" for name in names}
    for folder in info.values():
        (folder / "INSTALLER").touch()
    (info["cut_short"] / "RECORD").write_text("cut_short/__init__.py,sha256=x,100\n")
    (info["no_installer"] / "INSTALLER").unlink()
    (info["not_recorded"] / "RECORD").unlink()
    assert find_half_installed(packages) == [info[name] for name in sorted(names[1:])]
    remove_half_installed(packages)
    assert {entry.name for entry in packages.iterdir()} == {"whole", "shared", info["whole"].name}
