"""What a drill found."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct, field


class Outcome(Struct):
    """Counts of requests; times in seconds.

    `unanswered` were given up by their client after its own retries. `back` is how long after each fault the first
    write was acknowledged that was sent after it. `notes` are said beside the table.
    """

    name: str
    faults: int = 0
    acknowledged: int = 0
    lost: int = 0
    doubled: int = 0
    wrong: int = 0
    unanswered: int = 0
    back: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)  # what the drill promises and did not find
    skipped: str = ""  # why it could not be run here

    def expect(self, held: bool, what: str) -> None:
        if not held:
            self.failed.append(what)

    def nothing_lost(self) -> None:
        """What every drill promises."""
        self.expect(self.acknowledged > 0, "nothing was acknowledged at all")
        for name in ("lost", "doubled", "wrong", "unanswered"):
            count = getattr(self, name)
            self.expect(not count, f"{count} {name}")


def table(outcomes: Sequence[Outcome]) -> str:
    """For people."""
    head = ("drill", "faults", "acknowledged", "lost", "doubled", "wrong", "unanswered", "back after", "")
    lines: list[tuple[str, ...]] = [head]
    for each in outcomes:
        back = f"{sorted(each.back)[len(each.back) // 2]:.1f} s, at most {max(each.back):.1f} s" if each.back else "-"
        counts = (each.faults, each.acknowledged, each.lost, each.doubled, each.wrong, each.unanswered)
        verdict = "not run" if each.skipped else "FAILED" if each.failed else "held"
        lines.append((each.name, *(f"{count:,}" for count in counts), back, verdict))
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    text = "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
    for each in outcomes:
        said = [f"not run: {each.skipped}"] if each.skipped else []
        text += "".join(
            f"\n{each.name}: {note}" for note in [*said, *each.notes, *map("FAILED: {}".format, each.failed)]
        )
    return text


def plot(outcomes: Sequence[Outcome], path: str) -> None:
    """How long each fault was felt, as a PNG."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    shown = [each for each in outcomes if each.back]
    figure, axes = plt.subplots(figsize=(7, 0.6 + 0.5 * len(shown)), dpi=130, layout="constrained")
    for place, each in enumerate(shown):
        axes.plot(each.back, [place] * len(each.back), "o", alpha=0.5)
    axes.set_yticks(range(len(shown)), [f"{each.name} ({len(each.back)})" for each in shown])
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_xlabel("seconds from the fault to the next acknowledged write")
    axes.grid(alpha=0.3, axis="x")
    figure.savefig(path, metadata={"Software": None})
    plt.close(figure)
