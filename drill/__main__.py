"""`python -m drill [--long] [NAME ...]`: run drills, print a table, and draw how long each fault was felt."""

from __future__ import annotations

import argparse
import sys
import time

import msgspec

from drill.drills import DRILLS
from drill.field import opened
from drill.outcome import Outcome, plot, table


def main() -> int:
    """0 where every drill that could be run held its promises."""
    parser = argparse.ArgumentParser(prog="drill", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(DRILLS)}; all of them by default")
    parser.add_argument("--long", action="store_true", help="some hours instead of five minutes")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--seed", type=int, default=0, help="another number generates other requests")
    parser.add_argument("--plot", metavar="FILE", help="write a PNG of the time from each fault to the next write")
    parser.add_argument("--any-time", action="store_true", help="tell the times, don't judge them: a shared machine")
    parser.add_argument("--all-or-fail", action="store_true", help="a drill that can't be run here is a failure")
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in DRILLS]:
        parser.error(f"there is no drill {unknown[0]}: choose from {', '.join(DRILLS)}")
    outcomes: list[Outcome] = []
    with opened(options.long, judges_times=not options.any_time, seed=options.seed) as field:
        for name in options.names or DRILLS:
            begin = time.monotonic()
            print(f"{name} ...", file=sys.stderr, flush=True)
            outcomes.append(DRILLS[name](field))
            print(f"{name}: {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)
    print(msgspec.json.encode(outcomes).decode() if options.json else table(outcomes))
    if options.plot:
        plot(outcomes, options.plot)
    return int(any(each.failed or (options.all_or_fail and each.skipped) for each in outcomes))


if __name__ == "__main__":
    sys.exit(main())
