"""A small record of what has been solved: one JSON file, replaced whole so that it is never half-written."""

import json
import os
import tempfile
from pathlib import Path

SCHEMA = 1


def folder() -> Path:
    """Returns where the record lies: CDT_LITE_PROGRESS, else output/ of the checkout, else the user's own folder."""
    if named := os.environ.get("CDT_LITE_PROGRESS"):
        return Path(named).expanduser()
    root = Path(__file__).resolve().parents[2]
    return root / "output" if (root / "run.py").is_file() else Path.home() / ".cdt-lite"


def read(path: Path) -> tuple[dict[str, dict[str, int]], str]:
    """Returns number -> {"passed": 0 or 1, "tries": n}, and a line for the learner if the file could not be read.

    An unreadable file is set aside under another name, never deleted.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["schema"] != SCHEMA:
            raise ValueError(f"schema {record['schema']}")
        return {str(k): {"passed": int(v["passed"]), "tries": int(v["tries"])}
                for k, v in record["exercises"].items()}, ""
    except FileNotFoundError:
        return {}, ""
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        aside = path.with_name("progress.unreadable.json")
        try:
            os.replace(path, aside)
        except OSError:
            return {}, f"Your progress file cannot be read ({type(error).__name__}) and is left as it is."
        return {}, f"Your progress file was unreadable: kept as {aside.name}, a new one is begun."


def note(number: str, passed: bool) -> tuple[int, str]:
    """Records one try; returns how many exercises are solved so far, and a line where something went wrong.

    What was solved once stays solved. A folder that cannot be written costs the record, not the lesson.
    """
    path = folder() / "progress.json"
    solved, said = read(path)
    entry = solved.setdefault(number, {"passed": 0, "tries": 0})
    entry["tries"] += 1
    entry["passed"] = max(entry["passed"], int(passed))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".progress", suffix=".json")
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            json.dump({"schema": SCHEMA, "exercises": solved}, out, indent=1, sort_keys=True)
        os.replace(name, path)
    except OSError as error:
        said = f"Your progress could not be saved ({type(error).__name__}); the check itself is not affected."
    return sum(each["passed"] for each in solved.values()), said
