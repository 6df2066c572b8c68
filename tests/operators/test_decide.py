"""decide: suppression reasons and the lifetime of a reservation."""

from typing import Any

import pytest

from domain.action import Cancel, Preload, Send, Suppress
from domain.event import Track
from domain.playbook.playbook import Playbook
from operators import decide, select_campaigns
from state.person.model import ViewedProduct
from tests.harness.person import T0, PersonHarness, make_playbook, summarize

HOUR, DAY = 3_600_000, 86_400_000


def quiz_playbook(shop: dict[str, Any] | None = None, **campaigns: dict[str, Any]) -> Playbook:
    return make_playbook(
        shop=shop or {},
        campaigns={name: {"trigger": {"event": "Quiz Finished"}, **rest} for name, rest in campaigns.items()},
    )


def report_shown(harness: PersonHarness, at: int, send: Any) -> list[Any]:
    return harness.emit(at, "Offer Shown", action_id=send.id, campaign=send.campaign)


def only_send(actions: list[Any]) -> Send:
    (send,) = [action for action in actions if isinstance(action, Send)]
    return send


# -- the life of a send --------------------------------------------------------------------------------------------


def test_send_reserves_and_exposure_confirms() -> None:
    visitor = PersonHarness(quiz_playbook(hello={}))
    send = only_send(visitor.emit(0, "Quiz Finished"))
    assert (send.not_after, send.format, send.content.title) == (T0 + 30_000, "popup", "hello")
    assert send.because.playbook == visitor.context.rules.short_hash
    assert [(one.action_id, one.until) for one in visitor.person.pending_sends] == [(send.id, T0 + 30_000)]
    assert visitor.person.timers[f"reserved:{send.id}"] == T0 + 30_000
    assert visitor.person.exposures == {}
    (disarm,) = report_shown(visitor, 1_000, send)
    assert isinstance(disarm, Cancel), "the browser's slot is free"
    assert visitor.person.pending_sends == []
    assert set(visitor.person.timers) == {"session_end:"}
    said = visitor.person.exposures["hello"]
    assert (said.total, said.in_session, said.in_day, said.last_at) == (1, 1, 1, T0 + 1_000)


def test_expired_send_releases_its_reservation() -> None:
    visitor = PersonHarness(quiz_playbook(hello={}))
    only_send(visitor.emit(0, "Quiz Finished"))
    assert visitor.advance(29_999) == []
    assert summarize(visitor.emit(29_999, "Quiz Finished")) == [(29_999, "suppress campaign_cap", "hello")]
    visitor.advance(30_000)
    assert visitor.person.pending_sends == []
    assert summarize(visitor.emit(30_001, "Quiz Finished")) == [(30_001, "send", "hello")]


def test_suppressed_send_releases_its_reservation() -> None:
    visitor = PersonHarness(quiz_playbook(hello={}))
    send = only_send(visitor.emit(0, "Quiz Finished"))
    visitor.emit(1, "Offer Suppressed", action_id=send.id, campaign="hello", reason="stale")
    assert visitor.person.pending_sends == []
    assert summarize(visitor.emit(2, "Quiz Finished")) == [(2, "send", "hello")]


def test_repeated_exposure_counts_once() -> None:
    visitor = PersonHarness(quiz_playbook(hello={"frequency_caps": {"per_session": 9}}))
    send = only_send(visitor.emit(0, "Quiz Finished"))
    report_shown(visitor, 1, send)
    assert report_shown(visitor, 2, send) == []
    assert visitor.person.exposures["hello"].total == 1


def test_repeated_exposure_counts_once_after_decisions() -> None:
    visitor = PersonHarness(quiz_playbook(hello={}))
    send = only_send(visitor.emit(0, "Quiz Finished"))
    report_shown(visitor, 1, send)
    assert summarize(visitor.emit(2, "Quiz Finished")) == [(2, "suppress campaign_cap", "hello")]
    assert report_shown(visitor, 3, send) == []
    assert visitor.person.exposures["hello"].total == 1


def test_late_exposure_counts() -> None:
    visitor = PersonHarness(quiz_playbook(hello={}))
    send = only_send(visitor.emit(0, "Quiz Finished"))
    visitor.advance(31_000)
    report_shown(visitor, 32_000, send)
    assert visitor.person.exposures["hello"].total == 1


@pytest.mark.parametrize(
    "properties",
    [
        {},
        {"action_id": 7, "campaign": "hello"},
        {"action_id": "x", "campaign": ["hello"]},
        {"action_id": "x", "campaign": "zz"},
    ],
)
def test_invalid_offer_feedback_is_ignored(properties: dict[str, Any]) -> None:
    visitor = PersonHarness(quiz_playbook(hello={}))
    visitor.emit(0, "Quiz Finished")
    for name in ("Offer Shown", "Offer Dismissed", "Offer Suppressed"):
        assert visitor.emit(1, name, **properties) == []
    assert visitor.person.exposures == {}
    assert len(visitor.person.pending_sends) == 1


