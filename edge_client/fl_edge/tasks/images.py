"""``images``: pictures in a folder for each class, with a small CNN, or with ResNet-18 or its head alone."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import nn

from fl_edge.data.folders import LabelledFile, PictureFolders, difference
from fl_edge.data.partition import Indices, hold_out
from fl_edge.errors import DataCorruptError, DataMismatchError, DataMissingError, ManifestMismatchError
from fl_edge.tasks.buffers import add_buffers
from fl_edge.tasks.image import EVALUATION_BATCH, PictureTask
from fl_edge.tasks.pictures import Picture, preprocess_colour, preprocess_grey, read_picture
from fl_edge.tasks.sgd import batches, sgd
from fl_edge.tasks.task import (
    Examples,
    LoadContext,
    LocalData,
    Names,
    TaskOptions,
    TrainingDefaults,
    TrainReport,
)
from fl_shared.protocol.messages import TrainingSettings
from fl_shared.system.text import one_line, size_text
from fl_shared.tensors.manifest import Manifest

CLASS: Final = "class."
"""In front of the name of a class, in that of an empty buffer: so an edge without pictures knows the labels."""
FROZEN: Final = "frozen."
"""In front of the digest of a frozen trunk, which does not travel: it must be the same on all edges."""
TRUNK_SEED: Final = 0
"""Of a frozen trunk without a file of weights. Not the run's, so that every version finds the same trunk."""
COLOUR: Final = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
GREY: Final = (116.7,), (57.6,)
"""The mean and deviation of ImageNet's pixels, which ResNet's published weights expect."""
MAX_PICTURE_BYTES: Final = 2**31
"""Of the decoded pictures of one edge, a byte for each value."""


class ImagesOptions(TaskOptions):
    """The options of ``images``. Lists are separated by commas."""

    classes: Names = Field((), description="The classes of the run. Default: the names of the folders.")
    side: int = Field(32, ge=16, le=512, description="Pixels of a side, to which pictures are scaled.")
    grey: bool = Field(False, description="Take pictures in grey.")
    model: Literal["cnn", "resnet18"] = Field("cnn", description="resnet18: that of torchvision.")
    head_only: bool = Field(
        False, description="Train only ResNet's last layer. The rest is frozen, and does not travel."
    )
    weights: str = Field(
        "",
        description="A file in --data DIR with weights of ResNet-18 to begin with: *.safetensors or *.pth.",
    )

    @model_validator(mode="after")
    def _check(self) -> ImagesOptions:
        if self.model != "resnet18" and (self.head_only or self.weights):
            raise ValueError("head_only and weights need model=resnet18")
        if self.model == "resnet18" and self.grey:
            raise ValueError("grey=true: ResNet-18 takes colours, which grey pictures will do for")
        # The aggregator chooses the options, but not which files of an edge are read.
        if Path(self.weights).name != self.weights or self.weights in ("..", "."):
            raise ValueError(
                f"weights={self.weights}: expected the name of a file in --data DIR, without a path"
            )
        return self


