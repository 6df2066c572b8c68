"""match_segments: who enters, who leaves, and what happens to both when the playbook changes."""

from domain.action import Move
from domain.playbook import Playbook
from state.person import Person
from tests.visitor import T0, Visitor, playbook, short

ENGAGED = {"engaged": {"when": {"session": {"pages_at_least": 2}}}}


def test_entering_and_leaving_say_why() -> None:
    visitor = Visitor(playbook(segments=ENGAGED))
    assert visitor.does(0, "Page Viewed") == []
    (entered,) = visitor.does(1_000, "Page Viewed")
    assert isinstance(entered, Move)
    assert (entered.entered, entered.segment, entered.at, entered.anonymous_id) == (True, "engaged", T0 + 1_000, "x")
    assert entered.because.held == ("at least 2 pages this visit (has 2)",)
    assert entered.because.trigger == "Page Viewed"
    assert visitor.person.segments == {"engaged": T0 + 1_000}
    (left,) = visitor.waits(2_000_000)
    assert isinstance(left, Move)
    assert (left.entered, left.at) == (False, T0 + 1_801_000), "the visit ended 30 minutes after its last event"
    assert left.because.trigger == "time"
    assert left.because.failed == ("at least 2 pages this visit (has 0)",)
    assert visitor.person.segments == {}


def test_a_segment_of_a_segment_follows_in_the_same_happening_whatever_their_names() -> None:
    visitor = Visitor(playbook(segments={
        "a": {"when": {"in_segment": "b", "has": {"country": "IT"}}}, "b": {"when": {"not": {"in_segment": "c"}}},
        "c": {"when": {"session": {"pages_at_least": 2}}}}))
    assert short(visitor.does(0, "Page Viewed")) == [(0, "entered", "b"), (0, "entered", "a")]
    assert short(visitor.does(1, "Page Viewed")) == [(1, "entered", "c"), (1, "left", "b"), (1, "left", "a")]


def test_a_segment_of_a_learned_band() -> None:
    visitor = Visitor(playbook(segments={"keen": {"when": {"in_segment": "likely_buyers", "cart": {"empty": True}}}}))
    visitor.does(0, "Page Viewed")
    assert visitor.person.segments == {}
    visitor.person.band = "likely_buyers"
    visitor.does(1, "Page Viewed")
    assert set(visitor.person.segments) == {"keen"}


def test_a_new_playbook_matches_at_the_next_happening_and_drops_what_it_no_longer_has() -> None:
    visitor = Visitor(playbook(segments={**ENGAGED, "lately": {
        "when": {"did": {"event": "Page Viewed", "within": "1d"}}}}))
    visitor.does(0, "Page Viewed")
    visitor.does(1, "Page Viewed")
    assert set(visitor.person.segments) == {"engaged", "lately"}
    visitor.swaps(playbook(segments={"here": {"when": {"session": {"pages_at_least": 1}}}}))
    moves = visitor.does(2, "Product Viewed", product_id="p")
    assert short(moves) == [(2, "left", "lately"), (2, "left", "engaged"), (2, "entered", "here")]
    assert isinstance(moves[0], Move)
    assert moves[0].because.reason == "removed"
    assert set(visitor.person.timers) == {"session_end:"}
    assert visitor.person.rules == visitor.context.rules.short


def test_a_band_is_not_dropped_with_the_playbook() -> None:
    visitor = Visitor(Playbook())
    visitor.person.segments["undecided"] = T0
    visitor.does(0, "Page Viewed")
    assert visitor.person.segments == {"undecided": T0}


def test_bots_and_aliases_belong_nowhere() -> None:
    visitor = Visitor(playbook(segments=ENGAGED))
    for person in (Person(id="a:x", bot=True), Person(id="a:x", alias_of="u:ann")):
        visitor.person = person
        for _ in range(3):
            visitor.does(0, "Page Viewed")
        assert visitor.actions == []
        assert person.segments == {}


def test_the_timer_of_a_segment_that_is_gone_does_nothing() -> None:
    visitor = Visitor(playbook(segments={"lately": {"when": {"did": {"event": "Page Viewed", "within": "1m"}}}}))
    visitor.does(0, "Page Viewed")
    visitor.context.rules = Visitor(Playbook()).context.rules
    visitor.person.rules = visitor.context.rules.short
    visitor.waits(120_000)
    assert (60_000, "segment:lately") in visitor.fired
