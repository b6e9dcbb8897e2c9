"""A diagnosis as text for a terminal, and as plain values for a script."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from logging import ERROR, INFO, WARNING
from pathlib import Path
from typing import Any

from retina_plugin.data.findings import Finding
from retina_plugin.workbench.doctor.doctor import Diagnosis

WORDS = {ERROR: "error", WARNING: "warning", INFO: "note"}
COLOURS = {ERROR: "red", WARNING: "yellow", INFO: "blue"}
FEW = 2  # examples, unless all are asked for
INDENT = 9

Paint = Callable[[str, str], str]  # text, colour -> text


def as_text(
    diagnosis: Diagnosis,
    *,
    verbose: bool = False,
    width: int = 100,
    paint: Paint = lambda text, _: text,
) -> str:
    """Errors, then warnings, then one line of what is fine.

    Args:
        diagnosis: of ``diagnose``.
        verbose: information too, and all examples that are kept.
        width: of the screen, in characters.
        paint: colours a text.
    """
    shown = [x for x in diagnosis.findings if verbose or x.level > INFO]
    lines = [line for x in shown for line in _lines(x, verbose, width, paint)]
    return "\n".join([*lines, *_summary(diagnosis, verbose, width, paint)])


def as_values(diagnosis: Diagnosis) -> dict[str, Any]:
    """For a json: counts, and each finding with its texts."""
    keys = ("where", "what", "count", "examples", "why", "advice", "fix")
    return {
        "errors": diagnosis.count(ERROR),
        "warnings": diagnosis.count(WARNING),
        "notes": diagnosis.count(INFO),
        "findings": [
            {"level": WORDS[x.level], **{key: getattr(x, key) for key in keys}}
            for x in diagnosis.findings
        ],
        "fine": diagnosis.fine,
        "seconds": round(diagnosis.seconds, 2),
    }


def _lines(finding: Finding, verbose: bool, width: int, paint: Paint) -> list[str]:
    what = f"{_short(finding.where)}: {_short(finding.what)}"
    what += f" ({finding.count})" if finding.count else ""
    few = FEW if finding.level > INFO else 1
    examples = finding.examples[: len(finding.examples) if verbose and few > 1 else few]
    if examples:
        dots = "; ..." if finding.count > len(examples) else ""
        what += f": {_short('; '.join(examples))}{dots}"
    word = WORDS[finding.level].ljust(INDENT)
    first, *rest = _wrapped(what, width)
    lines = [paint(word, COLOURS[finding.level]) + first, *(" " * INDENT + x for x in rest)]
    if finding.why:
        lines += _indented("why: ", finding.why, width)
    if finding.fix:
        # not broken into lines: it is pasted
        lines.append(" " * INDENT + "fix: " + paint(_short(finding.fix), "green"))
    if finding.advice:
        head = "fix: " if finding.level > INFO and not finding.fix else "     "
        lines += _indented(head, finding.advice, width)
    return lines


def _summary(diagnosis: Diagnosis, verbose: bool, width: int, paint: Paint) -> list[str]:
    errors, warnings, notes = (diagnosis.count(x) for x in (ERROR, WARNING, INFO))
    text = f"{_plural(errors, 'error')}, {_plural(warnings, 'warning')}"
    if notes and not verbose:
        text += f", {_plural(notes, 'note')} (--verbose)"
    fine = f" Fine: {', '.join(diagnosis.fine)}." if diagnosis.fine else ""
    colour = "red" if errors else "yellow" if warnings else "green"
    first, *rest = textwrap.wrap(f"{text}.{fine} {diagnosis.seconds:.1f} s.", width)
    return [paint(first, colour), *rest]


def _indented(head: str, text: str, width: int) -> list[str]:
    first, *rest = _wrapped(_short(text), width - len(head))
    under = " " * (INDENT + len(head))
    return [" " * INDENT + head + first, *(under + line for line in rest)]


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(
        text, max(40, width - INDENT), break_long_words=False, break_on_hyphens=False
    )


def _plural(count: int, word: str) -> str:
    return f"{count} {word}{'s' * (count != 1)}"


def _short(text: str) -> str:
    """Paths below the working folder without it."""
    return text.replace(f"{Path.cwd()}/", "")
