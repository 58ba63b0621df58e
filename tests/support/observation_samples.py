"""One message of every kind that watchers read, with its topic."""

from __future__ import annotations

from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from tests.support.builders import ACCURACY

RUN = "3f9a1c0b7e22"
ENVIRONMENT = m.Environment(
    fl_mqtt="0.1.0",
    python="3.11.7",
    library="torch 2.9.0+cpu",
    platform="Linux x86_64",
    memory=8 * 2**30,
    cores=4,
)

OBSERVATION_MESSAGES: dict[str, tuple[t.Topic, m.Message]] = {
    "missing": (
        t.MissingTopic(3),
        m.Missing(
            run=RUN,
            incarnation=1,
            seq=12,
            round=3,
            clients={"lab-a": m.MissingClient(state="offline", seconds=2.0)},
        ),
    ),
    "edges": (
        t.EdgesTopic(3),
        m.Edges(
            run=RUN,
            incarnation=1,
            seq=14,
            round=3,
            phase="collecting",
            edges={
                "7": m.EdgeView(
                    state="in",
                    examples=57,
                    seconds=0.25,
                    bytes=1724320,
                    primary=0.75,
                    loss=0.5,
                    environment=0,
                ),
                "8": m.EdgeView(state="missing", reason="rejected: not-finite: delta"),
                "lab-a": m.EdgeView(state="offline", reason="its connection is lost"),
            },
            environments=(ENVIRONMENT,),
            personal={"7": m.PersonalScore(before=0.75, after=0.875)},
        ),
    ),
    "history": (
        t.HistoryTopic(),
        m.History(
            run=RUN,
            incarnation=1,
            seq=15,
            task="digits",
            rounds=10,
            started="2026-11-24T11:59:00Z",
            metrics=(ACCURACY,),
            columns=m.HistoryColumns(
                round=(1, 2),
                version=(1, None),
                metrics={"accuracy": (0.96875, None), "loss": (0.125, None), "train_loss": (0.25, None)},
                split=("test", None),
                seconds=(1.5, 600.25),
                participants=(2, 0),
                cohort=(2, 2),
                bytes_up=(1000, 500),
                bytes_down=(2000, 2000),
            ),
            similarity=m.SimilarityMap(
                round=1,
                edges=("7", "8", "lab-a"),
                groups=(2, 1),
                cosines="S-fO",  # 0.75, −0.25, −0.50
                outliers={"lab-a": "cosine -0.44 to the others, the median is 0.27"},
            ),
        ),
    ),
    "status": (
        t.StatusTopic(),
        m.Status(
            run=RUN,
            incarnation=1,
            seq=13,
            written="2026-11-24T12:00:00.000Z",
            task="digits",
            phase="collecting",
            refused={"9": 12, "(unknown)": 3},
            round=3,
            version=2,
            rounds=10,
            have=1,
            need=2,
            present=3,
            seconds_left=598.5,
            missing=("lab-a",),
            metrics={"accuracy": 0.96875},
            primary=ACCURACY,
            split="test",
        ),
    ),
}
