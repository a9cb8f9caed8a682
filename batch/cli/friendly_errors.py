"""Ends a failed command with a status and a sentence."""

from __future__ import annotations

import sys
from typing import Any

import click

from shortlist.batch.exit_status import INVALID, misplaced, outcome


class FriendlyErrors(click.Group):
    """A group whose errors are a sentence and an exit status, never a traceback."""

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's own
        """Runs a command; ends the process where it fails."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            failure = _failure(error)
            if failure is None:  # a bug, whose traceback is wanted
                raise
            status, sentence = failure
            click.echo(f"shortlist: {type(error).__name__}: {sentence}", err=True)
            sys.exit(status)


def _failure(error: Exception) -> tuple[int, str] | None:
    known = outcome(error)
    if known is not None:
        return known
    sentence = misplaced(error)
    return None if sentence is None else (INVALID, sentence)
