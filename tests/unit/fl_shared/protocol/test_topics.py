"""Every topic is a value, and nothing that is not ours parses (clauses 1.1, 1.6, 2, 7.3)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_shared.protocol import topics as t
from fl_shared.protocol.channels import CHANNELS

SPELLINGS: dict[str, t.Topic] = {
    "fl/aggregator": t.AggregatorTopic(),
    "fl/status": t.StatusTopic(),
    "fl/control": t.ControlTopic(),
    "fl/answers/a1b2": t.AnswersTopic("a1b2"),
    "fl/register": t.RegisterTopic(),
    "fl/register/7": t.RegisterTopic("7"),
    "fl/clients/lab-a_2/presence": t.PresenceTopic("lab-a_2"),
    "fl/clients/7/work": t.WorkTopic("7"),
    "fl/clients/7/unmask": t.UnmaskTopic("7"),
    "fl/clients/7/log-request": t.LogRequestTopic("7"),
    "fl/clients/7/log": t.LogTopic("7"),
    "fl/replies/7": t.RepliesTopic("7"),
    "fl/round/0/selected": t.SelectedTopic(0),
    "fl/round/12/missing": t.MissingTopic(12),
    "fl/round/12/edges": t.EdgesTopic(12),
    "fl/history": t.HistoryTopic(),
    "fl/round/12/result": t.ResultTopic(12),
    "fl/model": t.ModelTopic(),
    "fl/model/0123456789ab/manifest": t.ManifestTopic("0123456789ab"),
    "fl/model/0123456789ab/3": t.ChunkTopic("0123456789ab", 3),
    "fl/updates": t.UpdatesTopic(),
    "fl/updates/7": t.UpdatesTopic("7"),
    "fl/evaluations/7": t.EvaluationsTopic("7"),
    "fl/predict": t.PredictTopic(),
    "fl/predict/7": t.PredictTopic("7"),
    "fl/predictions": t.PredictionsTopic(),
    "fl/predictions/me": t.PredictionsTopic("me"),
    "fl/brokers/B": t.BrokerTopic("B"),
}


@pytest.mark.parametrize(("text", "topic"), SPELLINGS.items())
@pytest.mark.parametrize("prefix", ["fl", "a/b/c/d/e"])
def test_spelling_and_parsing_are_inverse(text: str, topic: t.Topic, prefix: str) -> None:
    spelled = prefix + text.removeprefix("fl")
    assert t.build(prefix, topic) == spelled
    assert CHANNELS.parse(prefix, spelled) == topic
    assert spelled.count("/") <= t.MAX_SLASHES


def test_no_topic_is_left_out() -> None:
    assert {type(topic) for topic in SPELLINGS.values()} == {row.topic for row in CHANNELS.rows}


@pytest.mark.parametrize(
    "text",
    [
        "fl",
        "fl/",
        "flx/status",
        "fl/nonsense",
        "fl/register/",
        "fl/register/a/b",
        "fl/register/+",
        "fl/register/#",
        "fl/register/é",
        "fl/register/a b",
        "fl/register/a\0",
        "fl/register/7\n",
        "fl/register/" + "x" * 65,
        "fl/round/-1/selected",
        "fl/round/01/selected",
        "fl/round/1.0/selected",
        "fl/round/٣/selected",
        "fl/round/" + "9" * 40 + "/selected",
        "fl/round/1/other",
        "fl/model/0123456789AB/0",
        "fl/model/0123456789ab/x",
        "fl/model/0123/manifest",
        "FL/status",
    ],
)
def test_what_is_not_ours_does_not_parse(text: str) -> None:
    assert CHANNELS.parse("fl", text) is None


@given(st.text(max_size=60))
def test_any_text_parses_to_what_spells_it_or_to_nothing(text: str) -> None:
    topic = CHANNELS.parse("fl", "fl/" + text)
    assert topic is None or t.build("fl", topic) == "fl/" + text


@pytest.mark.parametrize("prefix", ["fl", "site/fl", "a/b/c/d/e", "wörk"])
def test_usable_prefixes(prefix: str) -> None:
    assert t.valid_prefix(prefix)


@pytest.mark.parametrize(
    "prefix", ["", "/", "fl/", "/fl", "a//b", "a+", "#", "$SYS", "a b", "a/b/c/d/e/f", "x" * 300, "a\0"]
)
def test_unusable_prefixes(prefix: str) -> None:
    assert not t.valid_prefix(prefix)


@pytest.mark.parametrize(
    "topic", ["fl/predictions", "fl/predictions/me", "fl/predictions/a/b", "mine", "flx", "flx/status"]
)
def test_answerable(topic: str) -> None:
    assert t.is_response_topic_allowed("fl", topic)


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "fl",
        "fl/",
        "fl/status",
        "fl/clients/7/presence",
        "fl/predictionsx",
        "$SYS/x",
        "a/+",
        "#",
        "fl/predictions/#",
        "a\0",
    ],
)
def test_not_answerable(topic: str) -> None:
    """Clause 7.3: an asker must not make an edge write its own presence."""
    assert not t.is_response_topic_allowed("fl", topic)


def test_long_topics_are_parsed_but_not_kept() -> None:
    """Anyone may send them."""
    parser = t.Parser([t.StatusTopic])
    long = "p" * t.MAX_KEPT_CHARACTERS
    assert parser.parse(long, f"{long}/status") == t.StatusTopic()
    assert parser._kept.cache_info().currsize == 0
    assert parser.parse("fl", "fl/status") == t.StatusTopic()
    assert parser._kept.cache_info().currsize == 1
