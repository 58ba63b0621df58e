"""What this account may do on the topics of a run. Tried only while no run is online.

Mosquitto's ACL files say yes to every SUBSCRIBE and leave out what may not be read, so a right to read is proved by
what comes. All that is sent is empty and not retained: edges and aggregators pass over it.
"""

from __future__ import annotations

import secrets
from typing import Final

from fl_aggregator.tools.doctor.bench import Bench
from fl_aggregator.tools.doctor.findings import Finding
from fl_shared.cli.broker_access import BrokerReach
from fl_shared.mqtt.events import MAX_FILTERS
from fl_shared.mqtt.paho.probe import Probe
from fl_shared.mqtt.paho.probe_results import FAILURE, ProbeFailed
from fl_shared.protocol import topics as t

FAR_ROUND: Final = 10**15
"""No run comes so far."""


def of_account(bench: Bench, reach: BrokerReach, is_online: bool) -> Finding:
    """Whether it may be a run's aggregator."""
    kit = reach.kit
    if kit is not None and "aggregator" not in kit.roles:
        return Finding(
            "rights",
            "untested",
            f"the kit of {kit.name} is not an aggregator's",
            "start needs the aggregator's kit",
            essential=False,
        )
    if is_online:
        return Finding(
            "rights", "untested", "a run is online, and its topics are left alone", essential=False
        )
    nobody = secrets.token_hex(6)
    unwritten, silent = _try(bench, nobody)
    to_write = _written_by_aggregator(nobody)
    to_read = [*_read_and_written(nobody), *_written_by_edges(nobody)]
    forbidden = [f"write {_text(bench, topic)}" for topic in to_write if topic in unwritten]
    forbidden += [f"read {_text(bench, topic)}" for topic in to_read if topic in silent]
    measured = {"forbidden": [each.replace(nobody, "+") for each in forbidden]}
    if forbidden:
        return Finding(
            "rights",
            "missing",
            "this account may not " + ", ".join(measured["forbidden"]),
            "it cannot run an aggregator",
            "ACL: use the one that fl-aggregator provision makes",
            measured=measured,
        )
    unproved = [
        _text(bench, topic).replace(nobody, "+") for topic in _written_by_edges(nobody) if topic in unwritten
    ]
    measured["unproved"] = unproved
    if not unproved:
        open_to_all = reach.address.user is None and reach.tls is None
        return Finding(
            "rights",
            "ok",
            "all rights of an aggregator and of any edge",
            "anyone who reaches this broker can pose as any client: only for networks that you trust"
            if open_to_all
            else "",
            "fl-aggregator provision makes accounts" if open_to_all else "",
            measured=measured,
        )
    return Finding(
        "rights",
        "ok",
        f"all rights of an aggregator that can be tested: only edges can show that it may read {', '.join(unproved)}",
        measured=measured,
    )


def _read_and_written(nobody: str) -> list[t.Topic]:
    return [
        t.AggregatorTopic(),
        t.StatusTopic(),
        t.HistoryTopic(),
        t.ControlTopic(),
        t.MissingTopic(FAR_ROUND),
        t.ModelTopic(),
        t.ChunkTopic(nobody, 0),
        t.WorkTopic(nobody),
    ]


def _written_by_aggregator(nobody: str) -> list[t.Topic]:
    return [*_read_and_written(nobody), t.RepliesTopic(nobody)]


def _written_by_edges(nobody: str) -> list[t.Topic]:
    return [
        t.RegisterTopic(nobody),
        t.PresenceTopic(nobody),
        t.UpdatesTopic(nobody),
        t.EvaluationsTopic(nobody),
    ]


def _filters(bench: Bench) -> list[str]:
    single = (t.AggregatorTopic(), t.StatusTopic(), t.HistoryTopic(), t.ControlTopic())
    patterns = (
        t.ALL_ROUNDS,
        t.ALL_MODELS,
        t.ALL_WORK,
        t.ALL_REGISTRATIONS,
        t.ALL_PRESENCE,
        t.ALL_UPDATES,
        t.ALL_EVALUATIONS,
    )
    return [
        *(t.build(bench.prefix, topic) for topic in single),
        *(t.filter_of(bench.prefix, pattern) for pattern in patterns),
    ]


def _try(bench: Bench, nobody: str) -> tuple[set[t.Topic], set[t.Topic]]:
    """What could not be written, and what was written and did not come."""
    written: set[t.Topic] = set()
    unwritten: set[t.Topic] = set()
    filters = _filters(bench)
    with bench.probe() as listener:
        for start in range(0, len(filters), MAX_FILTERS):
            listener.subscribe(filters[start : start + MAX_FILTERS])
        for topic in (*_written_by_aggregator(nobody), *_written_by_edges(nobody)):
            (written if _may_write(bench, topic) else unwritten).add(topic)
        came = _topics_heard(bench, listener, written - {t.RepliesTopic(nobody)})
    return unwritten, written - came - {t.RepliesTopic(nobody)}


def _may_write(bench: Bench, topic: t.Topic) -> bool:
    """On a connection of its own, since some brokers end it instead of answering no."""
    try:
        with bench.probe(second=True) as speaker:
            return speaker.say(_text(bench, topic), b"") < FAILURE
    except ProbeFailed:
        return False


def _topics_heard(bench: Bench, listener: Probe, wanted: set[t.Topic]) -> set[t.Topic]:
    heard: set[t.Topic] = set()
    while not wanted <= heard:
        messages = listener.hear(1, bench.quiet)
        if not messages:
            break
        # Retained ones, too: that they come is the proof that was sought.
        parsed = (t.parse(bench.prefix, each.topic) for each in messages)
        heard |= {topic for topic in parsed if topic is not None}
    return heard


def _text(bench: Bench, topic: t.Topic) -> str:
    return t.build(bench.prefix, topic)
