"""What a check of data found, and the one error that lists all that forbids training."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

MAX_EXAMPLES = 5
# The fix of what a cleaned copy of the json is free of; who knows the config names it for CONFIG.
CLEAN = "retina doctor CONFIG --write-clean clean"

logger = logging.getLogger(__name__)


class DataError(ValueError):
    """The data, or the keys that describe it, cannot be trained or evaluated on.

    Attributes:
        findings: the errors, where they are known one by one.
    """

    findings: tuple[Finding, ...] = ()


@dataclass
class Finding:
    """One kind of thing in one place.

    Attributes:
        level: ``logging.ERROR``, ``WARNING`` or ``INFO``.
        where: key, data set or file.
        what: what it is and, of a mistake, what was expected.
        advice: how to mend it, or what is done about it.
        count: how many there are; 0 for something that is no item of a list.
        examples: the first few, with file and ids; of mere information they are not printed.
        why: what it does to the training or the evaluation.
        fix: one or more config lines (``KEY: value``) or a command, to be pasted.
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
    """Findings of a check, those of the same kind and place as one with a count."""

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
        """Add a finding, or one more example to the finding of this kind."""
        finding = self._findings.setdefault(
            (level, where, what), Finding(level, where, what, advice, why=why, fix=fix)
        )
        if example is not None:
            finding.count += 1
            if finding.count <= MAX_EXAMPLES:
                finding.examples.append(example)

    def extend(self, others: Iterable[Finding], key: str = "") -> None:
        """Take over findings, of a file with the config key that the file came by."""
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
        """Whether anything forbids to go on."""
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
