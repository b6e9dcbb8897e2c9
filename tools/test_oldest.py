"""Run tests on the lowest versions that setup.py allows: what `make test-oldest` does.

They are installed into an environment of their own, `.venv-oldest`, from requirements/oldest.txt,
which tests/test_oldest_versions.py compares with setup.py.
"""

import argparse
import hashlib
import subprocess
import sys
import sysconfig
from pathlib import Path

from commands import Commands, SetupError, say

ROOT = Path(__file__).resolve().parent.parent
FILES = [ROOT / "requirements" / name for name in ("oldest.txt", "detectron2.txt", "data.txt")]
# Every part of the package that calls a library; the trainings of the whole suite take an hour
TESTS = (
    *("tests/config", "tests/registry", "tests/modeling", "tests/checkpoint", "tests/data"),
    *("tests/evaluation", "tests/inference", "tests/engine/test_arguments.py"),
    *("tests/engine/test_setup.py", "tests/engine/writers", "tests/runs", "tests/workbench/report"),
    *("tests/cli/test_start.py", "tests/cli/test_verbs.py", "tests/cli/test_predict.py"),
    *("tests/test_bad_input.py", "tests/test_public.py", "tests/test_train_net_inputs.py"),
)


def set_up(venv: Path) -> Path:
    """Make the environment unless it is current; returns its Python."""
    python = venv / "bin" / "python"
    stamp = venv / "oldest.sha256"
    current = hashlib.sha256(b"".join(file.read_bytes() for file in FILES)).hexdigest()
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == current:
        return python
    say(f"installing the lowest versions into {venv} (6 GB)")
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    packages = sysconfig.get_path("purelib", "posix_prefix", {"base": str(venv)})
    commands = Commands(folder=ROOT, log=venv / "setup.log", temporary=venv / "tmp")
    oldest, detectron2, data = map(str, FILES)
    commands.pip(python, "-r", oldest)
    commands.pip(
        python,
        *("--no-deps", "--require-hashes", "-r", detectron2, "--only-binary=:all:"),
        *("--implementation", "cp", "--python-version", "3.10", "--target", packages, "--upgrade"),
    )
    commands.pip(python, "--no-deps", "--require-hashes", "--only-binary=:all:", "-r", data)
    stamp.write_text(current, encoding="utf-8")
    return python


def main() -> int:
    """Set up, run, say what was run; returns pytest's exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv-oldest", help="environment")
    parser.add_argument("tests", nargs="*", default=TESTS, help="instead of those of every part")
    arguments = parser.parse_args()
    try:
        python = set_up(arguments.venv.absolute())
    except (SetupError, subprocess.CalledProcessError) as error:
        print(f"[setup] ERROR: {error}", file=sys.stderr)
        return 1
    # pytest's -m puts ROOT on sys.path; the package itself is not installed there
    command = [str(python), "-m", "pytest", "-p", "no:cacheprovider", *arguments.tests]
    status = subprocess.run(command, cwd=ROOT, check=False).returncode
    freeze = [str(python), "-m", "pip", "list", "--format=freeze"]
    versions = subprocess.run(freeze, capture_output=True, text=True, check=True).stdout
    pins = [line.split("==")[0].lower() for line in FILES[0].read_text("utf-8").splitlines()]
    shown = [line for line in versions.splitlines() if line.split("==")[0].lower() in pins]
    say(f"ran {' '.join(arguments.tests)} on Python {sys.version.split()[0]}, {', '.join(shown)}")
    return status


if __name__ == "__main__":
    sys.exit(main())
