"""Conditions of the whole language, and people with a past to ask them of, as hypothesis draws them."""

from collections.abc import Iterable
from typing import Any

import msgspec
from hypothesis import strategies as st

from domain.event import Event, Track
from domain.playbook.condition import Condition
from domain.playbook.shop import Consent, FunnelStage, Shop
from state.conditions import counters
from state.person.addresses import hash_address
from state.person.model import (
    Cart,
    CartItem,
    Coupon,
    ExposureCounter,
    Order,
    Person,
    ProfileFragment,
    Session,
    Source,
    Trait,
)
from state.profile import profile as folding
from state.profile.profile import merged_profile
from tests.models.conditions import SERVER_EVENTS, T0, PastEvent

EVENTS = ("Product Viewed", "Order Completed", "Quiz Finished", "Identified")
FUNNEL_STAGES = {
    "looking": {"did": {"event": "Product Viewed", "within": "90s"}},
    "buying": {"did": {"event": "Order Completed", "within": "1m"}},
}
SHOP = Shop(
    consent=Consent(default="denied", purposes={"marketing": "granted"}),
    funnel=tuple(FunnelStage(name, msgspec.convert(when, Condition)) for name, when in FUNNEL_STAGES.items()),
)

# -- people ------------------------------------------------------------------------------------------------------

timestamps = st.integers(0, 240).map(lambda n: T0 + n * 500)
durations = st.sampled_from(["1s", "30s", "1m", "90s"])
DURATIONS_MS = (1_000, 30_000, 60_000, 90_000)
event_properties = st.fixed_dictionaries(
    {},
    optional={
        "category": st.sampled_from(["a", "b", "Bags", ""]),
        "price": st.sampled_from([9.5, 20, "19.90", "many", 0.1, -5]),
        "quantity": st.integers(1, 3),
        "sale": st.booleans(),
    },
)
past_events = st.lists(
    st.builds(
        PastEvent, st.sampled_from(EVENTS), event_properties, timestamps, st.sampled_from(["mine", "mine", "other"])
    ),
    min_size=4,
    max_size=12,
)

sessions = st.none() | st.builds(
    Session,
    id=st.just("s"),
    started_at=timestamps,
    last_at=timestamps,
    first_session=st.booleans(),
    pages=st.integers(0, 4),
    products=st.integers(0, 3),
    searches=st.integers(0, 2),
    landing_page=st.sampled_from(["", "/sale/x", "/home"]),
    referrer=st.sampled_from(["", "https://a.example"]),
    source=st.sampled_from(["", "ads", "mail"]),
    medium=st.sampled_from(["", "cpc"]),
    campaign=st.sampled_from(["", "spring"]),
    ordered=st.booleans(),
    device=st.sampled_from(["", "mobile"]),
    country=st.sampled_from(["", "CA"]),
)
items = st.builds(CartItem, quantity=st.integers(1, 3), price=st.integers(0, 3000), category=st.sampled_from(["", "a"]))
carts = st.none() | st.builds(
    Cart,
    items=st.dictionaries(st.sampled_from(["p", "q"]), items, max_size=2),
    created_at=timestamps,
    updated_at=timestamps,
)
ADDRESSES = ["x@shop.example", "+39333123456", "t" * 20]
plain_traits = st.dictionaries(
    st.sampled_from(["plan", "vip"]),
    st.builds(Trait, at=timestamps, value=st.sampled_from(["gold", True, 1, 1.0, None])),
)
addresses = st.dictionaries(
    st.sampled_from(["email", "phone", "push_token"]),
    st.builds(Trait, at=timestamps, value=st.sampled_from(["x", " ", "", 7])),
    max_size=2,
)
traits = st.tuples(plain_traits, addresses).map(lambda both: both[0] | both[1])
sources = st.none() | st.builds(
    Source,
    source=st.sampled_from(["ads", "mail"]),
    medium=st.sampled_from(["", "cpc"]),
    campaign=st.sampled_from(["", "spring"]),
    at=timestamps,
)
orders = st.lists(
    st.builds(
        Order,
        order_id=st.sampled_from(["o1", "o2", "o3"]),
        at=timestamps,
        cancelled=st.booleans(),
        products=st.sampled_from([(), ("p",), ("p", "q")]),
        categories=st.sampled_from([(), ("a",)]),
    ),
    max_size=2,
    unique_by=lambda order: order.order_id,
)
profiles = st.builds(
    ProfileFragment,
    order_count=st.integers(0, 3),
    revenue=st.integers(0, 9000),
    last_order_at=st.just(0) | timestamps,
    traits=traits,
    orders=orders,
    sessions=st.integers(0, 3),
    country=st.sampled_from(["", "CA", "IT"]),
    device=st.sampled_from(["", "desktop"]),
    locale=st.sampled_from(["", "fr-CA", "fr", "en_US"]),
    first_source=sources,
    last_source=sources,
    consent=st.dictionaries(
        st.sampled_from(["marketing", "profiling"]), st.builds(Trait, at=timestamps, value=st.booleans()), max_size=2
    ),
)
coupons = st.lists(
    st.builds(
        Coupon,
        code=st.just("c"),
        pool=st.sampled_from(["ten", "five"]),
        reserved_at=timestamps,
        until=timestamps,
        state=st.sampled_from(["reserved", "reserved", "redeemed", "expired", "released"]),
    ),
    max_size=3,
)
exposure_counters = st.dictionaries(
    st.sampled_from(["hello", "bye"]),
    st.lists(timestamps, min_size=1, max_size=4).map(
        lambda times: ExposureCounter(total=len(times) + 1, last_at=max(times), times=sorted(times))
    ),
)


