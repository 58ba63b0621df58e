"""Registrations: `docs/protocol.md`, section 4; numbers in the docstrings are its clauses."""

from __future__ import annotations

import pytest

from fl_aggregator.round.phases import Collecting, Selecting
from tests.support.round_playbook import Playbook, gathered, training
from tests.support.round_text import describe


def test_edge_k_gets_part_k() -> None:
    """4.7: "Edge `k` (a number below the count of parts) gets part `k`"."""
    playbook = Playbook(clients=3, per_round=2)
    assert playbook >> "start" >> "join 2" << "admit 2 part=2" >> "join 0" << "admit 0 part=0"


@pytest.mark.parametrize("name", ["3", "03", "-1", "1e0", "٣", "99999999999999999999999999999999999999"])
def test_any_other_id_is_a_name(name: str) -> None:
    """4.7: `03` is not `3`, and a number without a part is a name like any other."""
    assert Playbook(clients=3, per_round=2) >> "start" >> f"join {name}" << f"admit {name} part=-"


def test_other_ids_sorted_get_the_free_parts_at_the_start_of_the_run() -> None:
    """4.3: "while parts are not given out yet: then another `admitted` follows"; 4.7."""
    playbook = Playbook(clients=4, per_round=2)
    assert (
        playbook
        >> "start"
        >> "join zoe"
        << "admit zoe part=-"
        >> "join 1"
        << "admit 1 part=1"
        >> "join adam"
        << "admit adam part=-"
        >> "join mia"
        << "admit mia part=-"
        << "admit adam part=0"
        << "admit mia part=2"
        << "admit zoe part=3"
    )


def test_when_the_wait_is_over_those_present_get_their_parts() -> None:
    playbook = Playbook(clients=4, per_round=2, quorum=1, wait=100)
    playbook.play("start", "join bob", "join alice", "join carol", "lose carol")
    assert (
        playbook
        >> "wait 100"
        << "admit alice part=0"
        << "admit bob part=1"
        >> "load bob"
        << "admit bob part=1"
    )
    assert isinstance(playbook.state.phase, Selecting)
    assert playbook >> "load alice" << "admit alice part=0" << "announce 0"
    assert playbook >> "rejoin carol" << "admit carol part=2 to=carol.2", "afterwards as they come"


def test_surplus_trainers_are_refused() -> None:
    """4.6: `no-partition-left`, with the reason."""
    playbook = Playbook(clients=2, per_round=2)
    playbook.play("start", "join a", "join 0")
    assert playbook.state.roster["a"].partition == 1
    assert playbook >> "join b" << "refuse b no-partition-left 'all 2 partitions are taken (--clients 2)'"
    assert "b" not in playbook.state.roster


def test_whoever_gets_no_part_at_the_start_is_refused() -> None:
    playbook = Playbook(clients=2, per_round=2)
    assert (
        playbook
        >> "start"
        >> "join b"
        << "admit b part=-"
        >> "join 0"
        << "admit 0 part=0"
        << "admit b part=1"
        >> "join 1"
        << "refuse 1 no-partition-left"
    )
    playbook = Playbook(clients=3, per_round=2)
    playbook.play("start", "join 2", "lose 2", "join x", "join y")
    assert playbook >> "join 0" << "admit 0 part=0" << "admit x part=1" << "refuse y no-partition-left"
    assert "y" not in playbook.state.roster


def test_a_part_stays_with_its_edge() -> None:
    """Whoever was away finds its part as it was; nobody else gets it."""
    playbook = training(clients=2, per_round=1, grace=0)
    assert (
        playbook.play("lose 1")
        >> "join x"
        << "refuse x no-partition-left"
        >> "rejoin 1"
        << "admit 1 part=1 to=1.2"
    )


def test_an_edge_that_does_not_train_gets_no_part() -> None:
    """4.3: "`partition` is null for edges that do not train"."""
    playbook = Playbook(clients=1, per_round=1)
    assert (
        playbook
        >> "start"
        >> "join e roles=evaluate"
        << "admit e part=-"
        >> "join p roles=predict"
        << "admit p part=-"
        >> "join 0"
        << "admit 0 part=0"
        >> "load 0"
        << "admit 0 part=0"
        << "announce 0 cohort=0"
    )


def test_the_same_registration_twice_is_answered_twice_and_changes_nothing() -> None:
    """1.8: "handling anything twice must be the same as handling it once"."""
    playbook = Playbook(clients=2, per_round=2)
    playbook.play("start", "join 0", "load 0")
    before = playbook.state
    assert playbook >> "load 0" << "admit 0 part=0" >> "join 0" << "admit 0 part=0"
    assert playbook.state == before
    assert playbook.state.roster["0"].examples == 10, "a first registration takes nothing back"


