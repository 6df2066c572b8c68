"""choose_actions: four occasions, and what the browser holds ready."""

from typing import Any

import pytest

from domain.action import Arm, Disarm, Move, Send
from domain.event import Identify
from domain.playbook import Playbook
from operators import choose_actions
from state.person import Person
from tests.visitor import T0, Visitor, playbook, short

MUG = {"product_id": "mug", "name": "Mug", "price": 9.5, "quantity": 1}
CUP = {"product_id": "cup", "name": "Cup", "price": 7, "quantity": 1}

MIDNIGHT = 2_800_000
"""T0 is 23:13:20 in Rome."""


def campaign(trigger: dict[str, Any], **rest: Any) -> dict[str, Any]:
    return {"trigger": trigger, **rest}


def exits(**campaigns: dict[str, Any]) -> Playbook:
    return playbook(campaigns={name: campaign({"exit_intent": True}, **rest) for name, rest in campaigns.items()})


# -- an event ------------------------------------------------------------------------------------------------------


def test_an_event_fires_its_campaigns_when_the_audience_holds() -> None:
    visitor = Visitor(playbook(campaigns={"near": campaign(
        {"event": "Product Added"}, when={"cart": {"value_at_least": 15}})}))
    assert visitor.does(0, "Product Added", **MUG) == []
    assert short(visitor.does(1, "Product Added", **CUP)) == [(1, "send", "near")]


@pytest.mark.parametrize(("properties", "fires"), [
    ({"category": "bags", "price": 9}, True), ({"category": "hats", "price": 9.0}, True), ({"category": "Bags"}, False),
    ({"category": "bags", "price": "9"}, False), ({"category": ["bags"], "price": 9}, False), ({}, False),
])
def test_a_trigger_may_ask_for_properties(properties: dict[str, Any], fires: bool) -> None:
    visitor = Visitor(playbook(campaigns={"bags": campaign(
        {"event": "Quiz Finished", "properties": {"category": ["bags", "hats"], "price": 9}})}))
    assert bool(visitor.does(0, "Quiz Finished", **properties)) is fires


# -- a segment -----------------------------------------------------------------------------------------------------


def test_entering_a_segment_fires_leaving_does_not() -> None:
    visitor = Visitor(playbook(
        segments={"idle": {"when": {"cart": {"untouched_for": "5m"}}}},
        campaigns={"help": campaign({"segment": "idle"}, limits={"per_session": 9})}))
    visitor.does(0, "Product Added", **MUG)
    assert short(visitor.waits(400_000)) == [(300_000, "entered", "idle"), (300_000, "send", "help")]
    assert short(visitor.does(500_000, "Product Added", **MUG)) == [(500_000, "left", "idle")]
    assert short(visitor.waits(900_000)) == [(800_000, "entered", "idle"), (800_000, "send", "help")]


def test_a_learned_band_is_a_segment_like_any_other() -> None:
    visitor = Visitor(playbook(campaigns={"keen": campaign({"segment": "likely_buyers"})}))
    visitor.does(0, "Page Viewed")
    context = visitor.context
    context.begin("x", T0 + 1, T0 + 1)
    context.moves = [Move(id="m", at=T0 + 1, person="a:x", segment="likely_buyers", entered=True)]
    choose_actions.step(visitor.person, Identify(), context)
    assert [proposal.rule.name for proposal in context.proposals] == ["keen"]


# -- seconds on the site -------------------------------------------------------------------------------------------

CANADA = playbook(campaigns={"canada": campaign(
    {"seconds_on_site": 60}, when={"has": {"country": "CA"}, "session": {"first_visit": True, "pages_at_least": 3}})})


def test_first_visit_from_canada_three_pages_fires_at_second_60_with_no_further_event() -> None:
    visitor = Visitor(CANADA, country="CA")
    for at in (0, 10_000, 20_000):
        assert visitor.does(at, "Page Viewed") == []
    assert visitor.waits(59_999) == []
    (send,) = visitor.waits(60_000)
    assert isinstance(send, Send)
    assert send.at == T0 + 60_000
    assert send.because.trigger == "60 s on the site"
    assert send.because.held == ("is in CA (CA)", "at least 3 pages this visit (has 3)", "first visit")
    assert visitor.waits(1_000_000) == [], "once a visit"


