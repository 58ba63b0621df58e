"""Sends a million bad messages to an aggregator and to edges: does an exception escape, does memory grow?

    python benchmarks/fuzz.py [--messages 1000000] [--seed 0] [--runs 10] [--edge-share 0.3] [--masked]
        [--write]

No broker takes part: this tests what our code does with a message that has arrived. A real aggregator (with a
run directory, its loop driven step by step) and real edges receive mutations of good messages, golden ones
and those of a live run (`tests/support/fuzz`): bits flipped, cut, extended, spliced, values replaced by
extreme ones, on wrong topics, retained, repeated, in any order. Each run has another encoding of updates, and a
regional aggregator that sends sums; some encoded updates have faults that their digest covers. Rounds continue amid
these messages: every honest update must be accepted, and each model must equal, bit for bit, the sum of the
accepted updates computed in another way. At the end, a replay of the journal must restore the state. Edges must join
a run, train, report and predict.

With `--masked`, all messages are for masked runs: their noise comes before each phase of a round, from two members that
lie in every message and value of the protocol (`docs/privacy.md`), and honest members must get their sum unmasked.

Every exception that escapes is printed with the message that caused it. The exit code is 1 if there was one,
if a round was wrong, or if resident memory (without what malloc keeps free for later) is more than 5 % larger
at the end than after a tenth of the messages. With `--runs 1`, one aggregator receives all of them. With `--write`, the
line goes to `results/fuzz.jsonl`, too.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import logging
import os
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Self

sys.path.insert(0, str(Path(__file__).parents[1]))

import measured_lines

from tests.support.fuzz.aggregator_harness import AggregatorHarness
from tests.support.fuzz.aggregator_messages import ENCODINGS
from tests.support.fuzz.edge_harness import EdgeHarness
from tests.support.fuzz.masked_harness import MaskedHarness
from tests.support.fuzz.sections import SectionHarness

A_ROUND: Final = 2000
"""Bad messages in each of the aggregator's rounds."""
A_RUN: Final = 500
"""Bad messages in each run that the edges join."""
MOST_GROWTH: Final = 0.05


class Formatting(logging.Handler):
    """Formats log lines and writes none: a log line that cannot be formatted is a bug, too."""

    def emit(self, record: logging.LogRecord) -> None:
        """Formats the record, and encodes it as a file would."""
        record.getMessage().encode()


