"""Steps that tests of an edge's session share."""

from __future__ import annotations

from fl_edge.session.effects import Send
from fl_shared.protocol import messages as m
from tests.support.session_script import SessionScript, identity

READY = ("connected s1", "admitted part=7/20", "loaded 0", "admitted part=7/20")

TRAINS = (*READY, "selected 1", "fetched 1")


def sent(effects: object) -> list[m.Message]:
    assert isinstance(effects, tuple)
    return [effect.message for effect in effects if isinstance(effect, Send)]


def ready(**changes: object) -> SessionScript:
    script = SessionScript(identity(**changes))
    script.do(*READY)
    return script
