"""The demo's board: the scene drawn in a terminal. It decides nothing and reads the engine's arrays only."""

from datetime import UTC, datetime

import numpy as np
from rich.console import Group, RenderableType
from rich.layout import Layout
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from spendbrake.actions.gateway.verdict import CheckResult
from spendbrake.schemas.money import usd_text
from spendbrake.streams.cli.demo.scene import Line, Scene

SPARKS = " ▁▂▃▄▅▆▇█"
VERDICT_STYLE = {"allow": "bold green", "throttle": "bold black on yellow", "block": "bold white on red"}
SEVERITY_STYLE = {"info": "cyan", "warning": "yellow", "critical": "bold red"}
HOURS = 24


def clock_text(at: float) -> str:
    """Return a moment of the trace as `Mon 14:32:05`."""
    return datetime.fromtimestamp(at, UTC).strftime("%a %H:%M:%S")


def draw(scene: Scene, title: str) -> RenderableType:
    """Return the whole board."""
    layout = Layout()
    layout.split_column(Layout(_head(scene, title), size=3), Layout(name="middle", size=13), Layout(_feed(scene)))
    layout["middle"].split_row(Layout(_teams(scene), ratio=3), Layout(_gateway(scene), ratio=2))
    return layout


def _head(scene: Scene, title: str) -> RenderableType:
    text = Text.assemble(
        ("spendbrake ", "bold"),
        (title, "dim"),
        "   ",
        (clock_text(scene.now), "bold cyan"),
        f"   {scene.events:,} calls   ",
        ("spent ", "dim"),
        (usd_text(scene.spent), "bold"),
        ("   runaway ", "dim"),
        (usd_text(scene.loose), "bold red" if scene.loose else "dim"),
        ("   stopped ", "dim"),
        (usd_text(scene.stopped), "bold green" if scene.stopped else "dim"),
    )
    return Panel(text, border_style="dim")


def _teams(scene: Scene) -> RenderableType:
    table = Table(expand=True, box=None, padding=(0, 1), header_style="dim")
    for name, justify in (("team", "left"), ("today", "right"), ("$/h", "right"), ("last 24 hours", "left")):
        table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    rows = sorted(_burn(scene), key=lambda row: row[0])
    top = max((rate for _, _, rate, _ in rows), default=0.0)
    for name, today, rate, hours in rows:
        hot = rate == top and rate > 5
        style = "bold red" if hot else ""
        table.add_row(
            Text(name, style), Text(usd_text(today), style), Text(f"{rate:,.1f}", style), Text(_spark(hours), style)
        )
    return Panel(table, title="burn", border_style="dim")


def _burn(scene: Scene) -> list[tuple[str, int, float, list[int]]]:
    """Return (team, today nano-USD, USD an hour over five minutes, nano-USD by hour) of all teams."""
    rows = []
    hour, minute = int(scene.now // 3600), int(scene.now // 60)
    for owned in scene.owned.values():
        state = owned.state
        for team, name in enumerate(state.teams.names):
            own = np.array([int(state.teams.series[team])])
            today = hour - hour % 24
            hours = state.series.hours.span("cost", int(own[0]), hour - HOURS + 1, hour)
            rate = float(state.teams.minutes.span("cost", team, minute - 4, minute).sum()) / 1e9 * 12
            spent = int(state.series.hours.span("cost", int(own[0]), today, hour).sum())
            rows.append((name, spent, rate, [int(x) for x in hours]))
    return rows


def _spark(values: list[int]) -> str:
    top = max([*values, 1])
    return "".join(SPARKS[min(len(SPARKS) - 1, -(-value * (len(SPARKS) - 1) // top))] for value in values)


def _gateway(scene: Scene) -> RenderableType:
    parts: list[RenderableType] = [Text("what a gateway is told now", "dim")]
    keys = [scene.neighbour] if scene.runaway is None else [scene.runaway.key, scene.neighbour]
    for key in keys:
        parts += [Text(""), _verdict(key, scene.verdicts.get(key))]
    return Panel(Group(*parts), title="gateway check", border_style="dim")


def _verdict(key: str, result: CheckResult | None) -> RenderableType:
    if result is None:
        return Text.assemble((key, "bold"), "\n", ("no call yet", "dim"))
    shown = "throttle" if result.code == "rate_limited" else result.verdict
    text = Text.assemble((key, "bold"), "\n", (f" {shown.upper()} ", VERDICT_STYLE.get(shown, "bold magenta")))
    if result.code:
        text.append(f" {result.status} {result.code}", "dim")
    if result.retry_after:
        text.append(f"  retry after {result.retry_after:.0f} s", "dim")
    if result.reason:
        text.append(f"\n{result.reason}", "dim")
    return text


def _feed(scene: Scene) -> RenderableType:
    lines = [_line(line) for line in list(scene.feed)[-12:]]
    return Panel(
        Group(*lines) if lines else Text("nothing out of the ordinary", "dim"), title="log", border_style="dim"
    )


def _line(line: Line) -> RenderableType:
    style = SEVERITY_STYLE.get(line.severity, "")
    if line.kind == "told":
        style = "magenta"
    text = Text.assemble((clock_text(line.at), "dim"), "  ", (f"{line.kind:<9}", style), line.text)
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


def summary(scene: Scene, wall_s: float) -> RenderableType:
    """Return the end of the story."""
    table = Table(box=None, show_header=False, padding=(0, 2))
    table.add_column(style="dim")
    table.add_column()
    if scene.runaway is not None:
        began = scene.runaway.started_at
        table.add_row("runaway began", f"{clock_text(began)}, key {scene.runaway.key}, model {scene.runaway.model}")
        if scene.first is not None:
            after = scene.first.time - began
            table.add_row("detected after", f"[bold]{after:,.0f} s[/] by {scene.first.detector}: {scene.first.reason}")
        else:
            table.add_row("detected", "[bold red]never[/]")
        for at, result in scene.changes:
            if result.code:
                table.add_row("gateway", f"{clock_text(at)} {result.code} (+{at - began:,.0f} s)")
        table.add_row("it cost", f"[bold]{usd_text(scene.loose)}[/]")
        table.add_row("money stopped", f"[bold green]{usd_text(scene.stopped)}[/] in {scene.calls_stopped:,} calls")
    for line in scene.told[:4]:
        table.add_row("told", f"{clock_text(line.at)} {line.text}")
    table.add_row("played", f"{scene.events:,} calls, {usd_text(scene.spent)}, in {wall_s:.0f} s")
    return Panel(table, title="summary", border_style="green")
