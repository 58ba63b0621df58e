"""What an edge says of its data in a private run (protocol, section 11)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fl_edge.session.effects import Effect
from fl_edge.session.events import Replied, SelectionSeen
from fl_shared.protocol import messages as m
from tests.support.session_script import SessionScript
from tests.support.session_steps import sent

PLAIN = m.RoundPrivacy(mechanism="central", clip=1.0, noise=2.0)
ASKING = PLAIN.model_copy(update={"accuracy": True})


def admitted(script: SessionScript, line: str) -> tuple[Effect, ...]:
    reply = script.event(line)
    assert isinstance(reply, Replied)
    assert isinstance(reply.reply, m.Admitted)
    return script.happen(replace(reply, reply=reply.reply.model_copy(update={"private": True})))


def admit(script: SessionScript) -> tuple[Effect, ...]:
    script.do("connected s1")
    effects = admitted(script, "admitted part=7/20")
    script.do("loaded 0")
    return effects + admitted(script, "admitted part=7/20")


def select(script: SessionScript, privacy: m.RoundPrivacy | None, **more: object) -> None:
    seen = script.event("selected 1")
    assert isinstance(seen, SelectionSeen)
    assert seen.selected is not None
    change = {"privacy": privacy, **more}
    script.happen(replace(seen, selected=seen.selected.model_copy(update=change)))
    script.do("fetched 1")


@pytest.mark.parametrize(("privacy", "told"), [(PLAIN, None), (ASKING, {"accuracy": 0.25})])
def test_11_6_an_update_says_the_accuracy_of_the_base_if_it_is_asked_for_and_nothing_else(
    privacy: m.RoundPrivacy, told: dict[str, float] | None
) -> None:
    script = SessionScript()
    admit(script)
    select(script, privacy)
    [message] = sent(script.do("trained 1 before=0.25 after=0.75"))
    assert isinstance(message, m.Update)
    assert message.metrics == m.UpdateMetrics(before=told)
    assert (message.examples, message.steps, message.seconds) == (1, 0, 0.0)
    kept = script.session.pending_update()
    assert kept is not None

    restarted = SessionScript()
    restarted.state = replace(restarted.session, restored_update=kept)
    [again] = [one for one in sent(admit(restarted)) if isinstance(one, m.Update)]
    assert again.metrics == message.metrics


def test_11_5_what_has_been_called_private_stays_so_in_its_run() -> None:
    """An aggregator that is started again says that it is not, and asks for a round without noise."""
    script = SessionScript()
    admit(script)
    [registered] = [
        one for one in sent(script.do("admitted part=7/20 incarnation=2")) if isinstance(one, m.Registration)
    ]
    assert registered.examples == 1
    failed = sent(script.do("admitted part=7/20 incarnation=2", "selected 1 incarnation=2 cohort=7"))
    assert [one.detail for one in failed if isinstance(one, m.TrainingFailed)] == [
        "the run has differential privacy, but not this round"
    ]
