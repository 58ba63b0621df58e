"""Checks what a task's own code returns, where it returns it, so that the rest of the edge gets only valid values.

Each function returns the valid result, with plain Python numbers, or raises ``TaskError``, which names the task's
method, what it returned, and what was expected. The error travels to the aggregator, so it never shows values that
may be weights or data, only their type, or one number.
"""

from __future__ import annotations

import json
import logging
import math
import operator
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import lru_cache
from typing import Any, Final, NoReturn

import numpy as np
from pydantic import TypeAdapter, ValidationError

from fl_edge.errors import DataCorruptError, DivergedError, TaskError, UnknownTaskError
from fl_edge.tasks.task import Examples, LocalData, Metric, Scores, Task, TrainReport
from fl_shared.protocol.messages import MAX_COUNT, Confusion, DeclaredMetrics, MetricDeclaration

LOG: Final = logging.getLogger(__name__)

_DECLARATIONS: Final[TypeAdapter[tuple[MetricDeclaration, ...]]] = TypeAdapter(DeclaredMetrics)
MAX_PROBABILITIES: Final = 100_000
"""Labels in the answer to a prediction (``messages.Prediction``)."""
SMALLER_STEPS: Final = "try a smaller --lr, or look in the data for values that are not finite"
MAX_ANSWER: Final = 2**20
"""Characters of an answer in JSON, and of an example of a request."""


def checked_data(task: Task, data: object) -> LocalData:
    """Checks the result of ``Task.load``; a holdout without examples becomes None."""
    if not isinstance(data, LocalData):
        _fail(task, "load()", data, "a LocalData")
    checked_examples(task, "load()", data.train)
    if data.holdout is not None:
        checked_examples(task, "load()", data.holdout)
    return data if data.holdout is None or len(data.holdout) else replace(data, holdout=None)


def checked_examples(task: Task, method: str, examples: object) -> Examples:
    """Checks the examples that ``method`` has returned."""
    if not isinstance(examples, Examples):
        _fail(task, method, examples, "Examples")
    try:
        lengths = len(examples.inputs), len(examples.labels)
    except TypeError:
        _fail(task, method, examples.inputs, "inputs and labels with a length")
    if lengths[0] != lengths[1]:
        _refuse(task, method, f"{lengths[0]} inputs", f"{lengths[1]}, as many as labels")
    return examples


def check_finite(task: Task, data: LocalData) -> None:
    """Raises ``DataCorruptError`` if some of the data are not finite (see `not_finite`)."""
    if (found := not_finite(data)) is not None:
        raise DataCorruptError(f"task {task.name}: load(): {found}, expected finite numbers")


def not_finite(data: LocalData) -> str | None:
    """Returns the first example with NaN or infinity in words; null if there is none in the tensors and arrays."""
    for use, examples in (("to train on", data.train), ("held out", data.holdout)):
        for name in ("inputs", "labels"):
            row = _first_not_finite(getattr(examples, name, None))
            if row is not None:
                return f"NaN or infinity in the {name} of example {row} (from 0) of those {use}"
    return None


def _first_not_finite(values: object) -> int | None:
    if not hasattr(values, "dtype"):
        return None
    try:
        finite = np.isfinite(np.asarray(values)).reshape(len(values), -1).all(axis=1)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError):  # objects, types that NumPy lacks, another device
        return None
    return None if finite.all() else int(np.argmin(finite))


def declared_metrics(task: Task) -> tuple[MetricDeclaration, ...]:
    """Returns the metrics that the task declares. Raises ``UnknownTaskError`` if one of them cannot be used."""
    if not isinstance(task.metrics, tuple) or not all(isinstance(metric, Metric) for metric in task.metrics):
        raise UnknownTaskError(
            f"task {task.name}: metrics: {task.metrics!r:.100}, expected a tuple of fl_edge.tasks.task.Metric"
        )
    try:
        return _DECLARATIONS.validate_python(tuple(asdict(metric) for metric in task.metrics))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, ("metrics", *first["loc"])))
        problem = str(first["msg"]).removeprefix("Value error, ")
        raise UnknownTaskError(f"task {task.name}: {where}: {first['input']!r:.100}: {problem}") from None


def checked_report(task: Task, report: object) -> TrainReport:
    """Checks the result of ``Task.train``. Raises ``DivergedError`` if the loss is not finite."""
    if not isinstance(report, TrainReport):
        _fail(task, "train()", report, "a TrainReport(steps, loss)")
    steps = _count(task, "train(): steps", report.steps)
    loss = _number(task, "train(): loss", report.loss)
    if not math.isfinite(loss):
        raise DivergedError(f"training diverged: the loss is {loss}; {SMALLER_STEPS}")
    return TrainReport(steps, loss)


def checked_scores(task: Task, scores: object) -> Scores:
    """Checks the result of ``Task.evaluate``. Raises ``DivergedError`` if the loss is not finite.

    A metric that is not finite is left out, since it may be undefined for an edge's few examples, such as the AUC of a
    single class. The others are in the order in which the task declares them.
    """
    if not isinstance(scores, Scores):
        _fail(task, "evaluate()", scores, "Scores(examples, loss, metrics)")
    examples = _count(task, "evaluate(): examples", scores.examples)
    loss = _number(task, "evaluate(): loss", scores.loss)
    if not math.isfinite(loss):
        raise DivergedError(f"on {examples} examples the model's loss is {loss}, expected a finite number")
    _check_confusion(task, scores.confusion, examples)
    metrics = _metrics(task, scores.metrics)
    return replace(scores, examples=examples, loss=loss, metrics=metrics)


