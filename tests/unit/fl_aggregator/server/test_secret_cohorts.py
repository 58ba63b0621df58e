"""Runs whose cohorts are secret: who is drawn, what of it can be seen, and what it costs (protocol, 11.7)."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from paho.mqtt.client import topic_matches_sub
from prometheus_client import generate_latest

from fl_aggregator.configuration.privacy import check_account
from fl_aggregator.configuration.settings import Settings
from fl_aggregator.monitoring.tracking.prometheus import Prometheus
from fl_aggregator.monitoring.tracking.trackers import RuntimeMetrics
from fl_aggregator.monitoring.views.round_record import read_records
from fl_aggregator.round import effects as do
from fl_aggregator.round import events as on
from fl_aggregator.round.phases import Finished
from fl_aggregator.server import interpreter
from fl_aggregator.server.launch import new
from fl_aggregator.server.secret_cohorts import draw
from fl_aggregator.tools.provision.accounts import Account
from fl_aggregator.tools.provision.acl import acl_rules
from fl_shared.errors import UserError
from fl_shared.privacy.gaussian_noise import noise
from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from tests.support.clipped_updates import clip_to_grid
from tests.support.masked_federation import MaskedFederation, digests_of
from tests.support.simulated_masked_edge import PARAMETERS_ONLY, VALUES

SECRET: Final[dict[str, Any]] = {
    "dp": "central", "dp_against": "models", "dp_clip": "0.5", "dp_noise": 2.0, "per_round": 2, "quorum": 1,
    "dp_insecure_seed": 5,
}  # fmt: skip
Cohorts = dict[int, tuple[str, ...]]


def secret_federation(directory: Path, **settings: Any) -> MaskedFederation:
    """One with secret cohorts."""
    usual = {"holdout": 0.0, **SECRET, **settings}
    return MaskedFederation(directory, masked=False, manifest=PARAMETERS_ONLY, **usual)


def cohorts_of(run: MaskedFederation) -> Cohorts:
    recorded = [effect.event for effect in run.effects if isinstance(effect, do.Record)]
    return {event.round: event.cohort for event in recorded if isinstance(event, on.Drawn)}


def test_each_edge_is_drawn_with_the_same_probability_independently() -> None:
    """χ² over 10^4 draws of four edges: of all 16 cohorts, and of each cohort after each other one of an edge."""
    draws, rate, names = 10_000, 0.3, ("a", "b", "c", "d")
    found = Counter(draw(names, rate, 1, None) for _ in range(draws))
    square = 0.0
    for bits in range(16):
        cohort = tuple(name for place, name in enumerate(names) if bits >> place & 1)
        expected = draws * rate ** len(cohort) * (1 - rate) ** (4 - len(cohort))
        square += (found[cohort] - expected) ** 2 / expected
    assert square < 45, "15 degrees of freedom: more than 45 once in 10,000 runs of this test"


def test_a_draw_is_of_53_bits_and_holds_at_the_ends() -> None:
    assert draw("abc", 1.0, 1, None) == ("a", "b", "c")
    assert draw("abc", 2.0**-54, 1, 7) == ()
    assert draw("abc", 0.5, 1, 7) == draw("abc", 0.5, 1, 7)
    assert len({draw("abcdefgh", 0.5, number, 7) for number in range(50)}) > 30


def test_the_sum_is_divided_by_the_expected_number_of_edges_also_if_nobody_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cohorts = {1: ("0", "3", "4"), 2: (), 3: ("1",)}
    monkeypatch.setattr(interpreter, "draw", lambda _names, _rate, number, _seed: cohorts[number])
    run = secret_federation(tmp_path / "run")
    models: dict[int, np.ndarray[Any, Any]] = {}

    def keep(effect: do.Effect) -> None:
        if isinstance(effect, do.PublishModel):
            models[effect.model.version] = run.runner.interpreter.worker.averager.newest.weights.copy()

    run.before_effect = keep
    state = run.run()
    plan, places = state.settings.privacy, state.settings.scale_bits
    assert state.version == 3
    for number in range(1, 4):
        key = hashlib.sha256(f"fl-mqtt insecure noise\x005\0{number}".encode()).digest()
        total = noise([(key, plan.noise * plan.clip * 2.0**places)], 0, VALUES)
        for name in cohorts[number]:
            total = total + clip_to_grid(run.edges[name].delta(number), plan.clip, places)
        expected = (models[number - 1] + total / (2 * 2.0**places)).astype(np.float32)
        np.testing.assert_array_equal(models[number], expected)


def test_a_round_closes_at_its_deadline_with_whatever_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interpreter, "draw", lambda *_: ("0", "1", "2"))
    run = secret_federation(tmp_path / "run", rounds=2, deadline=30.0)
    for name in "012":
        run.edges[name].lost_in = {1: {"update"}}
    run.edges["0"].lost_in = {1: {"update"}, 2: {"update"}}
    state = run.run()
    assert isinstance(state.phase, Finished)
    assert state.version == 2
    lines = [json.loads(line) for line in (run.directory / "history.jsonl").read_text().splitlines()]
    assert [line["participants"] for line in lines] == [[], ["1", "2"]], "the run directory has all"
    assert [line["cohort"] for line in lines] == [["0", "1", "2"]] * 2


def test_a_resumed_run_never_draws_again(tmp_path: Path) -> None:
    """Killed before each effect; the noise and the draws follow from a seed, so that the models are the same."""
    undisturbed = secret_federation(tmp_path / "undisturbed", rounds=3)
    expected = digests_of(undisturbed.run(), undisturbed)
    assert len({len(cohort) for cohort in cohorts_of(undisturbed).values()}) > 1
    first = next(place for place, one in enumerate(undisturbed.effects) if isinstance(one, do.Draw))
    kinds = {type(effect): place for place, effect in enumerate(undisturbed.effects)}
    for place in sorted({first, first + 1, first + 2, *kinds.values()}):
        run = secret_federation(tmp_path / f"killed-{place}", rounds=3, dp_insecure_seed=None)
        run.kill_at = place
        state = run.run()
        assert state.version == 3
        assert run.kills <= 1
        said: dict[int, set[tuple[str, ...]]] = {}
        for effect in run.effects:
            if isinstance(effect, do.AnnounceRound) and effect.secret:
                said.setdefault(effect.round, set()).add(effect.cohort)
        cohorts = cohorts_of(run)
        assert set(cohorts) == {1, 2, 3}
        for number, cohort in cohorts.items():
            if (
                not cohort and run.kills
            ):  # such a round is over at once: there may be nothing left to announce
                assert said.get(number, {()}) == {()}
            else:
                assert said[number] == {cohort}
    run = secret_federation(tmp_path / "again", rounds=3)
    run.kill_at = kinds[do.AnnounceRound]
    assert digests_of(run.run(), run)[-1] == expected[-1]


def test_it_spends_what_dp_accounting_says_of_the_same_events(tmp_path: Path) -> None:
    import dp_accounting  # a second, which only this file's process spends

    run = secret_federation(tmp_path / "run", rounds=3)
    run.run()
    said = {one.round: one.privacy for _, one in run.published if isinstance(one, m.Result) and one.round}
    for number, spent in said.items():
        assert spent is not None
        accountant = dp_accounting.pld.PLDAccountant(
            dp_accounting.NeighboringRelation.REPLACE_SPECIAL, value_discretization_interval=1e-3
        )
        event = dp_accounting.PoissonSampledDpEvent(2 / 5, dp_accounting.GaussianDpEvent(2.0))
        accountant.compose(event, number)
        assert spent.epsilon == pytest.approx(accountant.get_epsilon(spent.delta), rel=1e-6)
        assert spent.advantage == pytest.approx(accountant.get_delta(0.0), rel=1e-6)
        assert (spent.against, spent.spent_by) == ("models", None)
        assert spent.wire_epsilon is not None
        assert spent.wire_epsilon > spent.epsilon


def test_it_ends_before_the_release_that_would_exceed_the_budget(tmp_path: Path) -> None:
    run = secret_federation(tmp_path / "run", rounds=30, dp_epsilon=3.0)
    state = run.run()
    assert isinstance(state.phase, Finished)
    assert state.phase.reason == "privacy-budget"
    assert state.version == state.settings.privacy.times
    last = [one.privacy for _, one in run.published if isinstance(one, m.Result)][-1]
    assert last is not None
    assert 2.5 < last.epsilon <= 3.0
    calibrated = new(
        Settings.model_validate({**SECRET, "clients": 5, "dp_noise": None, "dp_epsilon": 3.0, "rounds": 8}),
        tmp_path / "b",
    )
    plan = calibrated.record.settings.privacy
    calibrated.close()
    assert plan is not None
    assert 2.99 < plan.planned_epsilon <= 3.0


# --- the attack ------------------------------------------------------------------------------------------------


def transcript(run: MaskedFederation, account: Account) -> list[str]:
    """All that the broker lets ``account`` read, without digests, contents of models, and times."""
    readable = [rule.filter for rule in acl_rules(account, "fl") if "read" in rule.access]
    lines: list[str] = []
    digests: dict[str, str] = {}
    for topic, message in run.published:
        path = t.build("fl", topic)
        if not any(topic_matches_sub(one, path) for one in readable):
            continue
        fields = json.loads(message.model_dump_json(exclude={"data"}))
        for name in ("run", "written", "seconds_left", "started"):
            fields.pop(name, None)
        text = re.sub(
            r"[0-9a-f]{64}|(?<=fl/model/)[0-9a-f]{12}",
            lambda found: digests.setdefault(found[0], f"digest {len(digests)}"),
            f"{path} {json.dumps(fields, sort_keys=True)}",
        )
        lines.append(text)
    return lines


def attacked(
    directory: Path, monkeypatch: pytest.MonkeyPatch, cohorts: Cohorts, lost: Iterable[str] = ()
) -> MaskedFederation:
    """A run with these cohorts, whose status is published whenever that could tell something."""
    monkeypatch.setattr(interpreter, "draw", lambda _names, _rate, number, _seed: cohorts[number])
    run = secret_federation(directory, rounds=3, clients=6, grace=0.0, deadline=20.0)
    for name in lost:
        run.edges[name].lost_in = {2: {"update"}}

    def publish(effect: do.Effect) -> None:
        if isinstance(effect, do.AnnounceRound | do.WithdrawRound | do.PublishModel | do.Average):
            run.publish_status()

    run.before_effect = publish
    run.run()
    run.publish_status()
    return run


ISSUED: Final = datetime(2026, 1, 1, tzinfo=UTC)
EDGE: Final = Account(name="0", roles=("train", "evaluate", "predict"), issued=ISSUED, pending=False)
ASKER: Final = Account(name="asker", roles=("asker",), issued=ISSUED, pending=False)


@pytest.mark.parametrize("account", [EDGE, ASKER], ids=["edge", "asker"])
def test_11_7_who_may_read_all_that_an_edge_may_cannot_tell_who_else_was_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, account: Account
) -> None:
    one = attacked(tmp_path / "one", monkeypatch, {1: ("0", "1"), 2: ("2", "3"), 3: ()})
    other = attacked(
        tmp_path / "other", monkeypatch, {1: ("0", "3", "4", "5"), 2: ("1",), 3: ("1", "2", "4")}, "1"
    )
    first, second = transcript(one, account), transcript(other, account)
    assert len(first) > 10 or account is ASKER, "who asks for predictions reads the answers only"
    assert first == second


def test_who_is_drawn_sees_so_and_the_transcripts_can_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attack would find something if there were something to be found."""
    one = attacked(tmp_path / "one", monkeypatch, {1: ("0", "1"), 2: (), 3: ()})
    other = attacked(tmp_path / "other", monkeypatch, {1: ("1",), 2: (), 3: ()})
    assert transcript(one, EDGE) != transcript(other, EDGE)
    assert any(isinstance(message, m.Selected) for _, message in one.published)
    operator = Account(name="operator", roles=("operator",), issued=ISSUED, pending=False)
    assert transcript(one, operator) != transcript(other, operator), (
        "who reads all is an adversary of the wire"
    )


