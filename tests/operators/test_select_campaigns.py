"""select_campaigns: four occasions, and what the browser holds ready."""

from typing import Any

import pytest

from domain.action import Cancel, Preload, SegmentChange, Send
from domain.event import Identify
from domain.playbook.playbook import Playbook
from operators import select_campaigns
from state.person.model import Person
from tests.harness.person import T0, PersonHarness, make_playbook, summarize

MUG = {"product_id": "mug", "name": "Mug", "price": 9.5, "quantity": 1}
CUP = {"product_id": "cup", "name": "Cup", "price": 7, "quantity": 1}

MIDNIGHT = 2_800_000
"""T0 is 23:13:20 in Rome."""


def make_campaign(trigger: dict[str, Any], **rest: Any) -> dict[str, Any]:
    return {"trigger": trigger, **rest}


def exit_campaigns(**campaigns: dict[str, Any]) -> Playbook:
    return make_playbook(
        campaigns={name: make_campaign({"exit_intent": True}, **rest) for name, rest in campaigns.items()}
    )


# -- an event ------------------------------------------------------------------------------------------------------


def test_event_triggers_campaign_when_condition_is_true() -> None:
    visitor = PersonHarness(
        make_playbook(
            campaigns={"near": make_campaign({"event": "Product Added"}, when={"cart": {"value_at_least": 15}})}
        )
    )
    assert visitor.emit(0, "Product Added", **MUG) == []
    assert summarize(visitor.emit(1, "Product Added", **CUP)) == [(1, "send", "near")]


@pytest.mark.parametrize(
    ("properties", "fires"),
    [
        ({"category": "bags", "price": 9}, True),
        ({"category": "hats", "price": 9.0}, True),
        ({"category": "Bags"}, False),
        ({"category": "bags", "price": "9"}, False),
        ({"category": ["bags"], "price": 9}, False),
        ({}, False),
    ],
)
def test_trigger_can_match_event_properties(properties: dict[str, Any], fires: bool) -> None:
    visitor = PersonHarness(
        make_playbook(
            campaigns={
                "bags": make_campaign(
                    {"event": "Quiz Finished", "properties": {"category": ["bags", "hats"], "price": 9}}
                )
            }
        )
    )
    assert bool(visitor.emit(0, "Quiz Finished", **properties)) is fires


# -- a segment -----------------------------------------------------------------------------------------------------


def test_segment_trigger_fires_on_entry_only() -> None:
    visitor = PersonHarness(
        make_playbook(
            segments={"idle": {"when": {"cart": {"untouched_for": "5m"}}}},
            campaigns={"help": make_campaign({"segment": "idle"}, frequency_caps={"per_session": 9})},
        )
    )
    visitor.emit(0, "Product Added", **MUG)
    assert summarize(visitor.advance(400_000)) == [(300_000, "entered", "idle"), (300_000, "send", "help")]
    assert summarize(visitor.emit(500_000, "Product Added", **MUG)) == [(500_000, "exited", "idle")]
    assert summarize(visitor.advance(900_000)) == [(800_000, "entered", "idle"), (800_000, "send", "help")]


def test_score_band_triggers_like_a_segment() -> None:
    visitor = PersonHarness(make_playbook(campaigns={"keen": make_campaign({"segment": "likely_buyers"})}))
    visitor.emit(0, "Page Viewed")
    context = visitor.context
    context.start_input("x", T0 + 1, T0 + 1)
    context.segment_changes = [SegmentChange(id="m", at=T0 + 1, person="a:x", segment="likely_buyers", entered=True)]
    select_campaigns.step(visitor.person, Identify(), context)
    assert [proposal.rule.name for proposal in context.candidates] == ["keen"]


# -- seconds on the site -------------------------------------------------------------------------------------------

CANADA = make_playbook(
    campaigns={
        "canada": make_campaign(
            {"seconds_on_site": 60},
            when={"has": {"country": "CA"}, "session": {"first_session": True, "pages_at_least": 3}},
        )
    }
)


