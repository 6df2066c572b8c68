"""match_segments: who enters, who leaves, and what happens to both when the playbook changes."""

from domain.action import SegmentChange
from domain.playbook.playbook import Playbook
from state.person.model import Person
from tests.harness.person import T0, PersonHarness, make_playbook, summarize

ENGAGED = {"engaged": {"when": {"session": {"pages_at_least": 2}}}}


def test_segment_changes_record_their_reasons() -> None:
    visitor = PersonHarness(make_playbook(segments=ENGAGED))
    assert visitor.emit(0, "Page Viewed") == []
    (entered,) = visitor.emit(1_000, "Page Viewed")
    assert isinstance(entered, SegmentChange)
    assert (entered.entered, entered.segment, entered.at, entered.anonymous_id) == (True, "engaged", T0 + 1_000, "x")
    assert entered.because.passed == ("at least 2 pages this session (has 2)",)
    assert entered.because.trigger == "Page Viewed"
    assert visitor.person.segments == {"engaged": T0 + 1_000}
    (left,) = visitor.advance(2_000_000)
    assert isinstance(left, SegmentChange)
    assert (left.entered, left.at) == (False, T0 + 1_801_000), "the visit ended 30 minutes after its last event"
    assert left.because.trigger == "time"
    assert left.because.failed == ("at least 2 pages this session (has 0)",)
    assert visitor.person.segments == {}


def test_nested_segments_update_on_the_same_event() -> None:
    visitor = PersonHarness(
        make_playbook(
            segments={
                "a": {"when": {"in_segment": "b", "has": {"country": "IT"}}},
                "b": {"when": {"not": {"in_segment": "c"}}},
                "c": {"when": {"session": {"pages_at_least": 2}}},
            }
        )
    )
    assert summarize(visitor.emit(0, "Page Viewed")) == [(0, "entered", "b"), (0, "entered", "a")]
    assert summarize(visitor.emit(1, "Page Viewed")) == [(1, "entered", "c"), (1, "exited", "b"), (1, "exited", "a")]


def test_segment_can_refer_to_a_score_band() -> None:
    visitor = PersonHarness(
        make_playbook(segments={"keen": {"when": {"in_segment": "likely_buyers", "cart": {"empty": True}}}})
    )
    visitor.emit(0, "Page Viewed")
    assert visitor.person.segments == {}
    visitor.person.band = "likely_buyers"
    visitor.emit(1, "Page Viewed")
    assert set(visitor.person.segments) == {"keen"}


def test_new_playbook_applies_on_the_next_event() -> None:
    visitor = PersonHarness(
        make_playbook(segments={**ENGAGED, "lately": {"when": {"did": {"event": "Page Viewed", "within": "1d"}}}})
    )
    visitor.emit(0, "Page Viewed")
    visitor.emit(1, "Page Viewed")
    assert set(visitor.person.segments) == {"engaged", "lately"}
    visitor.switch_playbook(make_playbook(segments={"here": {"when": {"session": {"pages_at_least": 1}}}}))
    moves = visitor.emit(2, "Product Viewed", product_id="p")
    assert summarize(moves) == [(2, "exited", "lately"), (2, "exited", "engaged"), (2, "entered", "here")]
    assert isinstance(moves[0], SegmentChange)
    assert moves[0].because.reason == "removed"
    assert set(visitor.person.timers) == {"session_end:"}
    assert visitor.person.playbook_hash == visitor.context.rules.short_hash


def test_score_band_survives_a_playbook_change() -> None:
    visitor = PersonHarness(Playbook())
    visitor.person.segments["undecided"] = T0
    visitor.emit(0, "Page Viewed")
    assert visitor.person.segments == {"undecided": T0}


def test_bots_and_aliases_are_in_no_segment() -> None:
    visitor = PersonHarness(make_playbook(segments=ENGAGED))
    for person in (Person(id="a:x", bot=True), Person(id="a:x", merged_into="u:ann")):
        visitor.person = person
        for _ in range(3):
            visitor.emit(0, "Page Viewed")
        assert visitor.actions == []
        assert person.segments == {}


def test_timer_of_a_removed_segment_is_ignored() -> None:
    visitor = PersonHarness(
        make_playbook(segments={"lately": {"when": {"did": {"event": "Page Viewed", "within": "1m"}}}})
    )
    visitor.emit(0, "Page Viewed")
    visitor.context.rules = PersonHarness(Playbook()).context.rules
    visitor.person.playbook_hash = visitor.context.rules.short_hash
    visitor.advance(120_000)
    assert (60_000, "segment:lately") in visitor.fired
