"""Jinja templates to one HTML page that needs no other file."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

NONE = "–"
_MINUS = "−"


def render(template: str, **content: Any) -> str:
    """The page of a template in ``templates/``; texts in ``content`` are escaped."""
    return _environment().get_template(template).render(**content)


def write_page(output: Path, page: str) -> Path:
    """Write it as a whole or not at all; returns ``output``."""
    output.parent.mkdir(parents=True, exist_ok=True)
    part = output.with_name(f".{output.name}.part")
    try:
        part.write_text(page, encoding="utf-8")
        part.replace(output)
    finally:
        part.unlink(missing_ok=True)
    return output


def hundred(value: float | None, digits: int = 1) -> str:
    """A fraction as COCO's tables show it: 0.3737 is 37.4; a dash for what is undefined."""
    return NONE if _undefined(value) else f"{100 * value:.{digits}f}"


def signed_hundred(value: float | None, digits: int = 1) -> str:
    """A difference of fractions with its sign, 0 without one."""
    if _undefined(value):
        return NONE
    text = f"{100 * value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text.replace("-", _MINUS)


def plain(value: float | None, digits: int = 2) -> str:
    """A number with so many digits behind the point."""
    return NONE if _undefined(value) else f"{value:.{digits}f}"


def whole(value: int | None) -> str:
    """12,345."""
    return NONE if value is None else f"{value:,}"


def trend(value: float | None, *, less_is_better: bool = False) -> str:
    """The style of a difference: ``better``, ``worse`` or ``same`` at the digits that are shown."""
    if _undefined(value) or abs(value) < 0.0005:
        return "same"
    return "better" if (value > 0) != less_is_better else "worse"


def _undefined(value: float | None) -> bool:
    return value is None or not math.isfinite(value)


@cache
def _environment() -> Environment:
    loader = PackageLoader("retina_plugin.workbench.report")
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "hundred": hundred,
        "signed": signed_hundred,
        "plain": plain,
        "whole": whole,
        "trend": trend,
    }
    # the style and the script stand in the page itself, as they are
    environment.globals["verbatim"] = lambda name: Markup(loader.get_source(environment, name)[0])
    return environment
