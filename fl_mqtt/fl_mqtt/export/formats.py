"""The formats of exported models."""

from __future__ import annotations

import io
import tempfile
import warnings
from pathlib import Path

import torch
from torch import nn

from fl_aggregator.storage.checkpoint import model_of, read_arrays
from fl_aggregator.storage.run_directory import RUN_FILE, read_run
from fl_edge.tasks.registry import load_task
from fl_edge.tasks.task import Task
from fl_edge.training.local_training import model_from
from fl_shared.errors import UserError
from fl_shared.protocol.task_spec import KEEP_LOCAL, format_task


def convert(file: Path, form: str) -> bytes:
    """Returns the model in the safetensors file of a run, in the format ``torch`` or ``onnx``.

    ``torch``: the ``state_dict`` of the task's model, as ``torch.save`` writes it. ``onnx``: the model in evaluation
    mode, for batches of any size. Arrays that the task does not share have the values of a new model. The options of
    the task are those in the ``run.json`` beside ``file``. Raises ``UserError`` and ``EdgeError``.
    """
    metadata, arrays = read_arrays(file)
    if "task" not in metadata:
        raise UserError(f"{file}: its metadata names no task, expected a model of a run")
    if KEEP_LOCAL in metadata:
        raise UserError(
            f"{file}: is without the part that each edge keeps (--keep-local {metadata[KEEP_LOCAL]}), "
            "expected a model that is whole"
        )
    task = load_task(format_task(metadata["task"], _task_options(file.parent)))
    stored = model_of(file, metadata, arrays)
    model = model_from(task, stored.weights, stored.manifest)
    return _onnx(task, model) if form == "onnx" else _state_dict(model)


def _task_options(directory: Path) -> dict[str, str]:
    """Returns the options of the task of the run in ``directory``; none for a model without its run."""
    return read_run(directory, "DIR").settings.task_option if (directory / RUN_FILE).exists() else {}


def _state_dict(model: nn.Module) -> bytes:
    content = io.BytesIO()
    torch.save(model.state_dict(), content)
    return content.getvalue()


def _onnx(task: Task, model: nn.Module) -> bytes:
    example = task.example_input()
    if example is None:
        raise UserError(
            f"task {task.name}: cannot be exported to ONNX, since it has no example_input(); expected --format torch"
        )
    batch = {0: "batch"}
    with tempfile.TemporaryDirectory(prefix="fl-export-") as scratch, warnings.catch_warnings():
        file = Path(scratch) / "model.onnx"
        # The exporter that is deprecated needs no more packages, and takes a twentieth of the time.
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(
                model.eval(),
                (example,),
                file,
                input_names=["input"],
                output_names=["output"],
                dynamic_axes={"input": batch, "output": batch},
                dynamo=False,
            )
        except Exception as error:  # torch raises all kinds for what ONNX cannot express
            raise UserError(
                f"task {task.name}: cannot be exported to ONNX: {' '.join(str(error).split())}"
            ) from error
        return file.read_bytes()
