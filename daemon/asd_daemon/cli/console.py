"""What the three programs have in common on a terminal: a failure is one line and an exit code, never a traceback.

Owns how errors are printed and commands grouped. It knows no command.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from types import TracebackType
from typing import Any, NoReturn

import click

from asd_daemon.cli.repeated_options import refuse_repeated_options
from asd_daemon.errors import AsdError
from asd_daemon.redaction import redact


class StoppedBySignal(Exception):  # noqa: N818 - it is not an error
    """A signal asked the program to stop; the message says what stays."""

    def __init__(self, signal_number: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


class _PlainErrors(click.Command):
    """Turns what went wrong on purpose into `error: …` on stderr and the error's exit code."""

    def main(  # type: ignore[override]  # click declares two overloads of it
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        *,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """The program: a wrong word is one line too; what the command returns is its exit code."""
        if not standalone_mode:
            return super().main(args, prog_name, standalone_mode=False, **extra)
        sys.excepthook = _redacted_traceback
        args = list(sys.argv[1:] if args is None else args)
        try:
            refuse_repeated_options(self, args, prog_name or self.name)
            code = super().main(args, prog_name, standalone_mode=False, **extra)
        except click.exceptions.NoArgsIsHelpError as e:
            click.echo(e.ctx.get_help() if e.ctx else e.format_message(), err=True)
            sys.exit(2)
        except click.ClickException as e:
            context = getattr(e, "ctx", None)
            exit_with_message(
                f"{e.format_message()} (see {context.command_path if context else self.name} --help)", e.exit_code
            )
        except click.Abort:
            exit_with_message("by Ctrl-C", 130, word="stopped")
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except AsdError as e:
            exit_with_message(str(e), e.exit_code)
        except StoppedBySignal as e:
            exit_with_message(str(e), e.exit_code, word="stopped")
        except KeyboardInterrupt:
            exit_with_message("by Ctrl-C; what was finished stays", 128 + signal.SIGINT, word="stopped")


class CommandGroup(_PlainErrors, click.Group):
    """A program of several commands."""


class Program(_PlainErrors):
    """A program that is one command."""


def use_one_thread() -> None:
    """Let linear algebra keep to one thread unless the environment says otherwise; to be called before NumPy is imported.

    Its matrices are small here: more threads wait for each other, use ten times the CPU and take it from the machines that are heard.
    """
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")


def leave_pydantic_alone() -> None:
    """Let pydantic look for no plug-ins, for which it goes through all that is installed; to be called before models are made."""
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")


def _redacted_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print a defect of ours without the secrets that it may name."""
    click.echo(redact("".join(traceback.format_exception(kind, error, trace))), err=True, nl=False)


def exit_with_message(message: str, exit_code: int, word: str = "error") -> NoReturn:
    """Print a message as one line on stderr and end the program."""
    click.echo(f"{word}: {redact(' '.join(message.split()))}", err=True)
    sys.exit(exit_code)
