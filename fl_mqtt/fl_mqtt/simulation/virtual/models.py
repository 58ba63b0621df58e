"""The models that the aggregator has published, as edges get them. All edges share one copy of each."""

from __future__ import annotations

from fl_edge.messaging.model_store import FetchedModel
from fl_mqtt.simulation.virtual.network import Network
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.system.shared_memory import SharedBytes
from fl_shared.transfer.download import ModelDownload


class Models:
    """Assembles models from what ``network`` retains."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._models: dict[str, FetchedModel] = {}

    def size(self, digest: str) -> int | None:
        """Returns the bytes of a model; null if it is not published."""
        manifest = self._manifest(digest)
        return None if manifest is None else manifest.size

    def get(self, digest: str, section: str) -> FetchedModel | None:
        """Returns a model that has this section; null if it is not published any more."""
        manifest = self._manifest(digest)
        if manifest is None:
            return None
        if digest not in self._models:
            self._models = {one: model for one, model in self._models.items() if self._manifest(one)}
            self._models[digest] = self._assembled(manifest, section)
        return self._models[digest]

    def _manifest(self, digest: str) -> m.ModelManifest | None:
        found = self._network.retained.get(t.ManifestTopic(digest[:12]))
        return found if isinstance(found, m.ModelManifest) else None

    def _assembled(self, manifest: m.ModelManifest, section: str) -> FetchedModel:
        memory = SharedBytes.new(manifest.size)
        download = ModelDownload(manifest.digest, allocate=lambda _size: memory.view, section=section)
        download.receive(manifest, 0.0)
        for index in range(manifest.chunks):
            chunk = self._network.retained[t.ChunkTopic(manifest.digest[:12], index)]
            assert isinstance(chunk, m.ModelChunk)
            download.receive(chunk, 0.0)
        assert download.state == "complete", download.failure
        return FetchedModel(manifest.digest, download.model, memory, section)
