"""Fills one folder with everything that a laptop needs without a network: wheels, and the real screen's file.

Called by `python3 run.py wheels`. The wheels fit the system and the Python that made them: run it once on each kind of
laptop in the room. Standard library only.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools import environment  # noqa: E402

SEEDS = ["pip", "setuptools>=77", "wheel"]  # what building the project itself asks for


def fetch_wheels(folder: Path) -> None:
    """Downloads torch first, in the CPU build, then the rest of what the project needs.

    Args:
        folder: Where the wheels go.
    """
    python = Path(sys.executable)
    _, torch = environment.wanted_torch(python, cpu=True)
    wanted = [*torch, f".[{environment.EXTRAS}]", *SEEDS]
    problem = environment.pip(python, "download", "--dest", str(folder), "-c", "constraints.txt", *wanted)
    if problem:
        environment.stop(f"pip could not download everything. Its last lines:\n{problem}")
    for own in [*folder.glob("cdt_lite-*"), *folder.glob("cdt-lite-*")]:  # the project itself comes with its folder
        own.unlink()


def fetch_screen(folder: Path) -> str:
    """Puts the real screen's file into the folder, from the mirror or the network; returns what happened."""
    spec = json.loads((ROOT / "data" / "manifest.json").read_text(encoding="utf-8"))["papalexi2021"]
    target, mirror = folder / spec["file"], os.environ.get("CDT_LITE_MIRROR")
    if not target.exists():
        try:
            if mirror and (Path(mirror) / spec["file"]).exists():
                shutil.copyfile(Path(mirror) / spec["file"], target)
            else:
                with urllib.request.urlopen(spec["url"], timeout=60) as reply:
                    target.write_bytes(reply.read())
        except OSError as error:
            return f"the real cells could not be fetched ({error}): the room will use simulated ones"
    if hashlib.sha256(target.read_bytes()).hexdigest() != spec["sha256"]:
        target.unlink()
        return "the real cells' file was damaged and is removed: run the command again"
    return f"the real cells: {spec['file']}"


def main() -> int:
    """Fills the folder and says how to use it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", default=str(ROOT / "output" / "wheels"))
    folder = Path(parser.parse_args().folder).expanduser().absolute()
    folder.mkdir(parents=True, exist_ok=True)
    begin, kind = time.monotonic(), environment.kind()
    print(f"Wheels for {kind}, into {folder}", flush=True)
    fetch_wheels(folder)
    said = fetch_screen(folder)
    files = list(folder.glob("*.whl"))
    (folder / "MADE_FOR.txt").write_text(f"{kind}\n", encoding="utf-8")
    size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    print(f"{len(files)} wheels; {said}; {size:,.0f} MB in {time.monotonic() - begin:.0f} s", flush=True)
    print(f"On the laptop, with this project and that folder: python3 run.py lab --wheels {folder.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
