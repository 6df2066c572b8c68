"""update_profile: what happened becomes what is known. Each test is a small story with times in minutes."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain import event as events
from domain.event import Event
from domain.playbook.playbook import Playbook
from domain.playbook.shop import Shop
from operators import update_profile
from state.context import InvalidEvent, StepContext
from state.person import codec
from state.person.model import (
    MAX_CART_ITEMS,
    MAX_CATEGORIES,
    MAX_LIFETIME_COUNTS,
    MAX_ORDERS,
    MAX_SEARCHES,
    MAX_TRAITS,
    MAX_VIEWED_PRODUCTS,
    Person,
    ProfileFragment,
    Session,
)
from state.playbook.compiled import compile_rules
from state.profile.profile import merged_profile
from state.profile.session import SESSION_TIMER
from tests.harness.step_runner import StepRunner
from tests.harness.support import examples
from tests.strategies.persons import T0

MINUTE = 60_000
EURO = Playbook(shop=Shop(currency="EUR", exchange_rates={"USD": 0.5}))


def make_call(kind: str, **fields: Any) -> Event:
    event: Event = events.decode(msgspec.json.encode({"type": kind, "anonymousId": "x", **fields}))
    return event


def make_track(
    what: str, /, *, context: dict[str, Any] | None = None, ids: dict[str, Any] | None = None, **properties: Any
) -> Event:
    return make_call("track", event=what, properties=properties, context=context, **(ids or {}))


def make_page(url: str = "https://shop.example/", **fields: Any) -> Event:
    return make_call("page", **{"context": {"page": {"url": url, "referrer": "https://search.example/"}}, **fields})


class ProfileHarness(StepRunner):
    """One visitor; times are minutes after T0."""

    def __init__(self) -> None:
        super().__init__(EURO, steps=(update_profile.step,))

    def emit(self, event: Event, minute: float = 0, arrival: float | None = None) -> Person:
        now = None if arrival is None else T0 + round(arrival * MINUTE)
        return self.apply(event, T0 + round(minute * MINUTE), now)

    def advance_to(self, minute: float) -> None:
        self.advance(T0 + round(minute * MINUTE))

    @property
    def current_person(self) -> Person:
        return self.person("a:x")

    @property
    def profile(self) -> ProfileFragment:
        return merged_profile(self.current_person)

    @property
    def session(self) -> Session:
        assert self.current_person.session is not None
        return self.current_person.session

    def cart_quantities(self) -> dict[str, int]:
        return (
            {}
            if self.current_person.cart is None
            else {name: item.quantity for name, item in self.current_person.cart.items.items()}
        )

    def take_snapshot(self, minute: float = 0) -> None:
        """A moment to learn from, as score takes it."""
        self.session.snapshot, self.session.snapshot_at = {"events": 1.0}, T0 + round(minute * MINUTE)


@pytest.fixture
def harness() -> ProfileHarness:
    return ProfileHarness()


# -- sessions --------------------------------------------------------------------------------------------------------


def test_session_starts_with_the_first_page(harness: ProfileHarness) -> None:
    harness.emit(
        make_page(
            context={
                "page": {"url": "https://shop.example/tea", "referrer": "https://search.example/"},
                "attimo": {"country": "CA", "device": "mobile"},
                "locale": "fr-CA",
                "timezone": "UTC",
            }
        )
    )
    session = harness.session
    assert (session.started_at, session.last_at, session.pages, session.events) == (T0, T0, 1, 1)
    assert (session.landing_page, session.referrer) == ("https://shop.example/tea", "https://search.example/")
    assert (session.first_session, session.anonymous_id, session.country, session.device) == (True, "x", "CA", "mobile")
    assert (harness.profile.sessions, harness.profile.pages, harness.profile.first_seen) == (1, 1, T0)
    assert (harness.profile.locale, harness.profile.timezone) == ("fr-CA", "UTC")
    assert harness.current_person.timers == {SESSION_TIMER: T0 + 30 * MINUTE}


def test_session_lasts_while_events_are_30_minutes_apart(harness: ProfileHarness) -> None:
    for minute in (0, 29, 58, 87):
        harness.emit(make_page(), minute)
    assert (harness.session.pages, harness.profile.sessions) == (4, 1)
    harness.advance_to(87 + 29.9)
    assert harness.current_person.session is not None
    harness.advance_to(87 + 30)
    assert harness.current_person.session is None
    assert harness.current_person.timers == {}


def test_session_timer_moves_only_when_it_fires(harness: ProfileHarness) -> None:
    harness.emit(make_page(), 0)
    harness.emit(make_page(), 20)
    assert harness.current_person.timers[SESSION_TIMER] == T0 + 30 * MINUTE
    harness.advance_to(30)
    assert harness.current_person.timers[SESSION_TIMER] == T0 + 50 * MINUTE


def test_next_session_is_not_the_first(harness: ProfileHarness) -> None:
    harness.emit(make_page(), 0)
    first = harness.session.id
    harness.emit(make_page(), 31)
    assert harness.session.id != first
    assert not harness.session.first_session
    assert harness.profile.sessions == 2


def test_new_utm_campaign_starts_a_new_session(harness: ProfileHarness) -> None:
    spring = {"campaign": {"source": "newsletter", "medium": "email", "name": "spring"}}
    harness.emit(make_page(context=spring), 0)
    harness.emit(make_page(), 1)
    harness.emit(make_page(context=spring), 2)
    assert harness.profile.sessions == 1
    harness.emit(make_page(context={"campaign": {"source": "ads"}}), 3)
    assert harness.profile.sessions == 2
    assert (harness.session.source, harness.session.medium, harness.session.started_at) == ("ads", "", T0 + 3 * MINUTE)
    assert harness.profile.first_source is not None
    assert harness.profile.last_source is not None
    assert (harness.profile.first_source.campaign, harness.profile.last_source.source) == ("spring", "ads")


def test_late_event_does_not_change_the_session(harness: ProfileHarness) -> None:
    harness.emit(make_page(), 100)
    before = msgspec.to_builtins(harness.session)
    harness.emit(make_page(context={"campaign": {"source": "ads"}}), 50, arrival=101)
    assert msgspec.to_builtins(harness.session) == before
    assert (harness.profile.pages, harness.profile.sessions) == (2, 1)
    assert (harness.profile.first_seen, harness.profile.last_seen) == (T0 + 50 * MINUTE, T0 + 100 * MINUTE)


def test_event_older_than_30_minutes_opens_no_session(harness: ProfileHarness) -> None:
    harness.emit(make_page(), 0, arrival=31)
    assert harness.current_person.session is None
    assert harness.profile.pages == 1
    harness.emit(make_page(), 2, arrival=31)
    assert harness.session.started_at == T0 + 2 * MINUTE
    harness.advance_to(32)
    assert harness.current_person.session is None, "its end is counted from what happened, not from when it arrived"


def test_arrival_order_within_a_session_does_not_matter(harness: ProfileHarness) -> None:
    harness.emit(make_page(), 0)
    harness.emit(make_page(), 10)
    harness.emit(make_page(), 5, arrival=11)
    assert (harness.session.events, harness.session.last_at) == (3, T0 + 10 * MINUTE)


@pytest.mark.parametrize(
    "event",
    [
        make_track("Consent Updated", marketing=True),
        make_track("Message Opened"),
        make_track("Order Refunded", order_id="o"),
        make_call("identify", userId="ann"),
        make_call("group", groupId="g"),
        make_call("alias", previousId="y"),
        make_track("Offer Shown"),
    ],
)
def test_server_events_open_no_session(harness: ProfileHarness, event: Event) -> None:
    person = harness.emit(event)
    assert person.session is None
    assert merged_profile(person).version == 1


def test_session_counters(harness: ProfileHarness) -> None:
    for event in (
        make_page(),
        make_track("Product Viewed", product_id="p"),
        make_track("Product Added", product_id="p"),
        make_track("Products Searched", query="tea"),
        make_track("Exit Intent"),
        make_track("Anything Else"),
    ):
        harness.emit(event)
    session = harness.session
    assert (
        session.events,
        session.pages,
        session.products,
        session.cart_adds,
        session.searches,
        session.exit_intents,
    ) == (6, 1, 1, 1, 1, 1)


# -- outcomes --------------------------------------------------------------------------------------------------------


def test_session_with_order_yields_one_positive_outcome(harness: ProfileHarness) -> None:
    harness.emit(make_page(), 0)
    harness.take_snapshot()
    harness.emit(make_track("Order Completed", order_id="o-1", revenue=10), 5)
    assert [outcome.label for outcome in harness.outcomes] == [True]
    outcome = harness.outcomes[0]
    assert (outcome.kind, outcome.person, outcome.features) == ("propensity", "a:x", {"events": 1.0})
    assert (outcome.features_at, outcome.at, outcome.id) == (T0, T0 + 5 * MINUTE, "clicks-0-2-update_profile-0")
    harness.emit(make_track("Order Completed", order_id="o-2", revenue=10), 6)
    harness.advance_to(100)
    assert len(harness.outcomes) == 1


def test_session_without_order_yields_one_negative_outcome(harness: ProfileHarness) -> None:
    harness.emit(make_page(), 0)
    harness.take_snapshot()
    harness.advance_to(29)
    assert harness.outcomes == []
    harness.advance_to(30)
    assert [(outcome.label, outcome.at) for outcome in harness.outcomes] == [(False, T0 + 30 * MINUTE)]
    harness.emit(make_page(), 31)
    harness.advance_to(100)
    assert len(harness.outcomes) == 1, "the second visit had no moment"


def test_session_ended_by_campaign_yields_negative_outcome(harness: ProfileHarness) -> None:
    harness.emit(make_page(), 0)
    harness.take_snapshot()
    harness.emit(make_page(context={"campaign": {"source": "ads"}}), 1)
    assert [outcome.label for outcome in harness.outcomes] == [False]


def test_snapshot_after_the_order_is_not_learned_from(harness: ProfileHarness) -> None:
    harness.emit(make_page(), 0)
    harness.emit(make_page(), 10)
    harness.take_snapshot(10)
    harness.emit(make_track("Order Completed", order_id="o-1", revenue=10), 5, arrival=11)
    harness.advance_to(100)
    assert harness.outcomes == []


def test_repeated_order_event_counts_once(harness: ProfileHarness) -> None:
    harness.emit(make_track("Order Completed", order_id="o-1", revenue=10), 0)
    harness.emit(make_page(), 100)
    harness.take_snapshot(100)
    harness.emit(make_track("Product Added", product_id="new"), 101)
    harness.emit(make_track("Order Completed", order_id="o-1", revenue=10), 102)
    harness.advance_to(200)
    assert [outcome.label for outcome in harness.outcomes] == [False]
    assert (harness.profile.order_count, harness.profile.revenue) == (1, 1000)
    assert harness.profile.lifetime_counts["Order Completed"].count == 1
    assert harness.cart_quantities() == {"new": 1}


def test_bot_flag_is_stored(harness: ProfileHarness) -> None:
    harness.emit(make_page(), 0)
    harness.take_snapshot()
    harness.emit(make_page(context={"attimo": {"bot": True}}), 1)
    harness.emit(make_page(), 2)
    harness.advance_to(100)
    assert harness.current_person.bot
    assert harness.current_person.session is None
    assert harness.current_person.timers == {}
    assert harness.outcomes == []
    assert harness.profile.lifetime_counts["Page Viewed"].count == 3


def test_bot_event_does_not_mark_a_known_customer(harness: ProfileHarness) -> None:
    ann = {"userId": "ann"}
    harness.emit(make_page(**ann), 0)
    person = harness.emit(make_page(**ann, context={"attimo": {"bot": True}}), 1)
    assert not person.bot
    assert person.session is not None
    assert (person.session.events, merged_profile(person).lifetime_counts["Page Viewed"].count) == (1, 2)


# -- products, searches, counts --------------------------------------------------------------------------------------


def test_viewed_products_are_kept_newest_last(harness: ProfileHarness) -> None:
    harness.emit(
        make_track("Product Viewed", product_id="a", name="A", category="tea", price="9.50", currency="USD"), 0
    )
    harness.emit(
        make_track("Product Viewed", product_id="b", name="B", price=3, url="javascript:x", image_url="/b.jpg"), 1
    )
    harness.emit(make_track("Product Viewed", product_id="a", name="A2", category="tea", price=8), 2)
    assert [(seen.product_id, seen.name, seen.price, seen.views) for seen in harness.profile.viewed_products] == [
        ("b", "B", 300, 1),
        ("a", "A2", 800, 2),
    ]
    assert (harness.profile.viewed_products[0].url, harness.profile.viewed_products[0].image_url) == ("", "/b.jpg")
    assert harness.profile.category_views == {"tea": 2}


def test_a_price_without_a_rate_is_kept_in_its_own_currency(harness: ProfileHarness) -> None:
    harness.emit(make_track("Product Viewed", product_id="a", price=8, currency="XTS"))
    harness.emit(make_track("Product Added", product_id="a", price=8, currency="XTS"))
    harness.emit(make_track("Product Added", product_id="b", price=2))
    assert (harness.profile.viewed_products[0].price, harness.profile.viewed_products[0].currency) == (800, "XTS")
    assert harness.current_person.cart is not None
    assert harness.current_person.cart.value == 200


def test_profile_size_is_bounded(harness: ProfileHarness) -> None:
    harness.emit(make_track("Order Completed", order_id="first", revenue=1), 0)
    for n in range(300):
        harness.emit(make_track(f"Invented {n}"), 1)
        harness.emit(make_track("Product Viewed", product_id=f"p{n}", name="n" * 1_000, category=f"c{n}"), 1)
        harness.emit(make_track("Product Added", product_id=f"p{n}", price=1), 1)
        harness.emit(make_track("Products Searched", query=f"q{n}" * 200), 1)
        harness.emit(make_track("Order Completed", order_id=f"o{n}", revenue=1), 0.5)
    for n in range(20):
        harness.emit(make_call("identify", traits={f"t{n}-{k}": "v" * 1_000 for k in range(20)}), 2 + n)
    facts = harness.profile
    assert len(facts.lifetime_counts) <= MAX_LIFETIME_COUNTS
    assert {"Order Completed", "Product Viewed", "Product Added", "Identified"} <= facts.lifetime_counts.keys()
    assert len(facts.viewed_products) == MAX_VIEWED_PRODUCTS
    assert len(facts.category_views) == MAX_CATEGORIES
    assert len(facts.searches) == MAX_SEARCHES
    assert len(facts.orders) == MAX_ORDERS
    assert len(facts.traits) == MAX_TRAITS
    assert len(harness.cart_quantities()) == MAX_CART_ITEMS
    assert (facts.order_count, facts.revenue) == (301, 30_100)
    assert len(codec.encode(harness.current_person)) < 100_000


def test_evicted_order_is_still_deduplicated(harness: ProfileHarness) -> None:
    for n in range(MAX_ORDERS + 100):
        harness.emit(make_track("Order Completed", order_id=f"o{n}", revenue=1), n)
    for n in range(MAX_ORDERS + 100):
        harness.emit(make_track("Order Completed", order_id=f"o{n}", revenue=1), 500)
    assert (harness.profile.order_count, harness.profile.revenue) == (120, 12_000)
    harness.emit(make_track("Order Refunded", order_id="o3", total=1), 501)
    assert harness.profile.revenue == 11_900


def test_least_used_event_names_are_evicted(harness: ProfileHarness) -> None:
    for _ in range(2):
        harness.emit(make_track("Ours"), 0)
    for n in range(500):
        harness.emit(make_track(f"Flood {n}"), 1)
    assert "Ours" in harness.profile.lifetime_counts


def test_orders_are_never_evicted_by_event_names(harness: ProfileHarness) -> None:
    harness.emit(make_track("Order Completed", order_id="o", revenue=1), 0)
    for n in range(500):
        harness.emit(make_track(f"Flood {n % 100}"), 1)
        harness.emit(make_track(f"Flood {n % 100}"), 1)
    assert harness.profile.lifetime_counts["Order Completed"].count == 1


# -- cart ------------------------------------------------------------------------------------------------------------


def test_cart_follows_cart_events(harness: ProfileHarness) -> None:
    harness.emit(make_track("Product Added", product_id="a", price=5, quantity=2, cart_id="c"), 0)
    harness.emit(make_track("Product Added", product_id="b", price="1.50"), 1)
    harness.emit(make_track("Product Added", product_id="a", price=5), 2)
    cart = harness.current_person.cart
    assert cart is not None
    assert (harness.cart_quantities(), cart.value, cart.cart_id) == ({"b": 1, "a": 3}, 1650, "c")
    assert (cart.created_at, cart.updated_at) == (T0, T0 + 2 * MINUTE)
    harness.emit(make_track("Product Removed", product_id="a", quantity=1), 3)
    assert harness.cart_quantities() == {"b": 1, "a": 2}
    harness.emit(make_track("Product Removed", product_id="a"), 4)
    assert harness.cart_quantities() == {"b": 1}
    harness.emit(make_track("Checkout Started", products=[{"product_id": "b", "price": 1.5}, {"product_id": "c"}]), 5)
    assert harness.cart_quantities() == {"b": 1, "c": 1}
    assert harness.current_person.cart is not None
    assert harness.current_person.cart.checkout_at == T0 + 5 * MINUTE
    harness.emit(make_track("Cart Viewed", products=[{"product_id": "c", "quantity": 4}]), 6)
    assert harness.cart_quantities() == {"c": 4}
    harness.emit(make_track("Cart Viewed"), 7)
    assert harness.cart_quantities() == {"c": 4}, "an event that does not name the products says nothing about them"
    harness.emit(make_track("Cart Cleared"), 8)
    assert harness.current_person.cart is None


def test_empty_cart_is_removed(harness: ProfileHarness) -> None:
    harness.emit(make_track("Product Added", product_id="a"), 0)
    harness.emit(make_track("Product Removed", product_id="a"), 1)
    assert harness.current_person.cart is None
    harness.emit(make_track("Product Added", product_id="a"), 2)
    harness.emit(make_track("Cart Viewed", products=[]), 3)
    assert harness.current_person.cart is None


def test_order_removes_only_earlier_cart_items(harness: ProfileHarness) -> None:
    harness.emit(make_track("Product Added", product_id="a"), 0)
    harness.emit(make_track("Product Added", product_id="b"), 6)
    harness.emit(make_track("Order Completed", order_id="o", revenue=1), 5, arrival=7)
    assert harness.cart_quantities() == {"b": 1}


def test_late_cart_events_do_not_restore_a_paid_cart(harness: ProfileHarness) -> None:
    harness.emit(make_track("Order Completed", order_id="o", revenue=1), 5)
    harness.emit(make_track("Product Added", product_id="a"), 4, arrival=6)
    harness.emit(make_track("Cart Viewed", products=[{"product_id": "a"}]), 4, arrival=6)
    harness.emit(make_track("Checkout Started", products=[{"product_id": "a"}]), 4, arrival=6)
    assert harness.current_person.cart is None


# -- orders ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("properties", "value"),
    [
        ({"revenue": 25, "total": 30}, 2500),
        ({"total": "30.00"}, 3000),
        ({"value": 7}, 700),
        ({"products": [{"product_id": "a", "price": 2, "quantity": 3}, {"price": 1}]}, 700),
        ({}, 0),
        ({"revenue": 10, "currency": "USD"}, 500),
    ],
)
def test_order_value(harness: ProfileHarness, properties: dict[str, Any], value: int) -> None:
    harness.emit(make_track("Order Completed", order_id="o", **properties))
    assert (harness.profile.revenue, harness.profile.order_count) == (value, 1)


def test_order_without_exchange_rate_is_not_summed(harness: ProfileHarness) -> None:
    harness.emit(make_track("Order Completed", order_id="o", revenue=10, currency="XTS"))
    harness.emit(make_track("Order Refunded", order_id="o", total=4, currency="XTS"), 1)
    order = harness.profile.orders[0]
    assert (order.value, order.currency, order.refunded) == (1000, "XTS", 400)
    assert (harness.profile.revenue, harness.profile.order_count, harness.profile.refunds) == (0, 1, 1)


def test_refunds_updates_and_cancellations(harness: ProfileHarness) -> None:
    harness.emit(
        make_track("Order Completed", order_id="o", revenue=10, products=[{"product_id": "a", "quantity": 2}]), 0
    )
    harness.emit(make_track("Order Refunded", order_id="o", total=4), 1)
    assert (harness.profile.revenue, harness.profile.refunds) == (600, 1)
    harness.emit(make_track("Order Updated", order_id="o", revenue=12), 2)
    assert harness.profile.revenue == 800
    harness.emit(make_track("Order Updated", order_id="o"), 2)
    assert harness.profile.revenue == 800
    harness.emit(make_track("Order Refunded", order_id="o"), 3)
    assert (harness.profile.revenue, harness.profile.order_count) == (0, 1)
    harness.emit(make_track("Order Refunded", order_id="o", total=4), 4)
    assert harness.profile.revenue == 0, "never more than was paid"
    harness.emit(make_track("Order Completed", order_id="p", revenue=5), 5)
    harness.emit(make_track("Order Cancelled", order_id="p"), 6)
    harness.emit(make_track("Order Cancelled", order_id="p"), 7)
    assert (harness.profile.revenue, harness.profile.order_count) == (0, 1)
    harness.emit(make_track("Order Refunded", order_id="unknown", total=99), 8)
    assert harness.profile.revenue == 0
    assert harness.profile.orders[0].items == 2


def test_offline_order_leaves_session_and_cart_unchanged(harness: ProfileHarness) -> None:
    harness.emit(make_page(), 0)
    harness.take_snapshot()
    harness.emit(make_track("Product Added", product_id="a"), 1)
    harness.emit(make_track("Order Completed", context={"attimo": {"offline": True}}, order_id="till", revenue=3), 2)
    assert (harness.profile.order_count, harness.profile.offline_orders, harness.profile.revenue) == (1, 1, 300)
    assert harness.cart_quantities() == {"a": 1}
    assert harness.session.last_at == T0 + MINUTE
    harness.advance_to(60)
    assert [outcome.label for outcome in harness.outcomes] == [False]


def test_offline_duplicate_does_not_hide_a_web_order(harness: ProfileHarness) -> None:
    harness.emit(make_page(), 0)
    harness.take_snapshot()
    harness.emit(make_track("Product Added", product_id="a"), 1)
    harness.emit(make_track("Order Completed", context={"attimo": {"offline": True}}, order_id="o", revenue=3), 2)
    for _ in range(2):
        harness.emit(make_track("Order Completed", order_id="o", revenue=3), 3)
    assert (harness.profile.order_count, harness.profile.offline_orders, harness.profile.revenue) == (1, 0, 300)
    assert harness.cart_quantities() == {}
    assert [outcome.label for outcome in harness.outcomes] == [True]


def test_order_without_id_uses_its_message_id(harness: ProfileHarness) -> None:
    harness.emit(make_track("Order Completed", ids={"messageId": "m1"}, revenue=3))
    assert harness.profile.orders[0].order_id == "m:m1"


# -- traits and consent ----------------------------------------------------------------------------------------------


def test_latest_trait_wins_in_any_arrival_order(harness: ProfileHarness) -> None:
    harness.emit(make_call("identify", traits={"plan": "gold", "address": {"city": "Roma"}, "tags": ["x"]}), 10)
    harness.emit(make_call("identify", traits={"plan": "free", "age": 41}), 5, arrival=11)
    values = {name: trait.value for name, trait in harness.profile.traits.items()}
    assert values == {"plan": "gold", "address.city": "Roma", "age": 41}


def test_equal_time_traits_do_not_depend_on_arrival() -> None:
    calls = [make_call("identify", messageId=f"m{n}", traits={"plan": n}) for n in range(5)]
    seen = set()
    for turn in range(5):
        one = ProfileHarness()
        for event in calls[turn:] + calls[:turn]:
            one.emit(event)
        seen.add(one.profile.traits["plan"].value)
    assert len(seen) == 1


def test_latest_consent_wins_and_ties_deny(harness: ProfileHarness) -> None:
    harness.emit(make_track("Consent Updated", marketing=True, analytics="granted"), 0)
    harness.emit(make_call("identify", traits={"consent": {"marketing": False}}), 1)
    harness.emit(make_track("Consent Updated", marketing=True), 1)
    assert {name: trait.value for name, trait in harness.profile.consent.items()} == {
        "marketing": False,
        "analytics": True,
    }
    harness.emit(make_track("Consent Updated", marketing=True), 2)
    assert harness.profile.consent["marketing"].value is True


def test_huge_number_is_stored_as_text(harness: ProfileHarness) -> None:
    harness.emit(make_call("identify", traits={"id": 2**70, "no": -(2**63), "yes": 2**64}))
    assert harness.profile.traits["id"].value == str(2**70)
    assert codec.decode(codec.encode(harness.current_person)) == harness.current_person


# -- what cannot be read ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "field"),
    [
        (make_track("Product Viewed", product_id="p", price="cheap"), "properties.price"),
        (make_track("Product Viewed", product_id="p", price=True), "properties.price"),
        (make_track("Product Viewed", product_id="p", price=-1), "properties.price"),
        (make_track("Product Viewed", product_id="p", price=1e300), "properties.price"),
        (make_track("Product Viewed", product_id="p", price=2**70), "properties.price"),
        (make_track("Product Viewed", product_id="p", price=[1]), "properties.price"),
        (make_track("Product Viewed", product_id="p", price=1, currency=7), "properties.currency"),
        (make_track("Product Viewed"), "properties.product_id"),
        (make_track("Product Viewed", product_id={"a": 1}), "properties.product_id"),
        (make_track("Product Viewed", product_id="p" * 200), "properties.product_id"),
        (make_track("Product Viewed", product_id="p", name=["x"]), "properties.name"),
        (make_track("Product Added", product_id="p", quantity="many"), "properties.quantity"),
        (make_track("Product Added", product_id="p", quantity=-3), "properties.quantity"),
        (make_track("Product Added", product_id="p", quantity=10**9), "properties.quantity"),
        (make_track("Product Added", product_id="p", quantity="nan"), "properties.quantity"),
        (make_track("Cart Viewed", products="mug"), "properties.products"),
        (make_track("Cart Viewed", products=["mug"]), "properties.products[0]"),
        (
            make_track("Cart Viewed", products=[{"product_id": "a"}, {"product_id": "b", "price": "x"}]),
            "properties.products[1].price",
        ),
        (make_track("Cart Viewed", products=[{"product_id": "a"}] * 501), "properties.products"),
        (make_track("Order Completed", revenue=5), "properties.order_id"),
        (make_track("Order Completed", order_id="o" * 200, revenue=5), "properties.order_id"),
        (make_track("Order Completed", order_id="o", revenue="5 euros"), "properties.revenue"),
        (make_track("Products Searched", query={"q": 1}), "properties.query"),
        (make_track("Consent Updated", marketing="maybe"), "properties.marketing"),
        (make_track("x" * 300), "event"),
        (make_track(""), "event"),
        (make_call("identify", traits={f"t{n}": n for n in range(300)}), "traits"),
        (make_call("identify", traits={"n" * 200: 1}), "traits"),
    ],
)
def test_invalid_event_is_rejected_by_field_without_changes(event: Event, field: str) -> None:
    one = ProfileHarness()
    one.emit(make_page(), 0)
    before = codec.encode(one.current_person)
    with pytest.raises(InvalidEvent) as refused:
        one.emit(event, 1)
    assert str(refused.value).startswith(field)
    assert codec.encode(one.current_person) == before


ODD_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from(
    [
        "product_id",
        "sku",
        "name",
        "category",
        "brand",
        "price",
        "currency",
        "quantity",
        "url",
        "image_url",
        "products",
        "order_id",
        "revenue",
        "total",
        "value",
        "query",
        "cart_id",
    ]
)
NAMES = st.sampled_from(
    [
        "Product Viewed",
        "Product Added",
        "Product Removed",
        "Cart Viewed",
        "Cart Updated",
        "Cart Cleared",
        "Checkout Started",
        "Order Completed",
        "Order Updated",
        "Order Refunded",
        "Order Cancelled",
        "Products Searched",
        "Product List Viewed",
        "Consent Updated",
    ]
)
CALLS = st.tuples(NAMES, st.dictionaries(FIELDS, ODD_VALUES, max_size=6), st.integers(-120, 0))


@given(st.lists(CALLS, max_size=12))
@settings(max_examples=examples(100), deadline=None)
def test_any_event_is_applied_or_rejected(calls: list[tuple[str, dict[str, Any], int]]) -> None:
    context = StepContext(0, compile_rules(EURO))
    person = Person(id="a:x")
    for n, (name, properties, late) in enumerate(calls):
        now = T0 + n * 10 * MINUTE
        context.start_input(f"clicks-0-{n}", now, now + late * MINUTE)
        before = codec.encode(person)
        try:
            update_profile.step(person, make_track(name, **properties), context)
        except InvalidEvent:
            assert codec.encode(person) == before
        assert codec.decode(codec.encode(person)) == person
        facts = merged_profile(person)
        assert facts.order_count >= 0
        assert facts.revenue >= 0
        assert person.cart is None or person.cart.items


def test_profile_update_is_deterministic() -> None:
    """The same history gives the same bytes."""

    def fold() -> bytes:
        one = ProfileHarness()
        for n in range(60):
            one.emit(make_track("Product Viewed", product_id=f"p{n % 25}", category=f"c{n % 30}", price=n), n)
            one.emit(make_track(f"Event {n % 70}"), n)
        return codec.encode(one.current_person)

    assert fold() == fold()


def test_event_timestamp_is_used(harness: ProfileHarness) -> None:
    event = make_call("page", timestamp=datetime.fromtimestamp(T0 / 1000, UTC).isoformat())
    assert events.event_time(event, T0 + 5) == T0


SENT_TIME, LOG_TIME = T0 + 3 * 3_600_000, T0 + 400
"""A producer whose clock is three hours fast; the log took its record 400 ms after the event."""


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"timestamp": SENT_TIME - 300, "sentAt": SENT_TIME}, LOG_TIME - 300),
        ({"originalTimestamp": SENT_TIME - 300, "sentAt": SENT_TIME}, LOG_TIME - 300),
        ({"originalTimestamp": SENT_TIME - 300, "timestamp": T0, "sentAt": SENT_TIME}, LOG_TIME - 300),
        ({"timestamp": SENT_TIME - 300}, LOG_TIME),
        ({"timestamp": T0 - 7_200_000 - 300, "sentAt": T0 - 7_200_000}, LOG_TIME - 300),
        ({"timestamp": SENT_TIME + 300, "sentAt": SENT_TIME}, LOG_TIME),
        ({"sentAt": SENT_TIME}, LOG_TIME),
        ({"originalTimestamp": SENT_TIME - 300, "timestamp": T0, "sentAt": SENT_TIME, "receivedAt": LOG_TIME}, T0),
    ],
    ids=[
        "timestamp",
        "original",
        "original-first",
        "never-later-than-the-log",
        "slow-clock",
        "sent-before-it-happened",
        "no-time-of-its-own",
        "corrected-by-the-collector",
    ],
)
def test_kafka_producer_clock_skew_is_corrected(said: dict[str, int], expected: int) -> None:
    event = make_call("page", **{name: datetime.fromtimestamp(at / 1000, UTC).isoformat() for name, at in said.items()})
    assert events.event_time(event, LOG_TIME) == expected
