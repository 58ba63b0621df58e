"""All attacks of the table of attacks, in the order of docs/security.md."""

from __future__ import annotations

from tests.support.attacks import (
    authentication,
    eavesdropping,
    entitlement,
    impersonation,
    invalid_messages,
    malicious_broker,
    masked_sums,
)
from tests.support.attacks.attack import Attack, CoveredElsewhere
from tests.support.attacks.cluster import ALL, KITS, LAB, SEALED

ATTACKS: tuple[Attack, ...] = (
    *authentication.ATTACKS,
    *impersonation.ATTACKS,
    *eavesdropping.ATTACKS,
    *malicious_broker.ATTACKS,
    *entitlement.ATTACKS,
    *invalid_messages.ATTACKS,
)

LIMITS = "tests/faults/test_limits.py"
END_TO_END = "tests/integration/end_to_end"
KIT_REQUEST = "tests/unit/fl_shared/security/test_kit_request.py"
REVOCATION_FILE = "tests/unit/fl_aggregator/server/test_revocation_file.py"

COVERED_ELSEWHERE = (
    CoveredElsewhere(
        "a flood of registrations and wills with invented names, and of every message that one edge may send",
        "any client",
        "aggregator",
        "`too-many-registrations` of `(unknown)`; `too-many-messages` and `too-many-registrations` of that edge; "
        "`limited`",
        LAB, f"{LIMITS}::test_a_flood_changes_nothing_for_those_who_train",
    ),
    CoveredElsewhere(
        "registrations without end by an account that never joins, to keep newcomers out", "any client", "aggregator",
        "`too-many-registrations` of that account",
        LAB, "tests/faults/test_newcomers.py::test_one_account_that_never_joins_keeps_nobody_out",
    ),
    CoveredElsewhere(
        "a slow upload, to hold a grant that others wait for", "two selected edges", "aggregator",
        "in the round's `missing`", LAB, f"{LIMITS}::test_whoever_only_seems_to_send_holds_nobody_up",
    ),
    CoveredElsewhere(
        "first weights of 2^40 bytes, with giant arrays, with a second section",
        "the edge that is selected to make them",
        "aggregator", "`rejected`; `wrong-size` or `wrong-manifest` of that edge", LAB,
        f"{LIMITS}::test_a_claim_that_is_too_large_is_refused_before_a_byte_is_taken",
    ),
    CoveredElsewhere(
        "retained registrations, updates and selections of an earlier run; junk on all topics", "any client",
        "aggregator", "cleared; `retained`, `malformed`, `foreign`", LAB,
        "tests/integration/test_hostile.py::test_a_run_goes_on_among_junk",
    ),
    CoveredElsewhere(
        "a flood of prediction requests", "asker", "edge", "`busy`, once a second; edge's log", ("accounts",),
        "tests/integration/test_predict_group.py::test_a_flood_of_requests_does_not_silence_the_edge",
    ),
    CoveredElsewhere(
        "a picture of a few KiB that decompresses to hundreds of MB", "asker", "edge",
        "the answer is an error with its size, before anything is decompressed", ALL,
        "tests/unit/fl_edge/tasks/test_pictures.py::test_a_decompression_bomb_is_refused_by_its_header",
    ),
    CoveredElsewhere(
        "a picture with scans, comments, profiles or EXIF without number, or arithmetic-coded", "asker", "edge",
        "the answer is an error with the number, before anything is decompressed", ALL,
        "tests/unit/fl_edge/tasks/test_pictures.py::test_what_costs_a_decoder_much_is_refused_before_it_begins",
    ),
    CoveredElsewhere(
        "a request that is not done in time, to end the worker that trains, or to spend what no quota counts",
        "asker", "edge",
        "an error, and the time is charged; what else the worker had is done again", ALL,
        "tests/unit/fl_edge/workers/test_worker.py"
        "::test_what_a_late_prediction_has_taken_is_known_and_its_neighbours_are_done_again",
    ),
    CoveredElsewhere(
        "such requests again and again, to have the worker given up", "asker", "edge", "it is replaced each time", ALL,
        "tests/unit/fl_edge/workers/test_worker.py::test_late_predictions_do_not_end_a_worker_for_good",
    ),
    CoveredElsewhere(
        "requests that cost much processor time, to delay those of others", "asker", "edge",
        "an error about the limit, once a second; others have their turns", ALL,
        "tests/unit/fl_edge/prediction/test_predictor.py::test_requests_are_charged_with_the_work_that_they_cost",
    ),
    CoveredElsewhere(
        "retained prediction requests, to fill the broker", "asker", "edge",
        "cleared; the answer is an error", ("accounts", "end to end"),
        "tests/integration/test_predict_group.py::test_a_retained_request_does_not_stay_at_the_broker",
    ),
    CoveredElsewhere(
        "an account's password that is wrong, empty, or another's", "outsider", "broker", "no connection",
        ("accounts",), "tests/integration/test_acl.py::test_an_outsider_is_not_let_in",
    ),
    CoveredElsewhere(
        "the old key or password after `rotate`, any after `revoke`", "a thief", "broker",
        "no connection", ("accounts", "end to end"),
        "tests/integration/test_acl.py::test_what_is_revoked_or_rotated_is_worth_nothing_any_more",
    ),
    CoveredElsewhere(
        "to continue with a kit that is revoked during a round, when the broker still lets its owner in",
        "operator", "aggregator", "`refused`: `kit-revoked`; in the round's `missing`", SEALED,
        "tests/integration/test_revocation.py::"
        "test_the_aggregator_refuses_a_revoked_kit_though_the_broker_does_not_know",
    ),
    CoveredElsewhere(
        "to take part in masked sums with the member key of a revoked kit", "a thief", "aggregator",
        "`refused`: `bad-run-keys`", SEALED,
        "tests/unit/fl_aggregator/messaging/test_masked_answers.py::"
        "test_a_member_key_of_a_revoked_kit_certifies_nothing",
    ),
    CoveredElsewhere(
        "a forged, an oversized or a missing list of revoked kits", "whoever supplies the list", "aggregator",
        "an error in the log; the last list stays", KITS,
        f"{REVOCATION_FILE}::test_a_forged_an_oversized_or_a_missing_list_leaves_the_last_one",
    ),
    CoveredElsewhere(
        "an older list of revoked kits", "whoever supplies the list", "aggregator",
        "an error in the log; the last list stays", KITS,
        f"{REVOCATION_FILE}::test_an_older_list_does_not_replace_a_newer_one",
    ),
    CoveredElsewhere(
        "an older, a forged or no list of revoked kits at a resume", "whoever supplies the list", "aggregator",
        "exit code 2", KITS,
        f"{REVOCATION_FILE}::test_a_run_does_not_go_on_with_less_than_it_has_obeyed",
    ),
    CoveredElsewhere(
        "a request for a kit with another's public key, or with the signatures of another request",
        "whoever delivers requests", "provision", "exit code 2, which names the member", KITS,
        f"{KIT_REQUEST}::test_a_key_of_somebody_else_or_another_form_is_refused",
    ),
    CoveredElsewhere(
        "a request for the certificate of an authority, of a host, or for another purpose", "a device", "provision",
        "exit code 2", KITS, f"{KIT_REQUEST}::test_a_certificate_is_asked_for_without_extensions",
    ),
    CoveredElsewhere(
        "a request for a certificate with two names, or with another's name",
        "a device", "provision", "exit code 2", KITS,
        f"{KIT_REQUEST}::test_a_certificate_is_asked_for_the_name_alone",
    ),
    CoveredElsewhere(
        "a request that was used for another name, or whose keys were revoked", "a device", "provision",
        "exit code 2", KITS,
        "tests/unit/fl_aggregator/tools/provision/test_requests.py::"
        "test_a_request_with_used_or_revoked_keys_is_not_answered",
    ),
    CoveredElsewhere(
        "to use a kit that answers the request of another device", "whoever has the kit", "edge", "exit code 2", KITS,
        "tests/unit/fl_aggregator/tools/provision/test_requests.py::test_each_mismatch_of_kit_and_keys_is_named",
    ),
    CoveredElsewhere(
        "to pose as the broker with its old key, after `rotate --broker`", "a thief", "edge",
        "no CONNECT is sent; `the broker has another key than the kit expects`", ("accounts", "end to end"),
        "tests/integration/test_broker_key.py::test_it_is_sent_nothing",
    ),
    CoveredElsewhere(
        "a link to the dashboard that names another broker, to be given a password", "anyone", "dashboard",
        "the page names the host and asks; without agreement it connects to its own broker", ALL,
        "tests/dashboard/test_page_connection.py::test_a_link_to_another_broker_is_asked_about_first",
    ),
    CoveredElsewhere(
        "replay: all messages of the aggregator in an ended run, to the same connections", "operator", "edge",
        "edge's log: `incarnation: …, expected more than …`", SEALED,
        f"{END_TO_END}/test_replay.py::test_what_was_recorded_is_not_obeyed",
    ),
    CoveredElsewhere(
        "replay: an operator's own `stop` after a resume of the run", "operator", "aggregator",
        "`other-incarnation`", SEALED,
        f"{END_TO_END}/test_kits.py::test_only_the_operators_kit_ends_a_run_and_its_word_is_good_once",
    ),
    CoveredElsewhere(
        "every kind of message, mutated at random", "any client", "aggregator", "counted", LAB,
        "tests/property/test_fuzz_aggregator.py::test_a_run_goes_on_among_noise",
    ),
    CoveredElsewhere(
        "every kind of message to an edge, mutated at random", "any client", "edge", "edge's log", LAB,
        "tests/property/test_fuzz_edge.py::test_an_edge_can_join_a_run_after_any_noise",
    ),
    CoveredElsewhere(
        "models whose bytes do not match the digest, giant models, contradictory manifests", "any client",
        "edge", "`failed`; edge's log", LAB,
        "tests/faults/test_bad_aggregator.py::test_an_edge_goes_on_whatever_its_aggregator_says",
    ),
    *masked_sums.ROWS,
)  # fmt: skip