def test_seconds_on_site_fires_without_further_events() -> None:
    visitor = PersonHarness(CANADA, country="CA")
    for at in (0, 10_000, 20_000):
        assert visitor.emit(at, "Page Viewed") == []
    assert visitor.advance(59_999) == []
    (send,) = visitor.advance(60_000)
    assert isinstance(send, Send)
    assert send.at == T0 + 60_000
    assert send.because.trigger == "60 s on the site"
    assert send.because.passed == ("is in CA (CA)", "at least 3 pages this session (has 3)", "first session")
    assert visitor.advance(1_000_000) == [], "once a visit"


def test_seconds_on_site_fires_late_when_condition_turns_true() -> None:
    visitor = PersonHarness(CANADA, country="CA")
    visitor.emit(0, "Page Viewed")
    visitor.emit(30_000, "Page Viewed")
    assert visitor.advance(90_000) == []
    assert summarize(visitor.emit(95_000, "Page Viewed")) == [(95_000, "send", "canada")]
    visitor.advance(200_000)
    assert visitor.person.pending_sends == [], "it was never shown, and is not sent again in this visit all the same"
    assert visitor.emit(201_000, "Page Viewed") == []


@pytest.mark.parametrize(("country", "pages"), [("IT", 3), ("CA", 2)])
def test_seconds_on_site_skips_people_not_matching(country: str, pages: int) -> None:
    visitor = PersonHarness(CANADA, country=country)
    for at in range(pages):
        visitor.emit(at * 1_000, "Page Viewed")
    assert visitor.advance(1_000_000) == []


def test_no_timer_is_set_for_returning_visitors() -> None:
    visitor = PersonHarness(CANADA, country="CA")
    visitor.emit(0, "Page Viewed")
    visitor.advance(3_000_000)
    visitor.emit(4_000_000, "Page Viewed")
    assert set(visitor.person.timers) == {"session_end:"}


def test_one_timer_serves_many_seconds_on_site_triggers() -> None:
    visitor = PersonHarness(
        make_playbook(
            campaigns={
                f"at{n}": make_campaign({"seconds_on_site": n}, format=form)
                for n, form in ((30, "bar"), (60, "popup"), (90, "banner"))
            }
        )
    )
    visitor.emit(0, "Page Viewed")
    assert {key: at - T0 for key, at in visitor.person.timers.items()} == {
        "session_end:": 1_800_000,
        "seconds:": 30_000,
    }
    assert summarize(visitor.advance(100_000)) == [
        (30_000, "send", "at30"),
        (60_000, "send", "at60"),
        (90_000, "send", "at90"),
    ]


def test_seconds_on_site_fires_when_time_makes_it_true() -> None:
    visitor = PersonHarness(
        make_playbook(
            campaigns={"idle": make_campaign({"seconds_on_site": 30}, when={"cart": {"untouched_for": "2m"}})}
        )
    )
    visitor.emit(0, "Page Viewed")
    visitor.emit(5_000, "Product Added", **MUG)
    assert summarize(visitor.advance(400_000)) == [(125_000, "send", "idle")]


def test_seconds_on_site_restart_in_the_next_session() -> None:
    visitor = PersonHarness(make_playbook(campaigns={"later": make_campaign({"seconds_on_site": 60})}))
    visitor.emit(0, "Page Viewed")
    visitor.advance(5_000_000)
    visitor.emit(6_000_000, "Page Viewed")
    assert summarize(visitor.advance(7_000_000)) == [(6_060_000, "send", "later")]


# -- exit intent ---------------------------------------------------------------------------------------------------


