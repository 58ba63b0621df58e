"""Wire message → event: what is not of this run or contradicts itself goes no further (protocol, 1.5, 1.6 and 8.6)."""

from __future__ import annotations

from typing import Any, cast

import msgpack
import pytest

from fl_aggregator.configuration.settings import Settings
from fl_aggregator.messaging.translate import (
    MessageRejected,
    event_from,
    invalid_update_event,
    selected_message,
)
from fl_aggregator.round import effects as do
from fl_aggregator.round import events as on
from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.protocol.envelope import EnvelopeSource
from tests.support.observation_samples import RUN
from tests.support.samples import MESSAGES

SCOPE = EnvelopeSource(RUN, 1)
TOPIC = t.UpdatesTopic("7")
BARE = t.UpdatesTopic()


def invalid(sample: str, **members: Any) -> bytes:
    """A good message of this kind with other members."""
    fields = msgpack.unpackb(codec.encode(MESSAGES[sample][1]))
    return cast(bytes, msgpack.packb(fields | members))


@pytest.mark.parametrize("kind", ["update", "offer"])
@pytest.mark.parametrize(
    "wrong", [{"examples": -1}, {"steps": None}, {"sections": 7}, {"metrics": {"after": {"x": float("nan")}}}]
)
def test_an_update_that_cannot_be_read_is_unusable_if_it_says_whose_it_is(
    kind: str, wrong: dict[str, Any]
) -> None:
    payload = invalid(kind, **wrong)
    with pytest.raises(codec.DecodeError) as error:
        codec.decode(TOPIC, payload)
    claim = codec.claim_in(payload)
    assert claim is not None
    good = MESSAGES[kind][1]
    assert isinstance(good, m.Update | m.Offer)
    for topic in (TOPIC, BARE):
        assert invalid_update_event(
            topic, claim, str(error.value), SCOPE, 3.0, awaited=True
        ) == on.UpdateInvalid(
            now=3.0,
            client="7",
            session=good.session,
            round=good.round,
            digest=good.digest,
            reason="malformed",
            detail=str(error.value),
        )
    assert next(iter(wrong)) in str(error.value)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff",
        b"\x81\xa4kind\xa6update",
        invalid("update", v=1),
        invalid("update", kind="update-chunk"),
        invalid("update", client="a/b"),
        invalid("update", session=None),
        invalid("update", round=-1),
        invalid("update", digest="xyz"),
        invalid("update", incarnation=2**60),
        codec.encode(MESSAGES["update-chunk"][1]),
        b"\x81\xa1x" + b"\x91" * 100_000,
    ],
)
def test_nothing_else_claims_to_be_anybodys_update(payload: bytes) -> None:
    assert codec.claim_in(payload) is None


@pytest.mark.parametrize("rest", [b"", b"\x91" * 100_000, b"\xc1", b"\xdf\xff\xff\xff\xff"])
def test_a_claim_is_found_whatever_comes_behind_it(rest: bytes) -> None:
    update = MESSAGES["update"][1]
    assert isinstance(update, m.Update)
    claim = codec.claim_in(codec.encode(update).partition(b"\xa8sections")[0] + rest)
    assert claim is not None
    assert (claim.client, claim.digest) == (update.client, update.digest)


def test_a_claim_is_found_in_a_large_message_without_copying_its_data() -> None:
    update = MESSAGES["update"][1]
    assert isinstance(update, m.Update)
    large = update.sections[0].model_copy(update={"data": bytes(2**20)})
    whole = update.model_copy(update={"sections": (large,), "examples": -5})
    claim = codec.claim_in(codec.encode(whole))
    assert claim is not None
    assert (claim.client, claim.digest) == (update.client, update.digest)


@pytest.mark.parametrize(
    ("topic", "changes", "reason", "detail", "client"),
    [
        (t.UpdatesTopic("8"), {}, "client-mismatch", "client: '7', expected '8', as in the topic", "8"),
        (TOPIC, {"run": "other"}, "other-run", f"run: 'other', expected {RUN!r}", "7"),
        (BARE, {"run": "other"}, "other-run", f"run: 'other', expected {RUN!r}", "7"),
        (TOPIC, {"incarnation": 2}, "other-incarnation", "incarnation: 2, expected 1", "7"),
    ],
)
def test_what_is_not_of_this_run_is_dropped_under_the_name_of_whose_it_is(
    topic: t.UpdatesTopic, changes: dict[str, Any], reason: str, detail: str, client: str
) -> None:
    message = MESSAGES["update"][1].model_copy(update=changes)
    with pytest.raises(MessageRejected) as dropped:
        event_from(topic, message, SCOPE, 0.0, 10)
    assert (dropped.value.reason, str(dropped.value), dropped.value.client) == (reason, detail, client)
    claim = codec.claim_in(codec.encode(message))
    assert claim is not None
    with pytest.raises(MessageRejected, match=detail.partition(":")[0]):
        invalid_update_event(topic, claim, "x", SCOPE, 0.0, awaited=True)


def test_4_8_the_encodings_of_a_registration_are_read() -> None:
    message = MESSAGES["register-first"][1].model_copy(update={"encodings": ("f32", "q8")})
    event = event_from(t.RegisterTopic("7"), message, SCOPE, 3.0, 10)
    assert isinstance(event, on.Registered)
    assert event.encodings == ("f32", "q8")


def test_5_12_a_selection_names_the_encoding_of_its_round() -> None:
    announced = do.AnnounceRound(1, m.ModelReference(version=0, digest="a" * 64), "q8", ("7",), 60.0)
    message = selected_message(announced, Settings(), None, (), SCOPE, 0.0, 2**20)
    assert message.encoding == "q8"
    assert codec.decode(t.SelectedTopic(1), codec.encode(message)) == message, (
        "an edge can read what it lacks"
    )
