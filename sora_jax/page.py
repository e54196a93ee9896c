"""Self-contained pages of HTML: the frame, tables, and bars as SVG, with every text escaped."""

import base64
import dataclasses
import html
from collections.abc import Sequence

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #1c2430; background: #fff;
  max-width: 1080px; margin: 0 auto; padding: 32px 24px 64px; }}
h1 {{ font-size: 26px; margin: 0 0 4px; }}
h2 {{ font-size: 19px; margin: 44px 0 6px; border-top: 1px solid #dde2e9; padding-top: 20px; }}
p {{ margin: 4px 0 14px; color: #4d5866; max-width: 760px; }}
.figures {{ display: flex; flex-wrap: wrap; gap: 12px; margin: 20px 0 0; }}
.figure {{ border: 1px solid #dde2e9; border-radius: 8px; padding: 10px 16px; min-width: 128px; }}
.figure b {{ display: block; font-size: 24px; line-height: 1.3; }}
.figure span {{ color: #4d5866; font-size: 13px; display: block; }}
.figure small {{ color: #7a8594; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 8px 0 18px; }}
th, td {{ text-align: right; padding: 5px 14px; border-bottom: 1px solid #e8ecf1; }}
td {{ white-space: nowrap; }} th {{ max-width: 130px; }}
th:first-child, td:first-child {{ text-align: left; padding-left: 0; }}
th {{ font-weight: 600; font-size: 13px; color: #4d5866; vertical-align: bottom; }}
td small {{ color: #7a8594; }}
.clips {{ display: flex; flex-wrap: wrap; gap: 22px 26px; }}
figure {{ margin: 0; }}
figure video, figure img {{ display: block; height: {height}px; }}
figcaption {{ font-size: 13px; line-height: 1.35; margin-top: 6px; color: #1c2430;
  overflow-wrap: anywhere; }}
.labels {{ display: flex; font-size: 12px; color: #7a8594; margin-bottom: 3px; }}
.labels span {{ flex: 1; }}
.curves svg {{ max-width: 100%; height: auto; }}
svg.bars {{ font: 12px system-ui, sans-serif; fill: #4d5866; max-width: 100%; }}
svg.bars rect {{ fill: #2563ae; }}
dl {{ display: grid; grid-template-columns: max-content 1fr; gap: 4px 18px; font-size: 14px; }}
dt {{ color: #4d5866; }} dd {{ margin: 0; overflow-wrap: anywhere; }}
code {{ font: 13px ui-monospace, monospace; }}
</style></head><body>
<h1>{title}</h1>
<p>{summary}</p>
{body}
</body></html>
"""

SHOWN_HEIGHT = 112  # pixels of a picture or a clip on the page
BAR_WIDTH, BAR_HEIGHT, TEXT_WIDTH = 420, 20, 130  # pixels; the width is of the longest bar
PLOT_WIDTH, PLOT_HEIGHT, LINE = 300, 90, 18


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of text; the first cell of each is its name."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def text(self) -> str:
        """For a terminal, without the title."""
        rows = [self.header, *self.rows]
        widths = [max(len(row[i]) for row in rows) for i in range(len(self.header))]
        lines = []
        for row in rows:
            cells = [c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)]
            lines.append("  ".join([row[0].ljust(widths[0]), *cells]).rstrip())
        return "\n".join(lines)


def page_html(title: str, summary: str, parts: Sequence[str]) -> bytes:
    """A page that needs no other file, as UTF-8; `parts` are HTML, the other two plain text."""
    body = "\n".join(parts)
    title, summary = html.escape(title), html.escape(summary)
    return PAGE.format(title=title, summary=summary, body=body, height=SHOWN_HEIGHT).encode()


def table_html(table: Table) -> str:
    """A table under its title; what stands in parentheses is small."""

    def cell(text: str) -> str:
        value, bracket, interval = html.escape(text).partition(" (")
        return f"{value} <small>({interval}</small>" if bracket else value

    head = "".join(f"<th>{html.escape(text)}</th>" for text in table.header)
    rows = "".join(
        f"<tr>{''.join(f'<td>{cell(text)}</td>' for text in row)}</tr>" for row in table.rows
    )
    title = html.escape(table.title)
    return f"<h2>{title}</h2><table><tr>{head}</tr>{rows}</table>"


def facts_html(title: str, facts: Sequence[tuple[str, str]]) -> str:
    """Names and what they are, under a title."""
    lines = (f"<dt>{html.escape(k)}</dt><dd><code>{html.escape(v)}</code></dd>" for k, v in facts)
    return f"<h2>{html.escape(title)}</h2><dl>{''.join(lines)}</dl>"


def data_url(kind: str, content: bytes) -> str:
    """A file of a media type as part of the page."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def bars_svg(bars: Sequence[tuple[str, float, str]]) -> str:
    """Horizontal bars, one under another: name, length in any unit, and the text behind it."""
    longest = max((length for _, length, _ in bars), default=0.0) or 1.0
    marks = []
    for number, (name, length, text) in enumerate(bars):
        top, width = number * BAR_HEIGHT, BAR_WIDTH * length / longest
        base = top + BAR_HEIGHT - 6
        marks.append(
            f"<text x='0' y='{base}'>{html.escape(name)}</text>"
            f"<rect x='{TEXT_WIDTH}' y='{top + 3}' width='{width:.1f}' height='{BAR_HEIGHT - 6}'/>"
            f"<text x='{TEXT_WIDTH + width + 6:.1f}' y='{base}'>{html.escape(text)}</text>"
        )
    return _svg(2 * TEXT_WIDTH + BAR_WIDTH, BAR_HEIGHT * len(bars), marks)


def histogram_svg(title: str, counts: Sequence[int], edges: Sequence[float]) -> str:
    """Upright bars of how many fall between an edge and the next; pointing at one tells it.

    Args:
        title: plain text, above.
        counts: of each bin.
        edges: one more than counts, evenly spaced and rising; the outer two are written below.
    """
    most, width = max(max(counts), 1), PLOT_WIDTH / len(counts)
    bottom = LINE + PLOT_HEIGHT
    marks = [f"<text x='0' y='12'>{html.escape(title)}</text>"]
    for number, count in enumerate(counts):
        # A bin that is not empty is seen, however few are in it.
        height = max(PLOT_HEIGHT * count / most, 1.0) if count else 0.0
        told = f"{edges[number]:.4g} to {edges[number + 1]:.4g}: {count}"
        marks.append(
            f"<rect x='{number * width:.1f}' y='{bottom - height:.1f}' width='{width - 1:.1f}' "
            f"height='{height:.1f}'><title>{told}</title></rect>"
        )
    below = bottom + LINE - 4
    marks += [
        f"<text x='0' y='{below}'>{edges[0]:.4g}</text>",
        f"<text x='{PLOT_WIDTH}' y='{below}' text-anchor='end'>{edges[-1]:.4g}</text>",
    ]
    return _svg(PLOT_WIDTH, bottom + LINE, marks)


def _svg(width: int, height: int, marks: Sequence[str]) -> str:
    size = f"width='{width}' height='{height}' viewBox='0 0 {width} {height}'"
    return f"<svg class='bars' role='img' {size}>{''.join(marks)}</svg>"