def test_exit_offer_is_preloaded_and_cancelled() -> None:
    visitor = PersonHarness(
        exit_campaigns(stay={"when": {"cart": {"items_at_least": 1}}, "cancel_on": ["Checkout Started"]})
    )
    assert visitor.emit(0, "Page Viewed") == []
    (arm,) = visitor.emit(1_000, "Product Added", **MUG)
    assert isinstance(arm, Preload)
    assert (arm.campaign, arm.trigger, arm.not_after, arm.cancel_on, arm.anonymous_id) == (
        "stay",
        "exit_intent",
        T0 + 1_000 + 1_800_000,
        ("Checkout Started",),
        "x",
    )
    assert arm.because.passed == ("at least 1 in the cart (has 1)",)
    assert visitor.emit(2_000, "Page Viewed") == [], "nothing has changed"
    assert visitor.emit(3_000, "Exit Intent") == [], "the browser shows it by itself"
    (disarm,) = visitor.emit(4_000, "Product Removed", **MUG)
    assert isinstance(disarm, Cancel)
    assert (disarm.campaign, disarm.anonymous_id) == ("stay", "x")
    assert visitor.person.preloaded == {}


def test_offer_is_preloaded_again_only_when_content_changes() -> None:
    content = {"default": {"title": "{{ product.name }}", "url": "/c"}}
    visitor = PersonHarness(exit_campaigns(look={"content": content}))
    assert visitor.emit(0, "Page Viewed") == [], "there is no product to name"
    (first,) = visitor.emit(1_000, "Product Viewed", **MUG)
    assert isinstance(first, Preload)
    assert first.content.title == "Mug"
    assert visitor.emit(2_000, "Page Viewed") == []
    assert visitor.emit(3_000, "Product Viewed", **MUG) == [], "the same product in the same words"
    (second,) = visitor.emit(4_000, "Product Viewed", **CUP)
    assert isinstance(second, Preload)
    assert (second.content.title, second.campaign) == ("Cup", "look")
    assert second.id != first.id


def test_highest_priority_exit_offer_is_preloaded() -> None:
    visitor = PersonHarness(exit_campaigns(b={}, a={}, cart={"priority": 5, "when": {"cart": {"items_at_least": 1}}}))
    assert summarize(visitor.emit(0, "Page Viewed")) == [(0, "preload", "a")], "by name among equals"
    assert summarize(visitor.emit(1, "Product Added", **MUG)) == [(1, "cancel", "a"), (1, "preload", "cart")]
    assert summarize(visitor.emit(2, "Cart Cleared")) == [(2, "cancel", "cart"), (2, "preload", "a")]


def test_time_alone_preloads_and_cancels() -> None:
    visitor = PersonHarness(
        exit_campaigns(
            warm={"when": {"session": {"seconds_at_least": 45}, "did_not": {"event": "Product Added", "within": "2m"}}}
        )
    )
    visitor.emit(0, "Page Viewed")
    assert summarize(visitor.advance(50_000)) == [(45_000, "preload", "warm")]
    assert summarize(visitor.emit(60_000, "Product Added", **MUG)) == [(60_000, "cancel", "warm")]
    assert summarize(visitor.advance(300_000)) == [(180_000, "preload", "warm")]


def test_preloaded_offer_is_renewed_during_the_session() -> None:
    visitor = PersonHarness(exit_campaigns(stay={"valid_for": "10m"}))
    visitor.emit(0, "Page Viewed")
    assert summarize(visitor.advance(1_700_000)) == [
        (540_000, "preload", "stay"),
        (1_080_000, "preload", "stay"),
        (1_620_000, "preload", "stay"),
    ]
    assert summarize(visitor.advance(4_000_000)) == [(1_800_000, "cancel", "stay")], "the visit is over"
    assert "arm:exit_intent" not in visitor.person.timers


def test_preload_moves_to_the_current_browser() -> None:
    visitor = PersonHarness(exit_campaigns(stay={}))
    visitor.emit(0, "Page Viewed")
    visitor.anonymous_id = "phone"
    actions = visitor.emit(1_000, "Page Viewed")
    assert [(type(action).__name__, action.anonymous_id) for action in actions] == [
        ("Cancel", "x"),
        ("Preload", "phone"),
    ]


