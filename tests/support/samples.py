"""One message of every kind, with its topic; the golden bytes are made from these."""

from __future__ import annotations

import hashlib
import struct

from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.tensors.digest import content_digest
from fl_shared.tensors.manifest import ArraySpec, Manifest
from tests.support.builders import ACCURACY, MAE
from tests.support.observation_samples import ENVIRONMENT, OBSERVATION_MESSAGES, RUN

MANIFEST = Manifest(
    arrays=(ArraySpec(name="fc.bias", shape=(2,)), ArraySpec(name="norm.mean", shape=(1, 2), role="buffer"))
)
DATA = struct.pack("<4f", 0.5, -1.25, 3.0, 1e-3)
DIGEST = content_digest([("weights", "f32", MANIFEST.digest, DATA)])
UPDATE_DIGEST = content_digest([("delta", "f32", MANIFEST.digest, DATA)])

FIRST_SELECTED = m.Selected(
    run=RUN,
    incarnation=1,
    seq=7,
    round=0,
    task="digits",
    cohort=None,
    seconds_left=600.0,
    training=m.TrainingRequest(epochs=10, batch_size=32, lr=0.05, momentum=0.9, seed=0),
    fold=m.FoldSettings(max_examples=1_000_000, max_delta=100.0, scale_bits=32),
    encoding="f32",
    base=None,
    inline_limit=1_000_000,
)

