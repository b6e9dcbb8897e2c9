"""A user's mistakes end a program with their message alone."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from detectron2.utils import comm

from retina_plugin.config.safe_yaml import ConfigFileError
from retina_plugin.data.findings import DataError
from retina_plugin.data.package_files import PackageFileError
from retina_plugin.engine.non_finite.guard import NonFiniteError
from retina_plugin.registry import UnknownNameError

USER_ERRORS = (ConfigFileError, DataError, NonFiniteError, PackageFileError, UnknownNameError)
SPEAK_AFTER = 10.0  # seconds that a worker leaves to the first one to say what is wrong


@contextmanager
def user_errors() -> Iterator[None]:
    """End the program with the message alone, and exit code 1, where the mistake is the user's.

    That is one of ``USER_ERRORS``, or a ``ValueError`` or ``ImportError`` that the plugin's own
    code raises: its components refuse impossible values so. Of several workers, all of which make
    the same mistake, the first one says it.
    """
    try:
        yield
    except Exception as error:
        if not isinstance(error, USER_ERRORS) and not _is_refusal(error):
            raise
        if comm.get_local_rank() > 0:
            time.sleep(SPEAK_AFTER)  # the launcher ends this worker as soon as the first one ends
        raise SystemExit(f"error: {error}") from None


def _is_refusal(error: Exception) -> bool:
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    module = frame.f_globals.get("__name__", "")
    return isinstance(error, ValueError | ImportError) and module.startswith("retina_plugin.")
