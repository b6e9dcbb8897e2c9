"""Docstrings as mkdocstrings reads them: reStructuredText's roles become plain code."""

import re

import griffe

ROLE = re.compile(r":(?:class|func|meth|mod|attr):`(~?)([\w.]+)`")


def to_markdown(text: str) -> str:
    """Return a docstring's text with roles as code and ``::`` before a block as ``:``.

    >>> to_markdown("See :func:`~fvcore.nn.giou_loss`::")
    'See `giou_loss`:'
    """
    text = ROLE.sub(lambda m: f"`{m[2].rpartition('.')[2] if m[1] else m[2]}`", text)
    text = re.sub(r"^::$", "", text, flags=re.MULTILINE)
    return re.sub(r"::$", ":", text, flags=re.MULTILINE)


class MarkdownDocstrings(griffe.Extension):
    """Apply :func:`to_markdown` to every docstring that is loaded."""

    def on_object(self, *, obj: griffe.Object, **_: object) -> None:
        """Griffe calls this for each object."""
        if obj.docstring is not None:
            obj.docstring.value = to_markdown(obj.docstring.value)
