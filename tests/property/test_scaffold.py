"""SCAFFOLD's control is the mean of what its edges keep, whoever is killed, and whatever gets lost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fl_aggregator.aggregation.combining import Combiner, first_state
from fl_aggregator.aggregation.strategies import registry
from fl_aggregator.aggregation.validation import CheckedSection
from fl_aggregator.round import effects as do
from fl_aggregator.round.phases import Collecting
from fl_edge.session import effects, events
from fl_edge.session.machine import step
from fl_edge.session.work import Fetching, Reporting, Training
from fl_edge.storage.own_state_files import OwnStateFiles
from fl_shared.tensors.manifest import Vector, manifest_of
from tests.support.round_playbook import Playbook
from tests.support.session_script import SessionScript, update
from tests.support.session_steps import ready

EDGES = 10
ROUNDS = 20
EXAMPLES = {str(k): 5 + 7 * k for k in range(EDGES)}
MANIFEST = manifest_of(
    {"a.mean": np.zeros(3), "b.weight": np.zeros((4, 5)), "c.bias": np.zeros(2)}, ["a.mean"]
)
BUFFERS = slice(0, 3)
BASE = np.zeros(MANIFEST.values, np.float32)


class Site:
    """An edge: its session, its files, and what it has kept. The session calls itself 7, as in all scripts."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.files = OwnStateFiles(directory, "7")
        self.script = ready()

    def do(self, *lines: str) -> None:
        for line in lines:
            self.perform(self.script.do(line))

    def perform(self, done: tuple[effects.Effect, ...]) -> None:
        for effect in done:
            match effect:
                case effects.StageState(reference=reference, vectors=vectors):
                    self.files.stage(reference, vectors)
                case effects.PromoteState():
                    self.files.promote()
                case effects.DropState(staged=staged, current=current):
                    self.files.drop(staged=staged, current=current)
                case _:
                    pass

    def kept(self) -> Vector | None:
        found = self.files.current()
        return np.frombuffer(found["control"], np.float32) if found else None

    def is_selected(self, playbook: Playbook, number: int, data: bytes) -> None:
        """Gets the base. It connects first if it is offline, or has missed how an earlier round ended."""
        self.script.data = data
        selected = f"selected {number} incarnation={playbook.state.incarnation}"
        self.do(selected)
        if not isinstance(self.script.session.work, Fetching):
            self.returns(playbook, number)
            self.do(selected)
        work = self.script.session.work
        assert isinstance(work, Fetching), work
        self.do(f"fetched {work.job}")

    def trains(self, control: Vector) -> Vector:
        """Ends its training with this mean gradient; returns the section of its update."""
        before = self.kept()
        work = self.script.session.work
        assert isinstance(work, Training), work
        own = {"control": memoryview(control.tobytes())}
        trained = events.Trained(self.script.now, work.job, update(data=self.script.data), own)
        self.script.state, done = step(self.script.state, trained)
        self.perform(done)
        return control if before is None else control - before

    def dies(self) -> None:
        """A new process of it finds what is on the disk. Its finished update is gone."""
        old = self.script
        self.script = SessionScript()
        self.script.data = old.data
        self.script.state = replace(self.script.session, own_state=self.files.read())

    def returns(self, playbook: Playbook, number: int) -> None:
        counted = playbook.state.counted.get(self.name)
        said = "" if counted is None else f" counted={counted.round} digest={counted.digest}"
        answer = f"admitted part=7/20 newest_round={number} incarnation={playbook.state.incarnation}{said}"
        self.do("connected s1", answer, "loaded 0", answer)


def digest_of(site: Site) -> str:
    return update(data=site.script.data).digest


def checked(values: Vector) -> CheckedSection:
    return CheckedSection(values, float(np.abs(values).max()))