def test_who_sees_the_third_page_later_gets_it_then_and_once() -> None:
    visitor = Visitor(CANADA, country="CA")
    visitor.does(0, "Page Viewed")
    visitor.does(30_000, "Page Viewed")
    assert visitor.waits(90_000) == []
    assert short(visitor.does(95_000, "Page Viewed")) == [(95_000, "send", "canada")]
    visitor.waits(200_000)
    assert visitor.person.reserved == [], "it was never shown, and is not sent again in this visit all the same"
    assert visitor.does(201_000, "Page Viewed") == []


@pytest.mark.parametrize(("country", "pages"), [("IT", 3), ("CA", 2)])
def test_everybody_else_gets_nothing(country: str, pages: int) -> None:
    visitor = Visitor(CANADA, country=country)
    for at in range(pages):
        visitor.does(at * 1_000, "Page Viewed")
    assert visitor.waits(1_000_000) == []


def test_on_the_second_visit_no_timer_is_even_set() -> None:
    visitor = Visitor(CANADA, country="CA")
    visitor.does(0, "Page Viewed")
    visitor.waits(3_000_000)
    visitor.does(4_000_000, "Page Viewed")
    assert set(visitor.person.timers) == {"session_end:"}


def test_one_timer_for_many_seconds() -> None:
    visitor = Visitor(playbook(campaigns={
        f"at{n}": campaign({"seconds_on_site": n}, format=form)
        for n, form in ((30, "bar"), (60, "popup"), (90, "banner"))}))
    visitor.does(0, "Page Viewed")
    assert {key: at - T0 for key, at in visitor.person.timers.items()} == {
        "session_end:": 1_800_000, "seconds:": 30_000}
    assert short(visitor.waits(100_000)) == [
        (30_000, "send", "at30"), (60_000, "send", "at60"), (90_000, "send", "at90")]


def test_a_condition_that_time_makes_true_after_the_second_fires_then() -> None:
    visitor = Visitor(playbook(campaigns={"idle": campaign(
        {"seconds_on_site": 30}, when={"cart": {"untouched_for": "2m"}})}))
    visitor.does(0, "Page Viewed")
    visitor.does(5_000, "Product Added", **MUG)
    assert short(visitor.waits(400_000)) == [(125_000, "send", "idle")]


def test_the_next_visit_counts_its_own_seconds() -> None:
    visitor = Visitor(playbook(campaigns={"later": campaign({"seconds_on_site": 60})}))
    visitor.does(0, "Page Viewed")
    visitor.waits(5_000_000)
    visitor.does(6_000_000, "Page Viewed")
    assert short(visitor.waits(7_000_000)) == [(6_060_000, "send", "later")]


# -- exit intent ---------------------------------------------------------------------------------------------------


def test_an_exit_offer_is_armed_ahead_and_disarmed_when_it_no_longer_holds() -> None:
    visitor = Visitor(exits(stay={"when": {"cart": {"items_at_least": 1}}, "disarm_on": ["Checkout Started"]}))
    assert visitor.does(0, "Page Viewed") == []
    (arm,) = visitor.does(1_000, "Product Added", **MUG)
    assert isinstance(arm, Arm)
    assert (arm.campaign, arm.trigger, arm.not_after, arm.disarm_on, arm.anonymous_id) == (
        "stay", "exit_intent", T0 + 1_000 + 1_800_000, ("Checkout Started",), "x")
    assert arm.because.held == ("at least 1 in the cart (has 1)",)
    assert visitor.does(2_000, "Page Viewed") == [], "nothing has changed"
    assert visitor.does(3_000, "Exit Intent") == [], "the browser shows it by itself"
    (disarm,) = visitor.does(4_000, "Product Removed", **MUG)
    assert isinstance(disarm, Disarm)
    assert (disarm.campaign, disarm.anonymous_id) == ("stay", "x")
    assert visitor.person.armed == {}


