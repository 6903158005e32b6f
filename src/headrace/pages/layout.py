"""What our own pages have in common."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from headrace.api.endpoint import Response
from headrace.ui import html

HTML = b"text/html; charset=utf-8"


def page(title: str, body: str, status: int = 200) -> Response:
    """A whole page, below a way back."""
    return Response(html.own_page(title, body, wide=True), status, HTML, html.headers())


def table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """Cells are HTML already; the first of a row names it. `numbers`: which columns hold numbers."""

    def cell(tag: str, place: int, text: str) -> str:
        kind = ' class="number"' if place in numbers else ""
        return f"<{tag}{kind}>{text}</{tag.partition(' ')[0]}>"

    top = "".join(cell('th scope="col"', place, escape(text)) for place, text in enumerate(head))
    lines = "".join(
        "<tr>"
        + "".join(cell("td" if place else 'th scope="row"', place, text) for place, text in enumerate(row))
        + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table>"


def share(part: float, whole: float) -> str:
    """A bar as long as the part."""
    width = 100 * part / whole if whole else 0
    return (
        f'<svg class="share" viewBox="0 0 100 8" preserveAspectRatio="none" role="img" aria-label="{width:.0f}%">'
        f'<rect class="ground" width="100" height="8"/><rect width="{width:.1f}" height="8"/></svg>'
    )


def bars(title: str, counts: Sequence[tuple[str, float]]) -> str:
    """A histogram: a bar for each label, with its count in words for who can't see it."""
    most = max((count for _, count in counts), default=0) or 1
    step = 320 / max(len(counts), 1)
    drawn = "".join(
        f'<rect x="{place * step + 2:.1f}" y="{90 - 80 * count / most:.1f}" width="{step - 4:.1f}" '
        f'height="{80 * count / most:.1f}"><title>{escape(label)}: {count:,.0f}</title></rect>'
        f'<text x="{(place + 0.5) * step:.1f}" y="104">{escape(label)}</text>'
        for place, (label, count) in enumerate(counts)
    )
    said = ", ".join(f"{label}: {count:,.0f}" for label, count in counts if count) or "nothing yet"
    return (
        f'<figure><figcaption>{escape(title)}</figcaption><svg viewBox="0 0 320 110" role="img" '
        f'aria-label="{escape(title)}: {escape(said)}">{drawn}</svg></figure>'
    )