def test_preloaded_content_matches_the_device() -> None:
    content = {"default": {"title": "Large", "button": "Go", "url": "/c"}, "mobile": {"title": "Small"}}
    for device, title, variant in (
        ("desktop", "Large", "default"),
        ("mobile", "Small", "mobile"),
        ("tv", "Large", "default"),
    ):
        visitor = PersonHarness(exit_campaigns(stay={"content": content}), device=device)
        (arm,) = visitor.emit(0, "Page Viewed")
        assert isinstance(arm, Preload)
        assert (arm.content.title, arm.content.button, arm.because.variant) == (title, "Go", variant)


def test_cancel_on_event_cancels_until_the_next_event() -> None:
    visitor = PersonHarness(exit_campaigns(stay={"cancel_on": ["Checkout Started"]}, other={"priority": -1}))
    visitor.emit(0, "Page Viewed")
    assert summarize(visitor.emit(1, "Checkout Started")) == [(1, "cancel", "stay"), (1, "preload", "other")]
    assert summarize(visitor.emit(2, "Page Viewed")) == [(2, "cancel", "other"), (2, "preload", "stay")]


def test_time_alone_does_not_restore_a_cancelled_offer() -> None:
    lately = {"when": {"did": {"event": "Cart Viewed", "within": "1m"}}}
    visitor = PersonHarness(
        make_playbook(
            segments={"lately": lately},
            campaigns={"exit": make_campaign({"exit_intent": True}, cancel_on=["Cart Viewed"])},
        )
    )
    visitor.emit(0, "Page Viewed")
    assert summarize(visitor.emit(1, "Cart Viewed"))[-1:] == [(1, "cancel", "exit")]
    visitor.store_and_reload()
    assert summarize(visitor.advance(60_001)) == [(60_001, "exited", "lately")]
    assert summarize(visitor.emit(60_002, "Page Viewed")) == [(60_002, "preload", "exit")]


@pytest.mark.parametrize("name", ["Order Completed", "Signed Out", "Consent Updated"])
def test_offer_dropped_by_the_widget_is_preloaded_again(name: str) -> None:
    visitor = PersonHarness(exit_campaigns(stay={}))
    visitor.emit(0, "Page Viewed")
    properties: dict[str, Any] = {"order_id": "o"} if name == "Order Completed" else {"marketing": True}
    assert summarize(visitor.emit(1, name, **properties)) == [(1, "cancel", "stay"), (1, "preload", "stay")]


def test_exit_intent_records_suppression_reason_once() -> None:
    visitor = PersonHarness(
        exit_campaigns(shy={"priority": 9, "purpose": "marketing"}, rich={"when": {"cart": {"value_at_least": 500}}})
    )
    visitor.emit(0, "Consent Updated", marketing=False)
    visitor.emit(1, "Page Viewed")
    assert summarize(visitor.emit(2, "Exit Intent")) == [(2, "suppress consent", "shy")]
    assert visitor.emit(3, "Exit Intent") == []


def test_service_offer_is_preloaded_past_the_shop_cap() -> None:
    last: dict[str, Any] = {"priority": -1, "when": {"session": {"pages_at_least": 2}}}
    visitor = PersonHarness(
        make_playbook(
            shop={"frequency_caps": {"per_session": 1}},
            campaigns={
                "bar": make_campaign({"event": "Quiz Finished"}, format="bar", purpose="service"),
                "more": make_campaign({"exit_intent": True}),
                "parcel": make_campaign({"exit_intent": True}, purpose="service", **last),
                "rest": make_campaign({"exit_intent": True}, priority=-2),
            },
        )
    )
    [send] = [one for one in visitor.emit(0, "Quiz Finished") if isinstance(one, Send)]
    visitor.emit(1, "Offer Shown", action_id=send.id, campaign="bar")
    visitor.emit(2, "Page Viewed")
    assert summarize(visitor.emit(3, "Exit Intent")) == [(3, "suppress shop_cap", "more")]
    assert summarize(visitor.emit(4, "Page Viewed")) == [(4, "preload", "parcel")]


