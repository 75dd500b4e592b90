"""Models that are shared: a checkpoint's folder with a model card, on disk or on the Hugging Face Hub."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from cdt_lite.errors import CDTError
from cdt_lite.files import in_markdown, named, write_atomically

if TYPE_CHECKING:
    from cdt_lite.training.checkpoint import Checkpoint

REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w.-]+")
FILES = ["README.md", "checkpoint.json", "weights-*.safetensors"]
SCORES = {
    "mae": "error (MAE)",
    "pearson_delta": "direction (Pearson)",
    "systema_pearson": "Systema's correlation",
    "discrimination_score_l1": "discrimination",
}


def from_pretrained(cls: type["Checkpoint"], name: str | Path, revision: str | None = None) -> "Checkpoint":
    """Loads a model from a folder or from a repository of the Hugging Face Hub.

    Args:
        cls: The class of checkpoints, whose method this is.
        name: A folder that `save` or `save_pretrained` wrote; where there is none of that name, a repository
            such as "someone/cdt-lite-papalexi2021".
        revision: Branch, tag or commit of a repository; None: its main branch.

    Raises:
        CDTError: The folder holds no model, the repository cannot be read, or the extra `hub` is not installed.
    """
    folder = named(name)
    if not folder.exists() and REPOSITORY.fullmatch(str(name)):
        folder = Path(_asked("snapshot_download", str(name), revision=revision, allow_patterns=FILES))
    elif revision is not None:
        raise CDTError(f"revision {revision!r} is one of a repository, but {name} is a folder: leave it out")
    return cls.load(folder)


def save_pretrained(checkpoint: "Checkpoint", folder: str | Path, *, half: bool = False, licence: str = "bsd-3-clause",
                    results: str | Path | None = None, repository: str | None = None) -> Path:
    """Writes a model without its training state, and the card that says what it is; returns the folder.

    Args:
        checkpoint: The model, whose method this is.
        folder: Where to write.
        half: In half precision, as the shipped capsules are: saved so, a capsule has the weights it was judged by.
        licence: Of the weights, in the Hub's spelling.
        results: A file of `cdt-lite evaluate --tasks`, such as figures/results.json, whose scores of exactly these
            weights go into the card.
        repository: Of the Hub, such as "someone/cdt-lite-papalexi2021": the folder is put there, too. Who may write
            is told by `hf auth login`.

    Raises:
        CDTError: The folder cannot be written, the results cannot be read, the repository cannot be written, or the
            extra `hub` is not installed.
    """
    if repository is not None and not REPOSITORY.fullmatch(repository):
        raise CDTError(f"a repository is named OWNER/NAME, not {repository!r}")
    entries = {} if results is None else _read(Path(results))
    folder = replace(checkpoint, training={}).save(folder, half)
    digest = json.loads((folder / "checkpoint.json").read_text(encoding="utf-8"))["sha256"]
    write_atomically(folder / "README.md", model_card(checkpoint, digest, licence, entries).encode())
    if repository is not None:
        _asked("create_repo", repository, exist_ok=True)
        _asked("upload_folder", repo_id=repository, folder_path=folder, allow_patterns=FILES)
    return folder


def model_card(checkpoint: "Checkpoint", digest: str, licence: str, entries: dict[str, Any]) -> str:
    """Returns a model's README in Markdown: what it is, how it is used, its data, its scores, its limits.

    Args:
        checkpoint: The model; its card tells data and limits.
        digest: The hash of its weights' file, by which `entries` know it.
        licence: Of the weights.
        entries: What `cdt-lite evaluate --tasks` wrote; may be empty.
    """
    card, config = checkpoint.card, checkpoint.config
    screen = card.get("screen", {})
    limits = card.get("limits", "Not recorded: judge it on held-out cells beside the baselines (`cdt-lite evaluate`).")
    return "\n".join([
        "---", f"license: {licence}", "library_name: cdt-lite", "tags:", "- single-cell", "- perturbation", "---", "",
        f"# CDT-lite, preset {config.name}: {in_markdown(screen.get('name', 'a screen of its owner'))}", "",
        "Predicts the counts of single cells after a perturbation, from control cells, the target gene and the sign.",
        f"Stage {checkpoint.stage}, {checkpoint.step:,} steps; {len(checkpoint.panel):,} genes, "
        f"{len(checkpoint.trained_targets):,} perturbed targets seen. Made by cdt_lite {card.get('cdt_lite', '?')}.",
        "", "## Use", "", "```python", "import cdt_lite as cdt", "",
        'checkpoint = cdt.Checkpoint.from_pretrained("this folder, or OWNER/NAME")',
        'predicted = cdt.predict(checkpoint, screen, "TARGET", sign=-1)', "```", "",
        "## Data", "", *_data(card), "",
        "## Scores", "", *_scores(digest, entries), "",
        "## Limits", "", limits, "",
    ])


def _data(card: dict[str, Any]) -> list[str]:
    """What the model was trained on, and what it never saw, as far as its card tells."""
    screen = card.get("screen", {})
    told = {name: screen[name] for name in ("name", "attribution", "licence", "sha256") if name in screen}
    if not told:
        told["name"] = "not recorded, a file of its owner"
    for side in ("unseen_targets", "held_out"):
        if card.get(side):
            told[f"never seen ({side.replace('_', ' ')})"] = ", ".join(card[side])
    return [f"- {name}: {in_markdown(str(value))}" for name, value in told.items()]


def _scores(digest: str, entries: dict[str, Any]) -> list[str]:
    """Tables of the tasks that exactly these weights were judged by, beside the baselines."""
    lines = []
    for entry in entries.values():
        if digest not in [model["sha256"] for model in entry["checkpoints"]]:
            continue
        for task, found in entry["tasks"].items():
            rows = found["groups"]["all"]["summary"]
            means = pd.DataFrame(rows).T.reindex(columns=list(SCORES)).map(_mean).rename(columns=SCORES)
            lines += [f"### {task}", "", means.to_markdown(disable_numparse=True), ""]
        lines.append(f"Made by `{entry['command']}`.")
    return lines or ["None are recorded for exactly these weights."]


def _mean(score: Any) -> str:
    """The first of mean, interval and number; nothing where a row lacks the score or it cannot be had."""
    return f"{score[0]:.3f}" if isinstance(score, list) and score[0] is not None else ""


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CDTError(f"{path} holds no results ({error}): name a file of cdt-lite evaluate --tasks") from error


def _asked(what: str, *words: Any, **options: Any) -> Any:
    """Asks the Hub; what can go wrong with a network, a name or a right becomes one line."""
    try:
        import huggingface_hub
    except ImportError as error:
        raise CDTError("huggingface_hub is not installed: pip install 'cdt-lite[hub]'") from error
    try:
        return getattr(huggingface_hub, what)(*words, **options)
    except Exception as error:  # the Hub's package and its network client raise many kinds
        raise CDTError(f"the Hub refused {what} ({type(error).__name__}: {error}): look at the repository's name, the "
                       "network, and who you are (hf auth whoami)") from error