def test_an_answer_says_which_registration_it_answers() -> None:
    """A first registration is answered without examples, a second one with those that it named."""
    playbook = Playbook(clients=2, per_round=2)
    playbook.play("start", "join 0", "load 0 examples=17")
    assert [describe(effects[-1]) for _, effects in playbook.told[1:]] == [
        "admit 0 part=0",
        "admit 0 part=0 examples=17",
    ]


def test_an_id_in_use_by_another_device_is_refused_with_the_time() -> None:
    """4.5: "Another device is refused (`id-in-use`) while the first is present"."""
    playbook = Playbook(clients=2, per_round=2)
    playbook.play("start", "join 0", "sleep 7")
    assert playbook >> "join 0 device=other session=s" << "refuse 0 id-in-use *for?7?s* to=s"
    assert playbook.state.roster["0"].session == "0.1"


def test_an_id_is_free_once_its_device_is_gone() -> None:
    """4.5; what the first device has loaded says nothing of the second."""
    playbook = Playbook(clients=2, per_round=2)
    playbook.play("start", "join 0", "load 0", "lose 0", "sleep 3")
    assert playbook >> "join 0 device=other session=s" << "admit 0 part=0 to=s"
    client = playbook.state.roster["0"]
    assert (client.device, client.examples, client.manifest, client.registered_at) == (
        "other",
        None,
        None,
        3.0,
    )
    assert playbook >> "rejoin 0" << "refuse 0 id-in-use * to=0.2"


def test_the_same_device_takes_over_at_once() -> None:
    """4.5: "The same device may come back at any time; its newest session counts"."""
    playbook = training(clients=2, per_round=1)
    assert playbook >> "rejoin 0" << "admit 0 part=0 to=0.2"
    assert playbook.state.roster["0"].session == "0.2"
    assert playbook.state.roster["0"].examples == 10


def test_the_will_of_an_older_session_says_nothing() -> None:
    """4.1: "A will or birth of a session that is not the client's newest says nothing"."""
    playbook = training(clients=2, per_round=1)
    playbook.play("rejoin 0")
    before = playbook.state
    assert playbook >> "lose 0 session=0.1" >> "lose 0 session=never" >> "lose nobody"
    assert playbook.state is before, "what is no state is not in the journal"
    playbook.play("lose 0")
    assert not playbook.state.roster["0"].present


def test_after_our_own_reconnect_an_id_is_not_free_at_once() -> None:
    """4.5: whoever was here has time to register again before another device may take its id."""
    playbook = training(clients=2, per_round=1, grace=0)
    playbook.play("reconnect", "sleep 9.9")
    assert playbook >> "join 0 device=other session=s" << "refuse 0 id-in-use"
    playbook.play("sleep 0.2", "join 0 device=other session=s")
    assert playbook.state.roster["0"].device == "other"


def test_an_edge_that_insists_on_another_task_is_refused() -> None:
    """4.6: "`wrong-task` (the edge insists on another)"."""
    playbook = Playbook(clients=2, per_round=1, task="digits").play("start")
    assert (
        playbook
        >> "join 0 task=mnist"
        << "refuse 0 wrong-task \"the task is 'mnist', but this run's is 'digits'\""
        >> "join 0 task=digits"
        << "admit 0 part=0"
    )


def test_4_9_an_edge_that_says_that_it_is_unable_gives_its_partition_back() -> None:
    playbook = Playbook(clients=2, per_round=1).play("start", "join 0", "join 1")
    assert playbook >> "join 0 unable=no-data" << "refuse 0 unable no-data"
    assert playbook.state.roster["0"].unable == "no-data"
    assert playbook.state.roster.trainers() == ("1",)
    assert playbook >> "join b" << "admit b part=-" << "admit b part=0"
    assert playbook >> "join 0" << "refuse 0 no-partition-left"


def test_a_full_roster_keeps_no_unable_newcomer() -> None:
    playbook = Playbook(clients=1, per_round=1, max_clients=1).play("start", "join 0", "load 0")
    assert playbook >> "join x unable=no-data" << "refuse x unable no-data"
    assert "x" not in playbook.state.roster


def test_the_manifest_of_most_edges_is_the_runs_and_the_others_are_refused() -> None:
    """4.6: "`wrong-manifest` (its weights have another manifest than the run's)"."""
    playbook = Playbook(clients=3, per_round=2)
    playbook.play("start", "join 0", "load 0 manifest=N", "join 1", "load 1", "join 2")
    assert playbook >> "load 2" << "admit 2" << "refuse 0 wrong-manifest *N,*M:*" << "announce 0"
    assert playbook.state.manifest == "M"
    assert "the edge has another model" in str(playbook.state.roster["0"].unable)
    assert playbook.state.roster.trainers() == ("1", "2")
    assert (
        playbook
        >> "load 0 manifest=N"
        << "refuse 0 wrong-manifest"
        >> "load 0 manifest=M"
        << "admit 0 part=0"
    )


