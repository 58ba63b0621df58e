"""A task of one's own: the load of a heat network in the next hour, from the 24 hours before it, with a GRU."""

import csv
import json

import torch
from torch import nn

from fl_edge.errors import PayloadError
from fl_edge.tasks.answers import number_answer
from fl_edge.tasks.sgd import sgd
from fl_edge.tasks.task import Examples, LocalData, Metric, Scores, Task, TrainingDefaults

HOURS, MEAN, SCALE = 24, 350, 100  # the last two in kW, the same at all sites


class _Forecaster(nn.Module):  # (examples, hours) to the hour after them (examples, 1), all scaled
    def __init__(self):
        super().__init__()
        self.gru, self.head = nn.GRU(1, 16, batch_first=True), nn.Linear(16, 1)

    def forward(self, loads):
        return self.head(self.gru(loads.unsqueeze(-1))[0][:, -1])


class HeatLoad(Task):
    """Each site has a file ``load.csv``. The error of the worst hour is what counts."""

    defaults = TrainingDefaults(epochs=2, batch_size=16, lr=0.05)
    metrics = (Metric("worst hour", higher_is_better=False, unit="kW", minimum=0),)

    def model(self, seed):
        return _Forecaster()

    def load(self, context):
        sites = sorted(context.data_dir.glob("*/load.csv")) or [context.data_dir / "load.csv"]
        with sites[context.part % len(sites)].open() as file:
            loads = torch.tensor([(float(row["load_kw"]) - MEAN) / SCALE for row in csv.DictReader(file)])
        rows = loads.unfold(0, HOURS + 1, 1)  # the last two days are held out
        return LocalData(*(Examples(part[:, :-1], part[:, -1:]) for part in (rows[:-48], rows[-48:])))

    def train(self, model, data, settings, seed, cancelled):
        return sgd(model, data.train, settings, seed, cancelled, nn.functional.mse_loss)

    def evaluate(self, model, examples):
        errors = model(examples.inputs).detach() - examples.labels
        worst_hour = float(errors.abs().max()) * SCALE
        return Scores(len(errors), float(errors.square().mean()), {"worst hour": worst_hour})

    def predict(self, model, payload):
        try:
            loads = torch.tensor(json.loads(payload)["loads"]).float().reshape(1, HOURS)
        except (ValueError, TypeError, KeyError, RuntimeError):
            raise PayloadError(f'expected JSON: {{"loads": [{HOURS} numbers, in kW]}}') from None
        return number_answer(model((loads - MEAN) / SCALE).item() * SCALE + MEAN, "kW")

    def example_request(self):
        return {"loads": [350.0] * HOURS}
