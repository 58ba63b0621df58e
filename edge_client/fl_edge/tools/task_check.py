"""Tries all that a task must keep, before it takes part in a run: the command ``fl-edge check-task``."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from fl_edge.errors import DataMissingError, DivergedError, EdgeError, PayloadError, TaskError
from fl_edge.tasks import classes
from fl_edge.tasks.code_errors import error_text
from fl_edge.tasks.task import Examples, LoadContext, LocalData, Task, TrainingDefaults
from fl_edge.tools.trial import CLIENT, Trial
from fl_edge.training import task_results
from fl_shared.protocol.messages import Partition, TrainingSettings
from fl_shared.system.text import names_text, one_line, quantity_text, size_text
from fl_shared.tensors.encodings.float32 import FLOAT32
from fl_shared.tensors.manifest import Manifest, Vector

BATCH: Final = 32
"""Examples of a minibatch in the trial."""
MAX_PARTS: Final = 1_000_000
"""The most that a data set can be divided into (``messages.Partition``)."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the table. ``passed``: None if it was not tried; ``detail``: what was found, in one line."""

    what: str
    passed: bool | None
    detail: str


class _NotTriedError(Exception):
    """The check needs what the task does not have; the message says what."""


class TaskCheck:
    """The checks of one task, in the order of their dependence."""

    def __init__(self, task: Task, data_dir: Path | None, trial: Trial) -> None:
        self._task, self._data_dir, self._trial = task, data_dir, trial
        self._data: LocalData | None = None
        self._manifest: Manifest | None = None
        self._weights: Vector = np.empty(0, np.float32)

    def run(self) -> Iterator[Finding]:
        """Yields a finding for each check; what an error makes impossible is not tried."""
        checks: list[tuple[str, Callable[[], str]]] = [
            ("data", self._load),
            ("metrics", self._metrics),
            ("model", self._model),
            ("weights from the seed alone", self._weights_from_seed),
            ("what travels", self._what_travels),
            ("types of numbers", self._types),
            ("tied and frozen parameters", self._tied_and_frozen),
            ("training, one epoch", lambda: self._train(None)),
            ("training by its defaults", self._train_by_defaults),
            ("training repeats", self._training_repeats),
            *((f"training on {n} example{'s' * (n != 1)}", lambda n=n: self._train(n)) for n in (1, BATCH, BATCH + 1)),
            ("options of training", self._options_of_training),
            ("a part with 0 examples", self._empty_part),
            ("evaluation", lambda: self._evaluate(None)),
            ("evaluation of 1 example", lambda: self._evaluate(1)),
            ("test split", self._test_split),
            ("prediction", self._predict),
            ("prediction of nonsense", self._predict_nonsense),
        ]  # fmt: skip
        for what, check in checks:
            try:
                yield Finding(what, True, check())
            except _NotTriedError as reason:
                yield Finding(what, None, f"not tried: {reason}")
            except EdgeError as error:
                yield Finding(what, False, one_line(str(error)))
            except Exception as error:  # a task may raise any error
                yield Finding(what, False, error_text(error))

    def _metrics(self) -> str:
        declared = task_results.declared_metrics(self._task)
        if not declared:
            return "none: versions are compared by the loss"
        return ", ".join(f"{metric.name}{f' in {metric.unit}' if metric.unit else ''}" for metric in declared)

    def _load(self) -> str:
        self._task.prepare(self._data_dir)
        self._data = task_results.checked_data(self._task, self._task.load(self._context()))
        train, holdout = len(self._data.train), 0 if self._data.holdout is None else len(self._data.holdout)
        if not train:
            raise DataMissingError("no example to train on")
        odd = task_results.not_finite(self._data)
        shape = tuple(np.shape(self._data.train.inputs))
        return f"{train} examples to train on, {holdout} held out; inputs of the shape {shape}" + (
            f"; {odd}" if odd else ""
        )

    def _model(self) -> str:
        described = self._trial.describe()
        self._manifest, self._weights = self._trial.initial_weights(0)
        return described

    def _weights_from_seed(self) -> str:
        self._need_model()
        first = self._trial.initial_weights(1)[1]
        np.random.seed(99)
        again = self._trial.initial_weights(1)[1]
        if not np.array_equal(first, again):
            raise DivergedError(
                "model(1) differs from model(1): draw from torch's generator, or one of your own"
            )
        return "the same twice" + (
            "" if not np.array_equal(first, self._weights) else "; the same for every seed"
        )

    def _what_travels(self) -> str:
        manifest = self._need_model()
        buffers = [array.name for array in manifest.arrays if array.role == "buffer"]
        home = sorted(set(self._trial.kinds()) - {array.name for array in manifest.arrays})
        parts = [f"{len(manifest.arrays)} arrays, {size_text(FLOAT32.size(manifest.values))} as float32"]
        parts += [f"buffers: {names_text(buffers)}"] if buffers else []
        parts += [f"stays at home: {names_text(home)}"] if home else []
        return "; ".join(parts)

    def _types(self) -> str:
        self._need_model()
        kinds = self._trial.kinds()
        other = sorted(name for name, kind in kinds.items() if kind not in ("float32", "int64"))
        if not other:
            return "float32" + (" and counters" if "int64" in kinds.values() else "")
        return f"travel as float32: {names_text([f'{name} ({kinds[name]})' for name in other])}"

    def _tied_and_frozen(self) -> str:
        self._need_model()
        tied, frozen = [" = ".join(group) for group in self._trial.tied()], self._trial.frozen()
        travelling = {array.name for array in self._need_model().arrays}
        parts = [f"tied: {names_text(tied)}"] if tied else []
        if frozen:
            wasted = [name for name in frozen if name in travelling]
            note = "; they travel: let shared() leave them out" if wasted else ", which stay at home"
            parts.append(f"frozen: {names_text(frozen)}{note}")
        return "; ".join(parts) or "none"

    def _train(self, examples: int | None) -> str:
        manifest, data = self._need_model(), self._need_data()
        if examples is not None:
            if examples > len(data.train):
                raise _NotTriedError(f"the data have {len(data.train)} examples")
            data = LocalData(_first(data.train, examples), data.holdout)
        started = time.perf_counter()
        update = self._update(data)
        if examples is None and not update.any():
            raise DivergedError("no weight has changed")
        seconds, norm = time.perf_counter() - started, float(np.linalg.norm(update))
        return f"{seconds:.2g} s, the update has the norm {norm:.3g} of {manifest.values:,} values"

    def _train_by_defaults(self) -> str:
        """Trains for as many epochs as in a run, which may diverge though the first one does not."""
        data, how = self._need_data(), self._task.defaults
        data = LocalData(_first(data.train, min(len(data.train), 20 * how.batch_size)), None)
        self._update(data, how)
        return f"{how.epochs} epochs, batch {how.batch_size}, lr {how.lr:g}, momentum {how.momentum:g}"

    def _training_repeats(self) -> str:
        self._need_model()
        data = self._need_data()
        data = LocalData(_first(data.train, min(len(data.train), 4 * BATCH)), None)
        if not np.array_equal(self._update(data), self._update(data)):
            raise DivergedError(
                "two trainings with the same seed differ: draw from the seed that train() gets"
            )
        return "the same bits twice"

    def _options_of_training(self) -> str:
        """Says which options of a run reach the task's gradients and its loss, and why others do not."""
        self._need_model()
        few = LocalData(_first(self._need_data().train, BATCH), None)
        taken, refused = [], []
        if not self._task.labels:
            refused.append("no --logit-adjustment: the task has no labels")
        for option, clip, tau in (
            ("--correct and --clip-gradients", 1e9, 0.0),
            ("--logit-adjustment", 0.0, 1.0),
        ):
            if tau and not self._task.labels:
                continue
            try:
                self._update(few, clip_gradients=clip, logit_adjustment=tau)
                taken.append(option)
            except TaskError as error:
                refused.append(f"no {option}: {one_line(str(error)).partition(', but ')[2] or error}")
            except EdgeError as error:  # whatever the options
                raise _NotTriedError("training fails") from error
        return "; ".join([*([", ".join(taken)] if taken else []), *refused])

    def _empty_part(self) -> str:
        """Does what an edge with such a part does in a run: it loads, counts its classes and answers requests."""
        self._need_model()
        data = self._need_data()
        parts = min(len(data.train) + len(data.holdout or ()) + 1, MAX_PARTS)
        # Without a client, so that no task warns that it divides an edge's own data.
        context = LoadContext("", _partition(scheme="iid", index=parts - 1, count=parts), self._data_dir)
        try:
            part = self._task.load(context)
        except (EdgeError, ValueError) as error:
            return f"load() refuses it: {one_line(str(error))}; such an edge takes no part, nothing travels"
        part = task_results.checked_data(self._task, part)
        given = (
            f" (load() gives examples to part {parts} of {parts}, so that none is empty here)"
            if len(part.train)
            else ""
        )
        classes.count_labels(self._task.labels, LocalData(_first(part.train, 0), None))
        if not given and (example := self._task.example_request()) is not None:
            self._answer(json.dumps(example).encode(), context)
        return f"such an edge registers with 0 examples, and no update travels{given}"

    def _update(
        self,
        data: LocalData,
        how: TrainingDefaults | None = None,
        clip_gradients: float = 0.0,
        logit_adjustment: float = 0.0,
    ) -> Vector:
        defaults = self._task.defaults
        how = how or TrainingDefaults(epochs=1, batch_size=BATCH, lr=defaults.lr, momentum=defaults.momentum)
        settings = TrainingSettings(**asdict(how), seed=0, logit_adjustment=logit_adjustment)
        return self._trial.train(
            data, self._weights.copy(), self._need_model(), settings, clip_gradients
        ).delta

    def _evaluate(self, examples: int | None) -> str:
        manifest, data = self._need_model(), self._need_data()
        chosen = data.train if data.holdout is None else data.holdout
        chosen = chosen if examples is None else _first(chosen, examples)
        model = self._trial.model_from(self._weights.copy(), manifest)
        scores = task_results.checked_scores(self._task, self._task.evaluate(model, chosen))
        units = {metric.name: metric.unit for metric in self._task.metrics}
        values = {"loss": scores.loss, **scores.metrics}
        undefined = [m.name for m in self._task.metrics if m.name not in scores.metrics]
        note = f"; undefined: {names_text(undefined)}" if undefined else ""
        return (
            ", ".join(f"{name} {quantity_text(value, units.get(name, ''))}" for name, value in values.items())
            + note
        )

    def _test_split(self) -> str:
        try:
            examples = self._task.load_test(self._data_dir)
        except DataMissingError as error:
            raise _NotTriedError(one_line(str(error))) from None
        task_results.checked_examples(self._task, "load_test()", examples)
        return f"{len(examples)} examples"

    def _predict(self) -> str:
        self._need_model()
        example = task_results.checked_example(self._task, self._task.example_request())
        if example is None:
            raise _NotTriedError("example_request() gives none, so the dashboard has no form")
        return json.dumps(self._answer(json.dumps(example).encode()), ensure_ascii=False)

    def _predict_nonsense(self) -> str:
        self._need_model()
        try:
            answer = self._answer(b"\x00nonsense")
        except PayloadError as error:
            return f"is refused: {one_line(str(error))}"
        except Exception as error:  # a task may raise any error
            raise DivergedError(f"{error_text(error)}: expected a PayloadError") from error
        raise DivergedError(f"is answered with {answer}: expected a PayloadError")

    def _answer(self, payload: bytes, context: LoadContext | None = None) -> Any:
        model = self._trial.model_from(self._weights.copy(), self._need_model())
        predictor = self._task.predictor(model, context or self._context())
        return task_results.checked_answer(self._task, predictor(payload))

    def _context(self) -> LoadContext:
        return LoadContext(CLIENT, _partition(scheme="own", index=0, count=1), self._data_dir)

    def _need_model(self) -> Manifest:
        if self._manifest is None:
            raise _NotTriedError("there is no model")
        return self._manifest

    def _need_data(self) -> LocalData:
        if self._data is None:
            raise _NotTriedError("there are no data")
        return self._data


def _partition(scheme: str, index: int, count: int) -> Partition:
    return Partition(index=index, count=count, scheme=scheme, seed=0, holdout=0.2)


def _first(examples: Examples, count: int) -> Examples:
    return replace(examples, inputs=examples.inputs[:count], labels=examples.labels[:count])