def test_what_it_shows_is_armed_again_only_when_that_changes() -> None:
    content = {"default": {"title": "{{ product.name }}", "url": "/c"}}
    visitor = Visitor(exits(look={"content": content}))
    assert visitor.does(0, "Page Viewed") == [], "there is no product to name"
    (first,) = visitor.does(1_000, "Product Viewed", **MUG)
    assert isinstance(first, Arm)
    assert first.content.title == "Mug"
    assert visitor.does(2_000, "Page Viewed") == []
    assert visitor.does(3_000, "Product Viewed", **MUG) == [], "the same product in the same words"
    (second,) = visitor.does(4_000, "Product Viewed", **CUP)
    assert isinstance(second, Arm)
    assert (second.content.title, second.campaign) == ("Cup", "look")
    assert second.id != first.id


def test_the_most_important_one_is_armed_and_replaces_the_other() -> None:
    visitor = Visitor(exits(
        b={}, a={}, cart={"priority": 5, "when": {"cart": {"items_at_least": 1}}}))
    assert short(visitor.does(0, "Page Viewed")) == [(0, "arm", "a")], "by name among equals"
    assert short(visitor.does(1, "Product Added", **MUG)) == [(1, "disarm", "a"), (1, "arm", "cart")]
    assert short(visitor.does(2, "Cart Cleared")) == [(2, "disarm", "cart"), (2, "arm", "a")]


def test_time_alone_arms_and_disarms() -> None:
    visitor = Visitor(exits(
        warm={"when": {"session": {"seconds_at_least": 45}, "did_not": {"event": "Product Added", "within": "2m"}}}))
    visitor.does(0, "Page Viewed")
    assert short(visitor.waits(50_000)) == [(45_000, "arm", "warm")]
    assert short(visitor.does(60_000, "Product Added", **MUG)) == [(60_000, "disarm", "warm")]
    assert short(visitor.waits(300_000)) == [(180_000, "arm", "warm")]


def test_it_is_renewed_before_it_ends_while_the_visit_lasts() -> None:
    visitor = Visitor(exits(stay={"valid_for": "10m"}))
    visitor.does(0, "Page Viewed")
    assert short(visitor.waits(1_700_000)) == [
        (540_000, "arm", "stay"), (1_080_000, "arm", "stay"), (1_620_000, "arm", "stay")]
    assert short(visitor.waits(4_000_000)) == [(1_800_000, "disarm", "stay")], "the visit is over"
    assert "arm:exit_intent" not in visitor.person.timers


def test_another_browser_of_the_same_person_gets_it_instead() -> None:
    visitor = Visitor(exits(stay={}))
    visitor.does(0, "Page Viewed")
    visitor.name = "phone"
    actions = visitor.does(1_000, "Page Viewed")
    assert [(type(action).__name__, action.anonymous_id) for action in actions] == [("Disarm", "x"), ("Arm", "phone")]


def test_the_words_are_for_the_device() -> None:
    content = {"default": {"title": "Large", "button": "Go", "url": "/c"}, "mobile": {"title": "Small"}}
    for device, title, variant in (
            ("desktop", "Large", "default"), ("mobile", "Small", "mobile"), ("tv", "Large", "default")):
        visitor = Visitor(exits(stay={"content": content}), device=device)
        (arm,) = visitor.does(0, "Page Viewed")
        assert isinstance(arm, Arm)
        assert (arm.content.title, arm.content.button, arm.because.variant) == (title, "Go", variant)


def test_an_event_that_takes_it_back_disarms_it_and_it_may_return_later() -> None:
    visitor = Visitor(exits(stay={"disarm_on": ["Checkout Started"]}, other={"priority": -1}))
    visitor.does(0, "Page Viewed")
    assert short(visitor.does(1, "Checkout Started")) == [(1, "disarm", "stay"), (1, "arm", "other")]
    assert short(visitor.does(2, "Page Viewed")) == [(2, "disarm", "other"), (2, "arm", "stay")]


def test_time_alone_does_not_bring_back_what_an_event_took_back() -> None:
    lately = {"when": {"did": {"event": "Cart Viewed", "within": "1m"}}}
    visitor = Visitor(playbook(segments={"lately": lately}, campaigns={
        "exit": campaign({"exit_intent": True}, disarm_on=["Cart Viewed"])}))
    visitor.does(0, "Page Viewed")
    assert short(visitor.does(1, "Cart Viewed"))[-1:] == [(1, "disarm", "exit")]
    visitor.rests()
    assert short(visitor.waits(60_001)) == [(60_001, "left", "lately")]
    assert short(visitor.does(60_002, "Page Viewed")) == [(60_002, "arm", "exit")]


