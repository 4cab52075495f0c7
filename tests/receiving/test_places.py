"""Who gives his place up when others wait: pure decisions, on a clock that the test turns."""

from dataclasses import dataclass

from dicomnode.receiving.limits import Limits
from dicomnode.receiving.places import Doing, Merit, Places


@dataclass(eq=False)
class Association:
    address: str = "10.0.0.1"
    calling_ae: str = "CT1"
    doing: Doing = Doing.IDLE
    last_active: float = 0.0
    received_bytes: int = 0
    instances: int = 0
    ended: bool = False

    def give_way(self) -> None:
        self.ended = True


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def full_house(*associations: Association, most: int | None = None) -> tuple[Places, Clock]:
    clock = Clock()
    places = Places(Limits(max_associations=most or len(associations)), clock)
    for one in associations:
        places.enter(one)
    return places, clock


def test_while_there_are_free_places_everybody_keeps_his() -> None:
    idle = Association(address="10.0.0.2")
    places, clock = full_house(idle, most=2)
    clock.now = 1000.0
    assert places.make_room("10.0.0.1")
    assert not idle.ended


def test_who_has_brought_nothing_goes_before_who_has_and_the_longest_idle_first() -> None:
    proven, older, younger = Association(instances=3), Association(last_active=1.0), Association(last_active=2.0)
    places, clock = full_house(proven, older, younger)
    clock.now = 10.0
    assert places.make_room("10.0.0.9")
    assert (proven.ended, older.ended, younger.ended) == (False, True, False)


def test_who_has_just_been_let_in_or_thinks_between_two_objects_keeps_his_place_for_a_moment() -> None:
    new, thinking = Association(last_active=9.9), Association(instances=1, last_active=8.5)
    places, clock = full_house(new, thinking)
    clock.now = 10.0
    assert not places.make_room("10.0.0.9")
    clock.now = 10.3
    assert places.make_room("10.0.0.9")
    assert new.ended
    assert not thinking.ended


def test_who_is_in_an_object_is_never_chosen_while_it_sends_or_waits_for_our_answer() -> None:
    sending, answered = Association(doing=Doing.RECEIVING), Association(doing=Doing.ANSWERING)
    places, clock = full_house(sending, answered)
    for _ in range(200):
        clock.now += 0.1
        sending.received_bytes += 1000
        assert not places.make_room("10.0.0.9")
    assert not sending.ended
    assert not answered.ended


def test_who_dribbles_its_first_data_set_loses_its_place_after_two_seconds_of_others_waiting() -> None:
    dribbling = Association(doing=Doing.RECEIVING)
    places, clock = full_house(dribbling)
    clock.now = 100.0
    made = []
    while clock.now < 103.0:
        made.append(places.make_room("10.0.0.9"))
        clock.now += 0.1
        dribbling.received_bytes += 1
        if made[-1]:
            break
    assert dribbling.ended
    assert clock.now >= 102.0


def test_an_established_sender_that_stalls_in_its_second_object_keeps_its_place_for_fifteen_seconds() -> None:
    stalled = Association(doing=Doing.RECEIVING, instances=1)
    places, clock = full_house(stalled)
    for _ in range(149):
        clock.now += 0.1
        assert not places.make_room("10.0.0.9")
    clock.now += 0.2
    assert places.make_room("10.0.0.9")
    assert stalled.ended


def test_who_comes_again_every_ten_seconds_gets_the_place_of_an_established_sender_that_stalls() -> None:
    stalled = Association(doing=Doing.RECEIVING, instances=1)
    places, clock = full_house(stalled)
    for asked_at in (100.0, 103.9, 110.0, 113.9):  # what came before the first question does not count
        clock.now = asked_at
        assert not places.make_room("10.0.0.9")
    clock.now = 120.0
    assert places.make_room("10.0.0.9")


def test_an_established_sender_on_a_slow_line_keeps_its_place_for_as_long_as_it_sends() -> None:
    slow = Association(doing=Doing.RECEIVING, instances=1)
    places, clock = full_house(slow)
    for _ in range(600):
        clock.now += 0.1
        slow.received_bytes += 110
        assert not places.make_room("10.0.0.9")


def test_the_address_that_holds_most_makes_room() -> None:
    alone = Association(address="10.0.0.2")
    crowd = [Association(address="10.0.0.3", last_active=5.0) for _ in range(3)]
    places, clock = full_house(alone, *crowd)
    clock.now = 20.0
    assert places.make_room("10.0.0.2")
    assert not alone.ended
    assert sum(one.ended for one in crowd) == 1


