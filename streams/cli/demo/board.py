"""The demo's board: the scene drawn in a terminal. It decides nothing and reads the engine's arrays only."""

from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.layout import Layout
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from spendbrake.schemas.money import NANO, usd_text
from spendbrake.streams.cli.demo.chart import MOST, Chart, spark
from spendbrake.streams.cli.demo.scene import Line, Scene, Watched

VERDICTS = {"allow": "bold black on green", "throttle": "bold black on yellow", "block": "bold white on red"}
OTHER_VERDICT = "bold white on magenta"
FEED = {"allow": "green", "throttle": "yellow", "block": "bold red", "told": "magenta", "cause": "dim"}
SEVERITIES = {"info": "cyan", "warning": "yellow", "critical": "bold red"}
RATE_MINUTES = 5
HOURS = 24
HIGH, CHART_ROWS = 32, 9
"""From so many lines on there is room for the chart."""
KIND, CLOCK, GATEWAY = 9, 12, 34
LINES = 40
DIM = "bright_black"
USUAL, LOOSE = "cyan", "red"
VERDICT_COLOURS = {"throttle": "yellow", "block": "green"}
LEGEND = f"[{USUAL}]■[/] usual  [{LOOSE}]■[/] runaway  [yellow]■[/] throttled  [green]■[/] blocked"


class Burn(NamedTuple):
    """What a team burns: nano-USD of today, USD an hour over five minutes, nano-USD by hour."""

    team: str
    today: int
    rate: float
    hours: list[int]


def clock_text(at: float) -> str:
    """Return a moment of the trace as `Mon 14:32:05`."""
    return datetime.fromtimestamp(at, UTC).strftime("%a %H:%M:%S")


def draw(scene: Scene, title: str, console: Console) -> RenderableType:
    """Return the whole board."""
    layout, rows = Layout(), sum(len(owned.state.teams.names) for owned in scene.owned.values())
    parts = [Layout(_head(scene, title), size=4), Layout(name="middle", size=min(max(rows, 6), 10) + 3)]
    if console.height >= HIGH:
        parts.append(Layout(_chart(scene), size=CHART_ROWS))
    layout.split_column(*parts, Layout(_panel(Feed(scene.feed[-LINES:]), "log")))
    layout["middle"].split_row(
        Layout(_panel(Teams(scene), "burn"), ratio=3), Layout(_panel(_gateway(scene), "gateway check"), size=GATEWAY)
    )
    return layout


def _panel(content: RenderableType, title: str) -> Panel:
    return Panel(content, title=f"[{DIM}]{title}[/]", title_align="left", border_style=DIM)


def _head(scene: Scene, title: str) -> RenderableType:
    grid = Table.grid(expand=True)
    grid.add_column(no_wrap=True, overflow="ellipsis")
    grid.add_column(justify="right", no_wrap=True)
    grid.add_row(
        Text.assemble(("spendbrake", "bold"), ("  " + title, DIM)), Text(clock_text(scene.now), style="bold cyan")
    )
    money = Text.assemble(
        ("runaway ", DIM),
        (usd_text(scene.loose), "bold red" if scene.loose else DIM),
        ("   stopped ", DIM),
        (usd_text(scene.stopped), "bold green" if scene.stopped else DIM),
    )
    spent = Text.assemble(f"{scene.events:,} calls", ("   spent ", DIM), (usd_text(scene.spent), "bold"))
    grid.add_row(spent, money)
    return Panel(grid, border_style=DIM)


class Teams:
    """What every team burns, as many hours back as there is room for."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the table."""
        rows, height = burns(self.scene), (options.height or 12) - 1
        rows = sorted(sorted(rows, key=lambda row: -row.today)[:height], key=lambda row: row.team)
        names = min(max((len(row.team) for row in rows), default=4), 16)
        hours = max(4, min(HOURS, options.max_width - names - 22))
        table = Table(box=None, padding=(0, 2, 0, 0), header_style=DIM, pad_edge=False)
        table.add_column("team", no_wrap=True, overflow="ellipsis", width=names)
        table.add_column("today", justify="right", no_wrap=True, width=9)
        table.add_column("$/h", justify="right", no_wrap=True, width=7)
        table.add_column(f"last {hours} h", no_wrap=True)
        for row in rows:
            hot = row.team == self.scene.team and self.scene.first is not None
            cells = (row.team, usd_text(row.today), f"{row.rate:,.1f}", spark(row.hours[-hours:]))
            table.add_row(*(Text(cell, "bold red" if hot else "") for cell in cells[:3]), Text(cells[3], "cyan"))
        yield table


