"""The reference page of the config keys, in Markdown."""

from __future__ import annotations

from retina_plugin.config.explain import Explanation, explain_all
from retina_plugin.registry import ROLES

HEAD = """\
# Config keys

All keys that have an effect on a RetinaNet, with their defaults. `retina config KEY` says the same
of one key, and with `--config-file` which file of a config sets it. Keys marked with a star are
Detectron2's own.

This page is written by `make reference` from the tables in `retina_plugin/config/keys` and from
the docstrings of the components.
"""


def reference_page() -> str:
    """One table for each group of keys; a role's components are one group."""
    groups: dict[str, list[str]] = {}
    for key in explain_all():
        if key.has_effect:
            group = _group(key.key)
            groups.setdefault(group, []).append(_row(key, group))
    head = "| key | default | meaning |\n|---|---|---|\n"
    tables = [
        f"## {name or 'The run'}\n\n{head}" + "".join(groups[name]) for name in sorted(groups)
    ]
    return "\n".join([HEAD, *tables])


def _group(key: str) -> str:
    node = key.rpartition(".")[0]
    roles = [role.node for role in ROLES if f"{node}.".startswith(f"{role.node}.")]
    return max(roles, key=len) if roles else node


def _row(key: Explanation, group: str) -> str:
    star = "\\*" if key.owner == "Detectron2" else ""
    default = f"`{key.default!r}`"
    cells = [f"`{key.key.removeprefix(f'{group}.')}`{star}", default, key.text]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"
