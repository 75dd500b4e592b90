"""Commands that make a model: pretrain, finetune, capsule."""

import argparse
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cdt_lite.cli.cells import screen_of, split_of, unlabelled_cells
from cdt_lite.errors import CDTError, CDTWarning
from cdt_lite.options import OF_A_RUN, STAGE

if TYPE_CHECKING:
    from anndata import AnnData

    from cdt_lite.data import SetSampler, TokenStore
    from cdt_lite.data.gene_sets import Sets
    from cdt_lite.model import Config
    from cdt_lite.training.checkpoint import Checkpoint


def pretrain(args: argparse.Namespace) -> int:
    """Pretrains on one or several files, whose panels may differ."""
    from cdt_lite.data import SetSampler, TokenStore, named_split
    from cdt_lite.training.capsule import pretraining_cells

    found, config = _settings(args)
    if args.store:
        return _from_store(args, found, config)
    screen = _training_screen(args, found, config)
    cells = screen[named_split(screen) == "train"].copy()
    if args.more is None:
        files = pretraining_cells(cells)
    else:
        files = [cells, *(unlabelled_cells(path, args, config.model.n_genes) for path in args.more)]
    checkpoint = found or _begun(args, config, *files)
    checkpoint.config = config
    stores = [TokenStore.from_adata(file, checkpoint.tokenizer, checkpoint.vocabulary) for file in files]
    return _train(checkpoint, SetSampler(stores, config.pretrain, "pretrain"), args)


def finetune(args: argparse.Namespace) -> int:
    """Fine-tunes on a screen's training side, from a pretrained checkpoint or from nothing."""
    from cdt_lite.data import CONTROL, SetSampler, TokenStore, named_split, sets_for
    from cdt_lite.report.tasks import places_of
    from cdt_lite.training.prior import give_gene_sets
    from cdt_lite.training.start import start_from

    if args.start and args.gene_vectors:
        raise CDTError("--start brings its own gene vectors: give --gene-vectors to the pretraining instead")
    found, config = _settings(args)
    if args.store:
        return _from_store(args, found, config)
    screen = _training_screen(args, found, config)
    side = named_split(screen)
    cells = screen[side == "train"].copy()
    checkpoint = start_from(found, cells) if found else _begun(args, config, cells)
    sets = sets_for(screen, args.gene_sets) if found and args.gene_sets else None
    if sets:
        give_gene_sets(checkpoint, sets, sorted(set(cells.obs["target_gene"]) - {CONTROL}))
    checkpoint.config = config
    checkpoint.card["held_out"] = sorted(set(places_of(screen[side == "held_out"])))
    targets = set(screen.obs["target_gene"]) - {CONTROL}
    checkpoint.vocabulary = checkpoint.vocabulary.extended(sorted(targets))
    store = TokenStore.from_adata(cells, checkpoint.tokenizer, checkpoint.vocabulary)
    return _train(checkpoint, SetSampler(store, config.finetune), args)


def _from_store(args: argparse.Namespace, found: "Checkpoint | None", config: "Config") -> int:
    """Trains from tokens on the disk, with the panel and the split that they were made with."""
    from cdt_lite.data import SetSampler, TokenStore
    from cdt_lite.training.prior import give_gene_sets
    from cdt_lite.training.runs import with_panel
    from cdt_lite.training.start import start_from

    if split_of(args) or args.n_top_genes:
        raise CDTError("--store brings its own split and panel: give --unseen, --hold-out, --split-key and "
                       "--n-top-genes to cdt-lite tokenize")
    if getattr(args, "more", None) is not None:
        raise CDTError("--store holds all cells to train on: leave out --more, or give it to cdt-lite tokenize")
    store = TokenStore.open(args.store)
    if found is None:
        config = with_panel(config, len(store.panel))
    checkpoint = start_from(found, store) if found else _begun(args, config, store)
    checkpoint.config = config
    if args.command == "finetune":
        sets = _sets_of(store, args.gene_sets) if found and args.gene_sets else None
        if sets:
            give_gene_sets(checkpoint, sets, sorted(store.targets))
        checkpoint.card["held_out"] = store.about.get("held_out", [])
    data = SetSampler(store, getattr(config, args.command), args.command)
    return _train(checkpoint, data, args, store.about.get("split", {}))