@pytest.mark.parametrize("name", ["Order Completed", "Signed Out", "Consent Updated"])
def test_what_the_widget_forgets_by_itself_is_armed_anew(name: str) -> None:
    visitor = Visitor(exits(stay={}))
    visitor.does(0, "Page Viewed")
    properties: dict[str, Any] = {"order_id": "o"} if name == "Order Completed" else {"marketing": True}
    assert short(visitor.does(1, name, **properties)) == [(1, "disarm", "stay"), (1, "arm", "stay")]


def test_an_exit_with_nothing_armed_says_why_once() -> None:
    visitor = Visitor(exits(
        shy={"priority": 9, "purpose": "marketing"}, rich={"when": {"cart": {"value_at_least": 500}}}))
    visitor.does(0, "Consent Updated", marketing=False)
    visitor.does(1, "Page Viewed")
    assert short(visitor.does(2, "Exit Intent")) == [(2, "hold consent", "shy")]
    assert visitor.does(3, "Exit Intent") == []


def test_what_they_asked_for_is_armed_when_the_shops_limit_holds_back_the_rest() -> None:
    last: dict[str, Any] = {"priority": -1, "when": {"session": {"pages_at_least": 2}}}
    visitor = Visitor(playbook(shop={"limits": {"per_session": 1}}, campaigns={
        "bar": campaign({"event": "Quiz Finished"}, format="bar", purpose="service"),
        "more": campaign({"exit_intent": True}), "parcel": campaign({"exit_intent": True}, purpose="service", **last),
        "rest": campaign({"exit_intent": True}, priority=-2)}))
    [send] = [one for one in visitor.does(0, "Quiz Finished") if isinstance(one, Send)]
    visitor.does(1, "Offer Shown", action_id=send.id, campaign="bar")
    visitor.does(2, "Page Viewed")
    assert short(visitor.does(3, "Exit Intent")) == [(3, "hold shop_limit", "more")]
    assert short(visitor.does(4, "Page Viewed")) == [(4, "arm", "parcel")]


def test_what_is_sent_may_use_up_what_was_left_for_the_armed_one_and_gives_it_back() -> None:
    visitor = Visitor(playbook(shop={"limits": {"per_session": 1}}, campaigns={
        "bar": campaign({"event": "Quiz Finished"}, format="bar"), "exit": campaign({"exit_intent": True})}))
    assert short(visitor.does(0, "Page Viewed")) == [(0, "arm", "exit")]
    assert short(visitor.does(1, "Quiz Finished")) == [(1, "send", "bar"), (1, "disarm", "exit")]
    assert short(visitor.waits(60_000)) == [(30_001, "arm", "exit")], "the bar was never shown"


@pytest.mark.parametrize(("shop", "limits", "at"), [
    ({}, {"per_session": 9, "every": "10m"}, 600_001), ({}, {"per_session": 9, "per_day": 1}, MIDNIGHT),
    ({"limits": {"per_day": 1, "cooldown": "5m"}}, {"per_session": 9}, MIDNIGHT),
    ({"limits": {"cooldown": "5m"}}, {"per_session": 9}, 300_001)])
