"""`spendbrake topics`: create a deployment's topics, or check them."""

import typer

from spendbrake.streams.cli.base import broker_of, console, fail, place_of, run, settings

app = typer.Typer(help="Create or check the topics of the deployment.", no_args_is_help=True)


@app.command()
def create() -> None:
    """Create what is missing, wait for leaders, register incarnations; refuse what is otherwise than it must be."""
    run(_create())


@app.command()
def check() -> None:
    """Compare the topics with what they must be; one line a deviation."""
    run(_check())


async def _create() -> None:
    from spendbrake.streams.workers.deployment import create as create_all

    config = settings()
    async with broker_of(config) as broker:
        created = await create_all(broker, place_of(config), config.data_dir)
    console.print(f"{len(created)} topics created, all as they must be")


async def _check() -> None:
    config = settings()
    async with broker_of(config) as broker:
        problems = await broker.check_topics(place_of(config).plans())
    if problems:
        fail("\n".join(problems))
    console.print("all topics are as they must be")