def test_of_manifests_with_as_many_edges_one_is_always_the_same() -> None:
    for first, second in (("A", "B"), ("B", "A")):
        playbook = Playbook(clients=2, per_round=1)
        playbook.play("start", "join 0", f"load 0 manifest={first}", "join 1", f"load 1 manifest={second}")
        assert playbook.state.manifest == "A"


def test_too_few_edges_of_one_mind_wait_for_others() -> None:
    playbook = Playbook(clients=2, per_round=2, quorum=2)
    playbook.play("start", "join 0", "load 0 manifest=N", "join 1", "load 1", "wait 100")
    assert isinstance(playbook.state.phase, Selecting)
    assert playbook >> "load 0 manifest=M" << "admit 0" << "announce 0"


def test_an_edge_without_data_is_not_selected() -> None:
    playbook = training(clients=3, per_round=1, rounds=9)
    playbook.play("load 1 examples=0")
    for _ in range(5):
        playbook.play(f"send {playbook.cohort[0]}")
        assert isinstance(playbook.state.phase, Collecting)
        assert "1" not in playbook.cohort + playbook.substitutes


def test_an_edge_may_give_up_training_and_its_part_is_free() -> None:
    playbook = training(clients=2, per_round=1)
    assert playbook >> "rejoin 1 roles=predict" << "admit 1 part=- to=1.2" >> "join x" << "admit x part=1"


def test_a_flood_of_names_does_not_fill_the_memory() -> None:
    playbook = Playbook(clients=2, per_round=1, max_clients=3).play(
        "start", *(f"join p{n} roles=predict" for n in range(3))
    )
    for n in range(3, 30):
        playbook.play("wait 1", f"join p{n} roles=predict")
        assert len(playbook.state.roster.clients) == 3
    assert playbook >> "join 0" << "admit 0 part=0", "a name that means something finds room"
    assert playbook >> "join 1" << "admit 1 part=1"
    assert set(playbook.state.roster) == {"p29", "0", "1"}, "who came first is forgotten first"


def test_who_took_part_or_was_promised_a_part_is_not_forgotten_for_a_newcomer() -> None:
    playbook = Playbook(clients=3, per_round=1, max_clients=4)
    playbook.play("start", "join 0", "load 0", "join 1", "join e roles=evaluate", "join p roles=predict")
    playbook.play("lose 0")
    assert playbook >> "join q roles=predict" << "admit q", "for one that was promised nothing"
    assert set(playbook.state.roster) == {"0", "1", "e", "q"}
    playbook.play("lose 1")
    assert playbook >> "join x" << "admit x part=-", "for one that is gone and was never ready"
    assert set(playbook.state.roster) == {"0", "e", "q", "x"}
    playbook.play("join 2", "rejoin 1")
    assert set(playbook.state.roster) == {"0", "e", "2", "1"}
    assert playbook >> "join z" << "refuse z no-partition-left '4 clients are already known (--max-clients)'"
    assert playbook >> "rejoin 0" << "admit 0 part=0", "who is known may always come back"


def test_nobody_is_forgotten_for_a_newcomer_who_is_refused() -> None:
    playbook = training(clients=2, per_round=1, max_clients=3).play("join p roles=predict")
    assert playbook >> "join y" << "refuse y no-partition-left*"
    assert "p" in playbook.state.roster


def test_who_only_borrows_a_session_gets_no_answer_that_would_reach_its_owner() -> None:
    """Sessions are public (presence), devices are not: an answer would make the real edge stop."""
    playbook = gathered(clients=2, per_round=2)
    before = playbook.state
    assert playbook >> "join 0 device=evil session=0.1"
    assert playbook.state is before


def test_a_restarted_edge_that_had_no_examples_is_waited_for_once_more() -> None:
    """Its data may have come meanwhile. So a run that was resumed after its wait does not fail before it has loaded."""
    playbook = Playbook(clients=1, per_round=1, wait=20, holdout=0.0).play("start", "load 0 examples=0")
    playbook.play("wait 15", *["resume"] * 8, "wait 5", "rejoin 0")
    assert isinstance(playbook.state.phase, Selecting)
    assert playbook.state.roster["0"].examples is None
    assert playbook >> "load 0" << "admit 0" << "announce 0"


def test_an_edge_that_repeats_its_registration_still_has_no_examples() -> None:
    playbook = Playbook(clients=2, per_round=1).play("start", "join 0", "load 0 examples=0", "join 0")
    assert playbook.state.roster["0"].examples == 0
