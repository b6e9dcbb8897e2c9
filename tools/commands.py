"""Run a set-up's commands: keep a log, show that they live, say in a line why one failed."""

import os
import re
import subprocess
import time
from pathlib import Path

HEARTBEAT_SECONDS = 20
TIME_STAMP = re.compile(r"^\d{4}-\d\d-\d\dT[\d:,]+ ")  # of a line in pip's log

# Looked for in the log of a failed command, in this order; the first that matches is the cause.
CAUSES = (
    (
        "DO NOT MATCH THE HASHES",
        "a downloaded package is not the file that requirements/*.txt pins (its sha256 differs: "
        "'Expected' and 'Got' above), so it was not installed. Something between here and the "
        "registry altered it; if the pin was changed on purpose, change its --hash with it",
    ),
    (
        "Hashes are required in --require-hashes mode",
        "a line of requirements/*.txt has no --hash=sha256:... (above)",
    ),
    (
        r"No space left on device|\[Errno 28\]",
        "the disk is full: .venv takes about 6 GB with a CUDA build of torch, and 3 GB more while "
        "it downloads; pip's cache (`pip cache dir`) may take as much",
    ),
    (
        r"\[Errno 13\]|Permission denied|Read-only file system",
        "this user cannot write a file or folder named above",
    ),
    (
        "ERROR: ResolutionImpossible|conflicting dependencies",
        "requirements contradict each other (above). The torch beside an already installed "
        "Detectron2 is kept as it is; is that one too old, name another interpreter: PYTHON=",
    ),
    (
        "NewConnectionError|NameResolution|name resolution|Max retries exceeded|ReadTimeout|"
        "ConnectTimeout|ConnectionReset|ProxyError|SSLError|IncompleteRead|[Cc]onnection broken",
        "the package registry cannot be reached. Check the network and pip's settings "
        "(`pip config list`, HTTPS_PROXY)",
    ),
    (
        "No matching distribution found",
        "the package named above has no release for this Python and machine; another Python may "
        "have one: name it with PYTHON=",
    ),
)


class SetupError(Exception):
    """The set-up cannot go on; the message says why and what to do."""


def say(message: str) -> None:
    """Print a line of progress."""
    print(f"[setup] {message}", flush=True)


def explain(log: str) -> str:
    """Return the cause of a command's failure as far as the end of its log tells."""
    lines = log.splitlines()[-200:]  # what failed and was mended before is no cause
    for pattern, cause in CAUSES:
        if re.search(pattern, "\n".join(lines)):
            return cause
    errors = [line for line in lines if re.search("error", line, re.IGNORECASE)]
    return TIME_STAMP.sub("", errors[-1]).strip() if errors else "see the messages above"


class Commands:
    """Runs commands in one folder, with one log.

    Args:
        folder: Where the commands run.
        log: File to which the log is appended.
        temporary: Folder for the commands' temporary files. These may take several GB, for which
            /tmp is often too small, and what a killed pip leaves in /tmp stays there.
        held: File descriptors that commands inherit. They hold the lock of the set-up, so that a
            command that outlives a killed set-up keeps the next one waiting.
    """

    def __init__(
        self, *, folder: Path, log: Path, temporary: Path, held: tuple[int, ...] = ()
    ) -> None:
        self.folder = folder
        self.log = log
        self.temporary = temporary
        self.held = held

    def pip(self, python: Path | str, *arguments: str) -> None:
        """Run pip's `install` with its own progress bars; its detailed log goes to ours."""
        options = ("--disable-pip-version-check", "--no-input", "--log", str(self.log))
        self._run([str(python), "-m", "pip", "install", *options, *arguments], output=None)

    def quiet(self, *command: str) -> str:
        """Run a command whose output goes to the log alone; returns that output."""
        start = self._log_size()
        with self.log.open("ab") as output:
            self._run(list(command), output=output)
        return self._log_since(start)

    def _run(self, command: list[str], *, output: object) -> None:
        start, begun = self._log_size(), time.monotonic()
        # PYTHONPATH would show pip packages that are not in the environment; PIP_USER would install
        # beside it.
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        environment |= {"PIP_USER": "0", "TMPDIR": str(self.temporary)}
        self.temporary.mkdir(parents=True, exist_ok=True)
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT if output else None,
            pass_fds=self.held,
        )
        while True:
            try:
                status = process.wait(timeout=HEARTBEAT_SECONDS)
                break
            except subprocess.TimeoutExpired:
                say(f"still at work, {time.monotonic() - begun:.0f} s")
        if status != 0:
            if output:
                print(self._log_since(start), flush=True)
            raise SetupError(f"{explain(self._log_since(start))}. The log is in {self.log}")

    def _log_size(self) -> int:
        return self.log.stat().st_size if self.log.exists() else 0

    def _log_since(self, start: int) -> str:
        with self.log.open("rb") as file:
            file.seek(start)
            return file.read().decode("utf-8", errors="replace")
