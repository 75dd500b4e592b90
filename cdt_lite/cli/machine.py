"""Commands that count and measure: account, bench, doctor."""

import argparse
import json

from cdt_lite.cli.training import config_of
from cdt_lite.options import columns_given


def account(args: argparse.Namespace) -> int:
    """Counts parameters, FLOPs, bytes and time of a preset."""
    from pandas import json_normalize

    from cdt_lite.figures import account as count

    result = count(args.preset)
    if args.json:
        print(json.dumps(result, indent=1))
        return 0
    for title, number in json_normalize(result, sep=": ").iloc[0].items():
        text = number if isinstance(number, str) else f"{number:,}"
        print(f"{title:60s} {text:>22}")
    return 0


def bench(args: argparse.Namespace) -> int:
    """Measures training and sampling speed and peak memory of a preset on this device."""
    from cdt_lite.doctor import bench as measure

    print(json.dumps(measure(config_of(args), args.device, args.genes), indent=1))
    return 0


def doctor(args: argparse.Namespace) -> int:
    """Says whether this machine runs the notebooks, in lines for a bug report; with --screen, what a file holds."""
    from cdt_lite.data import Columns
    from cdt_lite.doctor import READY, about_screen, report
    from cdt_lite.training.capsule import CAPSULES

    if args.screen:
        print("\n".join(about_screen(args.screen, Columns(**columns_given(vars(args))), args.layer,
                                     args.default_sign)))
        return 0
    print(f"installed in {CAPSULES.parent}")
    lines = report()
    print("\n".join(lines))
    return 0 if lines[-1] == READY else 1