def test_nothing_that_is_shown_names_who_was_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = attacked(tmp_path / "run", monkeypatch, {1: ("0", "1"), 2: ("2", "3"), 3: ("5",)})
    results = [one for _, one in run.published if isinstance(one, m.Result) and one.round]
    assert len(results) == 3
    for result in results:
        assert result.secret
        assert (result.participants, result.missing, result.examples) == ((), {}, 0)
        assert (result.bytes_up, result.bytes_down, result.seconds) == (0, 0, 0.0)
    for _, message in run.published:
        match message:
            case m.Status(round=number) if number:
                assert (message.missing, message.refused) == ((), {})
            case m.Missing(round=number) if number:
                assert message.clients == {}
            case m.Edges(round=number) if number:
                assert {view.state for view in message.edges.values()} <= {"present", "offline"}
            case m.History():
                columns = message.columns
                assert {*columns.participants, *columns.cohort, *columns.bytes_up, *columns.seconds} <= {0}
            case m.Selected(round=number) if number:
                assert message.cohort is None
                assert len(codec.encode(message)) > 0
    lines = [json.loads(line) for line in (run.directory / "history.jsonl").read_text().splitlines()]
    assert [record.shown.participants for record in read_records(lines)] == [[], [], []]
    assert [record.participants for record in read_records(lines)] == [["0", "1"], ["2", "3"], ["5"]]


