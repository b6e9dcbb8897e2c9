"""Fitted anchors as a yaml that a config lists in its ``_BASE_``."""

from __future__ import annotations

import textwrap

import yaml

from retina_plugin.workbench.anchors.fitting import FittedAnchors
from retina_plugin.workbench.anchors.verdict import gain_text

_WIDTH = 98


def preset_text(fit: FittedAnchors, *, command: str, data: str) -> str:
    """The yaml's text: where the anchors come from, what they gain, plain numbers.

    Args:
        fit: the anchors.
        command: that made them.
        data: what they were fitted to, in words.
    """
    header = [f"Anchors fitted to {data}.", f"command:  {command}"]
    header.append(f"gain:     {gain_text(fit.whole, 'all images')}")
    if fit.held_out is not None:
        header.append(f"held out: {gain_text(fit.held_out, 'fitted to the other half')}")
    header.append("use:      last in _BASE_ of a config; keys of the config itself win over it")
    lines = [f"# {line}" for text in header for line in _wrapped(text)]
    values = dict(fit.anchors.values())
    generator = values["NAME"]
    lines += ["MODEL:", "  ANCHOR_GENERATOR:", f"    NAME: {generator}", "    SIZES:"]
    lines += [f"      - {_flow(level)}" for level in values["SIZES"]]
    lines += ["    ASPECT_RATIOS: # height / width"]
    lines += [f"      - {_flow(level)}" for level in values["ASPECT_RATIOS"]]
    if generator in values:
        lines += [f"    {generator}:"]
        lines += [f"      {key}: {value}" for key, value in values[generator].items()]
    return "\n".join([*lines, "VERSION: 2", ""])


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, subsequent_indent=" " * 10, break_on_hyphens=False)


def _flow(value: object) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=1e6).strip()
