"""Checkpoints, changed in header or weights, with hashes that no longer fit or that were made to fit again."""

import hashlib
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from helpers import tiny, toy_screen
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from cdt_lite.data.batches import SetSampler
from cdt_lite.data.store import TokenStore
from cdt_lite.training.checkpoint import Checkpoint, header_hash
from cdt_lite.training.predict import predict
from cdt_lite.training.start import start
from cdt_lite.training.train import train

from .verdict import Outcome, judge

SCREEN = toy_screen(n_cells=80, n_genes=8)
STRANGE = [0, -1, 1, 2, 3, 63, 10**6, 10**8, 10**30, 0.5, -0.0, 1e308, float("nan"), float("inf"), True, None, "", "G3",
           "cdt", "v1", "lite", "counts", [], ["G3"], ["G3", "G3"], [["G3"]], {}, {"a": 1}]
Files = dict[str, bytes]


@cache
def whole(half: bool, preset: str) -> Files:
    """A good checkpoint, or a capsule."""
    config = tiny(preset, n_genes=8)
    checkpoint = start(config, SCREEN)
    store = TokenStore.from_adata(SCREEN, checkpoint.tokenizer, checkpoint.vocabulary)
    for _ in train(checkpoint, SetSampler(store, config.finetune), steps=1):
        pass
    with TemporaryDirectory() as folder:
        checkpoint.save(folder, half=half)
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def case(rng: np.random.Generator, folder: Path) -> Outcome:
    """Changes a checkpoint, loads it and predicts with what was loaded."""
    before = whole(bool(rng.integers(2)), str(rng.choice(["lite", "lite", "v1"])))
    files = dict(before)
    way = str(rng.choice(list(WAYS)))
    try:
        done = WAYS[way](rng, files)
    except (ValueError, TypeError, OverflowError, RuntimeError) as error:
        done = f"as it was ({error})"
    for name, content in files.items():
        (folder / name).write_bytes(content)

    def act() -> tuple[Checkpoint, Any]:
        loaded = Checkpoint.load(folder)
        target = loaded.trained_targets[0] if loaded.trained_targets else "G3"
        return loaded, predict(loaded, SCREEN, target, n_cells=2)

    return judge(f"{way}: {done}", act, lambda made: _problem(before, files, *made))


def _problem(before: Files, files: Files, loaded: Checkpoint, cells: Any) -> str:
    counts = cells.X.toarray()
    if not np.isfinite(counts).all() or (counts < 0).any() or (counts % 1).any():
        return "cells without counts"
    written = json.loads(files["checkpoint.json"])
    for name, value in json.loads(json.dumps(loaded.header())).items():
        if not _holds(value, written[name]):
            return f"{name} is {value}, written was {written[name]}"
    if written != json.loads(before["checkpoint.json"]) and written["header_sha256"] != header_hash(written):
        return "taken, though its hash does not fit"
    blob = files[written["weights"]]
    if hashlib.sha256(blob).hexdigest() != written["sha256"]:
        return "taken, though the hash of its weights does not fit"
    state = loaded.model.state_dict()
    for name, value in load_tensors(blob).items():
        own = state.get(name.removeprefix("model."), value)
        if name.startswith("model.") and not torch.equal(own.double(), value.double()):
            return f"{name} is not what was written"
    return ""


def _holds(value: Any, written: Any) -> bool:
    """Whether all that was written is there; what older files do not know has its default."""
    if isinstance(value, dict) and isinstance(written, dict):
        return all(key in value and _holds(value[key], written[key]) for key in written)
    if isinstance(value, float):
        return value == float(written)  # a whole number may be written for it
    return bool(value == written)


def _weights(files: Files) -> str:
    return next(name for name in files if name.startswith("weights"))


def flip(rng: np.random.Generator, files: Files) -> str:
    """Flips bits of one file."""
    name = str(rng.choice(list(files)))
    content = bytearray(files[name])
    places = rng.integers(len(content), size=rng.integers(1, 5)).tolist()
    for place in places:
        content[place] ^= 1 << int(rng.integers(8))
    files[name] = bytes(content)
    return f"bits of {name} at {places}"


