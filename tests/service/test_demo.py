"""The demo played as fast as it goes, on the embedded broker and a real Valkey: what it claims is what happened."""

import io
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from rich.console import Console

from spendbrake.streams.cli.demo import acts
from spendbrake.streams.cli.demo.acts import Script
from spendbrake.streams.cli.demo.board import draw
from spendbrake.streams.cli.demo.ending import summary
from spendbrake.streams.cli.demo.theatre import Demo, Theatre

pytestmark = pytest.mark.timeout(300)
CALLS = 30000


async def test_the_runaway_is_throttled_then_blocked_and_nobody_else_is(tmp_path: Path) -> None:
    demo = Demo(speed=0.0, calls=CALLS)
    company = demo.company()
    runaway = company.runaway
    assert runaway is not None
    async with AsyncExitStack() as parts:
        theatre = await Theatre.open(demo, str(tmp_path), parts, company)
        await theatre.play(Script(company.events()), acts.of_company(company.start, runaway.started_at, demo.speed))
        scene = theatre.scene
        scene.look()
        pictures = {width: drawn(theatre, width) for width in (80, 100, 140)}

    assert [verdict for _, verdict in scene.watched[runaway.key].changes] == ["allow", "throttle", "block"]
    assert [verdict for _, verdict in scene.watched[str(scene.neighbour)].changes] == ["allow"]
    assert scene.limited == {runaway.key}, [line.text for line in scene.feed]
    assert scene.first is not None
    assert 0 < scene.first.time - runaway.started_at < 600
    assert scene.told
    whole = sum(scene.price(event) for event in runaway.events())
    assert whole <= scene.loose + scene.stopped < 1.01 * whole, "its key had a little other use, stopped with it"
    assert scene.loose < whole / 20
    counted = sum(
        int(owned.state.series.days.fields["cost"][owned.state.teams.series[: len(owned.state.teams.names)]].sum())
        for owned in scene.owned.values()
    )
    assert counted == scene.spent, "the engine has counted what the gateway let pass"
    for width, picture in pictures.items():
        assert max(map(len, picture.splitlines())) <= width
        assert "BLOCK" in picture
        assert "ALLOW" in picture
        assert runaway.key in picture
        assert "on-call" in picture


def drawn(theatre: Theatre, width: int) -> str:
    """Return the last picture of the board and the summary, as they stand in a terminal."""
    console = Console(width=width, height=40, record=True, file=io.StringIO(), force_terminal=True)
    console.print(draw(theatre.scene, theatre.title, console))
    console.print(summary(theatre.scene, 60.0))
    return console.export_text()