def test_cancel_on_event_cancels_an_unshown_send() -> None:
    visitor = PersonHarness(quiz_playbook(hello={"cancel_on": ["Checkout Started"]}))
    visitor.emit(0, "Quiz Finished")
    assert summarize(visitor.emit(1, "Checkout Started")) == [(1, "cancel", "hello")]
    assert visitor.person.pending_sends == []
    assert set(visitor.person.timers) == {"session_end:"}


def test_shown_preload_is_counted_and_cancelled() -> None:
    visitor = PersonHarness(make_playbook(campaigns={"stay": {"trigger": {"exit_intent": True}}}))
    (arm,) = visitor.emit(0, "Page Viewed")
    assert isinstance(arm, Preload)
    assert visitor.person.pending_sends == [], "a preload reserves nothing"
    assert summarize(visitor.emit(1_000, "Offer Shown", action_id=arm.id, campaign="stay")) == [
        (1_000, "cancel", "stay")
    ]
    assert visitor.person.exposures["stay"].total == 1
    assert visitor.emit(2_000, "Page Viewed") == [], "once a visit"
    assert summarize(visitor.emit(3_000, "Exit Intent")) == [(3_000, "suppress campaign_cap", "stay")]


# -- reasons -------------------------------------------------------------------------------------------------------


def test_per_session_cap() -> None:
    visitor = PersonHarness(quiz_playbook(hello={"frequency_caps": {"per_session": 2}}))
    for at in (0, 1_000):
        report_shown(visitor, at + 1, only_send(visitor.emit(at, "Quiz Finished")))
    (hold,) = visitor.emit(2_000, "Quiz Finished")
    assert isinstance(hold, Suppress)
    assert (hold.because.reason, hold.because.detail) == ("campaign_cap", "2 of 2 in this session")
    report_shown(visitor, 2 * HOUR + 1, only_send(visitor.emit(2 * HOUR, "Quiz Finished")))


def test_daily_cap_resets_at_the_persons_midnight() -> None:
    visitor = PersonHarness(quiz_playbook(hello={"frequency_caps": {"per_day": 1}}))
    midnight = (86_400 - (23 * 3600 + 13 * 60 + 20)) * 1000  # T0 is 22:13:20 UTC, 23:13:20 in Rome
    report_shown(visitor, 1, only_send(visitor.emit(0, "Quiz Finished")))
    visitor.advance(midnight - 2_000)
    holds = visitor.emit(midnight - 1_000, "Page Viewed") + visitor.emit(midnight - 1_000, "Quiz Finished")
    assert summarize(holds) == [(midnight - 1_000, "suppress campaign_cap", "hello")]
    assert isinstance(holds[0], Suppress)
    visitor.person.session = None
    visitor.person.timers.clear()
    assert summarize(visitor.emit(midnight, "Quiz Finished")) == [(midnight, "send", "hello")]


def test_total_cap() -> None:
    visitor = PersonHarness(quiz_playbook(hello={"frequency_caps": {"total": 2}}))
    for day in range(2):
        report_shown(visitor, day * DAY + 1, only_send(visitor.emit(day * DAY, "Quiz Finished")))
    (hold,) = visitor.emit(2 * DAY, "Quiz Finished")
    assert isinstance(hold, Suppress)
    assert hold.because.detail == "2 of 2 in all"


def test_shop_caps_count_all_campaigns() -> None:
    visitor = PersonHarness(
        quiz_playbook(
            {"frequency_caps": {"per_session": 2, "per_day": 3}}, a={"format": "bar"}, b={"format": "banner"}, c={}
        )
    )
    actions = visitor.emit(0, "Quiz Finished")
    assert summarize(actions) == [(0, "send", "a"), (0, "send", "b"), (0, "suppress shop_cap", "c")]
    for send in actions[:2]:
        report_shown(visitor, 1, send)
    assert isinstance(actions[2], Suppress)
    assert actions[2].because.detail == "2 of 2 of all campaigns in this session"
    visitor.advance(2 * HOUR)
    again = visitor.emit(3 * HOUR, "Quiz Finished")
    assert [action.campaign for action in again if isinstance(action, Send)] == ["a", "b"]


def test_shop_daily_cap() -> None:
    visitor = PersonHarness(
        quiz_playbook({"frequency_caps": {"per_session": 9, "per_day": 1}}, a={"frequency_caps": {"per_session": 9}})
    )
    visitor.emit(5 * HOUR, "Page Viewed")
    report_shown(visitor, 5 * HOUR + 2, only_send(visitor.emit(5 * HOUR + 1, "Quiz Finished")))
    (hold,) = visitor.emit(8 * HOUR, "Quiz Finished")
    assert isinstance(hold, Suppress)
    assert (hold.because.reason, hold.because.detail) == ("shop_cap", "1 of 1 of all campaigns today")