def test_unshown_send_returns_its_cap_to_the_exit_offer() -> None:
    visitor = PersonHarness(
        make_playbook(
            shop={"frequency_caps": {"per_session": 1}},
            campaigns={
                "bar": make_campaign({"event": "Quiz Finished"}, format="bar"),
                "exit": make_campaign({"exit_intent": True}),
            },
        )
    )
    assert summarize(visitor.emit(0, "Page Viewed")) == [(0, "preload", "exit")]
    assert summarize(visitor.emit(1, "Quiz Finished")) == [(1, "send", "bar"), (1, "cancel", "exit")]
    assert summarize(visitor.advance(60_000)) == [(30_001, "preload", "exit")], "the bar was never shown"


@pytest.mark.parametrize(
    ("shop", "limits", "at"),
    [
        ({}, {"per_session": 9, "min_interval": "10m"}, 600_001),
        ({}, {"per_session": 9, "per_day": 1}, MIDNIGHT),
        ({"frequency_caps": {"per_day": 1, "cooldown": "5m"}}, {"per_session": 9}, MIDNIGHT),
        ({"frequency_caps": {"cooldown": "5m"}}, {"per_session": 9}, 300_001),
    ],
)
def test_capped_offer_is_preloaded_when_the_cap_resets(shop: Any, limits: Any, at: int) -> None:
    visitor = PersonHarness(
        make_playbook(shop=shop, campaigns={"exit": make_campaign({"exit_intent": True}, frequency_caps=limits)})
    )
    [arm] = visitor.emit(0, "Page Viewed")
    assert summarize(visitor.emit(1, "Offer Shown", action_id=arm.id, campaign="exit"))[0] == (1, "cancel", "exit")
    for n in range(1, at // 1_500_000 + 1):
        visitor.emit(n * 1_500_000, "Cart Viewed")
    assert summarize(visitor.advance(at))[-1:] == [(at, "preload", "exit")]


def test_seconds_on_site_fires_after_the_cooldown() -> None:
    visitor = PersonHarness(
        make_playbook(
            shop={"frequency_caps": {"cooldown": "1m"}},
            campaigns={
                "first": make_campaign({"event": "Quiz Finished"}),
                "later": make_campaign({"seconds_on_site": 30}),
            },
        )
    )
    [send] = visitor.emit(0, "Quiz Finished")
    visitor.emit(1, "Offer Shown", action_id=send.id, campaign="first")
    assert summarize(visitor.advance(120_000)) == [(30_000, "suppress cooldown", "later"), (60_001, "send", "later")]


def test_exit_intent_without_candidates_records_nothing() -> None:
    visitor = PersonHarness(exit_campaigns(rich={"when": {"cart": {"value_at_least": 500}}}))
    visitor.emit(0, "Page Viewed")
    assert visitor.emit(1, "Exit Intent") == []


def test_unrenderable_offer_gives_way_to_the_next() -> None:
    content = {"default": {"title": "{{ first_name }}"}}
    visitor = PersonHarness(exit_campaigns(named={"priority": 9, "content": content}, plain={}))
    assert summarize(visitor.emit(0, "Page Viewed")) == [(0, "preload", "plain")]
    assert summarize(visitor.emit(1, "Identified", first_name="Ann")) == [
        (1, "cancel", "plain"),
        (1, "preload", "named"),
    ]


def test_playbook_change_updates_preloaded_offers() -> None:
    visitor = PersonHarness(exit_campaigns(stay={}))
    visitor.emit(0, "Page Viewed")
    visitor.switch_playbook(exit_campaigns(stay={"content": {"default": {"title": "Other words"}}}))
    assert summarize(visitor.emit(1, "Page Viewed")) == [(1, "preload", "stay")]
    visitor.switch_playbook(Playbook())
    assert summarize(visitor.emit(2, "Page Viewed")) == [(2, "cancel", "stay")]


def test_playbook_fix_makes_content_renderable_again() -> None:
    def made(**shop: str) -> Playbook:
        stay = make_campaign({"exit_intent": True}, content={"default": {"title": "Back to {{ shop.name }}"}})
        return make_playbook(campaigns={"stay": stay}, shop=shop)

    visitor = PersonHarness(made())
    assert visitor.emit(0, "Page Viewed") == []
    assert visitor.emit(1, "Page Viewed") == []
    visitor.switch_playbook(made(name="Ann's"))
    [arm] = visitor.emit(2, "Page Viewed")
    assert isinstance(arm, Preload)
    assert arm.content.title == "Back to Ann's"
    visitor.switch_playbook(made(name="Bob's"))
    [arm] = visitor.emit(3, "Page Viewed")
    assert isinstance(arm, Preload)
    assert arm.content.title == "Back to Bob's", "what the browser holds says what the shop is called now"


MONEY_CONTENT: dict[str, Any] = {"content": {"default": {"title": "From {{ 20 | money }}"}}}


@pytest.mark.parametrize(
    ("before", "after", "anew"),
    [
        ({"coupon": {"percent": 10}}, {"coupon": {"percent": 20}}, True),
        ({"coupon": {"percent": 10}}, {"coupon": {"amount": 5}}, True),
        ({"coupon": {"percent": 10}}, {"coupon": {"percent": 10, "min_value": 40}}, True),
        ({"coupon": {"percent": 10}}, {"coupon": {"percent": 10, "products": ["mug"]}}, True),
        ({"coupon": {"percent": 10}}, {"coupon": {"percent": 10, "free_shipping": True}}, True),
        ({"coupon": {"percent": 10}}, {"coupon": {"percent": 10, "description": "x", "once_per_person": False}}, False),
        ({"coupon": {"amount": 5}}, {"coupon": {"amount": 5}, "shop": {"currency": "USD"}}, True),
        ({"coupon": {"percent": 10}}, {"coupon": {"percent": 10}, "shop": {"currency": "USD", "name": "Bob's"}}, False),
        ({"stay": MONEY_CONTENT}, {"stay": MONEY_CONTENT, "shop": {"currency": "USD"}}, True),
        ({"stay": MONEY_CONTENT}, {"stay": MONEY_CONTENT, "shop": {"name": "Bob's", "timezone": "Asia/Tokyo"}}, False),
        ({}, {"shop": {"currency": "USD", "name": "Bob's"}}, False),
        ({}, {"stay": {"format": "bar"}}, True),
        ({}, {"stay": {"cancel_on": ["Product Added"]}}, True),
        ({}, {"stay": {"priority": 7}}, True),
        ({}, {"stay": {"description": "x", "frequency_caps": {"per_session": 3}}}, False),
    ],
)
def test_preload_is_resent_only_if_playbook_changes_it(
    before: dict[str, Any], after: dict[str, Any], anew: bool
) -> None:
    def made(
        stay: dict[str, Any] | None = None, coupon: dict[str, Any] | None = None, shop: dict[str, Any] | None = None
    ) -> Playbook:
        pools = [{"name": "ten", "codes": ["TEN-1"], "valid_for": "7d", **coupon}] if coupon else []
        has = {"coupon": "ten"} if coupon else {}
        return make_playbook(
            campaigns={"stay": make_campaign({"exit_intent": True}, **has, **stay or {})},
            coupons=pools,
            shop=shop or {},
        )

    visitor = PersonHarness(made(**before))
    assert summarize(visitor.emit(0, "Page Viewed")) == [(0, "preload", "stay")]
    for at in (1, 2):  # what was once found to be the same stays so
        visitor.switch_playbook(made(**after))
        visitor.store_and_reload()
        arms = [one for one in visitor.emit(at, "Page Viewed") if isinstance(one, Preload)]
        assert bool(arms) is (anew and at == 1)
    assert visitor.emit(3, "Page Viewed") == []


def test_playbook_change_updates_the_coupon_value() -> None:
    def made(percent: int) -> Playbook:
        return make_playbook(
            campaigns={"stay": make_campaign({"exit_intent": True}, coupon="ten")},
            coupons=[{"name": "ten", "percent": percent, "codes": ["TEN-1"], "valid_for": "7d"}],
        )

    visitor = PersonHarness(made(10))
    visitor.emit(0, "Page Viewed")
    visitor.switch_playbook(made(20))
    [arm] = visitor.emit(1, "Page Viewed")
    assert isinstance(arm, Preload)
    assert arm.discount is not None
    assert (arm.discount.code, arm.discount.percent) == ("TEN-1", 20)


def test_irrelevant_cart_change_does_not_resend_preload() -> None:
    words = {"default": {"title": "{% if cart %}Your cart waits{% endif %}"}}
    visitor = PersonHarness(exit_campaigns(stay={"content": words, "when": {"cart": {"value_at_least": 1}}}))
    assert summarize(visitor.emit(0, "Product Added", **MUG)) == [(0, "preload", "stay")]
    assert visitor.emit(1, "Product Added", **CUP) == []


def test_coupon_fix_makes_content_renderable_again() -> None:
    def made(title: str, **worth: Any) -> Playbook:
        stay = make_campaign({"exit_intent": True}, coupon="ten", content={"default": {"title": title}})
        return make_playbook(
            campaigns={"stay": stay},
            coupons=[{"name": "ten", "percent": 10, "codes": ["TEN-1", "TEN-2"], "valid_for": "7d", **worth}],
        )

    visitor = PersonHarness(made("{{ coupon.code }}"))
    assert summarize(visitor.emit(0, "Page Viewed")) == [(0, "preload", "stay")]
    visitor.switch_playbook(made("From {{ coupon.min_value }}"))
    assert summarize(visitor.emit(1, "Page Viewed")) == [(1, "cancel", "stay")], "their coupon is as it was"
    visitor.switch_playbook(made("From {{ coupon.min_value }}", min_value=50))
    assert summarize(visitor.emit(2, "Page Viewed")) == [(2, "preload", "stay")]


def test_bots_and_aliases_get_no_preloads() -> None:
    visitor = PersonHarness(exit_campaigns(stay={}))
    for person in (Person(id="a:x", bot=True), Person(id="a:x", merged_into="u:ann")):
        visitor.person = person
        assert visitor.emit(visitor.now - T0 if visitor.now else 0, "Page Viewed") == []
    visitor = PersonHarness(exit_campaigns(stay={}))
    visitor.emit(0, "Page Viewed")
    visitor.person.merged_into = "u:ann"
    assert summarize(visitor.emit(1, "Page Viewed")) == [(1, "cancel", "stay")]


def test_preload_expires_with_its_coupon() -> None:
    visitor = PersonHarness(
        make_playbook(
            coupons=[{"name": "pool", "percent": 10, "codes": ["A1"], "valid_for": "2m"}],
            campaigns={"stay": {"trigger": {"exit_intent": True}, "coupon": "pool", "purpose": "service"}},
        )
    )
    visitor.emit(0, "Page Viewed")
    for n in range(1, 12):
        visitor.emit(n * 10_000, "Page Viewed")
    visitor.advance(200_000)
    kinds = [
        (action.at - T0, type(action).__name__) for action in visitor.actions if isinstance(action, (Preload, Cancel))
    ]
    assert kinds == [(0, "Preload"), (120_000, "Cancel")]
