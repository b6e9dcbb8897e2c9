"""What the inputs of ``retina predict`` stand for: image files and videos, each with a name."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

STDIN = "-"
IMAGES = frozenset(
    [
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".tif", ".tiff", ".webp"),
        *(".gif", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".avif", ".npy"),
    ]
)
VIDEOS = frozenset(
    [
        *(".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv"),
        *(".mts", ".m2ts", ".3gp", ".ogv"),
    ]
)


class Source(NamedTuple):
    """A file to look at.

    Attributes:
        path: as it was given.
        relative: the path below the folder that all inputs share, with ``/``.
        name: the same without its ending, unless another input would have the name as well.
    """

    path: Path
    relative: str
    name: str

    @property
    def is_video(self) -> bool:
        """By its ending."""
        return self.path.suffix.lower() in VIDEOS


class Sources(NamedTuple):
    """All files, and those within folders that are neither images nor videos by their ending."""

    files: list[Source]
    passed_over: list[Path]


def find_sources(inputs: Iterable[str], lines: Iterable[str] = ()) -> Sources:
    """Expand files, folders (and those in them), patterns and, for ``-``, lines of paths.

    A file that is named is taken whatever it is called, and if it is not there: the one who reads
    it says so. One that is meant twice is taken once.

    Args:
        inputs: in the order of the results.
        lines: of the standard input.

    Raises:
        ValueError: an input stands for no file at all.
    """
    paths: list[Path] = []
    passed_over: list[Path] = []
    for text in inputs:
        if text == STDIN:
            found = [Path(line.strip()) for line in lines if line.strip()]
            if not found:
                raise ValueError("- (the standard input) has no paths: give one a line")
        else:
            found = list(_expand(text, passed_over))
        paths += found
    unique: dict[str, Path] = {}
    for path in paths:
        # links stay links: where they lead to may have no telling name
        unique.setdefault(os.path.abspath(path), path)  # noqa: PTH100
    return Sources(_named(unique), list(dict.fromkeys(passed_over)))


def _expand(text: str, passed_over: list[Path]) -> Iterator[Path]:
    path = Path(text).expanduser()
    if path.is_dir():
        yield from _in_folder(path, passed_over)
    elif path.exists() or not glob.has_magic(text):
        yield path
    else:
        matches = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 (any root, and **)
        if not matches:
            raise ValueError(f"{text}: no file matches this pattern")
        for match in map(Path, matches):
            if match.is_dir():
                yield from _in_folder(match, passed_over)
            else:
                yield match


def _in_folder(folder: Path, passed_over: list[Path]) -> Iterator[Path]:
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and not any(part.startswith(".") for part in path.parts[len(folder.parts) :])
    )
    known = [path for path in files if path.suffix.lower() in IMAGES | VIDEOS]
    if not known:
        endings = " ".join(sorted(IMAGES | VIDEOS))
        raise ValueError(f"{folder}: there is no image or video in this folder ({endings})")
    passed_over += [path for path in files if path not in set(known)]
    yield from known


def _named(unique: dict[str, Path]) -> list[Source]:
    shared = Path(os.path.commonpath([str(Path(full).parent) for full in unique]))
    relative = [Path(full).relative_to(shared) for full in unique]
    stems = Counter(str(path.with_suffix("")).casefold() for path in relative)
    return [
        Source(
            path,
            inside.as_posix(),
            (
                inside
                if stems[str(inside.with_suffix("")).casefold()] > 1
                else inside.with_suffix("")
            ).as_posix(),
        )
        for path, inside in zip(unique.values(), relative, strict=True)
    ]