def test_cooldown_applies_to_popups_only() -> None:
    visitor = PersonHarness(
        quiz_playbook(
            {"frequency_caps": {"cooldown": "2m"}},
            a={"frequency_caps": {"per_session": 9}},
            bar={"format": "bar", "frequency_caps": {"per_session": 9}},
        )
    )
    report_shown(visitor, 1_000, visitor.emit(0, "Quiz Finished")[0])
    visitor.advance(40_000)
    actions = visitor.emit(50_000, "Quiz Finished")
    assert summarize(actions) == [(50_000, "suppress cooldown", "a"), (50_000, "send", "bar")]
    assert actions[0].because.detail == "71 s until the next popup"
    visitor.advance(120_000)
    assert "send" in {word for _, word, name in summarize(visitor.emit(121_000, "Quiz Finished")) if name == "a"}


def test_exit_popup_is_preloaded_again_after_the_cooldown() -> None:
    visitor = PersonHarness(
        make_playbook(
            shop={"frequency_caps": {"cooldown": "2m"}},
            campaigns={"now": {"trigger": {"event": "Quiz Finished"}}, "exit": {"trigger": {"exit_intent": True}}},
        )
    )
    visitor.emit(0, "Page Viewed")
    shown = report_shown(visitor, 2_000, only_send(visitor.emit(1_000, "Quiz Finished")))
    assert summarize(shown) == [(2_000, "cancel", "now"), (2_000, "cancel", "exit")], "taken back at once"
    assert summarize(visitor.emit(4_000, "Exit Intent")) == [(4_000, "suppress cooldown", "exit")]
    assert summarize(visitor.advance(200_000)) == [(122_000, "preload", "exit")]


def test_consent_is_checked_by_purpose() -> None:
    visitor = PersonHarness(
        quiz_playbook({"consent": {"default": "denied"}}, ad={}, thanks={"purpose": "service", "format": "bar"})
    )
    assert summarize(visitor.emit(0, "Quiz Finished")) == [(0, "suppress consent", "ad"), (0, "send", "thanks")]
    visitor.advance(40_000)
    visitor.emit(50_000, "Consent Updated", marketing=True)
    assert (60_000, "send", "ad") in summarize(visitor.emit(60_000, "Quiz Finished"))


def test_dismissed_offer_stays_away_for_the_session() -> None:
    visitor = PersonHarness(quiz_playbook(hello={"frequency_caps": {"per_session": 9}}))
    send = only_send(visitor.emit(0, "Quiz Finished"))
    report_shown(visitor, 1, send)
    visitor.emit(2, "Offer Dismissed", action_id=send.id, campaign="hello")
    assert summarize(visitor.emit(3, "Quiz Finished")) == [(3, "suppress dismissed", "hello")]
    visitor.advance(2 * HOUR)
    assert summarize(visitor.emit(3 * HOUR, "Quiz Finished")) == [(3 * HOUR, "send", "hello")]


def test_one_offer_is_shown_per_placement() -> None:
    visitor = PersonHarness(quiz_playbook(low={"priority": 1}, high={"priority": 2}, bar={"format": "bar"}))
    actions = visitor.emit(0, "Quiz Finished")
    assert summarize(actions) == [(0, "send", "high"), (0, "suppress lower_priority", "low"), (0, "send", "bar")]
    assert actions[1].because.detail == "high is shown"


def test_pending_send_blocks_its_placement() -> None:
    visitor = PersonHarness(
        make_playbook(
            campaigns={
                "quiz": {"trigger": {"event": "Quiz Finished"}},
                "other": {"trigger": {"event": "Product Reviewed"}},
            }
        )
    )
    visitor.emit(0, "Quiz Finished")
    (hold,) = visitor.emit(1, "Product Reviewed")
    assert isinstance(hold, Suppress)
    assert (hold.because.reason, hold.because.detail) == ("already_reserved", "quiz was sent and not shown yet")


def test_on_site_send_requires_an_open_session() -> None:
    visitor = PersonHarness(make_playbook(campaigns={"thanks": {"trigger": {"event": "Order Refunded"}}}))
    visitor.emit(0, "Page Viewed")
    visitor.advance(2 * HOUR)
    assert summarize(visitor.emit(3 * HOUR, "Order Refunded", order_id="o")) == [
        (3 * HOUR, "suppress not_on_site", "thanks")
    ]


def test_missing_value_suppresses_with_a_reason() -> None:
    content = {"default": {"title": "{{ product.name }}"}}
    visitor = PersonHarness(quiz_playbook(named={"content": content, "priority": 9}, plain={}))
    assert summarize(visitor.emit(0, "Quiz Finished")) == [
        (0, "suppress missing product", "named"),
        (0, "send", "plain"),
    ]


