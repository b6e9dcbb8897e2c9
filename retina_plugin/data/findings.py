"""Findings of the checks before training, and the error that lists those that prevent it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

MAX_EXAMPLES = 5
# The fix for findings that a cleaned copy of the json removes; CONFIG is replaced by its path.
CLEAN = "retina doctor CONFIG --write-clean clean"

logger = logging.getLogger(__name__)


class DataError(ValueError):
    """The data, or the config keys that describe them, cannot be used.

    Attributes:
        findings: the individual errors, where they are known.
    """

    findings: tuple[Finding, ...] = ()


@dataclass
class Finding:
    """All occurrences of one kind of finding in one place.

    Attributes:
        level: ``logging.ERROR``, ``WARNING`` or ``INFO``.
        where: the config key, data set or file.
        what: what was found and, for a mistake, what was expected.
        advice: how to correct it, or how it is handled.
        count: the number of occurrences; 0 if it is not an item of a list.
        examples: the first few occurrences, with file and ids; not printed for information.
        why: the effect on training or evaluation.
        fix: config lines (``KEY: value``) or a command, ready to paste.
    """

    level: int
    where: str
    what: str
    advice: str = ""
    count: int = 0
    examples: list[str] = field(default_factory=list)
    why: str = ""
    fix: str = ""

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}"
        if self.count:
            text += f" ({self.count})"
        if self.count and self.level > logging.INFO:
            dots = "; ..." if self.count > len(self.examples) else ""
            text += f": {'; '.join(self.examples)}{dots}"
        then = [self.why, self.advice, f"Fix: {self.fix}" if self.fix else ""]
        return " ".join([f"{text}.", *filter(None, then)])


class Findings:
    """The findings of a check, grouped by kind and place."""

    def __init__(self) -> None:
        self._findings: dict[tuple[int, str, str], Finding] = {}

    def __iter__(self) -> Iterator[Finding]:
        return iter(self._findings.values())

    def add(
        self,
        level: int,
        where: str,
        what: str,
        advice: str = "",
        example: str | None = None,
        *,
        why: str = "",
        fix: str = "",
    ) -> None:
        """Add a finding, or an example to the existing finding of this kind."""
        finding = self._findings.setdefault(
            (level, where, what), Finding(level, where, what, advice, why=why, fix=fix)
        )
        if example is not None:
            finding.count += 1
            if finding.count <= MAX_EXAMPLES:
                finding.examples.append(example)

    def extend(self, others: Iterable[Finding], key: str = "") -> None:
        """Add other findings; ``key``, the config key that named their file, is prepended."""
        for other in others:
            where = f"{key}: {other.where}" if key else other.where
            self._findings[other.level, where, other.what] = replace(
                other, where=where, examples=list(other.examples)
            )

    def log(self) -> None:
        """Log warnings and information."""
        for finding in self:
            if finding.level < logging.ERROR:
                logger.log(finding.level, str(finding))

    def has_errors(self) -> bool:
        """Whether there is an error."""
        return any(finding.level >= logging.ERROR for finding in self)

    def raise_errors(self) -> None:
        """Raise if there is an error.

        Raises:
            DataError: lists every error.
        """
        errors = [finding for finding in self if finding.level >= logging.ERROR]
        if errors:
            lines = [f"{len(errors)} problem(s) in the data:", *map(str, errors)]
            error = DataError("\n".join(lines))
            error.findings = tuple(errors)
            raise error
