"""The cells that a command reads: which file, which split, which genes."""

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cdt_lite.errors import CDTError
from cdt_lite.options import SPLIT, columns_given, simulated_options

if TYPE_CHECKING:
    from anndata import AnnData

    from cdt_lite.training.checkpoint import Checkpoint


def screen_of(args: argparse.Namespace, split: Mapping[str, Any] | None = None, genes: Sequence[str] = (),
              n_top_genes: int = 2000, backed: bool = False) -> "AnnData":
    """The screen that a command reads: the simulated one with its options, a public one, or a file.

    Args:
        args: What was typed.
        split: From `split_of`; None or empty: the screen's own.
        genes: Those of a model, to keep what the screen has of them; none: a panel is chosen.
        n_top_genes: Its size.
        backed: Leave the counts of a file on the disk, where they are in X.
    """
    from cdt_lite.data import load_screen, simulate_screen
    from cdt_lite.data.panel import choose_panel, on_panel

    options = simulated_options(getattr(args, "simulated", ()))
    if args.screen == "simulated":
        screen = simulate_screen(**options)
    elif options:
        raise CDTError(f"{', '.join(options)}: for the simulated screen only, without effect on {args.screen}")
    else:
        screen = load_screen(args.screen, _columns(args), layer=args.layer, default_sign=args.default_sign,
                             n_top_genes=None, backed=backed and args.layer is None)
    if split:
        screen = _with_split(screen, **split)
    return on_panel(screen, genes) if genes else choose_panel(screen, n_top_genes)


def files_of(args: argparse.Namespace, genes: Sequence[str], n_top_genes: int
             ) -> tuple[list["AnnData"], list[str], dict[str, Any]]:
    """The training sides of a screen that is in one file or several, their counts on the disk.

    They have one split, as if they were one file, and one panel, chosen on the first.

    Args:
        args: What was typed.
        genes: Those of a model that knows no others; none: a panel is chosen.
        n_top_genes: Its size.

    Returns:
        The cells of each file, the targets of all, and what a store keeps of them.
    """
    import anndata
    import pandas as pd

    from cdt_lite.data import CONTROL, load_screen, named_split
    from cdt_lite.data.blocks import part_of
    from cdt_lite.data.panel import choose_panel, on_panel
    from cdt_lite.data.splits import CHOSEN, as_words
    from cdt_lite.report.tasks import places_of

    screens = []
    for name in (args.screen, *args.more):
        screens.append(load_screen(name, _columns(args), layer=args.layer, default_sign=args.default_sign,
                                   n_top_genes=None, backed=args.layer is None))
    facts = screens[0].uns["screen"]
    every = anndata.AnnData(obs=pd.concat([screen.obs for screen in screens]), uns={"screen": facts})
    split = split_of(args)
    every = _with_split(every, **split) if split else every
    side = named_split(every)
    targets = sorted(set(every.obs["target_gene"].astype(str)) - {CONTROL})
    parts, begin = [], 0
    for screen in screens:
        screen.obs[CHOSEN] = side[begin : begin + screen.n_obs].astype(str)
        begin += screen.n_obs
        part = on_panel(screen, genes) if genes else choose_panel(screen, n_top_genes, targets=targets)
        genes = genes or list(part.var_names)
        if list(part.var_names) != genes:
            missing = sorted(set(genes) - set(part.var_names))
            raise CDTError(f"{screen.uns['screen']['source']} lacks {len(missing)} of the panel's genes "
                           f"{missing[:3]}: files of one store must all have them")
        parts.append(part_of(part, (part.obs[CHOSEN] == "train").to_numpy()))
    held_out = sorted(set(places_of(every[side == "held_out"])))
    about = {"name": facts["name"], "gene_sets": facts.get("gene_sets"), "held_out": held_out,
             "split": as_words(every, side) if args.more and not split else split}
    return parts, targets, about


def unlabelled_cells(path: str, args: argparse.Namespace, n_top_genes: int) -> "AnnData":
    """Cells to pretrain on, from a file whose labels are not read."""
    from cdt_lite.data.panel import choose_panel
    from cdt_lite.data.screens import load_cells

    return choose_panel(load_cells(path, _columns(args), layer=args.layer), n_top_genes)


def split_of(args: argparse.Namespace, checkpoint: "Checkpoint | None" = None) -> dict[str, Any]:
    """The split that is named on the command line, or that a checkpoint was trained with; empty: the screen's own."""
    given = {name: getattr(args, name) for name in SPLIT if getattr(args, name)}
    if not given and checkpoint is not None:
        given = dict(checkpoint.card.get("split", {}))
    if "split_key" in given and len(given) > 1:
        raise CDTError("--split-key names the whole split: leave out --unseen and --hold-out")
    return given


def _with_split(screen: "AnnData", unseen: Sequence[str] = (), hold_out: Sequence[str] = (),
                split_key: str | None = None) -> "AnnData":
    from cdt_lite.data.splits import choose_split

    pairs = []
    for word in hold_out:
        target, colon, batch = word.partition(":")
        if not colon:
            raise CDTError(f"--hold-out expects TARGET:REPLICATE, not {word!r}")
        pairs.append((target, batch))
    return choose_split(screen, unseen, pairs, split_key)


def _columns(args: argparse.Namespace) -> Any:
    from cdt_lite.data import Columns

    return Columns(**columns_given(vars(args)))
