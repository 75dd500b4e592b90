"""Runs a command with no network but loopback, no mirror and an empty cache of data.

    python3 tools/offline.py COMMAND ...

Where this system can make a network namespace (Linux, mostly), the command runs in one. Elsewhere a guard in every
Python process refuses to connect anywhere else (tools/blocked), and CDT_LITE_OFFLINE says so to the package. Standard
library only.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

GUARD = Path(__file__).resolve().parent / "blocked"
UP = "ip link set lo up"


def answers(command: list[str]) -> bool:
    """Runs a command silently and says whether it succeeded."""
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        return False


def namespace(works=answers) -> list[str]:
    """The words that put a command into a namespace with loopback only, or none where that cannot be done."""
    for unshare in (["unshare", "-n"], ["unshare", "-r", "-n"]):  # as root; as anyone, where the system lets them
        if works([*unshare, "sh", "-c", UP]):
            return [*unshare, "sh", "-c", f'{UP} && exec "$@"', "offline"]
    return []


def variables(before: dict[str, str], cache: str, blocked: bool) -> dict[str, str]:
    """The environment of the command: an empty cache, no mirror, and the guard where there is no namespace."""
    after = {name: value for name, value in before.items() if name not in ("CDT_LITE_MIRROR", "CDT_LITE_DATA")}
    after["CDT_LITE_DATA"] = cache
    if not blocked:
        after["CDT_LITE_OFFLINE"] = "1"
        after["PYTHONPATH"] = os.pathsep.join(filter(None, [str(GUARD), before.get("PYTHONPATH", "")]))
    return after


def main(command: list[str]) -> int:
    """Runs the command and returns its exit status."""
    if not command:
        sys.exit(f"usage: {__doc__.splitlines()[2].strip()}")
    before = namespace()
    print("offline:", "every network interface but loopback is gone" if before else
          "no network namespace on this system; Python itself refuses to connect", flush=True)
    with tempfile.TemporaryDirectory() as cache:
        return subprocess.call([*before, *command], env=variables(dict(os.environ), cache, bool(before)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
