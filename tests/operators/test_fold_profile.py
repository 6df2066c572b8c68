"""fold_profile: what happened becomes what is known. Each test is a small story with times in minutes."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain import event as events
from domain.event import Event
from domain.playbook import Playbook
from domain.shop import Shop
from operators import fold_profile
from state import codec
from state.context import Context, Unreadable
from state.person import (
    MAX_CART_ITEMS,
    MAX_CATEGORIES,
    MAX_COUNTS,
    MAX_ORDERS,
    MAX_PRODUCTS,
    MAX_SEARCHES,
    MAX_TRAITS,
    Facts,
    Person,
    Session,
)
from state.rules import compile_rules
from state.sessions import SESSION_TIMER
from state.view import known
from tests.people import T0
from tests.support import examples
from tests.visits import Street

MINUTE = 60_000
EURO = Playbook(shop=Shop(currency="EUR", rates={"USD": 0.5}))


def call(kind: str, **fields: Any) -> Event:
    event: Event = events.decode(msgspec.json.encode({"type": kind, "anonymousId": "x", **fields}))
    return event


def track(
    what: str, /, *, context: dict[str, Any] | None = None, who: dict[str, Any] | None = None, **properties: Any
) -> Event:
    return call("track", event=what, properties=properties, context=context, **(who or {}))


def page(url: str = "https://shop.example/", **fields: Any) -> Event:
    return call("page", **{"context": {"page": {"url": url, "referrer": "https://search.example/"}}, **fields})


class Visitor(Street):
    """One visitor; times are minutes after T0."""

    def __init__(self) -> None:
        super().__init__(EURO, steps=(fold_profile.step,))

    def does(self, event: Event, minute: float = 0, arrives: float | None = None) -> Person:
        now = None if arrives is None else T0 + round(arrives * MINUTE)
        return self.happens(event, T0 + round(minute * MINUTE), now)

    def waits_until(self, minute: float) -> None:
        self.pass_until(T0 + round(minute * MINUTE))

    @property
    def me(self) -> Person:
        return self.person("a:x")

    @property
    def facts(self) -> Facts:
        return known(self.me)

    @property
    def session(self) -> Session:
        assert self.me.session is not None
        return self.me.session

    def cart(self) -> dict[str, int]:
        return {} if self.me.cart is None else {name: item.quantity for name, item in self.me.cart.items.items()}

    def snapshot(self, minute: float = 0) -> None:
        """A moment to learn from, as score takes it."""
        self.session.snapshot, self.session.snapshot_at = {"events": 1.0}, T0 + round(minute * MINUTE)


@pytest.fixture
def one() -> Visitor:
    return Visitor()


# -- sessions --------------------------------------------------------------------------------------------------------


def test_a_visit_begins_with_its_first_page(one: Visitor) -> None:
    one.does(page(context={"page": {"url": "https://shop.example/tea", "referrer": "https://search.example/"},
                           "attimo": {"country": "CA", "device": "mobile"}, "locale": "fr-CA", "timezone": "UTC"}))
    session = one.session
    assert (session.started_at, session.last_at, session.pages, session.events) == (T0, T0, 1, 1)
    assert (session.landing_page, session.referrer) == ("https://shop.example/tea", "https://search.example/")
    assert (session.first_visit, session.anonymous_id, session.country, session.device) == (True, "x", "CA", "mobile")
    assert (one.facts.sessions, one.facts.pages, one.facts.first_seen) == (1, 1, T0)
    assert (one.facts.locale, one.facts.timezone) == ("fr-CA", "UTC")
    assert one.me.timers == {SESSION_TIMER: T0 + 30 * MINUTE}


def test_a_visit_goes_on_as_long_as_something_happens_every_half_hour(one: Visitor) -> None:
    for minute in (0, 29, 58, 87):
        one.does(page(), minute)
    assert (one.session.pages, one.facts.sessions) == (4, 1)
    one.waits_until(87 + 29.9)
    assert one.me.session is not None
    one.waits_until(87 + 30)
    assert one.me.session is None
    assert one.me.timers == {}


def test_the_timer_moves_only_when_it_fires(one: Visitor) -> None:
    one.does(page(), 0)
    one.does(page(), 20)
    assert one.me.timers[SESSION_TIMER] == T0 + 30 * MINUTE
    one.waits_until(30)
    assert one.me.timers[SESSION_TIMER] == T0 + 50 * MINUTE


def test_the_next_visit_is_not_the_first(one: Visitor) -> None:
    one.does(page(), 0)
    first = one.session.id
    one.does(page(), 31)
    assert one.session.id != first
    assert not one.session.first_visit
    assert one.facts.sessions == 2


def test_a_new_campaign_begins_a_new_visit_and_the_same_one_does_not(one: Visitor) -> None:
    spring = {"campaign": {"source": "newsletter", "medium": "email", "name": "spring"}}
    one.does(page(context=spring), 0)
    one.does(page(), 1)
    one.does(page(context=spring), 2)
    assert one.facts.sessions == 1
    one.does(page(context={"campaign": {"source": "ads"}}), 3)
    assert one.facts.sessions == 2
    assert (one.session.source, one.session.medium, one.session.started_at) == ("ads", "", T0 + 3 * MINUTE)
    assert one.facts.first_source is not None
    assert one.facts.last_source is not None
    assert (one.facts.first_source.campaign, one.facts.last_source.source) == ("spring", "ads")


def test_a_late_event_counts_and_opens_prolongs_and_closes_nothing(one: Visitor) -> None:
    one.does(page(), 100)
    before = msgspec.to_builtins(one.session)
    one.does(page(context={"campaign": {"source": "ads"}}), 50, arrives=101)
    assert msgspec.to_builtins(one.session) == before
    assert (one.facts.pages, one.facts.sessions) == (2, 1)
    assert (one.facts.first_seen, one.facts.last_seen) == (T0 + 50 * MINUTE, T0 + 100 * MINUTE)


def test_what_is_older_than_half_an_hour_opens_no_visit(one: Visitor) -> None:
    one.does(page(), 0, arrives=31)
    assert one.me.session is None
    assert one.facts.pages == 1
    one.does(page(), 2, arrives=31)
    assert one.session.started_at == T0 + 2 * MINUTE
    one.waits_until(32)
    assert one.me.session is None, "its end is counted from what happened, not from when it arrived"


def test_within_a_visit_the_order_of_arrival_does_not_matter(one: Visitor) -> None:
    one.does(page(), 0)
    one.does(page(), 10)
    one.does(page(), 5, arrives=11)
    assert (one.session.events, one.session.last_at) == (3, T0 + 10 * MINUTE)


@pytest.mark.parametrize("event", [
    track("Consent Updated", marketing=True), track("Message Opened"), track("Order Refunded", order_id="o"),
    call("identify", userId="ann"), call("group", groupId="g"), call("alias", previousId="y"), track("Offer Shown"),
])
def test_what_is_reported_about_somebody_is_no_visit(one: Visitor, event: Event) -> None:
    person = one.does(event)
    assert person.session is None
    assert known(person).version == 1


def test_what_a_visit_counts(one: Visitor) -> None:
    for event in (page(), track("Product Viewed", product_id="p"), track("Product Added", product_id="p"),
                  track("Products Searched", query="tea"), track("Exit Intent"), track("Anything Else")):
        one.does(event)
    session = one.session
    assert (session.events, session.pages, session.products, session.added, session.searches, session.exits) == (
        6, 1, 1, 1, 1, 1)


# -- outcomes --------------------------------------------------------------------------------------------------------


def test_a_visit_with_an_order_gives_one_yes_at_once(one: Visitor) -> None:
    one.does(page(), 0)
    one.snapshot()
    one.does(track("Order Completed", order_id="o-1", revenue=10), 5)
    assert [outcome.label for outcome in one.outcomes] == [True]
    outcome = one.outcomes[0]
    assert (outcome.kind, outcome.person, outcome.features) == ("propensity", "a:x", {"events": 1.0})
    assert (outcome.taken_at, outcome.at, outcome.id) == (T0, T0 + 5 * MINUTE, "clicks-0-2-fold_profile-0")
    one.does(track("Order Completed", order_id="o-2", revenue=10), 6)
    one.waits_until(100)
    assert len(one.outcomes) == 1


def test_a_visit_without_an_order_gives_one_no_at_its_end(one: Visitor) -> None:
    one.does(page(), 0)
    one.snapshot()
    one.waits_until(29)
    assert one.outcomes == []
    one.waits_until(30)
    assert [(outcome.label, outcome.at) for outcome in one.outcomes] == [(False, T0 + 30 * MINUTE)]
    one.does(page(), 31)
    one.waits_until(100)
    assert len(one.outcomes) == 1, "the second visit had no moment"


def test_a_visit_ended_by_a_campaign_gives_its_no(one: Visitor) -> None:
    one.does(page(), 0)
    one.snapshot()
    one.does(page(context={"campaign": {"source": "ads"}}), 1)
    assert [outcome.label for outcome in one.outcomes] == [False]


def test_a_moment_after_the_order_is_not_learned_from(one: Visitor) -> None:
    one.does(page(), 0)
    one.does(page(), 10)
    one.snapshot(10)
    one.does(track("Order Completed", order_id="o-1", revenue=10), 5, arrives=11)
    one.waits_until(100)
    assert one.outcomes == []


def test_a_reloaded_thank_you_page_makes_no_second_purchase(one: Visitor) -> None:
    one.does(track("Order Completed", order_id="o-1", revenue=10), 0)
    one.does(page(), 100)
    one.snapshot(100)
    one.does(track("Product Added", product_id="new"), 101)
    one.does(track("Order Completed", order_id="o-1", revenue=10), 102)
    one.waits_until(200)
    assert [outcome.label for outcome in one.outcomes] == [False]
    assert (one.facts.order_count, one.facts.revenue) == (1, 1000)
    assert one.facts.counts["Order Completed"].n == 1
    assert one.cart() == {"new": 1}


def test_bots_are_remembered_as_bots(one: Visitor) -> None:
    one.does(page(), 0)
    one.snapshot()
    one.does(page(context={"attimo": {"bot": True}}), 1)
    one.does(page(), 2)
    one.waits_until(100)
    assert one.me.bot
    assert one.me.session is None
    assert one.me.timers == {}
    assert one.outcomes == []
    assert one.facts.counts["Page Viewed"].n == 3


def test_a_customer_is_no_bot_because_a_program_called_in_their_name(one: Visitor) -> None:
    ann = {"userId": "ann"}
    one.does(page(**ann), 0)
    person = one.does(page(**ann, context={"attimo": {"bot": True}}), 1)
    assert not person.bot
    assert person.session is not None
    assert (person.session.events, known(person).counts["Page Viewed"].n) == (1, 2)


# -- products, searches, counts --------------------------------------------------------------------------------------


def test_products_are_kept_newest_last_with_their_views(one: Visitor) -> None:
    one.does(track("Product Viewed", product_id="a", name="A", category="tea", price="9.50", currency="USD"), 0)
    one.does(track("Product Viewed", product_id="b", name="B", price=3, url="javascript:x", image_url="/b.jpg"), 1)
    one.does(track("Product Viewed", product_id="a", name="A2", category="tea", price=8), 2)
    assert [(seen.product_id, seen.name, seen.price, seen.views) for seen in one.facts.products] == [
        ("b", "B", 300, 1), ("a", "A2", 800, 2)]
    assert (one.facts.products[0].url, one.facts.products[0].image_url) == ("", "/b.jpg")
    assert one.facts.categories == {"tea": 2}


def test_a_price_without_a_rate_is_kept_in_its_own_currency(one: Visitor) -> None:
    one.does(track("Product Viewed", product_id="a", price=8, currency="XTS"))
    one.does(track("Product Added", product_id="a", price=8, currency="XTS"))
    one.does(track("Product Added", product_id="b", price=2))
    assert (one.facts.products[0].price, one.facts.products[0].currency) == (800, "XTS")
    assert one.me.cart is not None
    assert one.me.cart.value == 200


def test_everything_is_bounded(one: Visitor) -> None:
    one.does(track("Order Completed", order_id="first", revenue=1), 0)
    for n in range(300):
        one.does(track(f"Invented {n}"), 1)
        one.does(track("Product Viewed", product_id=f"p{n}", name="n" * 1_000, category=f"c{n}"), 1)
        one.does(track("Product Added", product_id=f"p{n}", price=1), 1)
        one.does(track("Products Searched", query=f"q{n}" * 200), 1)
        one.does(track("Order Completed", order_id=f"o{n}", revenue=1), 0.5)
    for n in range(20):
        one.does(call("identify", traits={f"t{n}-{k}": "v" * 1_000 for k in range(20)}), 2 + n)
    facts = one.facts
    assert len(facts.counts) <= MAX_COUNTS
    assert {"Order Completed", "Product Viewed", "Product Added", "Identified"} <= facts.counts.keys()
    assert len(facts.products) == MAX_PRODUCTS
    assert len(facts.categories) == MAX_CATEGORIES
    assert len(facts.searches) == MAX_SEARCHES
    assert len(facts.orders) == MAX_ORDERS
    assert len(facts.traits) == MAX_TRAITS
    assert len(one.cart()) == MAX_CART_ITEMS
    assert (facts.order_count, facts.revenue) == (301, 30_100)
    assert len(codec.encode(one.me)) < 100_000


def test_an_order_long_gone_from_the_list_is_still_known(one: Visitor) -> None:
    for n in range(MAX_ORDERS + 100):
        one.does(track("Order Completed", order_id=f"o{n}", revenue=1), n)
    for n in range(MAX_ORDERS + 100):
        one.does(track("Order Completed", order_id=f"o{n}", revenue=1), 500)
    assert (one.facts.order_count, one.facts.revenue) == (120, 12_000)
    one.does(track("Order Refunded", order_id="o3", total=1), 501)
    assert one.facts.revenue == 11_900


def test_names_used_least_give_way(one: Visitor) -> None:
    for _ in range(2):
        one.does(track("Ours"), 0)
    for n in range(500):
        one.does(track(f"Flood {n}"), 1)
    assert "Ours" in one.facts.counts


def test_no_flood_of_names_makes_anybody_forget_an_order(one: Visitor) -> None:
    one.does(track("Order Completed", order_id="o", revenue=1), 0)
    for n in range(500):
        one.does(track(f"Flood {n % 100}"), 1)
        one.does(track(f"Flood {n % 100}"), 1)
    assert one.facts.counts["Order Completed"].n == 1


# -- cart ------------------------------------------------------------------------------------------------------------


def test_a_cart_is_a_state(one: Visitor) -> None:
    one.does(track("Product Added", product_id="a", price=5, quantity=2, cart_id="c"), 0)
    one.does(track("Product Added", product_id="b", price="1.50"), 1)
    one.does(track("Product Added", product_id="a", price=5), 2)
    cart = one.me.cart
    assert cart is not None
    assert (one.cart(), cart.value, cart.cart_id) == ({"b": 1, "a": 3}, 1650, "c")
    assert (cart.created_at, cart.updated_at) == (T0, T0 + 2 * MINUTE)
    one.does(track("Product Removed", product_id="a", quantity=1), 3)
    assert one.cart() == {"b": 1, "a": 2}
    one.does(track("Product Removed", product_id="a"), 4)
    assert one.cart() == {"b": 1}
    one.does(track("Checkout Started", products=[{"product_id": "b", "price": 1.5}, {"product_id": "c"}]), 5)
    assert one.cart() == {"b": 1, "c": 1}
    assert one.me.cart is not None
    assert one.me.cart.checkout_at == T0 + 5 * MINUTE
    one.does(track("Cart Viewed", products=[{"product_id": "c", "quantity": 4}]), 6)
    assert one.cart() == {"c": 4}
    one.does(track("Cart Viewed"), 7)
    assert one.cart() == {"c": 4}, "an event that does not name the products says nothing about them"
    one.does(track("Cart Cleared"), 8)
    assert one.me.cart is None


def test_an_empty_cart_is_no_cart(one: Visitor) -> None:
    one.does(track("Product Added", product_id="a"), 0)
    one.does(track("Product Removed", product_id="a"), 1)
    assert one.me.cart is None
    one.does(track("Product Added", product_id="a"), 2)
    one.does(track("Cart Viewed", products=[]), 3)
    assert one.me.cart is None


def test_an_order_empties_the_cart_of_what_was_in_it_before(one: Visitor) -> None:
    one.does(track("Product Added", product_id="a"), 0)
    one.does(track("Product Added", product_id="b"), 6)
    one.does(track("Order Completed", order_id="o", revenue=1), 5, arrives=7)
    assert one.cart() == {"b": 1}


def test_late_news_of_a_paid_cart_brings_nothing_back(one: Visitor) -> None:
    one.does(track("Order Completed", order_id="o", revenue=1), 5)
    one.does(track("Product Added", product_id="a"), 4, arrives=6)
    one.does(track("Cart Viewed", products=[{"product_id": "a"}]), 4, arrives=6)
    one.does(track("Checkout Started", products=[{"product_id": "a"}]), 4, arrives=6)
    assert one.me.cart is None


# -- orders ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("properties", "value"), [
    ({"revenue": 25, "total": 30}, 2500), ({"total": "30.00"}, 3000), ({"value": 7}, 700),
    ({"products": [{"product_id": "a", "price": 2, "quantity": 3}, {"price": 1}]}, 700), ({}, 0),
    ({"revenue": 10, "currency": "USD"}, 500),
])
def test_what_an_order_is_worth(one: Visitor, properties: dict[str, Any], value: int) -> None:
    one.does(track("Order Completed", order_id="o", **properties))
    assert (one.facts.revenue, one.facts.order_count) == (value, 1)


def test_an_order_in_a_currency_without_a_rate_is_kept_and_not_summed(one: Visitor) -> None:
    one.does(track("Order Completed", order_id="o", revenue=10, currency="XTS"))
    one.does(track("Order Refunded", order_id="o", total=4, currency="XTS"), 1)
    order = one.facts.orders[0]
    assert (order.value, order.currency, order.refunded) == (1000, "XTS", 400)
    assert (one.facts.revenue, one.facts.order_count, one.facts.refunds) == (0, 1, 1)


def test_refunds_updates_and_cancellations(one: Visitor) -> None:
    one.does(track("Order Completed", order_id="o", revenue=10, products=[{"product_id": "a", "quantity": 2}]), 0)
    one.does(track("Order Refunded", order_id="o", total=4), 1)
    assert (one.facts.revenue, one.facts.refunds) == (600, 1)
    one.does(track("Order Updated", order_id="o", revenue=12), 2)
    assert one.facts.revenue == 800
    one.does(track("Order Updated", order_id="o"), 2)
    assert one.facts.revenue == 800
    one.does(track("Order Refunded", order_id="o"), 3)
    assert (one.facts.revenue, one.facts.order_count) == (0, 1)
    one.does(track("Order Refunded", order_id="o", total=4), 4)
    assert one.facts.revenue == 0, "never more than was paid"
    one.does(track("Order Completed", order_id="p", revenue=5), 5)
    one.does(track("Order Cancelled", order_id="p"), 6)
    one.does(track("Order Cancelled", order_id="p"), 7)
    assert (one.facts.revenue, one.facts.order_count) == (0, 1)
    one.does(track("Order Refunded", order_id="unknown", total=99), 8)
    assert one.facts.revenue == 0
    assert one.facts.orders[0].items == 2


def test_an_order_at_the_till_counts_and_leaves_visit_and_cart_alone(one: Visitor) -> None:
    one.does(page(), 0)
    one.snapshot()
    one.does(track("Product Added", product_id="a"), 1)
    one.does(track("Order Completed", context={"attimo": {"offline": True}}, order_id="till", revenue=3), 2)
    assert (one.facts.order_count, one.facts.offline_orders, one.facts.revenue) == (1, 1, 300)
    assert one.cart() == {"a": 1}
    assert one.session.last_at == T0 + MINUTE
    one.waits_until(60)
    assert [outcome.label for outcome in one.outcomes] == [False]


def test_the_tills_report_of_a_web_order_does_not_hide_it(one: Visitor) -> None:
    one.does(page(), 0)
    one.snapshot()
    one.does(track("Product Added", product_id="a"), 1)
    one.does(track("Order Completed", context={"attimo": {"offline": True}}, order_id="o", revenue=3), 2)
    for _ in range(2):
        one.does(track("Order Completed", order_id="o", revenue=3), 3)
    assert (one.facts.order_count, one.facts.offline_orders, one.facts.revenue) == (1, 0, 300)
    assert one.cart() == {}
    assert [outcome.label for outcome in one.outcomes] == [True]


def test_an_order_without_an_id_goes_by_its_message(one: Visitor) -> None:
    one.does(track("Order Completed", who={"messageId": "m1"}, revenue=3))
    assert one.facts.orders[0].order_id == "m:m1"


# -- traits and consent ----------------------------------------------------------------------------------------------


def test_the_latest_trait_wins_whatever_arrives_last(one: Visitor) -> None:
    one.does(call("identify", traits={"plan": "gold", "address": {"city": "Roma"}, "tags": ["x"]}), 10)
    one.does(call("identify", traits={"plan": "free", "age": 41}), 5, arrives=11)
    values = {name: trait.value for name, trait in one.facts.traits.items()}
    assert values == {"plan": "gold", "address.city": "Roma", "age": 41}


def test_traits_of_the_same_time_do_not_depend_on_arrival() -> None:
    calls = [call("identify", messageId=f"m{n}", traits={"plan": n}) for n in range(5)]
    seen = set()
    for turn in range(5):
        one = Visitor()
        for event in calls[turn:] + calls[:turn]:
            one.does(event)
        seen.add(one.facts.traits["plan"].value)
    assert len(seen) == 1


def test_consent_is_the_latest_answer_and_a_no_in_doubt(one: Visitor) -> None:
    one.does(track("Consent Updated", marketing=True, analytics="granted"), 0)
    one.does(call("identify", traits={"consent": {"marketing": False}}), 1)
    one.does(track("Consent Updated", marketing=True), 1)
    assert {name: trait.value for name, trait in one.facts.consent.items()} == {"marketing": False, "analytics": True}
    one.does(track("Consent Updated", marketing=True), 2)
    assert one.facts.consent["marketing"].value is True


def test_a_huge_number_is_text(one: Visitor) -> None:
    one.does(call("identify", traits={"id": 2**70, "no": -2**63, "yes": 2**64}))
    assert one.facts.traits["id"].value == str(2**70)
    assert codec.decode(codec.encode(one.me)) == one.me


# -- what cannot be read ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("event", "field"), [
    (track("Product Viewed", product_id="p", price="cheap"), "properties.price"),
    (track("Product Viewed", product_id="p", price=True), "properties.price"),
    (track("Product Viewed", product_id="p", price=-1), "properties.price"),
    (track("Product Viewed", product_id="p", price=1e300), "properties.price"),
    (track("Product Viewed", product_id="p", price=2**70), "properties.price"),
    (track("Product Viewed", product_id="p", price=[1]), "properties.price"),
    (track("Product Viewed", product_id="p", price=1, currency=7), "properties.currency"),
    (track("Product Viewed"), "properties.product_id"),
    (track("Product Viewed", product_id={"a": 1}), "properties.product_id"),
    (track("Product Viewed", product_id="p" * 200), "properties.product_id"),
    (track("Product Viewed", product_id="p", name=["x"]), "properties.name"),
    (track("Product Added", product_id="p", quantity="many"), "properties.quantity"),
    (track("Product Added", product_id="p", quantity=-3), "properties.quantity"),
    (track("Product Added", product_id="p", quantity=10**9), "properties.quantity"),
    (track("Product Added", product_id="p", quantity="nan"), "properties.quantity"),
    (track("Cart Viewed", products="mug"), "properties.products"),
    (track("Cart Viewed", products=["mug"]), "properties.products[0]"),
    (track("Cart Viewed", products=[{"product_id": "a"}, {"product_id": "b", "price": "x"}]),
     "properties.products[1].price"),
    (track("Cart Viewed", products=[{"product_id": "a"}] * 501), "properties.products"),
    (track("Order Completed", revenue=5), "properties.order_id"),
    (track("Order Completed", order_id="o" * 200, revenue=5), "properties.order_id"),
    (track("Order Completed", order_id="o", revenue="5 euros"), "properties.revenue"),
    (track("Products Searched", query={"q": 1}), "properties.query"),
    (track("Consent Updated", marketing="maybe"), "properties.marketing"),
    (track("x" * 300), "event"),
    (track(""), "event"),
    (call("identify", traits={f"t{n}": n for n in range(300)}), "traits"),
    (call("identify", traits={"n" * 200: 1}), "traits"),
])
def test_what_cannot_be_read_is_refused_by_name_and_leaves_no_trace(event: Event, field: str) -> None:
    one = Visitor()
    one.does(page(), 0)
    before = codec.encode(one.me)
    with pytest.raises(Unreadable) as refused:
        one.does(event, 1)
    assert str(refused.value).startswith(field)
    assert codec.encode(one.me) == before


ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3), max_leaves=6)
FIELDS = st.sampled_from(["product_id", "sku", "name", "category", "brand", "price", "currency", "quantity", "url",
                          "image_url", "products", "order_id", "revenue", "total", "value", "query", "cart_id"])
NAMES = st.sampled_from(["Product Viewed", "Product Added", "Product Removed", "Cart Viewed", "Cart Updated",
                         "Cart Cleared", "Checkout Started", "Order Completed", "Order Updated", "Order Refunded",
                         "Order Cancelled", "Products Searched", "Product List Viewed", "Consent Updated"])
CALLS = st.tuples(NAMES, st.dictionaries(FIELDS, ODD, max_size=6), st.integers(-120, 0))


@given(st.lists(CALLS, max_size=12))
@settings(max_examples=examples(100), deadline=None)
def test_whatever_comes_is_folded_or_refused_and_can_be_stored(calls: list[tuple[str, dict[str, Any], int]]) -> None:
    context = Context(0, compile_rules(EURO))
    person = Person(id="a:x")
    for n, (name, properties, late) in enumerate(calls):
        now = T0 + n * 10 * MINUTE
        context.begin(f"clicks-0-{n}", now, now + late * MINUTE)
        before = codec.encode(person)
        try:
            fold_profile.step(person, track(name, **properties), context)
        except Unreadable:
            assert codec.encode(person) == before
        assert codec.decode(codec.encode(person)) == person
        facts = known(person)
        assert facts.order_count >= 0
        assert facts.revenue >= 0
        assert person.cart is None or person.cart.items


def test_folding_is_deterministic() -> None:
    """The same history gives the same bytes."""
    def fold() -> bytes:
        one = Visitor()
        for n in range(60):
            one.does(track("Product Viewed", product_id=f"p{n % 25}", category=f"c{n % 30}", price=n), n)
            one.does(track(f"Event {n % 70}"), n)
        return codec.encode(one.me)

    assert fold() == fold()


def test_a_time_of_its_own_is_what_counts(one: Visitor) -> None:
    event = call("page", timestamp=datetime.fromtimestamp(T0 / 1000, UTC).isoformat())
    assert events.event_time(event, T0 + 5) == T0


SENT, LOGGED = T0 + 3 * 3_600_000, T0 + 400
"""A producer whose clock is three hours fast; the log took its record 400 ms after the event."""


@pytest.mark.parametrize(("said", "expected"), [
    ({"timestamp": SENT - 300, "sentAt": SENT}, LOGGED - 300),
    ({"originalTimestamp": SENT - 300, "sentAt": SENT}, LOGGED - 300),
    ({"originalTimestamp": SENT - 300, "timestamp": T0, "sentAt": SENT}, LOGGED - 300),
    ({"timestamp": SENT - 300}, LOGGED),
    ({"timestamp": T0 - 7_200_000 - 300, "sentAt": T0 - 7_200_000}, LOGGED - 300),
    ({"timestamp": SENT + 300, "sentAt": SENT}, LOGGED),
    ({"sentAt": SENT}, LOGGED),
    ({"originalTimestamp": SENT - 300, "timestamp": T0, "sentAt": SENT, "receivedAt": LOGGED}, T0),
], ids=["timestamp", "original", "original-first", "never-later-than-the-log", "slow-clock", "sent-before-it-happened",
        "no-time-of-its-own", "corrected-by-the-collector"])
def test_the_clock_of_a_producer_on_kafka_is_corrected(said: dict[str, int], expected: int) -> None:
    event = call("page", **{name: datetime.fromtimestamp(at / 1000, UTC).isoformat() for name, at in said.items()})
    assert events.event_time(event, LOGGED) == expected