def test_template_error_suppresses_with_the_error() -> None:
    content = {"default": {"title": "x", "url": "{{ product.url }}"}}
    visitor = PersonHarness(quiz_playbook(bad={"content": content}))
    visitor.emit(0, "Page Viewed")
    visitor.person.own_fragment().viewed_products.append(ViewedProduct("p", url="javascript:alert(1)"))
    (hold,) = visitor.emit(1, "Quiz Finished")
    assert isinstance(hold, Suppress)
    assert hold.because.reason == "template"
    assert "url: should be a path" in hold.because.detail


def test_repeated_suppression_is_recorded_once() -> None:
    visitor = PersonHarness(quiz_playbook(hello={}))
    report_shown(visitor, 1, only_send(visitor.emit(0, "Quiz Finished")))
    assert len(visitor.emit(2, "Quiz Finished")) == 1
    assert visitor.emit(3, "Quiz Finished") == []
    assert visitor.emit(4, "Quiz Finished") == []
    visitor.emit(5, "Consent Updated", marketing=False)
    assert summarize(visitor.emit(6, "Quiz Finished")) == [(6, "suppress consent", "hello")]


def last_decision(harness: PersonHarness, campaign: str) -> tuple[str, str, str]:
    kept = harness.person.decisions[campaign]
    return kept.kind, kept.reason, kept.detail


def test_exposure_keeps_the_reasons_of_its_send() -> None:
    twice = {"session": {"pages_at_least": 2}}
    visitor = PersonHarness(
        make_playbook(
            campaigns={
                "stay": {"trigger": {"exit_intent": True}, "when": twice},
                "hello": {
                    "trigger": {"event": "Quiz Finished"},
                    "format": "bar",
                    "when": {**twice, "has": {"country": "IT"}},
                },
            }
        )
    )
    visitor.emit(0, "Page Viewed")
    (arm,) = visitor.emit(1, "Page Viewed")
    send = only_send(visitor.emit(2, "Quiz Finished"))
    why_armed = ("exit intent", "at least 2 pages this session (has 2)")
    why_sent = ('event "Quiz Finished"', "is in IT (IT); at least 2 pages this session (has 2)")
    assert last_decision(visitor, "stay") == ("preload", *why_armed)
    assert last_decision(visitor, "hello") == ("send", *why_sent)
    report_shown(visitor, 3, send)
    report_shown(visitor, 4, arm)
    assert last_decision(visitor, "stay") == ("shown", *why_armed)
    assert last_decision(visitor, "hello") == ("shown", *why_sent)
    report_shown(visitor, 5, send)
    assert last_decision(visitor, "hello") == ("shown", *why_sent), "said twice, still known"


def test_exposure_after_cancel_has_no_reasons() -> None:
    visitor = PersonHarness(quiz_playbook(hello={"cancel_on": ["Checkout Started"]}))
    send = only_send(visitor.emit(0, "Quiz Finished"))
    visitor.emit(1, "Checkout Started")
    report_shown(visitor, 2, send)
    assert last_decision(visitor, "hello") == ("shown", "", "")


def test_decision_history_is_bounded() -> None:
    visitor = PersonHarness(
        quiz_playbook(
            {"consent": {"default": "denied"}}, **{f"c{n}": {"trigger": {"event": f"Quiz {n % 6}"}} for n in range(60)}
        )
    )
    for n in range(6):
        visitor.emit(n, f"Quiz {n}")
    assert len(visitor.person.decisions) == 50
    assert {one.reason for one in visitor.person.decisions.values()} == {"consent"}


def test_late_event_expiry_counts_from_the_clock() -> None:
    visitor = PersonHarness(quiz_playbook(hello={}))
    visitor.emit(0, "Page Viewed")
    context = visitor.context
    context.start_input("clicks-0-9", T0 + 600_000, T0 + 1_000)
    quiz = Track(event="Quiz Finished", anonymous_id="x")
    select_campaigns.step(visitor.person, quiz, context)
    (send,) = decide.step(visitor.person, quiz, context)
    assert isinstance(send, Send)
    assert (send.at, send.not_after) == (T0 + 600_000, T0 + 630_000)


def test_exposure_counts_for_the_campaign_of_the_action() -> None:
    visitor = PersonHarness(
        make_playbook(
            campaigns={"one": {"trigger": {"event": "Product Added"}}, "two": {"trigger": {"event": "Cart Viewed"}}}
        )
    )
    visitor.emit(0, "Page Viewed")
    [sent] = [action for action in visitor.emit(1_000, "Product Added", product_id="p") if isinstance(action, Send)]
    visitor.emit(2_000, "Offer Shown", action_id=sent.id, campaign="two")
    assert list(visitor.person.exposures) == ["one"]
    assert not visitor.person.pending_sends
