"""RetinaNet's configs of Detectron2, found without its ``model_zoo``.

``detectron2.model_zoo`` imports ``pkg_resources``, which setuptools no longer has from version 81,
and a Detectron2 may be installed without the config files. For that case the package has files of
the same names and values.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from retina_plugin.config.packaged import configs_folder

PREFIX = "detectron2/configs/"  # of a `_BASE_`, as seen from beside a clone of Detectron2


def find_detectron2_config(base: str) -> Path | None:
    """The file that ``_BASE_: detectron2/configs/<name>`` means where there is no clone.

    Args:
        base: what ``_BASE_`` says, such as ``detectron2/configs/Base-RetinaNet.yaml``.

    Returns:
        The file of the installed Detectron2, else the package's own; None if neither has it.
    """
    if not base.startswith(PREFIX):
        return None
    spec = find_spec("detectron2")
    installed = [Path(folder) for folder in (spec and spec.submodule_search_locations) or ()]
    folders = [folder / "model_zoo" / "configs" for folder in installed]
    for folder in (*folders, configs_folder() / "_base_" / "detectron2"):
        path = folder / base.removeprefix(PREFIX)
        if path.is_file():
            return path
    return None
