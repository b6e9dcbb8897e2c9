"""The folder of the config files that come with the package.

In a checkout they stand at its root, ``configs``; setup.py ships them as ``retina_plugin/configs``.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from retina_plugin.config.safe_yaml import ConfigFileError


def configs_folder() -> Path:
    """The folder that holds ``_base_``, ``modern``, ``lazy`` and the rest.

    Raises:
        ConfigFileError: neither an installed package nor a checkout has it.
    """
    package = Path(str(files("retina_plugin")))
    places = [package / "configs", package.parent / "configs"]
    for folder in places:
        if (folder / "_base_").is_dir():
            return folder
    raise ConfigFileError(
        f"the config files of retina_plugin are missing: neither {places[0]} nor {places[1]} has "
        "them. Install the package again: pip install --force-reinstall --no-deps retina-plugin"
    )
