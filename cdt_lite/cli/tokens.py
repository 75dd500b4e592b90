"""The command that makes tokens of cells, once, for training to read from the disk."""

import argparse

from cdt_lite.cli.cells import files_of
from cdt_lite.cli.training import config_of


def tokenize(args: argparse.Namespace) -> int:
    """Turns the training side of a screen into tokens on the disk, once: pretrain and finetune read them with --store.

    Counts of files are read block by block. What was stopped goes on after the last whole file with the same command.
    """
    from cdt_lite.data import Tokenizer, TokenStore, Vocabulary, fit_tokenizer
    from cdt_lite.training.checkpoint import Checkpoint

    found = Checkpoint.load(args.start) if args.start else None
    config = config_of(args, found, [])
    fixed = found.panel if found and found.model.fixed_panel else ()
    parts, targets, about = files_of(args, fixed, config.model.n_genes)
    panel = list(parts[0].var_names)
    if found and panel == found.panel:
        tokenizer = found.tokenizer
    else:
        bins = found.tokenizer.config if found else config.tokenizer
        fitted = fit_tokenizer(bins, parts)
        tokenizer = Tokenizer(bins, fitted.target_depth) if found else fitted
    known = found.vocabulary if found else Vocabulary(panel, config.model.n_total_genes)
    vocabulary = known.extended([*panel, *targets])

    def say(line: str) -> None:
        print(f"\r{args.out}: {line}", end="", flush=True)

    store = TokenStore.from_adata(parts, tokenizer, vocabulary, path=args.out, about=about, say=say)
    print(f"\r{args.out}: {len(store):,} cells x {len(panel):,} genes, {len(store.targets)} targets, "
          f"{store.tokens.nbytes / 1e9:.2g} GB, {tokenizer}")
    return 0
