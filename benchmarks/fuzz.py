"""A million bad messages for both ends of the wire: does an exception escape, does memory grow, does work go on?

    python benchmarks/fuzz.py [--messages 1000000] [--seed 0] [--runs 10] [--edge-share 0.3]

No broker takes part: this is about what our own code does with a message that has come. A real aggregator (with a run
directory, its loop turned by hand) and real edges get what `tests/support/fuzz` makes of good messages, golden ones and
those of a live run: bits flipped, cut, grown, spliced, values replaced by extreme ones, wrong topics, retained,
repeated, in any order. Amid the noise rounds are worked through: every honest update must be accepted, and each model
must be, bit for bit, what the accepted updates give when they are added up in another way; in the end the journal must
give the state back. Edges must join a run, train, report and predict.

Every exception that escapes is printed with the message that made it. Ends with 1 if there was one, if a round was not
what it should be, or if resident memory (without what malloc keeps free for later) is more than 5 % larger at the end
than after a tenth of the messages. With `--runs 1` one aggregator has to stand all of it.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import json
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

from tests.support.fuzz.aggregator_harness import AggregatorHarness
from tests.support.fuzz.edge_harness import EdgeHarness

A_ROUND: Final = 2000
"""Messages of noise in each of the aggregator's rounds."""
A_RUN: Final = 500
"""And in each run that the edges join."""
MOST_GROWTH: Final = 0.05


class Formatting(logging.Handler):
    """Writes nothing down, but does all the work of it: a log line that cannot be made is a bug as well."""

    def emit(self, record: logging.LogRecord) -> None:
        record.getMessage().encode()


