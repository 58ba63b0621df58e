"""Everything that can be wrong with an upload in chunks: its offer, and each of its chunks."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from fl_shared.protocol import messages as m
from tests.support.builders import raw_offer_of
from tests.support.invalid_updates import with_data
from tests.support.run_under_test import CHUNK, RunUnderTest

OFFERS = (
    ("offer-of-more", "wrong-size", ("size: 4000 bytes", "expected 2400"), {"size": 4000, "chunks": 4}),
    ("offer-badly-cut", "malformed", ("chunks: 9",), {"chunks": 9}),
    ("offer-in-crumbs", "malformed", ("chunk_size: 8", "1024"), {"chunk_size": 8, "chunks": 300}),
    ("offer-of-nothing", "malformed", ("chunk_size: ", "0", "greater than or equal to 1"), {"chunk_size": 0}),
    ("offer-absurd", "malformed", ("size: ", str(2**63)), {"size": 2**63}),
)
"""An offer with these members in place of its own."""
UPLOADS = ("more-than-offered", "ungranted", "chunks-of-nan", "chunks-of-others")


def bad_uploads(tested: RunUnderTest) -> list[str]:
    """Offers that do not fit, and chunks. Says who has brought its good update in after all."""
    wire = tested.wire
    for client, reason, words, changes in OFFERS:
        wire.send_update(client, raw_offer_of(tested.good(client), CHUNK, **cast(dict[str, Any], changes)))
        tested.rejected(client, reason, words)

    def granted(update: dict[str, Any]) -> None:
        wire.send_update(update["client"], raw_offer_of(update, CHUNK))
        all_granted(update)

    def all_granted(update: dict[str, Any]) -> None:
        chunks: set[int] = set()
        while chunks != {0, 1, 2}:
            chunks |= {*wire.expect(m.Grant, 10, client=update["client"], digest=update["digest"]).chunks}

    def all_parts(update: dict[str, Any]) -> None:
        for index in range(3):
            wire.send_update(update["client"], tested.part(update, index))

    update = tested.good("ungranted")
    wire.send_update("ungranted", tested.part(update, 0))
    tested.count("ungranted", "not-granted", ("chunk 0: no update of this client is being received",))
    granted(update)
    wire.send_update("ungranted", tested.part(update, 99))
    tested.count("ungranted", "not-granted", ())
    all_parts(update)
    tested.accepted("ungranted")

    update = tested.good("more-than-offered")
    granted(update)
    wire.send_update("more-than-offered", tested.part(update, 2, bytes(5000)))
    tested.count("more-than-offered", "wrong-size", ("chunk 2: data: 5000 bytes", "expected 352"))
    all_parts(update)
    tested.accepted("more-than-offered")

    broken = tested.deltas["chunks-of-nan"].tobytes()[:-4] + np.float32(np.nan).tobytes()
    update = with_data(tested.good("chunks-of-nan"), broken)
    granted(update)
    all_parts(update)
    tested.rejected("chunks-of-nan", "not-finite", ("element 19 of 'b' is nan",))

    update = tested.good("chunks-of-others")
    wrong = with_data(update, bytes(2400)) | {"digest": update["digest"]}
    granted(update)
    all_parts(wrong)
    all_granted(update)  # once more
    all_parts(wrong)
    tested.rejected("chunks-of-others", "wrong-digest", (f"digest: {update['digest'][:12]}",))
    return ["more-than-offered", "ungranted"]