class ImagesTask(PictureTask):
    """Pictures in a folder for each class, for each edge; a small CNN, ResNet-18, or its head alone."""

    name = "images"
    defaults = TrainingDefaults(epochs=2, lr=0.01)
    Options = ImagesOptions
    options: ImagesOptions

    def __init__(self, options: TaskOptions | None = None) -> None:
        super().__init__(options)
        self.mean, self.deviation = GREY if self.options.grey else COLOUR
        self.side = self.options.side
        self.evaluation_batch = max(1, EVALUATION_BATCH * 32**2 // self.side**2)
        self._folders: PictureFolders | None = None
        self._pixels: dict[Path, NDArray[np.uint8]] = {}
        self._frozen: tuple[nn.Module, str] | None = None
        """The frozen trunk, which all models share, and its digest."""

    def prepare(self, data_dir: Path | None) -> None:
        if data_dir is not None:
            self._folders = PictureFolders(data_dir, self.options.classes)
            self.labels = self._folders.classes

    def preprocess(self, pixels: Picture) -> Picture:
        scaled = preprocess_grey if self.options.grey else preprocess_colour
        return np.rint(scaled(pixels, self.side))

    def model(self, seed: int) -> nn.Module:
        self._own_folders()
        return self._model(seed, begins=True)

    def model_for(self, manifest: Manifest, seed: int) -> nn.Module:
        names = [array.name for array in manifest.arrays]
        run = tuple(name.removeprefix(CLASS) for name in names if name.startswith(CLASS))
        given = self.options.classes
        run = given if sorted(given) == sorted(run) else run
        if self._folders is not None and (problem := difference(run, self._folders.classes)):
            raise DataMismatchError(f"{self._folders.path}: {problem}")
        self.labels = run
        model = self._model(seed, begins=False)
        if self.options.head_only and not set(_digests(names)) == set(_digests(model.state_dict())):
            raise ManifestMismatchError(
                "the frozen part of ResNet-18 is not the run's, expected the same file of weights on all edges "
                "(--task-option weights=FILE), or the same versions of torch and torchvision"
            )
        return model

    def load(self, context: LoadContext) -> LocalData:
        folders = self._own_folders()
        context.warn_if_divided(folders.path, len(folders.train), "pictures")
        train, holdout = hold_out(folders.part(context.partition), context.partition)
        return LocalData(
            self._read(folders.train, train), self._read(folders.train, holdout) if len(holdout) else None
        )

    def load_test(self, data_dir: Path | None) -> Examples:  # noqa: ARG002  see prepare
        files = self._own_folders().test
        return self._read(files, np.arange(len(files)))

    def train(
        self,
        model: nn.Module,
        data: LocalData,
        settings: TrainingSettings,
        seed: np.random.SeedSequence,
        cancelled: Callable[[], bool],
    ) -> TrainReport:
        if not self.options.head_only:
            return super().train(model, data, settings, seed, cancelled)
        # The frozen part is computed once, not in each epoch.
        trunk = model.get_submodule("trunk")
        inputs, labels = data.train.tensors()
        device = next(model.parameters()).device
        with torch.no_grad():
            features = torch.cat(
                [
                    trunk(model.get_submodule("standardize")(inputs[batch].to(device)))
                    for batch in batches(len(labels), self.evaluation_batch)
                ]
            )
        return sgd(model.get_submodule("fc"), Examples(features, labels), settings, seed, cancelled)

    def shared(self, model: nn.Module) -> tuple[str, ...]:
        names = super().shared(model)
        return tuple(name for name in names if not (self.options.head_only and name.startswith("trunk.")))

    def example_request(self) -> Any:
        return {"pixels": [[0 if self.options.grey else [0, 0, 0]] * 8] * 8}

    def _own_folders(self) -> PictureFolders:
        if self._folders is None:
            raise DataMissingError("task images needs pictures: --data DIR with a folder for each class")
        return self._folders

    def _read(self, files: Sequence[LabelledFile], selected: Indices) -> Examples:
        """Decodes the pictures, each once."""
        size = len(selected) * self.side**2 * len(self.mean)
        if size > MAX_PICTURE_BYTES:
            raise DataMissingError(
                f"{self._own_folders().path}: {len(selected)} pictures of {self.side} × {self.side} pixels have "
                f"{size_text(size)}, expected at most {size_text(MAX_PICTURE_BYTES)}: --task-option side=…"
            )
        chosen = [files[index] for index in selected]
        for file in chosen:
            if file.path not in self._pixels:
                self._pixels[file.path] = self.preprocess(read_picture(file.path)).astype(np.uint8)
        images = np.stack([self._pixels[file.path] for file in chosen])
        labels = torch.tensor([file.label for file in chosen], dtype=torch.int64)
        return Examples(self._standardise(images.reshape(*images.shape[:3], -1)), labels)

    def _standardise(self, images: NDArray[np.uint8] | NDArray[np.float32]) -> torch.Tensor:
        """Returns the pixels as they are, since the model standardises them: so they need a quarter of the memory."""
        return torch.from_numpy(images.astype(np.uint8)).permute(0, 3, 1, 2)

    def _model(self, seed: int, *, begins: bool) -> nn.Module:
        """Returns the model for ``labels``. ``begins``: with the first weights of a run."""
        standardize = Standardize(self.mean, self.deviation)
        if self.options.model == "cnn":
            model = nn.Sequential(
                OrderedDict(standardize=standardize, **_cnn(len(self.mean), len(self.labels)))
            )
        else:
            trunk, digest = self._trunk(seed, begins=begins)
            torch.manual_seed(seed)  # whether or not the trunk was drawn
            model = nn.Sequential(
                OrderedDict(standardize=standardize, trunk=trunk, fc=nn.Linear(512, len(self.labels)))
            )
            if digest:
                add_buffers(model, {FROZEN + digest: torch.zeros(0)})
        add_buffers(model, {CLASS + name: torch.zeros(0) for name in self.labels})
        return model.to(memory_format=torch.channels_last)

    def _trunk(self, seed: int, *, begins: bool) -> tuple[nn.Module, str]:
        """Returns ResNet-18 without its last layer, and its digest if it is frozen."""
        if self._frozen is not None:
            return self._frozen
        from torchvision.models import resnet18

        frozen = self.options.head_only
        torch.manual_seed(TRUNK_SEED if frozen else seed)
        trunk: nn.Module = resnet18()
        trunk.fc = nn.Identity()
        if self.options.weights and (begins or frozen):
            if self._folders is None:
                raise DataMissingError(
                    f"task images needs {self.options.weights}, the weights of ResNet-18: --data DIR with that file"
                )
            load_weights(trunk, self._folders.path / self.options.weights)
        if frozen:
            self._frozen = trunk.requires_grad_(False).eval(), _digest(trunk)
            return self._frozen
        return trunk, ""


class Standardize(nn.Module):
    """Pixels of 0 to 255 as inputs of a network, shape (examples, channels, height, width)."""

    def __init__(self, mean: Sequence[float], deviation: Sequence[float]) -> None:
        super().__init__()
        self.mean: torch.Tensor
        self.deviation: torch.Tensor
        self.register_buffer("mean", torch.tensor(mean).reshape(1, -1, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(deviation).reshape(1, -1, 1, 1), persistent=False)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return (pixels - self.mean) / self.deviation


def load_weights(trunk: nn.Module, path: Path) -> None:
    """Loads a ``state_dict`` of ResNet-18 from a file; its last layer is ignored. Raises ``DataMissingError``."""
    if not path.is_file():
        raise DataMissingError(
            f"{path}: is missing, expected the weights of ResNet-18 (*.safetensors or *.pth)"
        )
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        kept = {name: value for name, value in state.items() if not name.startswith("fc.")}
        trunk.load_state_dict(kept)
    except Exception as error:  # a damaged file raises errors of many types
        raise DataCorruptError(
            f"{path}: is no state_dict of ResNet-18: {one_line(str(error))[:200]}"
        ) from None


def _cnn(channels: int, classes: int) -> dict[str, nn.Module]:
    return {
        "conv1": nn.Conv2d(channels, 32, 3, padding=1),
        "relu1": nn.ReLU(),
        "pool1": nn.MaxPool2d(2),
        "conv2": nn.Conv2d(32, 64, 3, padding=1),
        "relu2": nn.ReLU(),
        "pool2": nn.MaxPool2d(2),
        "conv3": nn.Conv2d(64, 64, 3, padding=1),
        "relu3": nn.ReLU(),
        "pool3": nn.AdaptiveAvgPool2d(4),
        "flatten": nn.Flatten(),
        "fc1": nn.Linear(1024, 128),
        "relu4": nn.ReLU(),
        "fc2": nn.Linear(128, classes),
    }


def _digest(trunk: nn.Module) -> str:
    sha = hashlib.sha256()
    for name, value in trunk.state_dict().items():
        sha.update(f"{name}\0".encode() + value.numpy().tobytes())
    return sha.hexdigest()[:16]


def _digests(names: Any) -> list[str]:
    return [name for name in names if name.startswith(FROZEN)]