@dataclass(frozen=True)
class Footprint:
    """Bytes resident as it was, and once what is free was handed back; Python's own blocks; open descriptors."""

    as_it_was: int
    resident: int
    blocks: int
    descriptors: int

    @classmethod
    def now(cls) -> Self:
        """Of this process, without what is garbage already."""
        gc.collect()
        before = _resident()
        with contextlib.suppress(OSError, AttributeError):  # another C library keeps its free memory
            # The largest payloads move glibc's threshold for what it gives back by itself; that is no leak.
            ctypes.CDLL("libc.so.6").malloc_trim(0)
        descriptors = sum(1 for _ in Path("/proc/self/fd").iterdir())
        return cls(before, _resident(), sys.getallocatedblocks(), descriptors)


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Tally:
    """What is measured. ``budget`` messages in all."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.messages = self.aggregator = self.edge = 0
        self.escaped = self.failed = 0
        self.rounds = self.honest = self.noisy = 0
        self.edge_rounds = self.edge_restarts = self.predictions = 0
        self.refused: Counter[str] = Counter()
        self.tenths: list[Footprint] = []

    def count(self) -> None:
        self.messages += 1
        if self.messages % (self.budget // 10) == 0:
            self.tenths.append(Footprint.now())

    def throw(self, take: Callable[[], object], where: str, what: object) -> None:
        """One message; whatever it raises has escaped."""
        self.count()
        try:
            take()
        except Exception:
            self.escaped += 1
            if self.escaped <= 20:
                traceback.print_exc()
                print(f"escaped at {where}, with message {self.messages}: {what!r}", file=sys.stderr)

    def prove(self, work: Callable[[], object], where: str) -> bool:
        """Honest work amid the noise."""
        try:
            work()
        except Exception:
            self.failed += 1
            traceback.print_exc()
            print(f"failed at {where}, after message {self.messages}", file=sys.stderr)
            return False
        return True


def fuzz(seed: int, messages: int, edge_share: float, tally: Tally) -> None:
    """A run of each end. What happens to the aggregator depends on ``seed`` alone."""
    end = tally.messages + messages
    with tempfile.TemporaryDirectory() as scratch:
        besieged, beset = AggregatorHarness(Path(scratch) / "run", seed), EdgeHarness(Path(scratch), seed)
        edge_due = 0.0
        try:
            while tally.messages < end:
                some = min(A_ROUND, end - tally.messages)
                if not tally.prove(partial(one_round, besieged, some, tally), "aggregator"):
                    return
                edge_due += A_ROUND * edge_share / (1 - edge_share)
                while edge_due >= A_RUN and tally.messages < end:
                    edge_due -= A_RUN
                    some = min(A_RUN, end - tally.messages)
                    if not tally.prove(partial(one_run, beset, some, tally), "edge"):
                        return
            tally.prove(partial(one_round, besieged, 0, tally), "aggregator")
            tally.prove(besieged.replay, "aggregator's journal")
            tally.prove(partial(one_run, beset, 0, tally), "edge")
        finally:
            tally.rounds += besieged.rounds
            tally.honest += besieged.oracle.accepted
            tally.noisy += besieged.oracle.of_noise
            tally.edge_rounds += beset.rounds
            tally.edge_restarts += beset.restarts
            tally.predictions += beset.answers
            for reasons in besieged.aggregator.rejections.total.values():
                tally.refused.update(reasons)
            besieged.close()
            beset.close()


def one_round(besieged: AggregatorHarness, messages: int, tally: Tally) -> None:
    phase = besieged.begin_round()
    seeds = besieged.seeds(phase)
    for _ in range(messages):
        topic, payload, retain = what = besieged.noise(phase, seeds)
        tally.throw(partial(besieged.take, topic, payload, retain=retain), "aggregator", what)
    tally.aggregator += messages
    besieged.finish_round()


def one_run(beset: EdgeHarness, messages: int, tally: Tally) -> None:
    beset.join_a_run()
    seeds = beset.seeds()
    for _ in range(messages):
        draw = beset.rng.random()
        if draw < 0.1:
            request = beset.request()
            tally.throw(partial(beset.ask, request), "predictor", (request, bytes(request.payload)))
        else:
            client, topic, payload, retain = what = beset.noise(seeds)
            tally.throw(partial(beset.take, client, topic, payload, retain=retain), "edge", what)
        if draw > 0.998:
            beset.reconnect()
        beset.restart_stopped()
    tally.edge += messages


def main() -> int:
    parser = argparse.ArgumentParser(description="Bad messages by the million.")
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0, help="of the first run; the others' follow it")
    parser.add_argument("--runs", type=int, default=10, help="one after the other, in this process")
    parser.add_argument("--edge-share", type=float, default=0.3, help="of the messages, 0 to 0.9")
    options = parser.parse_args()
    if options.messages < 10 * options.runs or options.runs < 1 or not 0 <= options.edge_share <= 0.9:
        parser.error("expected at least 1 run, 10 messages a run, and an edge share of 0 to 0.9")
    logging.basicConfig(level=logging.INFO, handlers=[Formatting()])
    tally = Tally(options.messages)
    seeds = range(options.seed, options.seed + options.runs)
    started = time.perf_counter()
    for seed in seeds:
        left = options.messages - tally.messages
        fuzz(seed, left // (options.seed + options.runs - seed), options.edge_share, tally)
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
        "messages": tally.messages,
        "to_the_aggregator": tally.aggregator,
        "to_edges": tally.edge,
        "seeds": list(seeds),
        "seconds": round(seconds, 1),
        "messages_per_second": round(tally.messages / seconds),
        "escaped": tally.escaped,
        "failed": tally.failed,
        "rounds_as_they_should_be": tally.rounds,
        "updates_accepted": {"honest": tally.honest, "noisy": tally.noisy},
        "refused": dict(sorted(tally.refused.items())),
        "runs_joined_by_edges": tally.edge_rounds,
        "edges_told_to_stop": tally.edge_restarts,
        "predictions_answered": tally.predictions,
        "resident_mb": [round(seen.resident / 1e6, 1) for seen in tally.tenths],
        "with_what_malloc_keeps_mb": [round(seen.as_it_was / 1e6, 1) for seen in tally.tenths],
        "python_blocks": [seen.blocks for seen in tally.tenths],
        "growth": round(growth, 4),
        "descriptors": [seen.descriptors for seen in tally.tenths],
    }
    print(json.dumps(line))
    return 1 if tally.escaped or tally.failed or growth > MOST_GROWTH else 0


if __name__ == "__main__":
    sys.exit(main())