@pytest.mark.parametrize(("against", "shown"), [("models", False), ("wire", True)])
def test_prometheus_is_not_told_how_much_the_aggregator_has_to_do(
    tmp_path: Path, against: str, shown: bool
) -> None:
    """Each update costs processor time and memory."""
    launch = new(Settings.model_validate({**SECRET, "clients": 5, "dp_against": against}), tmp_path / "run")
    tracker = Prometheus("127.0.0.1", 0, {})
    try:
        tracker.begin(launch.record, (), lambda: RuntimeMetrics(0, 0, 0, 0, True, False, {}))
        found = generate_latest(tracker._registry).decode()
    finally:
        tracker.close(None)
        launch.close()
    assert ("process_cpu_seconds" in found) == shown
    assert "fl_connected 1.0" in found


def test_an_update_that_arrives_does_not_let_the_status_be_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interpreter, "draw", lambda *_: ("0", "1", "2"))
    now = [100.0]
    monkeypatch.setattr("fl_aggregator.messaging.publisher.time.monotonic", lambda: now[0])
    run = secret_federation(tmp_path / "run", rounds=1)
    counts = []

    def watch(effect: do.Effect) -> None:
        if isinstance(effect, do.SendReply) and isinstance(effect.body, do.Accept) and effect.body.round:
            now[0] += 1.0  # more than the shortest interval, less than that without a change
            before = len(run.published)
            run.publish_status(force=False)
            counts.append(len(run.published) - before)
            now[0] -= 1.0

    run.before_effect = watch
    run.run()
    assert len(counts) == 3
    assert counts[1:] == [0, 0], "once for the round that has opened"


# --- what does not go with it ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"masked": True}, "members of a masked round know each other, so cohorts are no secret"),
        ({"dp_bands": "2"}, "--dp-bands 2"),
        ({"dp_apart": "2"}, "--dp-apart 2"),
        ({"dp_times": 2}, "--dp-times 2"),
        ({"over_select": 1}, "--over-select 1"),
        ({"pace": "auto"}, "--pace auto"),
        ({"dp": None, "dp_clip": None, "dp_noise": None, "dp_insecure_seed": None}, "with --dp only"),
        ({"dp_epsilon": 0.1, "dp_noise": 0.5}, "expected --dp-noise of at least"),
    ],
)
def test_what_does_not_go_with_secret_cohorts_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises((UserError, ValueError), match=message):
        new(Settings.model_validate({**SECRET, "clients": 5, **changes}), tmp_path / "run").close()


def test_without_kits_it_is_refused() -> None:
    settings = Settings.model_validate({**SECRET, "clients": 5})
    with pytest.raises(UserError, match=r"--dp-against models: needs --kit"):
        check_account(settings, has_kit=False)
    check_account(settings, has_kit=True)
    check_account(settings.model_copy(update={"dp_against": "wire"}), has_kit=False)
