"""Hooks of `make docs` (mkdocs.yml): pages made from the package and from files at the root."""

import re
import sys
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(Path(__file__).parent), str(ROOT)]

from docs_reference import GENERATED  # noqa: E402

LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    for path, make in GENERATED.items():
        files.append(File.generated(config, path, content=make()))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Show links to files outside ``docs/`` as their text: the site does not hold those files."""
    folder = PurePosixPath(page.file.src_uri).parent

    def replace(link: re.Match) -> str:
        return link[1] if leaves_docs(folder, link[2]) else link[0]

    return LINK.sub(replace, markdown)


def leaves_docs(folder: PurePosixPath, target: str) -> bool:
    """Whether a relative link of a page in ``folder`` points outside ``docs/``."""
    if re.match(r"[a-z]+:|#|/", target):
        return False
    depth = len(folder.parts)
    for part in PurePosixPath(target).parts:
        depth += -1 if part == ".." else 1
        if depth < 0:
            return True
    return False
