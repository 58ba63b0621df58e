"""A simulated broker that retains a model, for downloads without a network."""

from __future__ import annotations

from collections.abc import Iterator

from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.transfer.download import ModelDownload
from fl_shared.transfer.publication import ModelPublication


def scoped(model: ModelPublication) -> dict[t.Topic, m.ModelManifest | m.ModelChunk]:
    """What lies at the broker."""
    kept: dict[t.Topic, m.ModelManifest | m.ModelChunk] = {}
    for topic in model.topics():
        match topic:
            case t.ManifestTopic():
                kept[topic] = model.manifest(run="R", incarnation=1, seq=0)
            case t.ChunkTopic(index=index):
                kept[topic] = model.chunk(index, run="R", incarnation=1, seq=0)
    return kept


class Broker:
    """Retained messages, and one subscriber: what it asks for comes, as often as it asks."""

    def __init__(self, model: ModelPublication) -> None:
        self.kept = scoped(model)
        self.subscribed: set[t.Topic] = set()
        self.most = 0
        self.asked: list[t.Topic] = []
        self.packets = 0

    def ask(self, download: ModelDownload, now: float) -> Iterator[m.ModelManifest | m.ModelChunk]:
        asking = download.subscription_changes(now)
        assert set(asking.unsubscribe) <= self.subscribed
        self.subscribed -= set(asking.unsubscribe)
        assert not self.subscribed & set(asking.subscribe), "asked for twice"
        self.subscribed |= set(asking.subscribe)
        self.asked += asking.subscribe
        self.packets += -(-len(asking.subscribe) // 8)
        self.most = max(self.most, len(self.subscribed))
        assert set(download.subscribed_topics()) == self.subscribed
        return (self.kept[topic] for topic in asking.subscribe if topic in self.kept)


def fetch(model: ModelPublication, download: ModelDownload) -> Broker:
    """A whole download, with every message in its place."""
    broker, now = Broker(model), 0.0
    arriving = list(broker.ask(download, now))
    for _ in range(20_000):
        if download.state != "open":
            break
        if not arriving:
            due = download.due()
            assert due is not None, "nothing comes, and nothing is asked for"
            now = max(now, due)
        else:
            now += 0.001
            download.receive(arriving.pop(0), now)
        arriving += broker.ask(download, now)
    list(broker.ask(download, now))
    return broker
