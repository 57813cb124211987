"""The end of the demo: what was found, what was done, what it saved, who was told."""

from rich.console import RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from spendbrake.detectors.causes import span_text
from spendbrake.schemas.money import usd_text
from spendbrake.streams.cli.demo.board import badge, clock_text
from spendbrake.streams.cli.demo.scene import Scene, cause_of

TOLD = 4


def summary(scene: Scene, wall_s: float) -> RenderableType:
    """Return the end of the story."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(style="bright_black", no_wrap=True)
    table.add_column()
    began = None
    if scene.runaway is not None:
        began = scene.runaway.started_at
        table.add_row("ran away", f"{clock_text(began)}  key {scene.runaway.key} on {scene.runaway.model}")
    _found(table, scene, began)
    _answers(table, scene, began)
    if scene.culprit is not None:
        table.add_row("it cost", Text(usd_text(scene.loose), "bold"))
    table.add_row("stopped", Text(f"{usd_text(scene.stopped)} in {scene.calls_stopped:,} calls", "bold green"))
    for number, line in enumerate(scene.told[:TOLD]):
        said = line.text if scene.first is None else line.text.replace(scene.first.reason, "the same words")
        table.add_row("told" if number == 0 else "", f"{clock_text(line.at)}  {said}")
    if len(scene.told) > TOLD:
        table.add_row("", f"and {len(scene.told) - TOLD:,} more")
    table.add_row("played", f"{scene.events:,} calls, {usd_text(scene.spent)}, in {wall_s:.0f} s")
    return Panel(table, title="[bold]summary[/]", title_align="left", border_style="green")


def _found(table: Table, scene: Scene, began: float | None) -> None:
    first = scene.first
    if first is None:
        table.add_row("detected", Text("never" if began is not None else "nothing out of the ordinary", "bold"))
        return
    when = f"after {span_text(first.time - began)}" if began is not None else clock_text(first.time)
    table.add_row("detected", Text.assemble((when, "bold"), f" by {first.detector}: {first.reason}"))
    if cause := cause_of(first):
        table.add_row("", Text(cause, "bright_black"))


def _answers(table: Table, scene: Scene, began: float | None) -> None:
    """Tell what the gateway said of the culprit's key, and of its neighbour's."""
    for key in (scene.culprit, scene.neighbour):
        watched = scene.watched.get(key or "")
        if watched is None:
            continue
        text = Text(f"{key}  ")
        for number, (at, verdict) in enumerate(watched.changes):
            if number:
                text.append(f" {span_text(at - began) if began is not None else clock_text(at)} ", "bright_black")
            text.append_text(badge(verdict))
        table.add_row("gateway" if key == scene.culprit else "", text)
