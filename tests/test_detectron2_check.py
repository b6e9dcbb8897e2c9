"""What a user sees where Detectron2 is missing or broken, each case in a Python of its own."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from retina_plugin.detectron2_check import WHEEL, require_detectron2

ROOT = Path(__file__).parent.parent


def run_python(code: str, *options: str, first_on_path: Path = ROOT) -> str:
    """Run code that has to fail; returns what it prints to stderr."""
    paths = [str(first_on_path), str(ROOT)]
    result = subprocess.run(
        [sys.executable, *options, "-c", f"import sys; sys.path[:0] = {paths!r}; {code}"],
        capture_output=True,
        text=True,
        cwd=first_on_path,
    )
    assert result.returncode == 1, result.stderr
    return result.stderr


def test_here_it_is_found() -> None:
    require_detectron2()


def test_missing_detectron2_gets_one_message_that_says_how_to_get_it() -> None:
    # -I -S: the standard library alone, so neither Detectron2 nor torch
    message = run_python("import retina_plugin", "-I", "-S")
    assert "ImportError: Detectron2 is not installed for this Python" in message
    assert sys.version.split()[0] in message
    assert "make setup" in message
    assert "During handling" not in message
    assert "torch'" not in message  # not the error of an import that came before the check


def test_command_of_the_message_installs_the_pinned_wheel_into_this_python() -> None:
    message = run_python("import retina_plugin", "-I", "-S")
    line = next(line for line in message.splitlines() if WHEEL in line)
    command = shlex.split(line)
    assert Path(command[0]).samefile(sys.executable)
    assert command[1:4] == ["-m", "pip", "install"]
    assert {"--no-deps", "--only-binary=:all:"} <= set(command)
    assert command[command.index("--python-version") + 1] == "3.10"
    assert command[command.index("--target") + 1].endswith("-packages")
    assert command[-1] == WHEEL


def test_wheel_is_the_one_that_the_set_up_installs() -> None:
    lines = (ROOT / "requirements" / "detectron2.txt").read_text().splitlines()
    assert WHEEL in [line.split()[0] for line in lines if line and not line.startswith("#")]


def test_folder_with_the_name_is_not_taken_for_the_package(tmp_path: Path) -> None:
    (tmp_path / "detectron2" / "configs").mkdir(parents=True)  # as a clone's top folder
    message = run_python("import retina_plugin", "-I", "-S", first_on_path=tmp_path)
    assert "ImportError: Detectron2 is not installed" in message
    assert str(tmp_path / "detectron2") in message


@pytest.mark.parametrize("missing", ["pkg_resources", "fvcore"])
def test_broken_detectron2_shows_its_own_error(tmp_path: Path, missing: str) -> None:
    package = tmp_path / "detectron2"
    package.mkdir()
    error = f"raise ModuleNotFoundError(\"No module named '{missing}'\")"
    (package / "__init__.py").write_text(error)
    message = run_python("import retina_plugin", first_on_path=tmp_path)
    assert message.splitlines()[-1] == f"ModuleNotFoundError: No module named '{missing}'"
    assert "is not installed" not in message


def test_import_says_nothing() -> None:
    command = [sys.executable, "-c", "import retina_plugin"]
    assert subprocess.run(command, capture_output=True, text=True, cwd=ROOT).stderr == ""
