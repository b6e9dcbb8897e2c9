"""Report user errors as a message without a traceback."""

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
SPEAK_AFTER = 10.0  # seconds that a worker waits for the first one to report


@contextmanager
def user_errors() -> Iterator[None]:
    """Context manager that turns a user error into a message and exit code 1.

    User errors are ``USER_ERRORS``, and ``ValueError`` or ``ImportError`` that the plugin's own
    code raises for invalid values. With several workers, all of which encounter
    the same error, only the first one reports it.
    """
    try:
        yield
    except Exception as error:
        if not isinstance(error, USER_ERRORS) and not _is_refusal(error):
            raise
        if comm.get_local_rank() > 0:
            time.sleep(SPEAK_AFTER)  # the launcher ends this worker when the first one ends
        raise SystemExit(f"error: {error}") from None


def _is_refusal(error: Exception) -> bool:
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    module = frame.f_globals.get("__name__", "")
    return isinstance(error, ValueError | ImportError) and module.startswith("retina_plugin.")