@st.composite
def persons(draw: st.DrawFn) -> Person:
    """Somebody, under one id or two; what they did is in `past_of`."""
    who = draw(st.sampled_from(["a:x", "u:ann"]))
    person = Person(
        id=who,
        fragments={who: draw(profiles)},
        session=draw(sessions),
        cart=draw(carts),
        segments=dict.fromkeys(draw(st.sets(st.sampled_from(["one", "two", "funnel_looking", "funnel_buying"]))), T0),
        score=draw(st.none() | st.sampled_from([0.1, 0.5, 0.9])),
        band=draw(st.sampled_from(["", "undecided"])),
        rfm=draw(st.sampled_from(["", "555", "415", "321", "151", "234"])),
        coupons=draw(coupons),
        exposures=draw(exposure_counters),
        suppressed_addresses=draw(
            st.dictionaries(
                st.sampled_from(
                    [
                        f"{channel}:{hash_address(one)}"
                        for channel, one in zip(["email", "sms", "push"], ADDRESSES, strict=True)
                    ]
                ),
                timestamps,
                max_size=2,
            )
        ),
    )
    past = draw(past_events)
    person.__dict__["past"] = past
    for happened in past:
        facts = (
            person.own_fragment()
            if happened.id_owner == "mine"
            else person.fragments.setdefault("a:other", ProfileFragment())
        )
        facts.version += 1
        folding.count_event(facts, happened.name, happened.at)
        facts.first_seen = min(facts.first_seen or happened.at, happened.at)
        if happened.name not in SERVER_EVENTS:
            facts.last_seen = max(facts.last_seen, happened.at)
    return person


def past_of(person: Person) -> list[PastEvent]:
    """What they did, in the order in which we were told."""
    past: list[PastEvent] = person.__dict__["past"]
    return past


def profile_with_counters(person: Person, *conditions: Any) -> ProfileFragment:
    """What is known of them, with the traces that these conditions need."""
    rules = counters.specs_by_event(
        counters.specs_for_conditions([msgspec.convert(one, Condition) for one in conditions])
    )
    for happened in past_of(person):
        facts = person.own_fragment() if happened.id_owner == "mine" else person.fragments["a:other"]
        facts.version += 1
        update_counters(
            facts, rules.get(happened.name, ()), Track(event=happened.name, properties=happened.properties), happened.at
        )
    return merged_profile(person)


def update_counters(facts: ProfileFragment, rules: Iterable[counters.CounterSpec], event: Event, at: int) -> None:
    """A plain loop: every trace of the event's name is tried, sequences whatever happened."""
    for rule in rules:
        if rule.sequence is not None:
            counters.update_sequence(facts, rule)
        else:
            counters.add(facts, rule, event, at)


def change_times(person: Person) -> list[int]:
    """Every instant at which time alone can turn a condition of these durations, and the one before it, in order."""
    session, cart = person.session, person.cart
    began = [happened.at for happened in past_of(person)]
    began += [session.started_at] if session is not None else []
    began += [cart.created_at, cart.updated_at] if cart is not None else []
    began += [at for said in person.exposures.values() for at in said.times]
    began += [facts.last_order_at for facts in person.fragments.values()]
    turns = {at + span for at in began for span in DURATIONS_MS}
    turns |= {coupon.until - span for coupon in person.coupons for span in (0, *DURATIONS_MS)}
    return sorted(turns | {at - 1 for at in turns})


# -- conditions --------------------------------------------------------------------------------------------------


