"""The operator's commands on ``fl/control``, and the aggregator's answers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import StringConstraints

from fl_shared.protocol.kinds.base import Count, Incarnation, Message, RunId, Scoped, Text

CommandName = Literal["stop", "pause", "resume"]


class Command(Message):
    """A command to the aggregator of ``run``, never retained. ``reason`` is for people.

    ``incarnation``: only this start of the run's aggregator obeys, and no later one that resumes it; null: any.
    """

    run: RunId
    incarnation: Incarnation | None = None
    reason: Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")] = ""


class Stop(Command):
    """The command to end the run, so that it can be resumed later."""

    kind: Literal["stop"] = "stop"


class Pause(Command):
    """The command to begin pause ``number`` of the run, counted from 1; null: whatever its number is.

    With a number, a copy of the message that comes late does not pause the run again.
    """

    kind: Literal["pause"] = "pause"
    number: Count | None = None


class Resume(Command):
    """The command to end pause ``number`` of the run; null: the one that lasts."""

    kind: Literal["resume"] = "resume"
    number: Count | None = None


class CommandAnswer(Scoped):
    """The answer to a command, on the Response Topic of the command, which is below ``fl/answers``.

    ``command``: null if it could not be read. ``accepted``: whether the run is as the command wants it, or will be in a
    moment. ``detail``: how the run is now, or why the aggregator does not obey.
    """

    kind: Literal["answer"] = "answer"
    command: CommandName | None
    accepted: bool
    detail: Text
