"""The command line. Each command has a file of its own; this one only puts them together."""

import zlib
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from spendbrake import __version__
from spendbrake.detectors.panel import COMPILED
from spendbrake.streams.cli import outlook, replay, up, worker
from spendbrake.streams.cli.alerts import audit, destination, feedback, redrive, silence
from spendbrake.streams.cli.base import fail
from spendbrake.streams.cli.control import budget, doctor, explain, keys, policy, rehome, rerate, token, topics
from spendbrake.streams.cli.demo import command as demo
from spendbrake.streams.cli.send import command as send


class _Commands(TyperGroup):
    """Tells of a file that cannot be read or written in a line; a defect ends with its trace."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # who reads has heard enough
            raise
        except (OSError, EOFError, zlib.error) as error:
            fail(str(error) or type(error).__name__)


app = typer.Typer(
    cls=_Commands,
    name="spendbrake",
    help="The brake for AI spend: usage events in, enforcement decisions out.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    rich_markup_mode="rich",
)
app.add_typer(topics.app, name="topics")
app.add_typer(policy.app, name="policy")
app.add_typer(keys.app, name="keys")
app.add_typer(budget.app, name="budget")
app.add_typer(token.app, name="token")
app.command("up")(up.up)
app.command("demo")(demo.demo)
app.command("worker")(worker.worker)
app.command("send")(send.send)
app.command("replay")(replay.replay)
app.add_typer(audit.app, name="audit")
app.add_typer(destination.app, name="destination")
app.add_typer(silence.app, name="silence")
app.command("ack")(silence.ack)
app.command("feedback")(feedback.feedback)
app.command("redrive")(redrive.redrive)
app.command("explain")(explain.explain)
app.command("rehome")(rehome.rehome)
app.command("rerate")(rerate.rerate)
app.command("doctor")(doctor.doctor)
app.command("forecast")(outlook.forecast)
app.command("surge")(outlook.surge)


def version(asked: bool) -> None:
    """Print the version, and whether the detectors are compiled."""
    if asked:
        typer.echo(f"spendbrake {__version__} (compiled: {'yes' if COMPILED else 'no'})")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=version, is_eager=True, help="Say which build this is.")
    ] = False,
) -> None:
    """Take what is said before the command."""


def main() -> None:
    """Run the command that the arguments name."""
    app()


if __name__ == "__main__":
    main()
