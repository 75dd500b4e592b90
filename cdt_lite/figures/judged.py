"""Predictions beside the truth: changes side by side, scores of every method, and where each stands."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from cdt_lite.figures import plots

SHADES = "RdBu_r"
TITLES = ("Pearson's r of the change", "mean absolute error, log1p")
NAMES = {"ceiling": "half against half", "control": "no change"}
COLORS = {"capsule": "generated", "half against half": "real", "no change": "control"}  # others: baselines


def side_by_side(real: Mapping[str, pd.DataFrame], predicted: Mapping[str, pd.DataFrame], n: int = 14) -> Figure:
    """Draws real and predicted changes as two heat maps of the same genes; a row has the scale of its largest change.

    Args:
        real: Changes, perturbations x genes, by question; a line stands between these. The target's own is hatched.
        predicted: The same of the prediction.
        n: Genes to draw: those that move most in any perturbation.
    """
    tables = [pd.concat(list(parts.values())) for parts in (real, predicted)]
    own = np.array([[gene == name[0] for gene in tables[0].columns] for name in tables[0].index])
    largest = tables[0].mask(own).abs().max(axis=1)
    kept = tables[0].mask(own).abs().max().nlargest(n).index
    names = [f"{target} {sign:+d} ({size:.2f})" for (target, sign), size in largest.items()]
    figure, axes = plots.grid(1, 2, (11, 0.36 * len(names) + 1.8))
    for ax, table, title in zip(axes, tables, ("real change", "predicted change"), strict=True):
        shares = table.mask(own)[kept].div(largest, axis=0)
        ax.patch.set(hatch="////", edgecolor=plots.SOFT)  # shows where nothing is drawn
        shades = ax.pcolormesh(shares, cmap=SHADES, vmin=-1, vmax=1, edgecolor=plots.PAPER, lw=0.5)
        for place in np.cumsum([len(part) for part in real.values()])[:-1]:
            ax.axhline(place, color=plots.INK, lw=1.5)
        ax.set_xticks(np.arange(n) + 0.5, kept, rotation=90, fontsize=8.5)
        ax.set_yticks(np.arange(len(names)) + 0.5, names, fontsize=9)
        ax.set_title(title)
        ax.tick_params(length=0)
        ax.invert_yaxis()
    axes[1].tick_params(labelleft=False)
    figure.colorbar(shades, ax=axes, label="share of the row's largest real change", pad=0.02)
    return plots.as_written(figure)


def scored(scores: pd.DataFrame, methods: Sequence[str]) -> Figure:
    """Draws Pearson's r and mean absolute error, perturbations x methods, as two heat maps; blue is good.

    Args:
        scores: From `all_scores`, in the order of the rows to draw; a line stands between two questions.
        methods: Columns to draw.
    """
    wide = scores.assign(row=scores["target"] + scores["sign"].map(" {:+d}".format))
    rows = wide["row"].drop_duplicates()
    figure, axes = plots.grid(1, 2, (12, 0.42 * len(rows) + 1.8))
    for ax, metric, title in zip(axes, ("pearson_delta", "mae"), TITLES, strict=True):
        table = wide.pivot_table(metric, "row", "method").reindex(index=rows, columns=methods)
        table = table.dropna(axis=1, how="all").rename(columns=NAMES)  # no change has no direction
        is_error = metric == "mae"
        plots.metric_heatmap(table, ax, not is_error, ".3f" if is_error else ".2f")
        ax.set_title(title)
        ax.set_xticks(ax.get_xticks(), ax.get_xticklabels(), rotation=35, ha="right")
    last = 0
    for kind, group in wide.groupby("asked", sort=False):
        first, last = last, last + group["row"].nunique()
        axes[1].text(1.02, (first + last) / 2, kind, transform=axes[1].get_yaxis_transform(), va="center", rotation=270)
        for ax in axes:
            ax.axhline(first, color=plots.INK, lw=2 if first else 0)
    axes[1].tick_params(labelleft=False)
    return plots.as_written(figure)


def over_real(real: pd.DataFrame, predicted: pd.DataFrame, names: Sequence[tuple[str, int]]) -> Figure:
    """Scatters predicted over real changes, a panel a perturbation, the target's own gene left out.

    Args:
        real: Changes, perturbations x genes.
        predicted: The same of the prediction.
        names: Which to draw.
    """
    figure, axes = plots.grid(1, len(names), (5.5 * len(names), 4.4))
    for ax, name in zip(np.atleast_1d(axes), names, strict=True):
        pair = pd.DataFrame({"real": real.loc[name], "predicted": predicted.loc[name]})
        pair = pair.drop(name[0], errors="ignore")
        largest = 1.15 * pair.abs().to_numpy().max()
        ax.set(xlim=(-largest, largest), ylim=(-largest, largest))
        ax.locator_params(nbins=5)
        x, y = pair.to_numpy().T
        plots.predicted_vs_real_delta(x, y, pair.index, ax, name=6)
        ax.set_title(f"{name[0]} {name[1]:+d}: Pearson r = {pair.corr().iloc[0, 1]:.2f}")
    return plots.as_written(figure)


def standings(means: pd.DataFrame) -> Figure:
    """Draws mean scores with intervals, a panel a question, a row a method.

    Args:
        means: (question, method) x mean, low, high, n.
    """
    kinds = means.index.get_level_values(0).unique()
    names = means.index.get_level_values(1).unique()
    figure, axes = plots.grid(1, len(kinds), (10, 3.4))
    for ax, kind in zip(np.atleast_1d(axes), kinds, strict=True):
        table = means.loc[kind]
        for name, row in table.iterrows():
            color, place = plots.KINDS[COLORS.get(str(name), "baseline")], names.get_loc(name)
            ax.plot([row["low"], row["high"]], [place, place], color=color, lw=2)
            ax.plot(row["mean"], place, "o", color=color)
        for name in names.difference(table.index):
            place = names.get_loc(name)
            ax.text(0.02, place, "no answer", color=plots.SOFT, va="center", fontsize=9)
        ax.axvline(0, color=plots.SOFT, lw=0.8)
        ax.set(yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.5, -0.5))
        ax.set_xlim(min(-0.1, means["low"].min() - 0.05), 1.05)
        ax.set_title(f"{kind} (n = {int(table['n'].max())})")
        ax.set_xlabel("mean Pearson's r, 95 % interval")
    for ax in np.atleast_1d(axes)[1:]:
        ax.tick_params(labelleft=False)
    return plots.as_written(figure)
