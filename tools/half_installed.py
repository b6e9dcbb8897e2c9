"""Find and remove what a killed pip left in a site-packages folder, so that pip installs it anew.

A distribution is whole when its `RECORD` and `INSTALLER` exist (pip writes them last) and every
file that `RECORD` lists is there in the size it states. Sizes and not hashes: a killed process
leaves a file missing or cut short, and hashing several GB would take minutes.
"""

import csv
import shutil
from collections.abc import Iterator
from pathlib import Path

# Entries of site-packages that belong to no distribution and yet to us.
OWN_ENTRIES = ("__pycache__",)


def recorded_files(dist_info: Path) -> Iterator[tuple[Path, int | None]]:
    """Yield each file that a distribution's RECORD lists and its size in bytes, if stated."""
    site_packages = dist_info.parent
    with (dist_info / "RECORD").open(encoding="utf-8", newline="") as file:
        for row in csv.reader(file):
            # pip does without the byte code that it lists, and so does Python
            if row and not row[0].endswith(".pyc"):
                size = int(row[2]) if len(row) > 2 and row[2] else None
                yield site_packages / row[0], size


def is_whole(dist_info: Path) -> bool:
    """Say whether pip finished installing the distribution and all its files are still there."""
    if not all((dist_info / name).is_file() for name in ("RECORD", "INSTALLER", "METADATA")):
        return False
    try:
        return all(
            file.is_file() and (size is None or file.stat().st_size == size)
            for file, size in recorded_files(dist_info)
        )
    except (ValueError, csv.Error):  # RECORD itself is cut short
        return False


def find_half_installed(site_packages: Path) -> list[Path]:
    """Return the `.dist-info` folders of the distributions that are not whole."""
    return [info for info in sorted(site_packages.glob("*.dist-info")) if not is_whole(info)]


def remove_half_installed(site_packages: Path, *, keep: tuple[str, ...] = ()) -> list[str]:
    """Remove what is not whole and what belongs to no whole distribution.

    Args:
        site_packages: The folder to repair.
        keep: Names of further entries of the folder to leave alone.

    Returns:
        Names of the entries of the folder that were removed.
    """
    removed = []
    for info in find_half_installed(site_packages):
        remove(info)
        removed.append(info.name)
    owned = {*OWN_ENTRIES, *keep}
    for info in site_packages.glob("*.dist-info"):
        owned.add(info.name)
        for file, _ in recorded_files(info):
            if file.is_relative_to(site_packages):
                owned.add(file.relative_to(site_packages).parts[0])
    for entry in sorted(site_packages.iterdir()):
        # also "~name", to which pip moves what it is about to replace
        if entry.name not in owned:
            remove(entry)
            removed.append(entry.name)
    return removed


def remove(path: Path) -> None:
    """Delete a file or a folder with all it holds."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
