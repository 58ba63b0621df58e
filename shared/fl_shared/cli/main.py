"""Runs a command as a program: exit codes, and errors as one line."""

from __future__ import annotations

import errno
import io
import os
import sys
import threading
import traceback
from typing import Any, Final, NoReturn

import click
from click.core import ParameterSource

from fl_shared.cli.signals import end_on_signals, ignore_signals, raise_interrupt
from fl_shared.errors import INTERRUPTED, ProgramError, UserError
from fl_shared.system.file_limit import raise_file_limit
from fl_shared.system.text import one_line

_OUR_PACKAGES: Final = frozenset({"fl_aggregator", "fl_edge", "fl_mqtt", "fl_shared"})


def _source_of(error: click.BadParameter) -> str:
    """Where a wrong value comes from, if not from the command line, as the end of an error's text."""
    context, parameter = error.ctx, error.param
    if context is None or parameter is None or parameter.name is None:
        return ""
    match context.get_parameter_source(parameter.name):
        case ParameterSource.ENVIRONMENT:
            return f" (from {parameter.envvar})"
        case ParameterSource.DEFAULT_MAP:
            return " (from the --config file)"
        case _:
            return ""


def _with_range(text: str, parameter: click.Parameter | None) -> str:
    """Names the range where click only says that a value ``is not a valid integer range``."""
    kind = None if parameter is None else parameter.type
    if not isinstance(kind, click.IntRange | click.FloatRange):
        return text
    number = kind.name.removesuffix(" range")
    return text.replace(
        f"is not a valid {kind.name}.", f"is not a valid {number}; expected {kind._describe_range()}."
    )


def mistake_line(error: click.ClickException | ProgramError, program: str) -> str:
    """The line that ``program`` prints for an error. Where click does not understand the arguments, it names the help.

    For who gives no arguments to a group of commands, click's error is the whole help.
    """
    if isinstance(error, ProgramError):
        return f"{program}: {one_line(str(error))}"
    text = error.format_message()
    if "\n" in text:
        return text
    if isinstance(error, click.BadParameter) and not isinstance(error, click.MissingParameter):
        return f"{program}: {_with_range(text, error.param)}{_source_of(error)}"
    if isinstance(error, click.UsageError):
        command = program if error.ctx is None else error.ctx.command_path
        return f"{program}: {text.removesuffix('.')} (help: {command} --help)"
    return f"{program}: {text}"


def _on_dead_thread(died: threading.ExceptHookArgs) -> None:
    """Ends the process if one of our threads has died of an error: whoever waits for it would wait for ever.

    Threads of libraries may die as they like.
    """
    threading.__excepthook__(died)
    frames = (frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(died.exc_traceback))
    if any(name.partition(".")[0] in _OUR_PACKAGES for name in frames) and not sys.is_finalizing():
        os.write(2, b"a thread of this program has died (see above): the program ends\n")
        os._exit(1)


class _Output(io.FileIO):
    """Standard output or error, whose reader may go away: what a program writes to files is what counts."""

    def write(self, data: Any) -> int:
        """Writes, and forgets what nobody can read."""
        try:
            return super().write(data) or 0
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EBADF, errno.EIO):
                raise
            return len(data)


def _survive_closed_output() -> None:
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:  # otherwise a connection or a file would get this number
            os.open(os.devnull, os.O_RDWR)
    sys.stdout, sys.stderr = _text_output(1, sys.stdout), _text_output(2, sys.stderr)


def _text_output(number: int, replaced: Any) -> io.TextIOWrapper:
    encoding = "utf-8" if replaced is None else replaced.encoding  # null if it was closed when Python started
    output = io.BufferedWriter(_Output(number, "w", closefd=False))
    return io.TextIOWrapper(output, encoding, errors="backslashreplace", line_buffering=True)


def run_program(command: click.Command, program: str, given: object = None) -> NoReturn:
    """Runs ``command`` and ends the process: 0 done, 1 failed, 2 the user's mistake, 130 interrupted.

    If the command returns an int, that is the exit code. SIGTERM ends it like Ctrl-C. ``given``: the
    ``obj`` of its context, for what is no option.
    """
    os.umask(os.umask(0o077) | 0o022)  # whoever can write to a run's files decides what a resume does
    _survive_closed_output()
    raise_file_limit()
    threading.excepthook = _on_dead_thread
    end_on_signals(raise_interrupt)  # until the command sets its own handlers
    try:
        result = command.main(prog_name=program, standalone_mode=False, obj=given)
        code = result if isinstance(result, int) else 0
    except (click.exceptions.Abort, KeyboardInterrupt):
        click.echo(f"{program}: interrupted", err=True)
        code = INTERRUPTED
    except (click.ClickException, ProgramError) as error:
        click.echo(mistake_line(error, program), err=True)
        code = error.exit_code if isinstance(error, ProgramError) else UserError.exit_code
    sys.stdout.flush()
    ignore_signals()  # while Python shuts down, a signal would end it with another code
    sys.exit(code)
