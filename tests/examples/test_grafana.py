"""``examples/grafana``: the queries of its dashboard and its alerts are about metrics that the aggregator serves."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser as promql
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from fl_aggregator.configuration.privacy import plan_of
from fl_aggregator.configuration.settings import Settings
from fl_aggregator.monitoring.tracking.prometheus import Prometheus
from fl_aggregator.monitoring.tracking.trackers import RuntimeMetrics
from fl_aggregator.monitoring.views.round_record import RoundRecord
from fl_aggregator.round import effects as do
from fl_aggregator.storage.run_directory import new_record
from tests.support.builders import ACCURACY
from tests.support.ports import free_port
from tests.support.private_federation import PRIVATE
from tests.support.round_playbook import Playbook, round_done

EXAMPLE = Path(__file__).parents[2] / "examples" / "grafana"
DASHBOARD = json.loads((EXAMPLE / "dashboard.json").read_text(encoding="utf-8"))
FROM_SCRAPING = {"instance", "job"}
"""Labels that Prometheus itself adds."""
OPEN = {"reason"}
"""Labels whose values are not all served from the beginning."""

Labels = dict[str, dict[str, set[str]]]


def queries() -> Iterator[str]:
    """What the dashboard and the alerts ask, with Grafana's variables replaced."""
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            yield target["expr"].replace("$instance", ".*").replace("$__rate_interval", "1m")
    for group in yaml.safe_load((EXAMPLE / "alerts.yml").read_text(encoding="utf-8"))["groups"]:
        for rule in group["rules"]:
            yield rule["expr"]


@pytest.fixture(scope="module")
def served() -> Labels:
    """All metrics of a run with differential privacy, by name: their labels, and these labels' values."""
    port = free_port()
    tracker = Prometheus("127.0.0.1", port, {"mlflow": 1})
    try:
        settings = {**PRIVATE, "clients": 2, "per_round": 1, "dp_epsilon": 50.0}
        playbook = Playbook(**settings, privacy=plan_of(Settings(**settings)))
        playbook.play("start", "join e roles=evaluate", "join 0", "load 0", "join 1", "load 1")
        tracker.begin(
            new_record(Settings()), (), lambda: RuntimeMetrics(0, 0, 0, 0, True, False, {"late": 1})
        )
        state = round_done(round_done(playbook)).play("evaluate e 1 0.5").state
        tracker.observe(state, (do.SendReply("0", "0.1", do.Reject(1, "d", "late", "")),))
        when = {
            f"{when}_{metric}": 0.5
            for when in ("before", "after", "train")
            for metric in ("loss", "accuracy")
        }
        edges = {"edges_mean": 0.5, "edges_p10": 0.25, "edges_worst": 0.125}
        tracker.log_round(
            RoundRecord(round=1, outcome="committed", metrics={**when, **edges}, declared=[ACCURACY])
        )
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
            text = answer.read().decode()
    finally:
        tracker.close(None)
    found: Labels = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = found.setdefault(sample.name, {})
            for name, value in sample.labels.items():
                labels.setdefault(name, set()).add(value)
    return found


def selectors(expression: Any) -> Iterator[Any]:
    """The vector selectors of a parsed query."""
    match expression:
        case promql.VectorSelector():
            yield expression
        case promql.MatrixSelector():
            yield expression.vector_selector
        case promql.BinaryExpr():
            yield from selectors(expression.lhs)
            yield from selectors(expression.rhs)
        case promql.AggregateExpr():
            yield from selectors(expression.expr)
        case promql.Call():
            for argument in expression.args:
                yield from selectors(argument)
        case promql.NumberLiteral():
            pass
        case _:
            raise AssertionError(f"{type(expression).__name__}: teach this test what it is made of")


def grouped_by(query: str) -> set[str]:
    """The labels in ``by (…)``."""
    return {name.strip() for names in re.findall(r"\bby \(([^)]*)\)", query) for name in names.split(",")}


def wrong(query: str, served: Labels) -> list[str]:
    """What the query asks for, and the aggregator does not serve."""
    found = []
    for selector in selectors(promql.parse(query)):
        if selector.name not in served:
            found.append(f"no metric {selector.name}")
            continue
        labels = served[selector.name]
        asked = {matcher.name: matcher for matcher in selector.matchers.matchers}
        missing = (asked.keys() | grouped_by(query)) - labels.keys() - FROM_SCRAPING
        found += [f"{selector.name} has no label {name}" for name in sorted(missing)]
        for name in asked.keys() & labels.keys() - OPEN:
            unknown = set(asked[name].value.split("|")) - labels[name]
            found += [f"{selector.name} has no {name} {value}" for value in sorted(unknown)]
    return found


@pytest.mark.parametrize("query", sorted(set(queries())))
def test_a_query_is_about_what_is_served(query: str, served: Labels) -> None:
    assert wrong(query, served) == []


def test_a_wrong_query_is_found(served: Labels) -> None:
    for query, told in (
        ("rate(fl_round_total[1m])", ["no metric fl_round_total"]),
        ('fl_edges{status="present"}', ["fl_edges has no label status"]),
        ('fl_edges{state=~"present|uploading"}', ["fl_edges has no state uploading"]),
        ("sum by (reason) (fl_inbox_messages)", ["fl_inbox_messages has no label reason"]),
    ):
        assert wrong(query, served) == told
    with pytest.raises(ValueError, match="unclosed"):
        wrong("sum(fl_connected", served)


def test_a_legend_names_labels_of_its_series(served: Labels) -> None:
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            (selector,) = selectors(promql.parse(target["expr"].replace("$__rate_interval", "1m")))
            named = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            assert named <= (grouped_by(target["expr"]) or served[selector.name].keys()), panel["title"]


def test_the_panels_do_not_overlap_and_have_a_data_source_and_a_number_each() -> None:
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in DASHBOARD["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24, "Grafana's grid has 24 columns"
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    assert {panel["datasource"]["uid"] for panel in DASHBOARD["panels"]} == {"${datasource}"}
    assert variables == {"datasource", "instance"}


def test_the_files_name_each_other() -> None:
    compose = yaml.safe_load((EXAMPLE / "compose.yaml").read_text(encoding="utf-8"))
    for service in compose["services"].values():
        for volume in service["volumes"]:
            source = volume.partition(":")[0]
            assert source in compose["volumes"] or (EXAMPLE / source).exists(), volume
    mounted = {volume.split(":")[1] for volume in compose["services"]["grafana"]["volumes"]}
    (provider,) = yaml.safe_load((EXAMPLE / "provisioning/dashboards/fl-mqtt.yml").read_text())["providers"]
    assert f"{provider['options']['path']}/dashboard.json" in mounted
    (source,) = yaml.safe_load((EXAMPLE / "provisioning/datasources/prometheus.yml").read_text())[
        "datasources"
    ]
    assert (
        "--web.listen-address=" + source["url"].removeprefix("http://")
        in (compose["services"]["prometheus"]["command"])
    )


@pytest.mark.skipif(
    shutil.which("promtool") is None,
    reason="PROMETHEUS' FILES ARE NOT CHECKED: no promtool (apt install prometheus)",
)
def test_promtool_accepts_the_configuration_and_the_alerts() -> None:
    done = subprocess.run(
        ["promtool", "check", "config", EXAMPLE / "prometheus.yml"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 rules found" in done.stdout
