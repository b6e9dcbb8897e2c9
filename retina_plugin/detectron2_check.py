"""Say how to get Detectron2 where it is missing: it has no release of its own to depend on."""

import importlib.util
import shlex
import sys
import sysconfig

# The wheel of requirements/detectron2.txt; a test compares them.
WHEEL = "sal-detectron2==0.7.2"


def require_detectron2() -> None:
    """Check that Detectron2 is installed, without importing it.

    An error inside an installed Detectron2 is left to its own import, which names the cause.

    Raises:
        ImportError: there is none; the message has the commands that install it.
    """
    spec = importlib.util.find_spec("detectron2")
    if spec is None:
        raise ImportError(_how_to_install("is not installed"), name="detectron2")
    if spec.origin is None:
        # A folder of that name on sys.path, such as a clone in the current folder, is taken for a
        # namespace package and then lacks all that one imports from it.
        folders = ", ".join(spec.submodule_search_locations or ())
        found = f"is not installed (the folder {folders} has its name, but is not the package)"
        raise ImportError(_how_to_install(found), name="detectron2")


def _how_to_install(found: str) -> str:
    """Return the message for this Python: quoted for a shell, so that it can be pasted."""
    pip = f"{shlex.quote(sys.executable)} -m pip install"
    site_packages = shlex.quote(sysconfig.get_path("purelib"))
    version = ".".join(map(str, sys.version_info[:3]))
    return (
        f"Detectron2 {found} for this Python ({version}, {sys.executable}), and retina_plugin is a "
        "plugin of it. Get it in one of these ways:\n"
        "  in a checkout of retina_plugin, with an environment of its own:\n"
        "    make setup\n"
        "  as a wheel (plain Python, all that RetinaNet needs; its requirements came with "
        "retina_plugin):\n"
        f"    {pip} --no-deps --only-binary=:all: --implementation cp --python-version 3.10 "
        f"--target {site_packages} {WHEEL}\n"
        "  from a clone of its source, with PyTorch installed and a C++ compiler:\n"
        f"    {pip} --no-build-isolation --editable /path/to/detectron2"
    )
