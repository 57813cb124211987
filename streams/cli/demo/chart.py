"""Burn by the minute, as columns of blocks: each as high as the money, in the colour of what the brake did then."""

from collections.abc import Iterator, Sequence

from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.style import Style
from rich.text import Text

BLOCKS = " ▁▂▃▄▅▆▇█"
"""A cell's eighths."""
LABEL = 9
"""Columns of the scale at the left."""
MOST, LEAST = 120, 10
"""Minutes shown: what the ring of minutes holds, and what a narrow terminal still shows."""


def spark(values: Sequence[float]) -> str:
    """Return values as one line of blocks; the highest fills its cell, and what is above 0 is seen.

    Examples:
        >>> spark([0, 1, 50, 100])
        ' ▁▄█'
    """
    top = max([*values, 0])
    return "".join(BLOCKS[-int(-value * 8 // top)] if top else BLOCKS[0] for value in values)


def levels(values: Sequence[float], top: float, height: int) -> Iterator[str]:
    """Yield the lines of a chart from the top down.

    Examples:
        >>> list(levels([0, 1, 2, 4], top=4, height=2))
        ['   █', ' ▄██']
    """
    eighths = [-int(-value * 8 * height // top) if top else 0 for value in values]
    for row in reversed(range(height)):
        yield "".join(BLOCKS[min(max(n - 8 * row, 0), 8)] for n in eighths)


class Chart:
    """A chart as wide and as high as its place.

    Args:
        values: USD an hour by minute, the last one now running.
        styles: Style of each minute's column.
        mark: Words under a minute, and how many minutes it is from the last one; None for none.
    """

    def __init__(self, values: Sequence[float], styles: Sequence[str], mark: tuple[str, int] | None = None) -> None:
        self.values, self.styles, self.mark = values, styles, mark

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the chart."""
        height = max((options.height or 7) - 1, 2)
        n = max(LEAST, min(options.max_width - LABEL - 1, len(self.values)))
        values, styles = self.values[-n:], [console.get_style(style) for style in self.styles[-n:]]
        top = max([*values, 1.0])
        for row, line in enumerate(levels(values, top, height)):
            label = f"${top:,.0f}/h" if row == 0 else "$0" if row == height - 1 else ""
            yield Segment(f"{label:>{LABEL}} ", Style(dim=True))
            yield from (Segment(block, style) for block, style in zip(line, styles, strict=True))
            yield Segment.line()
        yield self._axis(n)

    def _axis(self, n: int) -> Text:
        """Return the line below the columns."""
        if self.mark is None or self.mark[1] >= n:
            return Text("")
        words, back = f"▲ {self.mark[0]}", self.mark[1]
        place = n - 1 - back
        if place + len(words) > n:
            words, place = f"{self.mark[0]} ▲", place - len(words) + 1
        return Text(" " * (LABEL + 1 + place) + words, "dim")