@dataclass(frozen=True)
class Footprint:
    """The memory of this process. ``as_it_was``: resident bytes before malloc returned free memory.

    ``resident``: resident bytes after that. ``blocks``: Python's allocated blocks. ``descriptors``: open
    ones.
    """

    as_it_was: int
    resident: int
    blocks: int
    descriptors: int

    @classmethod
    def now(cls) -> Self:
        """Measures this process after a garbage collection."""
        gc.collect()
        before = _resident()
        with contextlib.suppress(OSError, AttributeError):  # another C library keeps its free memory
            # The largest payloads raise the threshold above which glibc returns memory; that is no leak.
            ctypes.CDLL("libc.so.6").malloc_trim(0)
        descriptors = sum(1 for _ in Path("/proc/self/fd").iterdir())
        return cls(before, _resident(), sys.getallocatedblocks(), descriptors)


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Tally:
    """Counts messages and their outcomes. ``budget``: the number of messages in all."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.messages = self.aggregator = self.edge = self.sections = 0
        self.escaped = self.failed = 0
        self.rounds = self.honest = self.noisy = self.sums = 0
        self.edge_rounds = self.masked_rounds = self.edge_restarts = self.predictions = 0
        self.spoilt = self.abandoned = 0
        self.kinds: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.tenths: list[Footprint] = []

    def count(self) -> None:
        """Counts a message, and measures memory after each tenth of the budget."""
        self.messages += 1
        if self.messages % (self.budget // 10) == 0:
            self.tenths.append(Footprint.now())

    def take_edges(self, edges: EdgeHarness) -> None:
        """Counts what edges have done."""
        self.edge_rounds += edges.rounds
        self.masked_rounds += edges.masked_rounds
        self.edge_restarts += edges.restarts
        self.predictions += edges.answers

    def throw(self, take: Callable[[], object], where: str, what: object) -> None:
        """Delivers a bad message by calling ``take``. An exception that it raises counts as escaped."""
        self.count()
        try:
            take()
        except Exception:
            self.escaped += 1
            if self.escaped <= 20:
                traceback.print_exc()
                print(f"escaped at {where}, with message {self.messages}: {what!r}", file=sys.stderr)

    def prove(self, work: Callable[[], object], where: str) -> bool:
        """Does honest work amid the bad messages. Returns whether it succeeded."""
        try:
            work()
        except Exception:
            self.failed += 1
            traceback.print_exc()
            print(f"failed at {where}, after message {self.messages}", file=sys.stderr)
            return False
        return True


class EdgeTurns:
    """Sends edges their ``share`` of the bad messages, until ``tally`` has counted ``end``, a whole run at a time."""

    def __init__(self, edges: EdgeHarness, share: float, end: int, tally: Tally) -> None:
        self._edges = edges
        self._of_a_round = A_ROUND * share / (1 - share)
        self._end = end
        self._tally = tally
        self._due = 0.0

    def after_round(self) -> bool:
        """Runs edges as often as is due after a round of the aggregator. Returns whether all runs succeeded."""
        self._due += self._of_a_round
        while self._due >= A_RUN and self._tally.messages < self._end:
            self._due -= A_RUN
            some = min(A_RUN, self._end - self._tally.messages)
            if not self._tally.prove(partial(one_run, self._edges, some, self._tally), "edge"):
                return False
        return True


def fuzz(seed: int, messages: int, edge_share: float, tally: Tally) -> None:
    """Sends ``messages`` to a new aggregator, whose encoding is the seed's, and new edges.

    What the aggregator receives depends on ``seed`` only.
    """
    end = tally.messages + messages
    with tempfile.TemporaryDirectory() as scratch:
        encoding = ENCODINGS[seed % len(ENCODINGS)]
        aggregator = AggregatorHarness(Path(scratch) / "run", seed, encoding)
        edges, sections = EdgeHarness(Path(scratch), seed), SectionHarness(seed)
        turns = EdgeTurns(edges, edge_share, end, tally)
        try:
            while tally.messages < end:
                some = min(A_ROUND, end - tally.messages)
                if not tally.prove(partial(one_round, aggregator, some, tally), "aggregator"):
                    return
                some = min(A_ROUND // 4, end - tally.messages)
                some_sections(sections, some, tally)
                if not turns.after_round():
                    return
            tally.prove(partial(one_round, aggregator, 0, tally), "aggregator")
            tally.prove(aggregator.replay, "aggregator's journal")
            tally.prove(partial(one_run, edges, 0, tally), "edge")
        finally:
            tally.rounds += aggregator.rounds
            tally.honest += aggregator.oracle.accepted
            tally.noisy += aggregator.oracle.of_noise
            tally.sums += aggregator.oracle.sums
            tally.take_edges(edges)
            for reasons in aggregator.aggregator.rejections.total.values():
                tally.refused.update(reasons)
            aggregator.close()
            edges.close()


def fuzz_masked(seed: int, messages: int, edge_share: float, tally: Tally) -> None:
    """Sends ``messages`` to new aggregators of masked runs, and to new edges in such runs."""
    end = tally.messages + messages
    with tempfile.TemporaryDirectory() as scratch:
        edges = EdgeHarness(Path(scratch), seed, masked=1.0)
        turns, number = EdgeTurns(edges, edge_share, end, tally), 0
        try:
            while tally.messages < end:
                number += 1
                aggregator = MaskedHarness(Path(scratch) / f"run-{number}", 1000 * seed + number)
                try:
                    while tally.messages < end and not aggregator.over:
                        some = min(A_ROUND, end - tally.messages)
                        if not tally.prove(partial(one_masked_round, aggregator, some, tally), "aggregator"):
                            return
                        if not turns.after_round():
                            return
                    tally.prove(aggregator.replay, "aggregator's journal")
                finally:
                    tally.rounds += aggregator.rounds
                    tally.spoilt += aggregator.spoilt
                    tally.abandoned += aggregator.abandoned
                    tally.kinds.update(aggregator.kinds)
                    for reasons in aggregator.aggregator.rejections.total.values():
                        tally.refused.update(reasons)
                    aggregator.close()
            tally.prove(partial(one_run, edges, 0, tally), "edge")
        finally:
            tally.take_edges(edges)
            edges.close()


def one_masked_round(aggregator: MaskedHarness, messages: int, tally: Tally) -> None:
    """Runs a round with bad messages before each of its phases, and checks its outcome."""
    aggregator.begin_round()
    phases = (aggregator.send_updates, aggregator.sign, aggregator.open)
    for index, go_on in enumerate(phases):
        seeds = aggregator.seeds()
        for _ in range((messages + index) // len(phases)):
            kind, topic, payload, retain = what = aggregator.noise(seeds)
            aggregator.kinds[kind] += 1
            tally.throw(partial(aggregator.take, topic, payload, retain=retain), "aggregator", what)
            tally.aggregator += 1
        go_on()


def one_round(aggregator: AggregatorHarness, messages: int, tally: Tally) -> None:
    """Runs a round of the aggregator amid bad messages, and checks its outcome."""
    phase = aggregator.begin_round()
    seeds = aggregator.seeds(phase)
    for _ in range(messages):
        topic, payload, retain = what = aggregator.noise(phase, seeds)
        tally.throw(partial(aggregator.take, topic, payload, retain=retain), "aggregator", what)
    tally.aggregator += messages
    aggregator.finish_round()


def some_sections(sections: SectionHarness, number: int, tally: Tally) -> None:
    """Checks encoded updates with faults."""
    for _ in range(number):
        section = sections.noise()
        tally.throw(partial(sections.take, section), "the check of a section", section)
    tally.sections += number


def one_run(edges: EdgeHarness, messages: int, tally: Tally) -> None:
    """Has the edges join a run, then sends them bad messages and requests for predictions."""
    edges.join_a_run()
    seeds = edges.seeds()
    for _ in range(messages):
        draw = edges.rng.random()
        if draw < 0.1:
            request = edges.request()
            tally.throw(partial(edges.take_request, request), "predictor", request)
        else:
            client, topic, payload, retain = what = edges.noise(seeds)
            tally.throw(partial(edges.take, client, topic, payload, retain=retain), "edge", what)
        if draw > 0.998:
            edges.reconnect()
        edges.restart_stopped()
    tally.edge += messages


def main() -> int:
    """Runs all seeds and prints the result. Returns the exit code."""
    parser = argparse.ArgumentParser(description="Bad messages by the million.")
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0, help="of the first run; the others' follow it")
    parser.add_argument("--runs", type=int, default=10, help="one after the other, in this process")
    parser.add_argument("--edge-share", type=float, default=0.3, help="of the messages, 0 to 0.9")
    parser.add_argument("--masked", action="store_true", help="masked runs only")
    parser.add_argument("--write", action="store_true", help="append the line to results/fuzz.jsonl")
    options = parser.parse_args()
    if options.messages < 10 * options.runs or options.runs < 1 or not 0 <= options.edge_share <= 0.9:
        parser.error("expected at least 1 run, 10 messages a run, and an edge share of 0 to 0.9")
    logging.basicConfig(level=logging.INFO, handlers=[Formatting()])
    tally = Tally(options.messages)
    seeds = range(options.seed, options.seed + options.runs)
    started = time.perf_counter()
    for seed in seeds:
        left = options.messages - tally.messages
        some = left // (options.seed + options.runs - seed)
        (fuzz_masked if options.masked else fuzz)(seed, some, options.edge_share, tally)
        took = time.perf_counter() - started
        print(
            f"seed {seed}: {tally.messages} messages, {took:.0f} s, {_resident() / 1e6:.1f} MB",
            file=sys.stderr,
        )
    seconds = time.perf_counter() - started
    tally.tenths.append(Footprint.now())
    growth = tally.tenths[-1].resident / tally.tenths[0].resident - 1
    line = {
        "benchmark": "fuzz",
        "masked": options.masked,
        "messages": tally.messages,
        "to_the_aggregator": tally.aggregator,
        "sections": tally.sections,
        "to_edges": tally.edge,
        "seeds": list(seeds),
        "seconds": round(seconds, 1),
        "messages_per_second": round(tally.messages / seconds),
        "escaped": tally.escaped,
        "failed": tally.failed,
        "rounds_as_they_should_be": tally.rounds,
        "rounds_spoilt": tally.spoilt,
        "rounds_abandoned": tally.abandoned,
        "kinds_to_the_aggregator": dict(sorted(tally.kinds.items())),
        "updates_accepted": {"honest": tally.honest, "noisy": tally.noisy, "sums": tally.sums},
        "refused": dict(sorted(tally.refused.items())),
        "runs_joined_by_edges": tally.edge_rounds,
        "masked_sums_signed_and_opened": tally.masked_rounds,
        "edges_told_to_stop": tally.edge_restarts,
        "predictions_answered": tally.predictions,
        "resident_mb": [round(seen.resident / 1e6, 1) for seen in tally.tenths],
        "with_what_malloc_keeps_mb": [round(seen.as_it_was / 1e6, 1) for seen in tally.tenths],
        "python_blocks": [seen.blocks for seen in tally.tenths],
        "growth": round(growth, 4),
        "descriptors": [seen.descriptors for seen in tally.tenths],
    }
    measured_lines.report(line, write=options.write)
    return 1 if tally.escaped or tally.failed or growth > MOST_GROWTH else 0


if __name__ == "__main__":
    sys.exit(main())