def burns(scene: Scene) -> list[Burn]:
    """Return what all teams burn."""
    found = []
    hour, minute = int(scene.now // 3600), int(scene.now // 60)
    for owned in scene.owned.values():
        state = owned.state
        for team, name in enumerate(state.teams.names):
            own = int(state.teams.series[team])
            hours = state.series.hours.span("cost", own, hour - HOURS + 1, hour)
            today = state.series.hours.span("cost", own, hour - hour % 24, hour)
            recent = state.teams.minutes.span("cost", team, minute - RATE_MINUTES + 1, minute)
            rate = float(recent.sum()) / NANO * (60 / RATE_MINUTES)
            found.append(Burn(name, int(today.sum()), rate, [int(x) for x in hours]))
    return found


def _chart(scene: Scene) -> RenderableType:
    """Return the burn of the culprit's team by the minute, in the colours of what the gateway says of its key."""
    values = np.zeros(MOST)
    minute = int(scene.now // 60)
    for owned in scene.owned.values():
        team = owned.state.teams.index.get(scene.team or "")
        if team is not None:
            ring = owned.state.teams.minutes.span("cost", team, minute - MOST + 1, minute)
            values = np.array(ring, float) / NANO * 60
    turns = _turns(scene)
    styles = [
        next((style for at, style in reversed(turns) if at // 60 <= number), USUAL)
        for number in range(minute - MOST + 1, minute + 1)
    ]
    mark = None if scene.first is None else ("found", minute - int(scene.first.time // 60))
    title = f"[{DIM}]{escape(scene.team or 'burn')} by the minute: {LEGEND}[/]"
    return Panel(Chart(values.tolist(), styles, mark), title=title, title_align="left", border_style=DIM)


def _turns(scene: Scene) -> list[tuple[float, str]]:
    """Return from when on which colour holds, as the story went."""
    turns = []
    if scene.runaway is not None and scene.now >= scene.runaway.started_at:
        turns.append((scene.runaway.started_at, LOOSE))
    watched = scene.watched.get(scene.culprit or "")
    for at, verdict in watched.changes[1:] if watched is not None else ():
        turns.append((at, VERDICT_COLOURS.get(verdict, USUAL)))
    return turns


def _gateway(scene: Scene) -> RenderableType:
    keys = [key for key in (scene.culprit, scene.neighbour) if key is not None]
    parts: list[RenderableType] = []
    for key in keys:
        parts += [_verdict(key, scene.watched.get(key)), Text("")]
    return Group(*parts) if parts else Text("no call yet", DIM)


def badge(verdict: str) -> Text:
    """Return a verdict as people see it."""
    return Text(f" {verdict.upper()} ", VERDICTS.get(verdict, OTHER_VERDICT))


def _verdict(key: str, watched: Watched | None) -> RenderableType:
    if watched is None:
        return Text.assemble((key, "bold"), "\n", ("no call yet", DIM))
    result = watched.result
    text = Text.assemble((key, "bold"), "\n", badge(watched.verdict))
    if result.code:
        text.append(f" {result.status} {result.code}", DIM)
    if result.retry_after:
        text.append(f", retry in {result.retry_after:.0f} s", DIM)
    if len(watched.changes) > 1:
        text.append("\n")
        text.append(" → ".join(f"{verdict} {clock_text(at)[4:9]}" for at, verdict in watched.changes[1:]), DIM)
    return text


class Feed:
    """The last lines of the log that there is room for."""

    def __init__(self, lines: list[Line]) -> None:
        self.lines = lines

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the lines, each with its text beside its clock."""
        if not self.lines:
            yield Text("nothing out of the ordinary", DIM)
            return
        width, left, shown = options.max_width - CLOCK - KIND - 2, options.height or 12, []
        for line in reversed(self.lines):
            text = Text(line.text)
            left -= len(text.wrap(console, width))
            if left < 0:
                break
            shown.append((line, text))
        grid = Table.grid(padding=(0, 1, 0, 0))
        grid.add_column(width=CLOCK, no_wrap=True)
        grid.add_column(width=KIND, no_wrap=True)
        grid.add_column()
        for line, text in reversed(shown):
            style = FEED.get(line.kind, SEVERITIES.get(line.severity, ""))
            clock = "" if line.kind == "cause" else clock_text(line.at)
            kind = "" if line.kind == "cause" else line.kind
            text.style = "dim" if line.kind == "cause" else ""
            grid.add_row(Text(clock, DIM), Text(kind, style), text)
        yield grid
