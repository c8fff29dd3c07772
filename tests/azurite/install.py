"""Install Azurite, Microsoft's emulator of Azure Blob Storage, from npm: `python -m tests.azurite.install`.

It goes below this Python's environment, from the versions pinned in package-lock.json. `make test` runs this; the
fixture `azurite_server` does too, where that was not done. Idempotent.
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
from pathlib import Path

_HERE = Path(__file__).parent
_FILES = ("package.json", "package-lock.json")
_SECONDS = 600


class CannotInstall(Exception):
    """The message says what is missing."""


def azurite() -> list[str]:
    """Return the command that starts its blob service. Installs it first if need be. Raises CannotInstall."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise CannotInstall(
            "Azurite, the test server of Azure, needs node (20 or later) and npm: install them"
        )
    folder = Path(sys.prefix) / "azurite"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the workers of pytest-xdist all come here
        _install(npm, folder)
    return [node, str(folder / "node_modules/azurite/dist/src/blob/main.js"), "--disableTelemetry"]


def _install(npm: str, folder: Path) -> None:
    done = folder / "installed"
    if done.exists() and done.read_text() == (_HERE / _FILES[1]).read_text():
        return
    for name in _FILES:
        shutil.copyfile(_HERE / name, folder / name)
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_SECONDS)
    if ran.returncode != 0:
        raise CannotInstall(
            f"Azurite cannot be installed: npm ci ended with {ran.returncode}: {ran.stderr[-500:]}"
        )
    shutil.copyfile(_HERE / _FILES[1], done)


if __name__ == "__main__":
    try:
        azurite()
    except CannotInstall as missing:
        sys.stderr.write(f"{missing}. The tests against it will be skipped.\n")