def capsule(args: argparse.Namespace) -> int:
    """Makes the small trained model that the notebooks load, or checks one."""
    from cdt_lite.data import sets_for
    from cdt_lite.terminal import with_bar
    from cdt_lite.training.capsule import make_capsule, open_capsule, save_capsule
    from cdt_lite.training.checkpoint import Checkpoint

    if args.check:
        found = Checkpoint.load(args.check)
        print(json.dumps({key: value for key, value in found.card.items() if key != "curves"}, indent=1))
        print(f"{args.check}: whole; {len(found.vocabulary)} genes, {len(found.trained_targets)} trained targets")
        return 0
    config = config_of(args)
    screen = screen_of(args)
    folder = open_capsule(screen, args.preset, args.out, args.overwrite)
    sets = sets_for(screen, _asked_sets(args, config))
    n = (None, None) if args.epochs else (args.pretrain_steps, args.finetune_steps)
    made: list[Checkpoint] = []

    def progress() -> Iterator[Any]:
        for item in make_capsule(screen, config, gene_sets=sets, seed=args.seed, pretrain_steps=n[0],
                                 finetune_steps=n[1]):
            if isinstance(item, Checkpoint):
                made.append(item)
            else:
                yield item

    for _ in with_bar(progress(), "capsule"):
        pass
    made[0].card["command"] = args.typed
    save_capsule(made[0], folder)
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"{folder}: {size:,} bytes, {made[0].card['seconds']} s")
    return 0


def config_of(args: argparse.Namespace, found: "Checkpoint | None" = None,
              stages: Sequence[str] = ("pretrain", "finetune")) -> "Config":
    """The preset, or a checkpoint's configuration, with what the command line changes."""
    from cdt_lite.model.config import get_preset
    from cdt_lite.training.runs import with_panel, with_settings

    config = found.config if found else get_preset(args.preset or "lite")
    config = with_panel(config, getattr(args, "n_top_genes", None))
    return with_settings(config, stages, {name: getattr(args, name, None) for name in STAGE})


def _settings(args: argparse.Namespace) -> "tuple[Checkpoint | None, Config]":
    """The checkpoint that a stage goes on with or starts from, if any, and the stage's configuration."""
    from cdt_lite.training.checkpoint import Checkpoint
    from cdt_lite.training.runs import resumed

    found = None
    if args.resume:
        found = resumed(args.out, args.command, {name: getattr(args, name) for name in OF_A_RUN})
        print(f"resuming {found.stage} at step {found.step} of {found.card.get('n_steps', '?')}")
    elif getattr(args, "start", None):
        found = Checkpoint.load(args.start)
    return found, config_of(args, found, [args.command])


def _training_screen(args: argparse.Namespace, found: "Checkpoint | None", config: "Config") -> "AnnData":
    """The screen to train on: a run that goes on has its genes and its split, any other chooses them."""
    if found and args.resume:
        return screen_of(args, split_of(args, found), found.panel)
    split = split_of(args)
    if found and found.card.get("split", {}) != split:
        warnings.warn(f"{args.start} was trained with another split ({found.card.get('split') or 'by rule'}): cells "
                      "that are withheld now may have been seen by it", CDTWarning, stacklevel=2)
    genes = found.panel if found and found.model.fixed_panel else ()
    return screen_of(args, split, genes, config.model.n_genes)


def _sets_of(cells: "AnnData | TokenStore", asked: str | None) -> "Sets | None":
    """Gene sets for cells, or for tokens of which only their screen's facts are left."""
    from anndata import AnnData

    from cdt_lite.data import TokenStore, sets_for

    return sets_for(AnnData(uns={"screen": dict(cells.about)}) if isinstance(cells, TokenStore) else cells, asked)


def _begun(args: argparse.Namespace, config: "Config", *files: "AnnData | TokenStore") -> "Checkpoint":
    """A new model for these cells."""
    from cdt_lite.training.gene_vectors import read_gene_vectors
    from cdt_lite.training.start import start

    vectors = read_gene_vectors(args.gene_vectors) if args.gene_vectors else None
    sets = _sets_of(files[0], _asked_sets(args, config))
    return start(config, *files, gene_vectors=vectors, gene_sets=sets, seed=args.seed or 0)


def _asked_sets(args: argparse.Namespace, config: "Config") -> str | None:
    """The gene sets that are asked for; a preset that begins with random gene vectors is told nothing unasked."""
    return args.gene_sets or ("none" if config.gene_vectors == "random" else None)


def _train(checkpoint: "Checkpoint", data: "SetSampler", args: argparse.Namespace,
           split: Mapping[str, Any] | None = None) -> int:
    from cdt_lite.terminal import memory_wanted, with_bar
    from cdt_lite.training.train import train

    def say(estimate: str) -> None:
        memory = memory_wanted(checkpoint.model)
        print(f"{len(checkpoint.panel):,} genes, {estimate}; memory {memory:.1f} GB", flush=True)

    if not args.resume:
        checkpoint.card["split"] = split_of(args) if split is None else dict(split)
    length = checkpoint.card.get("n_steps") if args.resume else args.steps
    steps = train(checkpoint, data, steps=length, out=args.out, overwrite=args.overwrite, device=args.device, say=say,
                  shard=args.shard)
    try:
        for _ in with_bar(steps):
            pass
    except KeyboardInterrupt:
        steps.close()  # saves, if the interrupt came while the caller had the turn
        print(f"\nat step {checkpoint.step}; the state is in {args.out}. Go on with the same command and --resume")
        raise
    print(f"{args.out}: {checkpoint.stage}, {checkpoint.step} steps")
    return 0