def some_of(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """One of these fields, seldom a second one: what asks for everything at once is never true."""
    names = st.sampled_from(sorted(fields))
    return st.tuples(names, st.none() | st.none() | names).flatmap(
        lambda both: st.fixed_dictionaries({name: fields[name] for name in both if name is not None})
    )


def one_or_more(values: list[Any]) -> st.SearchStrategy[Any]:
    return st.sampled_from(values) | st.lists(st.sampled_from(values), min_size=1, max_size=2)


events = st.sampled_from(EVENTS[:3])
filters = some_of(
    category=one_or_more(["a", "b"])
    | st.sampled_from(
        [
            {"is_not": "a"},
            {"is_not": ["a", "b"]},
            {"contains": "BAG"},
            {"starts_with": ["b", "B"]},
            {"exists": True},
            {"exists": False},
        ]
    ),
    price=st.sampled_from([20, {"at_least": 10}, {"below": 20}, {"at_least": 0.1, "below": 10}]),
    sale=st.booleans(),
)
sum_bounds = st.fixed_dictionaries(
    {"of": st.sampled_from(["price", "quantity"])},
    optional={"at_least": st.sampled_from([0.2, 2, 19.9, 39.9]), "below": st.sampled_from([3, 19.9, 60])},
).filter(lambda one: len(one) > 1)
reference_events = st.sampled_from([*EVENTS, "Exit Intent"])
did_conditions = (
    st.fixed_dictionaries({"event": events}, optional={"within": durations})
    | st.fixed_dictionaries({"event": events, "at_least": st.integers(1, 4)}, optional={"within": durations})
    | st.tuples(
        events,
        some_of(
            where=filters,
            at_least=st.integers(1, 3),
            within=durations,
            sum=sum_bounds,
            last_before=durations,
            first_within=durations,
            after=reference_events,
            before=reference_events,
        ),
        some_of(where=filters, at_least=st.integers(1, 3), within=durations, sum=sum_bounds, after=reference_events),
    ).map(lambda one: {"event": one[0], **one[1], **one[2]})
)
sequence_steps = events | st.fixed_dictionaries({"event": events, "where": filters})
sequence_conditions = st.fixed_dictionaries(
    {"steps": st.lists(sequence_steps, min_size=2, max_size=4)},
    optional={"within": durations, "last_within": durations},
)
GROUPS = ["champions", "loyal", "promising", "new_customers", "needs_attention", "at_risk", "hibernating", "lost"]
behaviour_conditions = some_of(
    did=did_conditions | st.lists(did_conditions, min_size=1, max_size=2),
    did_not=did_conditions | st.lists(did_conditions, min_size=1, max_size=2),
    sequence=sequence_conditions,
)
predicates = behaviour_conditions | some_of(
    has=some_of(
        country=one_or_more(["CA", "IT"]),
        device=one_or_more(["mobile", "desktop"]),
        language=one_or_more(["fr", "en-us", "fr-CA"]),
        source=one_or_more(["ads", "mail"]),
        first_source=one_or_more(["ads", "mail"]),
        medium=one_or_more(["cpc", "organic"]),
        campaign=one_or_more(["spring", "autumn"]),
        consent=one_or_more(["marketing", "profiling"]),
        trait=some_of(
            plan=st.sampled_from(["gold", True, {"is_not": "gold"}, {"exists": True}]),
            vip=st.sampled_from([True, 1, [1.0, "gold"], {"at_least": 1}]),
        ),
        address=one_or_more(["email", "phone", "push"]),
        sessions_at_least=st.integers(1, 4),
        identified=st.booleans(),
        first_seen_within=durations,
        last_seen_before=durations,
    ),
    session=some_of(
        pages_at_least=st.integers(1, 4),
        seconds_at_least=st.sampled_from([1, 30, 90]),
        products_at_least=st.integers(1, 3),
        searches_at_least=st.integers(1, 2),
        first_session=st.booleans(),
        landing_page_contains=one_or_more(["sale", "home"]),
        referrer_contains=st.just("a.ex"),
        source=one_or_more(["ads", "mail"]),
        medium=one_or_more(["cpc"]),
        campaign=one_or_more(["spring"]),
        ordered=st.booleans(),
    ),
    cart=some_of(
        items_at_least=st.integers(1, 4),
        value_at_least=st.sampled_from([0, 10, 29.99]),
        value_below=st.sampled_from([10, 30]),
        empty=st.booleans(),
        contains_category=one_or_more(["a", "b"]),
        contains_product=one_or_more(["p", "z"]),
        older_than=durations,
        untouched_for=durations,
    ),
    orders=some_of(
        count_at_least=st.integers(1, 3),
        count_is=st.integers(0, 3),
        value_at_least=st.sampled_from([0, 50]),
        value_below=st.sampled_from([50, 90]),
        last_within=durations,
        last_before=durations,
        contains_product=one_or_more(["p", "q", "z"]),
        contains_category=one_or_more(["a", "z"]),
    ),
    rfm=some_of(
        group=one_or_more(GROUPS),
        recency_at_least=st.integers(1, 5),
        recency_at_most=st.integers(1, 5),
        frequency_at_least=st.integers(1, 5),
        frequency_at_most=st.integers(1, 5),
        monetary_at_least=st.integers(1, 5),
        monetary_at_most=st.integers(1, 5),
    ),
    funnel=some_of(stage=one_or_more(["looking", "buying"]), at_least=st.sampled_from(["looking", "buying"])),
    score=some_of(
        at_least=st.sampled_from([0.1, 0.5]),
        below=st.sampled_from([0.5, 0.95]),
        band=st.sampled_from(["undecided", "unlikely"]),
    ),
    in_segment=one_or_more(["one", "two", "undecided", "base"]),
    holds_coupon=st.fixed_dictionaries({"pool": one_or_more(["ten", "five"])}, optional={"expires_within": durations}),
    was_shown=st.fixed_dictionaries(
        {"campaign": one_or_more(["hello", "bye"])}, optional={"at_least": st.integers(1, 4), "within": durations}
    ),
)

view_events = st.sampled_from(["Product Viewed", "Product Viewed", "Quiz Finished"])
optional_where = {"where": filters}


def did_with(optional: dict[str, Any], **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"did": st.fixed_dictionaries({"event": view_events, **fields}, optional=optional)})