def checked_answer(task: Task, answer: object) -> dict[str, Any]:
    """Checks the result of ``Task.predict``. Raises ``DivergedError`` if a number in it is not finite."""
    if not isinstance(answer, Mapping) or not answer:
        _fail(task, "predict()", answer, "a dict with at least one member")
    checked: dict[str, Any] = _json(task, "predict()", dict(answer))
    if "probabilities" in checked:
        _check_probabilities(task, checked)
    return checked


def checked_example(task: Task, example: object) -> Any:
    """Checks the result of ``Task.example_request``."""
    return None if example is None else _json(task, "example_request()", example)


def _check_probabilities(task: Task, answer: Mapping[str, Any]) -> None:
    probabilities, label = answer["probabilities"], answer.get("label")
    if not isinstance(probabilities, dict) or not 0 < len(probabilities) <= MAX_PROBABILITIES:
        _fail(
            task,
            "predict(): probabilities",
            probabilities,
            f"a dict of 1 to {MAX_PROBABILITIES} probabilities",
        )
    for name, value in probabilities.items():
        _name(task, "predict(): probabilities", name)
        _number(task, f"predict(): probabilities: {name!r:.80}", value)
    if label not in probabilities:
        _fail(task, "predict(): label", label, "one of the labels that have probabilities")


def _json(task: Task, method: str, value: object) -> Any:
    """Returns the value as JSON gives it back; arrays become lists. Raises ``DivergedError`` for NaN and infinity."""

    def plain(item: Any) -> Any:
        if not hasattr(item, "tolist"):  # arrays and tensors have it
            _fail(task, method, item, "what JSON can express")
        return item.tolist()

    try:
        text = json.dumps(value, allow_nan=False, default=plain)
    except ValueError as error:
        if "not JSON compliant" not in str(error):
            _fail(task, method, value, f"what JSON can express ({error})")
        raise DivergedError("the model's output is not finite") from None
    except (TypeError, RecursionError) as error:
        _fail(task, method, value, f"what JSON can express ({error})")
    if len(text) > MAX_ANSWER:
        _refuse(task, method, f"{len(text)} characters of JSON", f"at most {MAX_ANSWER}")
    return json.loads(text)


def _metrics(task: Task, metrics: object) -> dict[str, float]:
    if not isinstance(metrics, Mapping):
        _fail(task, "evaluate(): metrics", metrics, "a dict")
    declared = declared_metrics(task)
    names = [metric.name for metric in declared]
    for given in metrics:
        if given not in names:
            _refuse(
                task,
                "evaluate(): metrics",
                given if isinstance(given, str) else _kind_of(given),
                f"one that Task.metrics declares: {', '.join(names) or 'none'}",
            )
    kept: dict[str, float] = {}
    for metric in declared:
        if metric.name not in metrics:
            continue
        what = f"evaluate(): metrics: {metric.name}"
        value = _number(task, what, metrics[metric.name])
        if not math.isfinite(value):
            _warn_of_metric(task.name, metric.name)
        elif not metric.contains(value):
            _fail(task, what, value, f"{metric.range_text}, as Task.metrics declares")
        else:
            kept[metric.name] = value
    return kept


@lru_cache(maxsize=64)
def _warn_of_metric(task: str, name: str) -> None:
    """Warns once, since an edge's examples are the same in each round."""
    LOG.warning("task %s: the metric %s is not finite on this edge's examples: leaving it out", task, name)


def _check_confusion(task: Task, confusion: object, examples: int) -> None:
    if confusion is None:
        return
    if not isinstance(confusion, Confusion):
        _fail(task, "evaluate(): confusion", confusion, "a Confusion or None")
    counted = sum(map(sum, confusion.counts))
    if counted != examples:
        _refuse(task, "evaluate(): confusion", f"{counted} in total", f"{examples}, one for each example")


def _count(task: Task, what: str, value: Any) -> int:
    try:
        number = operator.index(value)
    except Exception:  # a foreign object may raise any error
        number = -1
    if not 0 <= number <= MAX_COUNT:
        _fail(task, what, value, "a whole number that is not negative")
    return number


def _number(task: Task, what: str, value: Any) -> float:
    try:
        return float(value * 1.0)  # the product refuses text
    except Exception:  # a foreign object may raise any error
        _fail(task, what, value, "a number")


def _name(task: Task, what: str, value: object) -> str:
    if not isinstance(value, str) or not value.isprintable():
        _fail(task, what, value, "printable text as a name")
    return value


def _fail(task: Task, what: str, value: object, expected: str) -> NoReturn:
    _refuse(task, what, _kind_of(value), expected)


def _refuse(task: Task, what: str, found: str, expected: str) -> NoReturn:
    raise TaskError(f"task {task.name}: {what}: {found:.100}, expected {expected}")


def _kind_of(value: object) -> str:
    """Returns None or a number as it is, and of anything else only the type, and how many items a container has."""
    if value is None or type(value) in (bool, float) or (type(value) is int and abs(value) < 10**20):
        return repr(value)
    name = type(value).__name__
    items = f" of {len(value)}" if isinstance(value, dict | list | tuple) else ""
    return f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}{items}"