MESSAGES: dict[str, tuple[t.Topic, m.Message]] = {
    "aggregator": (
        t.AggregatorTopic(),
        m.AggregatorPresence(state="online", session="a1b2", run=RUN, incarnation=1),
    ),
    "presence": (
        t.PresenceTopic("7"),
        m.ClientPresence(client="7", state="offline", session="c3d4", reason="it was stopped"),
    ),
    "log-request": (
        t.LogRequestTopic("7"),
        m.LogRequest(
            client="7",
            reader="9f86d081",
            level="warning",
            recent=50,
            seconds=30,
            public="A" * 43,
            voucher="B" * 98,
        ),
    ),
    "log": (
        t.LogTopic("7"),
        m.LogLines(
            client="7",
            reader="9f86d081",
            lines=(
                m.LogLine(time="2026-01-02T03:04:05.678Z", level="warning", text="no broker: trying again"),
            ),
            recent=2,
            left_out=3,
            withheld=1,
        ),
    ),
    "register-first": (
        t.RegisterTopic("7"),
        m.Registration(
            seq=0,
            client="7",
            session="c3d4",
            device="e5f6",
            roles=("train", "predict"),
            encodings=("f32",),
            abilities=("prox", "scaffold", "clip-gradients", "logit-adjustment"),
            environment=ENVIRONMENT,
        ),
    ),
    "register-second": (
        t.RegisterTopic("7"),
        m.Registration(
            run=RUN,
            incarnation=1,
            seq=1,
            client="7",
            session="c3d4",
            device="e5f6",
            roles=("train", "predict"),
            task="digits",
            manifest=MANIFEST.digest,
            examples=57,
            metrics=(ACCURACY, MAE),
            encodings=("f32",),
            abilities=("prox", "scaffold", "clip-gradients"),
            fresh=True,
            local_part="fc2.bias, fc2.weight",
        ),
    ),
    "admitted": (
        t.RepliesTopic("7"),
        m.Admitted(
            run=RUN,
            incarnation=1,
            seq=2,
            client="7",
            session="c3d4",
            task="digits",
            partition=m.Partition(index=7, count=20, scheme="iid", seed=0, holdout=0.2, examples=None),
            examples=57,
            finished_round=None,
            counted=m.CountedUpdate(round=2, digest=UPDATE_DIGEST),
        ),
    ),
    "refused": (
        t.RepliesTopic("7"),
        m.Refused(
            run=RUN,
            incarnation=1,
            seq=3,
            client="7",
            session="c3d4",
            reason="id-in-use",
            detail="in use for 3 s",
        ),
    ),
    "grant": (
        t.RepliesTopic("7"),
        m.Grant(
            run=RUN,
            incarnation=1,
            seq=4,
            client="7",
            session="c3d4",
            round=3,
            digest=UPDATE_DIGEST,
            chunks=(0, 1),
        ),
    ),
    "accepted": (
        t.RepliesTopic("7"),
        m.Accepted(run=RUN, incarnation=1, seq=4, client="7", session="c3d4", round=3, digest=UPDATE_DIGEST),
    ),
    "rejected": (
        t.RepliesTopic("7"),
        m.Rejected(
            run=RUN,
            incarnation=1,
            seq=5,
            client="7",
            session="c3d4",
            round=3,
            digest=UPDATE_DIGEST,
            reason="not-finite",
            detail="delta: element 1 of 'fc.bias' is not finite",
        ),
    ),
    "limited": (
        t.RepliesTopic("7"),
        m.Limited(
            run=RUN,
            incarnation=1,
            seq=5,
            client="7",
            session="c3d4",
            reason="too-many-messages",
            detail="at most 50 a second",
        ),
    ),
    "selected": (
        t.SelectedTopic(3),
        m.Selected(
            run=RUN,
            incarnation=1,
            seq=6,
            round=3,
            task="digits",
            cohort=("7", "lab-a"),
            seconds_left=599.5,
            training=m.TrainingRequest(epochs=10, batch_size=32, lr=0.05, momentum=0.9, seed=0),
            fold=m.FoldSettings(max_examples=1_000_000, max_delta=100.0, scale_bits=32),
            encoding="f32",
            base=m.ModelReference(version=2, digest=DIGEST),
            inline_limit=1_000_000,
            correction=m.Correction(name="scaffold", settings={"bound": 1.0}),
            companions=(m.Companion(section="control", digest=UPDATE_DIGEST),),
        ),
    ),
    "selected-masked": (
        t.SelectedTopic(3),
        FIRST_SELECTED.model_copy(
            update={
                "round": 3,
                "cohort": ("7", "8", "lab-a"),
                "base": m.ModelReference(version=2, digest=DIGEST),
                "masked": m.Masking(
                    bits=64,
                    threshold=3,
                    least=3,
                    colluders=1,
                    members=tuple(
                        m.Member(client=name, keys=letter * 86)
                        for name, letter in (("7", "A"), ("8", "B"), ("lab-a", "C"))
                    ),
                ),
            }
        ),
    ),
    "selected-first-weights": (t.WorkTopic("7"), FIRST_SELECTED),
    "ticket": (
        t.WorkTopic("7"),
        FIRST_SELECTED.model_copy(
            update={"round": 5, "base": m.ModelReference(version=4, digest=DIGEST), "ticket": True}
        ),
    ),
    "model": (
        t.ModelTopic(),
        m.ModelAnnouncement(
            run=RUN,
            incarnation=1,
            seq=8,
            task="digits",
            round=2,
            version=2,
            digest=DIGEST,
            chunks=1,
            size=16,
            evaluate="test",
        ),
    ),
    "manifest": (
        t.ManifestTopic(DIGEST[:12]),
        m.ModelManifest(
            run=RUN,
            incarnation=1,
            seq=9,
            digest=DIGEST,
            sections=(
                m.SectionManifest(name="weights", encoding="f32", arrays=MANIFEST.arrays, size=len(DATA)),
            ),
            size=len(DATA),
            chunk_size=1_048_576,
            chunks=1,
        ),
    ),
    "model-chunk": (
        t.ChunkTopic(DIGEST[:12], 0),
        m.ModelChunk(run=RUN, incarnation=1, seq=10, digest=DIGEST, index=0, data=DATA),
    ),
    "update": (
        t.UpdatesTopic("7"),
        m.Update(
            run=RUN,
            incarnation=1,
            seq=2,
            client="7",
            session="c3d4",
            round=3,
            base=DIGEST,
            digest=UPDATE_DIGEST,
            examples=57,
            steps=20,
            seconds=0.25,
            metrics=m.UpdateMetrics(
                before={"accuracy": 0.5, "loss": 1.5},
                after={"accuracy": 0.75, "loss": 0.5},
                train={"loss": 0.25},
            ),
            sections=(m.Section(name="delta", encoding="f32", manifest=MANIFEST.digest, data=DATA),),
        ),
    ),
    "update-first-weights": (
        t.UpdatesTopic("7"),
        m.Update(
            run=RUN,
            incarnation=1,
            seq=3,
            client="7",
            session="c3d4",
            round=0,
            base=None,
            digest=UPDATE_DIGEST,
            examples=57,
            steps=0,
            seconds=0.0,
            metrics=m.UpdateMetrics(),
            sections=(
                m.Section(
                    name="delta",
                    encoding="f32",
                    manifest=MANIFEST.digest,
                    arrays=MANIFEST.arrays,
                    data=DATA,
                ),
            ),
        ),
    ),
    "offer": (
        t.UpdatesTopic("7"),
        m.Offer(
            run=RUN,
            incarnation=1,
            seq=2,
            client="7",
            session="c3d4",
            round=3,
            base=DIGEST,
            digest=UPDATE_DIGEST,
            examples=57,
            steps=20,
            seconds=0.25,
            metrics=m.UpdateMetrics(train={"loss": 0.25}),
            sections=(
                m.OfferedSection(name="delta", encoding="f32", manifest=MANIFEST.digest, size=len(DATA)),
            ),
            size=len(DATA),
            chunk_size=8,
            chunks=2,
        ),
    ),
    "update-chunk": (
        t.UpdatesTopic("7"),
        m.UpdateChunk(
            run=RUN,
            incarnation=1,
            seq=3,
            client="7",
            session="c3d4",
            round=3,
            digest=UPDATE_DIGEST,
            index=1,
            data=DATA[8:],
        ),
    ),
    "failed": (
        t.UpdatesTopic("7"),
        m.TrainingFailed(
            run=RUN, incarnation=1, seq=4, client="7", session="c3d4", round=3, detail="the worker was killed"
        ),
    ),
    "delayed": (
        t.UpdatesTopic("7"),
        m.Delayed(run=RUN, incarnation=1, seq=5, client="7", session="c3d4", round=3, awaits="answer"),
    ),
    "agreed": (
        t.UpdatesTopic("7"),
        m.Agreed(
            run=RUN,
            incarnation=1,
            seq=6,
            client="7",
            session="c3d4",
            round=3,
            closing="cd" * 32,
            signature=bytes(range(64)),
        ),
    ),
    "opened": (
        t.UpdatesTopic("7"),
        m.Opened(
            run=RUN,
            incarnation=1,
            seq=7,
            client="7",
            session="c3d4",
            round=3,
            closing="cd" * 32,
            digest=hashlib.sha256(bytes(range(32))).hexdigest(),
            shares=bytes(range(32)),
            unopened=("lab-a",),
        ),
    ),
    "declined": (
        t.UpdatesTopic("7"),
        m.Declined(
            run=RUN,
            incarnation=1,
            seq=8,
            client="7",
            session="c3d4",
            round=3,
            closing="cd" * 32,
            reason="another-set",
            detail="another set of round 3 is signed already",
        ),
    ),
    "closing": (
        t.UnmaskTopic("7"),
        m.Closing(
            run=RUN,
            incarnation=1,
            seq=12,
            round=3,
            plan="ef" * 32,
            included={"7": "01" * 32, "lab-a": "23" * 32},
            seconds_left=59.5,
        ),
    ),
    "reveal": (
        t.UnmaskTopic("7"),
        m.Reveal(
            run=RUN,
            incarnation=1,
            seq=13,
            round=3,
            plan="ef" * 32,
            included={"7": "01" * 32, "lab-a": "23" * 32},
            signatures={"7": "A" * 86, "lab-a": "B" * 86},
            packages={"7": "C" * 96, "lab-a": "D" * 96},
            seconds_left=58.5,
        ),
    ),
    "evaluation": (
        t.EvaluationsTopic("evaluator"),
        m.Evaluation(
            run=RUN,
            incarnation=1,
            seq=5,
            client="evaluator",
            session="g7h8",
            version=2,
            digest=DIGEST,
            split="test",
            examples=360,
            loss=0.125,
            metrics={"accuracy": 0.96875},
            confusion=m.Confusion(labels=("even", "odd"), counts=((190, 10), (0, 160))),
        ),
    ),
    "result": (
        t.ResultTopic(3),
        m.Result(
            run=RUN,
            incarnation=1,
            seq=11,
            round=3,
            outcome="committed",
            reason=None,
            version=3,
            digest=DIGEST,
            participants=("7",),
            worst_edges={"7": 0.5},
            missing={"lab-a": "offline: for 2.0 s"},
            examples=57,
            metrics={"accuracy": 0.96875},
            primary=ACCURACY,
            split="test",
            bytes_up=1000,
            bytes_down=2000,
            seconds=1.5,
        ),
    ),
    "stop": (t.ControlTopic(), m.Stop(run=RUN, reason="the site closes")),
    "pause": (t.ControlTopic(), m.Pause(run=RUN, incarnation=1, reason="the site moves", number=2)),
    "resume": (t.ControlTopic(), m.Resume(run=RUN, incarnation=1, number=2)),
    "answer": (
        t.AnswersTopic("a1b2"),
        m.CommandAnswer(
            run=RUN, incarnation=1, seq=12, command="pause", accepted=True, detail="paused by the operator"
        ),
    ),
    "prediction": (
        t.PredictionsTopic(),
        m.Prediction(
            run=RUN,
            incarnation=1,
            seq=0,
            client="7",
            sha256="ab" * 32,
            version=10,
            label="7",
            probabilities={"1": 0.25, "7": 0.75},
        ),
    ),
    "prediction-error": (
        t.PredictionsTopic("me"),
        m.Prediction(
            run=RUN,
            incarnation=1,
            seq=1,
            client="7",
            sha256="cd" * 32,
            version=10,
            error="neither a picture nor JSON",
        ),
    ),
    **OBSERVATION_MESSAGES,
}