PREDICATE_KINDS: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "plain": did_with({"within": durations, "last_before": durations, "first_within": durations}),
    "often in a window": did_with(optional_where, at_least=st.integers(2, 3), within=durations),
    "sum": did_with({**optional_where, "within": durations}, sum=sum_bounds),
    "after": did_with(
        {**optional_where, "within": durations, "at_least": st.integers(1, 2), "first_within": durations},
        after=reference_events,
    ),
    "before": did_with(
        {**optional_where, "within": durations, "at_least": st.integers(1, 2), "last_before": durations},
        before=reference_events,
    ),
    "last": did_with({"within": durations, "at_least": st.integers(1, 2)}, where=filters, last_before=durations),
    "first": did_with({"within": durations, "at_least": st.integers(1, 2)}, where=filters, first_within=durations),
    "sequence": st.fixed_dictionaries({"sequence": sequence_conditions}),
    "coupon": st.fixed_dictionaries(
        {
            "holds_coupon": st.fixed_dictionaries(
                {"pool": one_or_more(["ten", "five"])}, optional={"expires_within": durations}
            )
        }
    ),
    "shown": st.fixed_dictionaries(
        {
            "was_shown": st.fixed_dictionaries(
                {"campaign": one_or_more(["hello", "bye"])},
                optional={"at_least": st.integers(1, 3), "within": durations},
            )
        }
    ),
    "first seen": st.fixed_dictionaries({"has": st.fixed_dictionaries({"first_seen_within": durations})}),
    "last seen": st.fixed_dictionaries({"has": st.fixed_dictionaries({"last_seen_before": durations})}),
    "orders": st.fixed_dictionaries(
        {
            "orders": st.fixed_dictionaries(
                {"contains_product": one_or_more(["p", "q", "z"])},
                optional={"contains_category": one_or_more(["a", "z"])},
            )
        }
    ),
    "rfm": st.fixed_dictionaries(
        {
            "rfm": some_of(
                group=one_or_more(GROUPS),
                recency_at_least=st.integers(1, 5),
                monetary_at_most=st.integers(1, 5),
                frequency_at_least=st.integers(1, 5),
            )
        }
    ),
    "funnel": st.fixed_dictionaries(
        {"funnel": some_of(stage=one_or_more(["looking", "buying"]), at_least=st.sampled_from(["looking", "buying"]))}
    ),
}
"""Single statements of one kind each."""


@st.composite
def condition_trees(draw: st.DrawFn, depth: int = 0) -> dict[str, Any]:
    kind = draw(st.sampled_from(["leaf", "leaf", "all", "any", "not"] if depth < 3 else ["leaf"]))
    if kind == "leaf":
        return draw(predicates)
    if kind == "not":
        return {"not": draw(condition_trees(depth + 1))}
    return {kind: [draw(condition_trees(depth + 1)) for _ in range(draw(st.integers(1, 3)))]}


conditions = condition_trees()
