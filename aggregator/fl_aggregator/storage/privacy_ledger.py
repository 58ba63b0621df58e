"""The ledger of a budget over runs (``--dp-ledger FILE``): lines of JSON for each release of each of its runs.

Its first line is whole and on the disk before its sum is made, or, if it is masked, before its members open it. So a
last line that is not whole, because its writer died, is about a sum that nobody has seen: it is not counted. A sum
whose line is there may be unseen, if the aggregator was killed just then: too much may be counted, but never too
little. A second line says that the version is published: a run directory without it is an older copy. Two aggregators
cannot have one ledger at a time.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from fl_aggregator.privacy.ledger import Earlier, LedgerRelease, spent_before
from fl_aggregator.privacy.plan import PrivacyPlan
from fl_aggregator.round.phases import collected_round
from fl_aggregator.round.privacy import noise_of_release
from fl_aggregator.round.state import Run
from fl_aggregator.storage.append_log import AppendLog
from fl_aggregator.storage.disk_space import raising_disk_full
from fl_shared.errors import UserError
from fl_shared.system.file_lock import FileLock
from fl_shared.system.files import open_regular, read_lines, warn_if_others_may_read
from fl_shared.system.validation import first_error

LOG: Final = logging.getLogger(__name__)


class PrivacyLedger:
    """The ledger ``path``, which nobody else writes until it is closed. Creates the file (mode 0600) if there is none.

    Raises ``UserError`` if it is in use, damaged, or cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._lock = FileLock(path.with_name(path.name + ".lock"))
        except BlockingIOError:
            raise UserError(f"--dp-ledger {path}: in use by another aggregator") from None
        except OSError as error:
            raise _unusable(path, error) from None
        try:
            self._releases = _read(path)
            os.close(open_regular(path, os.O_WRONLY | os.O_CREAT, 0o600))
            warn_if_others_may_read("the privacy ledger", path, path.stat().st_mode)
            self._file = AppendLog(path)
            self._file.sync()
        except OSError as error:
            self._lock.release(delete=True)
            raise _unusable(path, error) from None
        except UserError:
            self._lock.release(delete=True)
            raise

    def spent_before(self, run: str) -> Earlier:
        """Returns what all runs but ``run`` have told."""
        return spent_before(one for one in self._releases if one.run != run)

    def check(self, run: str, plan: PrivacyPlan, versions: int) -> None:
        """Raises ``UserError`` unless ``run``, of which ``versions`` are recorded, may go on with ``plan``."""
        own = {one.version for one in self._releases if one.run == run}
        published = max(
            (one.version for one in self._releases if one.run == run and one.published), default=0
        )
        begin = "begin a new run with the newest model (--init)"
        if self.spent_before(run) != plan.earlier:
            raise UserError(
                f"--dp-ledger {self._path}: other runs have spent budget since run {run} began, which it cannot count "
                f"any more: {begin}"
            )
        if missing := sorted(set(range(1, versions + 1)) - own):
            raise UserError(
                f"--dp-ledger {self._path}: has no line of version {missing[0]} of run {run}: restore the file"
            )
        if published > versions:
            raise UserError(
                f"--dp-ledger {self._path}: has version {published} of run {run}, whose journal ends after version "
                f"{versions}: the run directory is an older copy. Restore the newest one, or {begin}"
            )

    def record(self, release: LedgerRelease) -> None:
        """Writes a release, if it is not there yet; it is on the disk then. Raises ``OSError``."""
        if release in self._releases:
            return
        line = release.model_dump_json()
        with raising_disk_full(len(line), self._path.parent):
            self._file.append(line, sync=True)
        self._releases.append(release)

    def record_sum(self, run: str, state: Run) -> None:
        """Records who is in the sum of a closed round of ``run``, which nobody has seen yet. See `record`."""
        plan, collected = state.settings.privacy, collected_round(state.phase)
        if plan is None or collected is None or collected.base is None:
            return
        is_secret = plan.against == "models"
        self.record(
            LedgerRelease(
                run=run,
                round=collected.round,
                version=collected.version,
                clip=state.releases.clip or plan.clip,
                noise=noise_of_release(plan, collected.masking, len(collected.updates)),
                bands=plan.bands,
                gamma=plan.gamma,
                contributors=() if is_secret else tuple(sorted(collected.updates)),
                rate=plan.rate if is_secret else None,
            )
        )

    def publish(self, run: str, version: int) -> None:
        """Writes that a version of ``run`` is published; it is on the disk then. Raises ``OSError``."""
        made = [one for one in self._releases if (one.run, one.version) == (run, version)]
        if made:
            self.record(made[-1].model_copy(update={"published": True}))

    def close(self) -> None:
        """Closes the file, and lets others have it."""
        self._file.close()
        self._lock.release(delete=True)


def _read(path: Path) -> list[LedgerRelease]:
    if not path.exists():
        return []
    found: list[LedgerRelease] = []
    for number, line in enumerate(read_lines(path), start=1):
        if not line.endswith(b"\n"):
            LOG.warning(
                "--dp-ledger %s: line %d is incomplete and is not counted: its writer died before anybody had seen the "
                "sum that the line is about",
                path,
                number,
            )
            break
        try:
            found.append(LedgerRelease.model_validate_json(line))
        except ValidationError as error:
            raise UserError(
                f"--dp-ledger {path}: line {number}: {first_error(error)}: restore the file"
            ) from None
    return found


def _unusable(path: Path, error: OSError) -> UserError:
    return UserError(f"--dp-ledger {path}: {error.strerror or error}")
