"""Ends a failed command with a status and a sentence."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any

import click

from shortlist.batch.exit_status import DONE, INVALID, STOPPED, misplaced, outcome
from shortlist.recsys.errors import StoreUnavailable


class FriendlyErrors(click.Group):
    """A group whose errors are a sentence and an exit status, never a traceback."""

    def main(  # click's own signature, with its types
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,  # noqa: FBT001, FBT002 - likewise
        **extra: Any,  # noqa: ANN401 - likewise
    ) -> Any:  # noqa: ANN401 - likewise
        """Runs the command line; a wrong argument and Ctrl-C are one line each."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        if args is None:  # the process ends with this command
            _listen_once()
        try:
            status = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        except click.exceptions.NoArgsIsHelpError as error:  # the help is wanted, not a sentence
            error.show()
            status = error.exit_code
        except click.ClickException as error:
            _say(_sentence(error))
            status = error.exit_code
        except click.Abort:
            if sys.stderr.isatty():
                click.echo(err=True)  # the terminal has written ^C there
            _say("stopped")
            status = STOPPED
        sys.exit(status if isinstance(status, int) else DONE)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's own
        """Runs a command; ends the process where it fails."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt as error:
            raise click.Abort from error
        except Exception as error:
            failure = _failure(error)
            if failure is None:  # a bug, whose traceback is wanted
                raise
            status, sentence = failure
            _say(f"{type(error).__name__}: {sentence}")
            sys.exit(status)


def _listen_once() -> None:
    """Has the first Ctrl-C end the command, and further ones ignored while it cleans up.

    Where a shell has SIGINT ignored, as for background commands, it stays so.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _interrupt)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


def _say(sentence: str) -> None:
    click.echo(f"shortlist: {sentence}", err=True)


def _failure(error: Exception) -> tuple[int, str] | None:
    known = outcome(error)
    if known is not None:
        status, sentence = known
        if isinstance(error, StoreUnavailable):
            sentence += "; `shortlist redis` starts one on this machine"
        return status, sentence
    place = misplaced(error)
    return None if place is None else (INVALID, place)


def _sentence(error: click.ClickException) -> str:
    """Click's message in one line, with where to read on."""
    words = " ".join(error.format_message().split()).rstrip(".")
    ctx = getattr(error, "ctx", None)
    if isinstance(error, click.MissingParameter) and ctx is not None:
        words = f"missing {', '.join(_missing(ctx))}"
    sentence = words[:1].lower() + words[1:]
    if ctx is None:
        return sentence
    return f"{sentence}{'' if sentence.endswith('?') else ';'} see `{ctx.command_path} --help`"


def _missing(ctx: click.Context) -> list[str]:
    """Every required parameter that was not given: those given were read before the others."""
    return [
        param.opts[0] if isinstance(param, click.Option) else param.make_metavar(ctx)
        for param in ctx.command.params
        if param.required and param.name not in ctx.params
    ]
