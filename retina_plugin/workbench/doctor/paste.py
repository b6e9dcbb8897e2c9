"""Fixes as they are pasted behind ``train_net.py`` or ``retina doctor``: ``KEY=VALUE``."""

from __future__ import annotations

import shlex
from typing import Any


def pasted(key: str, value: Any) -> str:
    """``KEY=VALUE`` as one word of a shell."""
    if isinstance(value, tuple):
        value = list(value)
    return shlex.quote(f"{key}={str(value).replace(' ', '')}")
