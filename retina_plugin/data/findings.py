"""What a check of data found, and the one error that lists all that forbids training."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

MAX_EXAMPLES = 5

logger = logging.getLogger(__name__)


class DataError(ValueError):
    """The data, or the keys that describe it, cannot be trained or evaluated on."""


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
    """

    level: int
    where: str
    what: str
    advice: str = ""
    count: int = 0
    examples: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}"
        if self.count:
            text += f" ({self.count})"
        if self.count and self.level > logging.INFO:
            more = "; ..." if self.count > len(self.examples) else ""
            text += f": {'; '.join(self.examples)}{more}"
        return f"{text}. {self.advice}".rstrip()


class Findings:
    """Findings of a check, those of the same kind and place as one with a count."""

    def __init__(self) -> None:
        self._findings: dict[tuple[int, str, str], Finding] = {}

    def __iter__(self) -> Iterator[Finding]:
        return iter(self._findings.values())

    def add(
        self, level: int, where: str, what: str, advice: str = "", example: str | None = None
    ) -> None:
        """Add a finding, or one more example to the finding of this kind."""
        finding = self._findings.setdefault(
            (level, where, what), Finding(level, where, what, advice)
        )
        if example is not None:
            finding.count += 1
            if finding.count <= MAX_EXAMPLES:
                finding.examples.append(example)

    def extend(self, others: Iterable[Finding], key: str) -> None:
        """Take over findings of a file, naming the config key that the file came by."""
        for other in others:
            where = f"{key}: {other.where}"
            self._findings[other.level, where, other.what] = Finding(
                other.level, where, other.what, other.advice, other.count, list(other.examples)
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
        errors = [str(finding) for finding in self if finding.level >= logging.ERROR]
        if errors:
            raise DataError("\n".join([f"{len(errors)} problem(s) in the data:", *errors]))
