"""A small record of what has been solved: one JSON file, replaced whole so that it is never half-written."""

import json
import os
from contextlib import suppress
from pathlib import Path

from cdt_lite.errors import CDTError
from cdt_lite.files import locked, write_atomically

SCHEMA = 1
PATIENCE = 10.0  # seconds: another notebook of the same learner needs a few milliseconds
Record = dict[str, dict[str, int]]  # number -> {"passed": 0 or 1, "tries": n}


def folder() -> Path:
    """Returns where the record lies: CDT_LITE_PROGRESS, else output/ of the checkout, else the user's own folder.

    A checkout that a room shares can be read only, and is then no place for anybody's record.
    """
    if named := os.environ.get("CDT_LITE_PROGRESS"):
        return Path(named).expanduser()
    root = Path(__file__).resolve().parents[2]
    output = root / "output"
    place = output if output.exists() else root
    own = (root / "run.py").is_file() and os.access(place, os.W_OK)
    return output if own else Path.home() / ".cdt-lite"


def _read(path: Path) -> tuple[Record, str]:
    """Returns the record, and a line where it was unreadable: then it is set aside under another name, not deleted."""
    record: Record = {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema"] != SCHEMA:
            raise ValueError(f"schema {content['schema']}")
        for number, entry in content["exercises"].items():
            record[number] = {"passed": int(entry["passed"]), "tries": int(entry["tries"])}
    except FileNotFoundError:
        return {}, ""
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        aside = path.with_name("progress.unreadable.json")
        with suppress(OSError):  # where it cannot even be renamed, saving fails as well, and says so
            path.replace(aside)
        return {}, f"Your progress file was unreadable: kept as {aside.name}, a new one is begun."
    return record, ""


def note(number: str, passed: bool) -> tuple[set[str], str]:
    """Records one try; returns the numbers of what is solved so far, and a line where something went wrong.

    What was solved once stays solved. A folder that cannot be written costs the record, not the lesson.
    """
    try:
        path = folder() / "progress.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.parent, "progress", "a check", PATIENCE):
            return _add(path, number, passed)
    except (OSError, RuntimeError, CDTError) as error:  # RuntimeError: this user has no home
        trouble = f"Your progress could not be saved ({type(error).__name__}); the check itself is not affected."
        return {number} if passed else set(), trouble


def _add(path: Path, number: str, passed: bool) -> tuple[set[str], str]:
    """Reads the record, adds one try, writes it; meanwhile no other notebook may."""
    record, trouble = _read(path)
    entry = record.setdefault(number, {"passed": 0, "tries": 0})
    entry["tries"] += 1
    entry["passed"] = max(entry["passed"], int(passed))
    content = json.dumps({"schema": SCHEMA, "exercises": record}, indent=1, sort_keys=True)
    write_atomically(path, content.encode())
    return {name for name, each in record.items() if each["passed"]}, trouble