class World:
    """The aggregator's machine and arithmetic, and the edges."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.playbook = Playbook(
            clients=EDGES, per_round=4, rounds=200, correct=("scaffold",), grace=0.0, evaluate_every=1000
        ).play("start")
        for name, examples in EXAMPLES.items():
            self.playbook.play(f"join {name} abilities=scaffold")
            self.playbook.play(f"load {name} abilities=scaffold examples={examples}")
        self.playbook.play(f"send {self.playbook.cohort[0]}")
        self.strategy = registry.load(self.playbook.state.settings)
        self.state: Mapping[str, Vector] = first_state(self.strategy, MANIFEST.values)
        self.sites = {}
        for name in EXAMPLES:
            (directory / name).mkdir()
            self.sites[name] = Site(name, directory / name)

    def examples_of(self, name: str) -> int:
        """Of an edge that has taken part, which is then another number in each update."""
        return (
            EXAMPLES[name] if name not in self.playbook.state.counted else int(self.random.integers(1, 1000))
        )

    def round(self, *, abandon: bool, kill_aggregator: bool) -> None:
        playbook, number = self.playbook, self.playbook.round
        killed = set(self.random.choice(list(EXAMPLES), 3, replace=False))
        spool: dict[str, dict[str, CheckedSection]] = {}
        while playbook.round == number and isinstance(playbook.state.phase, Collecting):
            name = next(iter(playbook.collecting.awaited))
            site = self.sites[name]
            site.is_selected(playbook, number, self.random.bytes(16))
            control = self.random.normal(size=MANIFEST.values).astype(np.float32)
            control[BUFFERS] = 0
            section = site.trains(control)
            assert isinstance(site.script.session.work, Reporting)
            if abandon or (name in killed and self.random.random() < 0.3):  # before anything arrives
                site.dies()
                playbook.play(f"fail {name} round={number}")
                site.returns(playbook, number)
                continue
            delta = self.random.normal(size=MANIFEST.values).astype(np.float32)
            spool[name] = {"control": checked(section), "delta": checked(delta)}
            if name not in killed:  # else it never hears that its update was accepted
                site.do(f"accepted {number} digest={digest_of(site)}")
            told = len(playbook.told)
            playbook.play(
                f"send {name} round={number} digest={digest_of(site)} examples={self.examples_of(name)}"
            )
            for _, done in playbook.told[told:]:
                for effect in done:
                    if isinstance(effect, do.Average):
                        self.average(effect, spool, twice=kill_aggregator)
        if kill_aggregator:
            playbook.play("resume")
            for name in EXAMPLES:
                playbook.play(f"rejoin {name} abilities=scaffold")
        playbook.play("wait 40")
        ended = playbook.result(number).split()
        outcome = "abandoned" if "abandoned" in ended else ""
        contributors = sorted(name for name, one in playbook.state.counted.items() if one.round == number)
        for name, site in self.sites.items():
            if name in killed:
                site.dies()
            if self.random.random() < 0.7:  # else it misses the result
                scope = (
                    f"incarnation={playbook.state.incarnation} with={'7' if name in contributors else '8'}"
                )
                site.do(f"result {number} {outcome} {scope}")

    def average(
        self, effect: do.Average, spool: Mapping[str, Mapping[str, CheckedSection]], *, twice: bool
    ) -> None:
        made = []
        for _ in range(2 if twice else 1):
            combiner = Combiner(self.strategy, MANIFEST, self.playbook.state.settings)
            for one in self.random.permutation(np.array(effect.contributors, object)):
                sections = spool[one.client]
                combiner.add(one, sections["delta"].values, sections["delta"].magnitude, sections)
            made.append(
                combiner.next_model(effect.version, BASE, self.state, lambda _: BASE, effect.heard)[1]
            )
        assert all(one["control"].tobytes() == made[0]["control"].tobytes() for one in made)
        self.state = made[0]


@pytest.mark.parametrize("seed", range(4))
def test_the_control_is_the_mean_of_what_the_edges_keep(tmp_path: Path, seed: int) -> None:
    """20 rounds, in each of which 30 % of the edges are killed; twice the aggregator is; results get lost."""
    world = World(tmp_path, seed)
    for number in range(1, ROUNDS + 1):
        world.round(abandon=number in (5, 12), kill_aggregator=number in (7, 14))
    newest = world.playbook.round - 1
    total, examples = np.zeros(MANIFEST.values), 0
    for name, site in world.sites.items():
        site.dies()
        site.returns(world.playbook, newest + 1)
        kept = site.kept()
        assert (kept is not None) == (name in world.playbook.state.counted), name
        if kept is not None:
            total += EXAMPLES[name] * kept.astype(np.float64)
            examples += EXAMPLES[name]
    assert examples > 0.9 * sum(EXAMPLES.values()), "nearly all have taken part"
    assert np.abs(world.state["control"] - total / examples).max() < 1e-5
    assert not world.state["control"][BUFFERS].any()
