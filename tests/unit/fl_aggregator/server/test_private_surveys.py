"""A survey under a budget is charged once and before its sum is made, wherever its aggregator is killed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_aggregator.configuration.survey import Survey, survey_settings
from fl_aggregator.round import effects as do
from fl_aggregator.storage.checkpoint import read_arrays
from fl_aggregator.tools.survey.noisy import NoisyResult
from fl_aggregator.tools.survey.reading import read_survey
from fl_shared.errors import UserError
from fl_shared.privacy.gaussian_mechanism import epsilon_of
from fl_shared.survey.layout import Columns
from fl_shared.survey.proportions import manifest_of
from fl_shared.survey.terms import SurveyTerms
from tests.support.masked_federation import MaskedFederation
from tests.support.simulated_masked_edge import VALUES

COLUMNS = Columns(tuple("abcdefghij"), (), {"group": ()})
MANIFEST = manifest_of(COLUMNS, SurveyTerms(5, private=True))


def survey_of(directory: Path, **more: Any) -> MaskedFederation:
    """A survey of five edges whose vectors are random, and longer than an honest edge's."""
    asked = survey_settings(Survey(), clients=5, **{"dp": "central", "dp_noise": 2.0, **more})
    given = asked.model_dump(exclude_unset=True) | {"grace": 1.0, "max_examples": 100}
    return MaskedFederation(directory, manifest=MANIFEST, **{"masked": False, **given})


def lines(ledger: Path) -> list[tuple[Any, ...]]:
    found = [json.loads(line) for line in ledger.read_text().splitlines()]
    return [
        (one["version"], one["contributors"], one["noise"], one["clip"])
        for one in found
        if not one["published"]
    ]


def result_of(run: MaskedFederation) -> NoisyResult:
    found = read_survey(run.directory)
    assert isinstance(found, NoisyResult)
    return found


def test_killed_before_any_kind_of_effect_it_is_charged_once_and_has_one_noise(tmp_path: Path) -> None:
    assert MANIFEST.values == VALUES

    def again(name: str, **more: Any) -> MaskedFederation:
        return survey_of(tmp_path / name, **more)

    seeded = again("seeded", dp_insecure_seed=3)
    seeded.run()
    expected = result_of(seeded).model_dump(exclude={"run"})
    undisturbed = again("undisturbed", dp_ledger=str(tmp_path / "undisturbed.jsonl"))
    undisturbed.run()
    charged = lines(tmp_path / "undisturbed.jsonl")
    assert charged == [(1, ["0", "1", "2", "3", "4"], 2.0, 1.0)]
    kinds = {type(effect): place for place, effect in enumerate(undisturbed.effects)}
    for place in sorted({kinds[kind] - before for kind in kinds for before in (0, 1)} - {-1}):
        killed = again(f"killed-{place}", dp_insecure_seed=3)
        killed.kill_at = place
        killed.run()
        found = result_of(killed).model_dump(exclude={"run"})
        assert found == expected, undisturbed.effects[place]
        ledger = tmp_path / f"{place}.jsonl"
        killed = again(f"charged-{place}", dp_ledger=str(ledger))
        killed.kill_at = place
        killed.run()
        assert killed.kills == 1
        assert lines(ledger) == charged, undisturbed.effects[place]
        spent = result_of(killed).privacy
        assert (spent.releases, spent.epsilon) == (1, epsilon_of(0.5, spent.delta))


def test_the_line_in_the_ledger_is_there_before_the_sum(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.jsonl"
    run = survey_of(tmp_path / "run", dp_ledger=str(ledger))
    seen: list[int] = []

    def watch(effect: do.Effect) -> None:
        if isinstance(effect, do.PublishModel) and effect.model.version == 1:
            seen.append(len(lines(ledger)))

    run.before_effect = watch
    run.run()
    assert seen == [1]


def test_an_edge_that_sends_more_counts_no_more_than_the_clip(tmp_path: Path) -> None:
    run = survey_of(tmp_path / "run", dp_noise=1e-6, dp_insecure_seed=1)
    run.run()
    deltas = [edge.delta(1).astype(np.float64) for edge in run.edges.values()]
    assert min(map(np.linalg.norm, deltas)) > 1
    mean = np.mean([delta / np.linalg.norm(delta) for delta in deltas], axis=0)
    sums = read_arrays(run.directory / "checkpoints/version-000001.state.safetensors")[1]["sums"]
    assert sums == pytest.approx(mean, abs=1e-5)


def test_two_surveys_share_a_budget(tmp_path: Path) -> None:
    ledger = str(tmp_path / "ledger.jsonl")
    epsilon = epsilon_of(np.sqrt(2) / 2, 1e-5)
    for run in ("one", "two"):
        survey_of(tmp_path / run, dp_ledger=ledger, dp_epsilon=float(epsilon)).run()
    found = read_survey(tmp_path / "two")
    assert isinstance(found, NoisyResult)
    assert found.privacy.epsilon == pytest.approx(epsilon)
    third = survey_of(tmp_path / "three", dp_ledger=ledger, dp_epsilon=float(epsilon))
    assert third.run().version == 0, "no edge may contribute any more"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"dp": "central"}, "--dp: needs --dp-epsilon, the budget of an edge, or --dp-noise"),
        ({"dp": "central", "dp_epsilon": 2.0, "masked": True}, "--dp: central does not go with --masked"),
        ({"dp": "distributed", "dp_epsilon": 2.0}, "--dp: distributed needs --masked"),
        ({"dp_epsilon": 2.0}, "--dp-epsilon: has a meaning with --dp only"),
    ],
)
def test_what_does_not_go_together_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        survey_settings(Survey(), clients=5, **given)
