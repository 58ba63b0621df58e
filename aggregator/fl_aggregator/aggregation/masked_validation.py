"""Checks updates of a masked round: their sections, their plan, and their commitments against those of others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fl_aggregator.aggregation.validation import (
    CheckedMasked,
    CheckedUpdate,
    Described,
    InvalidUpdate,
    check_digest,
)
from fl_aggregator.storage.update_content import UpdateContent
from fl_shared.masking.plan import Plan
from fl_shared.masking.shares import SharesSection, body_of, shares_manifest, shares_size
from fl_shared.masking.tallies import TALLIES_MANIFEST, TALLY_BITS
from fl_shared.masking.unmasking import disagreements
from fl_shared.tensors.encodings.masked import MASKED, RAW
from fl_shared.tensors.encodings.section import SectionFormat
from fl_shared.tensors.manifest import Manifest
from fl_shared.tensors.sections import DELTA, SHARES, TALLIES


@dataclass(frozen=True, slots=True)
class ExpectedMaskedUpdate:
    """What each update of a masked round must contain; ``manifest``: of the model.

    The sections are ``delta``, as long as the model, ``shares`` and ``tallies`` (protocol, 10.4).
    """

    plan: Plan
    manifest: Manifest

    @property
    def encoding(self) -> str:
        """That of ``delta``."""
        return MASKED[self.plan.bits].name

    def _expected(self) -> dict[str, tuple[str, Manifest]]:
        return {
            DELTA: (self.encoding, self.manifest),
            SHARES: (RAW.name, shares_manifest(shares_size(len(self.plan.members)))),
            TALLIES: (MASKED[TALLY_BITS].name, TALLIES_MANIFEST),
        }

    def check_plan(self, plan: str | None) -> None:
        """Raises `InvalidUpdate` unless an update is masked for this round as all its members know it."""
        expected = self.plan.digest.hex()
        if plan != expected:
            raise InvalidUpdate(
                "wrong-plan",
                f"plan: {'none' if plan is None else plan[:12]}, expected {expected[:12]}: "
                "the edge was told other settings, members or keys",
            )

    def check_description(self, sections: Sequence[Described]) -> Manifest:
        """Checks all of an update except data and digest; returns the model's manifest. Raises `InvalidUpdate`."""
        expected, names = self._expected(), [section.name for section in sections]
        if names != list(expected):
            raise InvalidUpdate("wrong-manifest", f"sections: {names}, expected {list(expected)}")
        for section in sections:
            encoding, manifest = expected[section.name]
            if section.encoding != encoding:
                detail = f"{section.name}.encoding: {section.encoding!r}, expected {encoding!r}"
                raise InvalidUpdate("wrong-encoding", detail)
            if section.manifest != manifest.digest:
                detail = f"{section.name}.manifest: {section.manifest[:12]}, expected {manifest.digest[:12]}"
                raise InvalidUpdate("wrong-manifest", detail)
            if problem := SectionFormat.of(encoding, manifest).size_problem(section.size):
                raise InvalidUpdate("wrong-size", f"{section.name}.data: {problem}")
        return self.manifest

    def check(self, update: UpdateContent, client: str, others: Mapping[str, SharesSection]) -> CheckedUpdate:
        """Checks all of an update that can be checked: its words may be any. Raises `InvalidUpdate`.

        ``others``: the shares of the updates that are stored, by client. Two members of a pair commit to the same seed;
        who contradicts more of them than may lie is wrong.
        """
        manifest = self.check_description(update.sections)
        digests = check_digest(update)
        data = {section.name: section.data for section in update.sections}
        shares = SharesSection.of(self.plan, bytes(data[SHARES]))
        against = disagreements(self.plan, client, shares, others)
        if len(against) > self.plan.colluders:
            raise InvalidUpdate(
                "bad-commitments",
                f"shares: other seeds than {len(against)} others have committed to ({', '.join(against[:5])})",
            )
        body = body_of(self.plan.digest, shares.salt, shares.commitments, digests.first, data[TALLIES])
        return CheckedUpdate(
            manifest, {}, masked=CheckedMasked(data[DELTA], data[TALLIES], shares, body.hex())
        )