def cut(rng: np.random.Generator, files: Files) -> str:
    """Cuts a file, makes it longer, or removes it."""
    name = str(rng.choice(list(files)))
    keep = int(rng.integers(len(files[name])))
    way = int(rng.integers(3))
    if way == 0:
        del files[name]
    else:
        files[name] = files[name][:keep] if way == 1 else files[name] + files[name][:keep]
    return f"{name} {('removed', 'cut', 'longer')[way]} at {keep}"


def _change(rng: np.random.Generator, header: dict) -> str:
    """Changes one value, wherever it is."""
    node: Any = header
    path = []
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not path:
            keys = [key for key in keys if key not in ("sha256", "header_sha256", "weights")]
        key = keys[rng.integers(len(keys))]
        path.append(key)
        if not isinstance(node[key], dict | list) or not node[key] or rng.random() < 0.15:
            break
        node = node[key]
    value = STRANGE[rng.integers(len(STRANGE))]
    if rng.random() < 0.1 and isinstance(node, dict):
        del node[key]
        return f"{path} removed"
    if isinstance(node[key], int | float) and rng.random() < 0.4:
        value = node[key] * int(rng.choice([2, 10, -1, 1000])) + int(rng.integers(2))
    node[key] = value
    return f"{path} = {value}"


def value(rng: np.random.Generator, files: Files) -> str:
    """Changes a value of the header and leaves its hash."""
    header = json.loads(files["checkpoint.json"])
    done = _change(rng, header)
    files["checkpoint.json"] = json.dumps(header).encode()
    return done


def rehashed(rng: np.random.Generator, files: Files) -> str:
    """Changes a value of the header and its hash."""
    header = json.loads(files["checkpoint.json"])
    done = _change(rng, header)
    header["header_sha256"] = header_hash(header)
    files["checkpoint.json"] = json.dumps(header).encode()
    return done


def nested(rng: np.random.Generator, files: Files) -> str:
    """Replaces the header by brackets within brackets, or by no object."""
    depth = int(rng.choice([1, 100, 10**5]))
    text = str(rng.choice(["[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth, "null", "3", '""', ""]))
    files["checkpoint.json"] = text.encode()
    return text[:20]


def tensor(rng: np.random.Generator, files: Files) -> str:
    """Changes a tensor, and the hashes so that they fit."""
    name = _weights(files)
    tensors = load_tensors(files.pop(name))
    key = str(rng.choice(list(tensors)))
    old = tensors[key]
    way = str(rng.choice(["value", "remove", "rename", "type", "shape", "longer"]))
    if way == "value" and old.numel():
        flat = old.clone().ravel()
        flat[int(rng.integers(len(flat)))] = STRANGE[rng.integers(14)]
        tensors[key] = flat.reshape(old.shape)
    elif way == "type":
        tensors[key] = old.to([torch.float16, torch.float64, torch.int32, torch.bool, torch.bfloat16][rng.integers(5)])
    elif way == "shape":
        tensors[key] = old.ravel().clone()
    elif way == "longer":
        tensors[key] = torch.cat([old, old]) if old.ndim else old[None]
    else:
        del tensors[key]
        if way == "rename":
            tensors[f"{key}x"] = old
    blob = save_tensors(tensors)
    header = json.loads(files["checkpoint.json"])
    header["sha256"] = hashlib.sha256(blob).hexdigest()
    header["weights"] = f"weights-{header['sha256'][:12]}.safetensors"
    header["header_sha256"] = header_hash(header)
    files |= {header["weights"]: blob, "checkpoint.json": json.dumps(header).encode()}
    return f"{key} {way}"


def blob(rng: np.random.Generator, files: Files) -> str:
    """Changes bytes of the weights, and the hashes so that they fit."""
    name = _weights(files)
    content = bytearray(files[name])
    places = rng.integers(len(content) if rng.random() < 0.5 else 3000, size=3).tolist()
    for place in places:
        content[place] ^= 1 << int(rng.integers(8))
    header = json.loads(files["checkpoint.json"])
    header["sha256"] = hashlib.sha256(content).hexdigest()
    header["header_sha256"] = header_hash(header)
    files |= {name: bytes(content), "checkpoint.json": json.dumps(header).encode()}
    return f"bits at {places}"


WAYS: dict[str, Callable[[np.random.Generator, Files], str]] = {
    "flip": flip, "cut": cut, "value": value, "rehashed": rehashed, "nested": nested, "tensor": tensor, "blob": blob}