def test_one_address_cannot_take_the_last_quarter_and_an_ipv6_network_counts_as_one() -> None:
    crowd = [Association(address=f"2001:db8::{number}", doing=Doing.ANSWERING) for number in range(6)]
    places, _ = full_house(*crowd, most=8)
    assert not places.make_room("2001:db8::ffff")
    assert places.make_room("2001:db8:0:1::1")


def test_a_vacated_or_left_place_is_free_at_once() -> None:
    first, second = Association(), Association()
    places, clock = full_house(first)
    clock.now = 5.0
    assert places.make_room("10.0.0.1")
    places.enter(second)
    second.last_active = 5.0
    places.leave(first)
    assert not places.make_room("10.0.0.1")
    places.leave(second)
    assert places.make_room("10.0.0.1")


def test_who_brought_instances_is_let_in_before_strangers_and_those_after_who_only_held_a_place() -> None:
    useful, useless = Association(calling_ae="CT1", instances=2), Association(calling_ae="X")
    places, clock = full_house(useful, useless)
    clock.now = 10.0
    assert places.merit("10.0.0.1", "CT1") is Merit.UNKNOWN
    assert places.make_room("10.0.0.1")
    assert useless.ended
    places.leave(useful)
    assert places.merit("10.0.0.1", "CT1") < places.merit("10.0.0.1", "NEW") < places.merit("10.0.0.1", "X")
    assert places.merit("10.0.0.2", "CT1") is Merit.UNKNOWN


def test_a_stranger_cannot_spoil_the_name_that_a_modality_has_made_itself() -> None:
    places, clock = full_house(Association(instances=2), Association())
    places.leave(next(iter(places._places)))
    places.enter(Association(last_active=9.9))
    clock.now = 20.0
    assert places.make_room("10.0.0.1")
    assert places.merit("10.0.0.1", "CT1") is Merit.USEFUL


def test_before_a_caller_of_merit_strangers_have_no_grace_but_keep_what_they_are_sending() -> None:
    places, clock = full_house(Association(instances=1), Association(doing=Doing.RECEIVING, calling_ae="X"), most=2)
    useful = next(iter(places._places))
    places.leave(useful)
    new = Association(calling_ae="Y", last_active=0.2)
    places.enter(new)
    clock.now = 0.2
    assert not places.make_room("10.0.0.1", "Z")
    assert places.make_room("10.0.0.1", "CT1")
    assert new.ended
    places.enter(Association(doing=Doing.ANSWERING))
    sending = next(iter(places._places))
    for _ in range(30):
        clock.now += 0.1
        sending.received_bytes += 1000
        assert not places.make_room("10.0.0.1", "CT1")


def test_a_good_name_does_not_keep_the_places_of_those_who_only_dribble_under_it() -> None:
    useful = Association(instances=1)
    dribbling = [Association(doing=Doing.RECEIVING) for _ in range(3)]
    places, clock = full_house(useful, *dribbling, most=3)
    places.leave(useful)
    while clock.now < 3.0 and not any(one.ended for one in dribbling):
        places.make_room("10.0.0.1", "CT1")
        clock.now += 0.1
    assert sum(one.ended for one in dribbling) == 1


def test_queries_and_retrievals_take_no_place_from_a_modality_however_long_they_last() -> None:
    retrieving, querying = Association(doing=Doing.GIVING), Association(doing=Doing.GIVING, address="10.0.0.2")
    places, clock = full_house(retrieving, querying, most=1)
    clock.now = 1000.0
    assert places.make_room("10.0.0.1")
    sending = Association(doing=Doing.RECEIVING, last_active=1000.0)
    places.enter(sending)
    assert not places.make_room("10.0.0.1"), "the one place is taken"
    assert not any(one.ended for one in (retrieving, querying, sending))
    retrieving.doing, retrieving.last_active = Doing.IDLE, 1000.0
    clock.now = 1001.0
    assert places.make_room("10.0.0.3"), "whoever has had his answer is idle, as others are"
    assert (retrieving.ended, querying.ended, sending.ended) == (True, False, False)


def test_more_of_them_than_may_be_served_at_once_count_and_who_takes_nothing_of_his_answer_makes_room() -> None:
    served, lazy, reading = (Association(doing=Doing.GIVING) for _ in range(3))
    clock = Clock()
    places = Places(Limits(max_associations=2, max_giving=1), clock)
    for one in (served, lazy, reading):
        places.enter(one)
    clock.now = reading.last_active = 14.0
    assert not places.make_room("10.0.0.9")
    clock.now = 15.0
    assert places.make_room("10.0.0.9")
    assert (served.ended, lazy.ended, reading.ended) == (False, True, False)