def test_what_a_limit_held_back_is_armed_when_time_frees_it(shop: Any, limits: Any, at: int) -> None:
    visitor = Visitor(playbook(shop=shop, campaigns={"exit": campaign({"exit_intent": True}, limits=limits)}))
    [arm] = visitor.does(0, "Page Viewed")
    assert short(visitor.does(1, "Offer Shown", action_id=arm.id, campaign="exit"))[0] == (1, "disarm", "exit")
    for n in range(1, at // 1_500_000 + 1):
        visitor.does(n * 1_500_000, "Cart Viewed")
    assert short(visitor.waits(at))[-1:] == [(at, "arm", "exit")]


def test_a_second_that_came_during_the_cooldown_is_made_up_for_when_that_is_over() -> None:
    visitor = Visitor(playbook(shop={"limits": {"cooldown": "1m"}}, campaigns={
        "first": campaign({"event": "Quiz Finished"}), "later": campaign({"seconds_on_site": 30})}))
    [send] = visitor.does(0, "Quiz Finished")
    visitor.does(1, "Offer Shown", action_id=send.id, campaign="first")
    assert short(visitor.waits(120_000)) == [(30_000, "hold cooldown", "later"), (60_001, "send", "later")]


def test_an_exit_nobody_has_an_offer_for_is_silent() -> None:
    visitor = Visitor(exits(rich={"when": {"cart": {"value_at_least": 500}}}))
    visitor.does(0, "Page Viewed")
    assert visitor.does(1, "Exit Intent") == []


def test_words_that_cannot_be_made_leave_the_place_to_the_next() -> None:
    content = {"default": {"title": "{{ first_name }}"}}
    visitor = Visitor(exits(named={"priority": 9, "content": content}, plain={}))
    assert short(visitor.does(0, "Page Viewed")) == [(0, "arm", "plain")]
    assert short(visitor.does(1, "Identified", first_name="Ann")) == [(1, "disarm", "plain"), (1, "arm", "named")]


def test_the_swap_of_a_playbook_changes_what_is_armed() -> None:
    visitor = Visitor(exits(stay={}))
    visitor.does(0, "Page Viewed")
    visitor.swaps(exits(stay={"content": {"default": {"title": "Other words"}}}))
    assert short(visitor.does(1, "Page Viewed")) == [(1, "arm", "stay")]
    visitor.swaps(Playbook())
    assert short(visitor.does(2, "Page Viewed")) == [(2, "disarm", "stay")]


def test_a_playbook_that_mends_what_the_words_are_made_of_is_asked_again() -> None:
    def made(**shop: str) -> Playbook:
        stay = campaign({"exit_intent": True}, content={"default": {"title": "Back to {{ shop.name }}"}})
        return playbook(campaigns={"stay": stay}, shop=shop)

    visitor = Visitor(made())
    assert visitor.does(0, "Page Viewed") == []
    assert visitor.does(1, "Page Viewed") == []
    visitor.swaps(made(name="Ann's"))
    [arm] = visitor.does(2, "Page Viewed")
    assert isinstance(arm, Arm)
    assert arm.content.title == "Back to Ann's"
    visitor.swaps(made(name="Bob's"))
    [arm] = visitor.does(3, "Page Viewed")
    assert isinstance(arm, Arm)
    assert arm.content.title == "Back to Bob's", "what the browser holds says what the shop is called now"


COSTS: dict[str, Any] = {"content": {"default": {"title": "From {{ 20 | money }}"}}}


@pytest.mark.parametrize(("before", "after", "anew"), [
    ({"coupon": {"percent": 10}}, {"coupon": {"percent": 20}}, True),
    ({"coupon": {"percent": 10}}, {"coupon": {"amount": 5}}, True),
    ({"coupon": {"percent": 10}}, {"coupon": {"percent": 10, "min_value": 40}}, True),
    ({"coupon": {"percent": 10}}, {"coupon": {"percent": 10, "products": ["mug"]}}, True),
    ({"coupon": {"percent": 10}}, {"coupon": {"percent": 10, "free_shipping": True}}, True),
    ({"coupon": {"percent": 10}}, {"coupon": {"percent": 10, "description": "x", "once": False}}, False),
    ({"coupon": {"amount": 5}}, {"coupon": {"amount": 5}, "shop": {"currency": "USD"}}, True),
    ({"coupon": {"percent": 10}}, {"coupon": {"percent": 10}, "shop": {"currency": "USD", "name": "Bob's"}}, False),
    ({"stay": COSTS}, {"stay": COSTS, "shop": {"currency": "USD"}}, True),
    ({"stay": COSTS}, {"stay": COSTS, "shop": {"name": "Bob's", "timezone": "Asia/Tokyo"}}, False),
    ({}, {"shop": {"currency": "USD", "name": "Bob's"}}, False),
    ({}, {"stay": {"format": "bar"}}, True),
    ({}, {"stay": {"disarm_on": ["Product Added"]}}, True),
    ({}, {"stay": {"priority": 7}}, True),
    ({}, {"stay": {"description": "x", "limits": {"per_session": 3}}}, False),
])
def test_what_is_armed_is_told_anew_when_the_playbook_has_it_told_differently_and_only_then(
        before: dict[str, Any], after: dict[str, Any], anew: bool) -> None:
    def made(stay: dict[str, Any] | None = None, coupon: dict[str, Any] | None = None,
             shop: dict[str, Any] | None = None) -> Playbook:
        pools = [{"name": "ten", "codes": ["TEN-1"], "valid_for": "7d", **coupon}] if coupon else []
        has = {"coupon": "ten"} if coupon else {}
        return playbook(campaigns={"stay": campaign({"exit_intent": True}, **has, **stay or {})}, coupons=pools,
                        shop=shop or {})

    visitor = Visitor(made(**before))
    assert short(visitor.does(0, "Page Viewed")) == [(0, "arm", "stay")]
    for at in (1, 2):  # what was once found to be the same stays so
        visitor.swaps(made(**after))
        visitor.rests()
        arms = [one for one in visitor.does(at, "Page Viewed") if isinstance(one, Arm)]
        assert bool(arms) is (anew and at == 1)
    assert visitor.does(3, "Page Viewed") == []


def test_the_page_is_told_what_the_coupon_is_worth_now() -> None:
    def made(percent: int) -> Playbook:
        return playbook(campaigns={"stay": campaign({"exit_intent": True}, coupon="ten")},
                        coupons=[{"name": "ten", "percent": percent, "codes": ["TEN-1"], "valid_for": "7d"}])

    visitor = Visitor(made(10))
    visitor.does(0, "Page Viewed")
    visitor.swaps(made(20))
    [arm] = visitor.does(1, "Page Viewed")
    assert isinstance(arm, Arm)
    assert arm.discount is not None
    assert (arm.discount.code, arm.discount.percent) == ("TEN-1", 20)


def test_a_cart_that_changes_nothing_that_is_said_is_not_told_of_again() -> None:
    words = {"default": {"title": "{% if cart %}Your cart waits{% endif %}"}}
    visitor = Visitor(exits(stay={"content": words, "when": {"cart": {"value_at_least": 1}}}))
    assert short(visitor.does(0, "Product Added", **MUG)) == [(0, "arm", "stay")]
    assert visitor.does(1, "Product Added", **CUP) == []


def test_words_that_failed_for_what_a_coupon_lacked_are_asked_for_again_when_it_has_it() -> None:
    def made(title: str, **worth: Any) -> Playbook:
        stay = campaign({"exit_intent": True}, coupon="ten", content={"default": {"title": title}})
        return playbook(campaigns={"stay": stay}, coupons=[
            {"name": "ten", "percent": 10, "codes": ["TEN-1", "TEN-2"], "valid_for": "7d", **worth}])

    visitor = Visitor(made("{{ coupon.code }}"))
    assert short(visitor.does(0, "Page Viewed")) == [(0, "arm", "stay")]
    visitor.swaps(made("From {{ coupon.min_value }}"))
    assert short(visitor.does(1, "Page Viewed")) == [(1, "disarm", "stay")], "their coupon is as it was"
    visitor.swaps(made("From {{ coupon.min_value }}", min_value=50))
    assert short(visitor.does(2, "Page Viewed")) == [(2, "arm", "stay")]


def test_bots_and_aliases_hold_nothing() -> None:
    visitor = Visitor(exits(stay={}))
    for person in (Person(id="a:x", bot=True), Person(id="a:x", alias_of="u:ann")):
        visitor.person = person
        assert visitor.does(visitor.now - T0 if visitor.now else 0, "Page Viewed") == []
    visitor = Visitor(exits(stay={}))
    visitor.does(0, "Page Viewed")
    visitor.person.alias_of = "u:ann"
    assert short(visitor.does(1, "Page Viewed")) == [(1, "disarm", "stay")]


def test_an_offer_with_a_coupon_that_ends_soon_ends_with_it_and_is_not_renewed_for_ever() -> None:
    visitor = Visitor(playbook(
        coupons=[{"name": "pool", "percent": 10, "codes": ["A1"], "valid_for": "2m"}],
        campaigns={"stay": {"trigger": {"exit_intent": True}, "coupon": "pool", "purpose": "service"}}))
    visitor.does(0, "Page Viewed")
    for n in range(1, 12):
        visitor.does(n * 10_000, "Page Viewed")
    visitor.waits(200_000)
    kinds = [(action.at - T0, type(action).__name__) for action in visitor.actions if isinstance(action, (Arm, Disarm))]
    assert kinds == [(0, "Arm"), (120_000, "Disarm")]
