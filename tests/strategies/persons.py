"""Persons for tests: one rich one by hand, and a hypothesis strategy that follows the declaration."""

from typing import Any

import msgspec
from hypothesis import strategies as st
from msgspec import inspect as mi

from state.person.model import (
    Cart,
    CartItem,
    Decision,
    ExposureCounter,
    IdentityLink,
    LifetimeCount,
    Order,
    PeerSequence,
    PendingSend,
    Person,
    PreloadedOffer,
    ProfileFragment,
    Search,
    Session,
    Source,
    Trait,
    ViewedProduct,
)

T0 = 1_700_000_000_000
"""A Tuesday in November 2023, in ms."""


def full_person() -> Person:
    """A person with something in every field; its bytes are a golden file, so it only ever grows by a new file."""
    own = ProfileFragment(
        version=41,
        first_seen=T0 - 9_000_000,
        last_seen=T0,
        sessions=3,
        pages=17,
        lifetime_counts={
            "Page Viewed": LifetimeCount(17, T0 - 9_000_000, T0),
            "Order Completed": LifetimeCount(1, T0 - 500, T0 - 500),
        },
        viewed_products=[
            ViewedProduct(
                "mug-1",
                "Mug, blue",
                "kitchen.mugs",
                "Tazza",
                1290,
                "https://shop.example/p/mug-1",
                "https://shop.example/i/mug-1.jpg",
                3,
                T0 - 700,
            ),
            ViewedProduct("tea-9", price=900, views=1, at=T0 - 600, currency="XTS"),
        ],
        category_views={"kitchen.mugs": 3, "tea": 1},
        searches=[Search("blaue Tasse ü", T0 - 800)],
        orders=[
            Order("o-1", T0 - 500, 2580, "", 2, False, 1290, False, ("mug-1",)),
            Order("o-2", T0 - 400, 700, "XTS", 1, True, 0, True, ()),
        ],
        order_count=1,
        revenue=1290,
        first_order_at=T0 - 500,
        last_order_at=T0 - 400,
        offline_orders=1,
        refunds=1,
        traits={
            "plan": Trait(T0, "gold", 7),
            "age": Trait(T0, 41, 7),
            "rate": Trait(T0, 0.5, 7),
            "vip": Trait(T0, True, 7),
            "gone": Trait(T0, None, 7),
        },
        country="CA",
        device="desktop",
        locale="fr-CA",
        timezone="America/Montreal",
        first_source=Source("newsletter", "email", "spring", T0 - 9_000_000),
        last_source=Source("ads", "cpc", "", T0),
        consent={"marketing": Trait(T0 - 5, False, 3)},
        evicted_orders=b"12345678",
    )
    return Person(
        id="u:ann",
        fragments={"u:ann": own, "a:1f3c": ProfileFragment(version=2, first_seen=T0 - 10, last_seen=T0 - 9, pages=2)},
        session=Session(
            "9f2c77aa01b3d4e5",
            T0 - 60_000,
            T0,
            "1f3c",
            True,
            3,
            6,
            2,
            1,
            1,
            1,
            "https://shop.example/",
            "https://search.example/",
            "ads",
            "desktop",
            "CA",
            True,
            {"events": 4.0, "pages": 2.0},
            T0 - 5_000,
            0.25,
            "m1",
            4,
            True,
            "cpc",
            "autumn",
            T0 - 500,
        ),
        cart=Cart(
            "c-1",
            {
                "mug-1": CartItem(2, 1290, "Mug, blue", "kitchen.mugs", T0 - 300),
                "tea-9": CartItem(1, 900, at=T0 - 200, currency="XTS"),
            },
            "EUR",
            T0 - 300,
            T0 - 200,
            T0 - 100,
        ),
        segments={"likely_buyers": T0 - 50},
        band="likely_buyers",
        score=0.25,
        exposures={"exit": ExposureCounter(2, T0 - 40, "9f2c77aa01b3d4e5", 1, 19_675, 2)},
        pending_sends=[PendingSend("clicks-1-2-select_campaigns-0", "exit", T0 + 60_000, "1f3c")],
        preloaded={"exit": PreloadedOffer("exit", "clicks-1-2-select_campaigns-0", "k", T0 + 60_000, "1f3c")},
        decisions={"exit": Decision(T0, "suppress", "campaign_cap", "1 today", "")},
        timers={"session_end:": T0 + 1_800_000},
        seen_messages=b"abcdefgh\x00\x00\x00\x01",
        identity_links={"a:1f3c": IdentityLink("merged", T0 - 10)},
        peer_sequences={"a:1f3c": PeerSequence(1, 2)},
        bot=True,
    )


def typical_person() -> Person:
    """What most people are: one visit of five product views, one search, a line in the cart, a day old."""
    seen = [
        ViewedProduct(
            f"44600{n:03d}",
            f"Product number {n}",
            "appliances.kitchen.kettle",
            "tefal",
            3500 + n,
            f"https://shop.example/products/44600{n:03d}",
            "",
            1,
            T0 + n * 40_000,
        )
        for n in range(5)
    ]
    return Person(
        id="a:24551e08-3b96-5442-b754-c09d8d8790eb",
        fragments={
            "a:24551e08-3b96-5442-b754-c09d8d8790eb": ProfileFragment(
                version=12,
                first_seen=T0,
                last_seen=T0 + 200_000,
                sessions=1,
                pages=6,
                lifetime_counts={
                    "Page Viewed": LifetimeCount(6, T0, T0 + 200_000),
                    "Product Viewed": LifetimeCount(5, T0, T0 + 190_000),
                    "Product Added": LifetimeCount(1, T0 + 200_000, T0 + 200_000),
                },
                viewed_products=seen,
                category_views={"appliances.kitchen.kettle": 5},
                searches=[Search("kettle", T0 + 20_000)],
                country="CA",
                device="mobile",
                locale="en-CA",
            )
        },
        session=Session(
            "9f2c77aa01b3d4e5",
            T0,
            T0 + 200_000,
            "24551e08-3b96-5442-b754-c09d8d8790eb",
            True,
            6,
            12,
            5,
            1,
            1,
            0,
            "https://shop.example/",
            device="mobile",
            country="CA",
            snapshot_candidates=12,
            snapshot={f"feature_{n}": n / 7 for n in range(14)},
            snapshot_at=T0 + 90_000,
        ),
        cart=Cart(
            "", {"44600004": CartItem(1, 3504, "Product number 4", at=T0 + 200_000)}, "EUR", T0 + 200_000, T0 + 200_000
        ),
        timers={"session_end:": T0 + 2_000_000},
        seen_messages=bytes(range(144)),
    )


_BASIC_STRATEGIES: dict[type, st.SearchStrategy[Any]] = {
    mi.IntType: st.integers(0, 2**53),
    mi.FloatType: st.floats(allow_nan=False, allow_infinity=False),
    mi.StrType: st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    mi.BoolType: st.booleans(),
    mi.BytesType: st.binary(max_size=24),
    mi.NoneType: st.none(),
}


def strategy_for(declaration: Any) -> st.SearchStrategy[Any]:
    """Any value that the declaration `kind` allows (small ones)."""
    return _strategy(mi.type_info(declaration))


def _strategy(info: Any) -> st.SearchStrategy[Any]:
    if type(info) in _BASIC_STRATEGIES:
        return _BASIC_STRATEGIES[type(info)]
    if isinstance(info, mi.UnionType):
        return st.one_of([_strategy(one) for one in info.types])
    if isinstance(info, mi.DictType):
        return st.dictionaries(_strategy(info.key_type), _strategy(info.value_type), max_size=3)
    if isinstance(info, mi.ListType):
        return st.lists(_strategy(info.item_type), max_size=3)
    if isinstance(info, mi.VarTupleType):
        return st.lists(_strategy(info.item_type), max_size=3).map(tuple)
    assert isinstance(info, mi.StructType), info
    needed = {field.name: _strategy(field.type) for field in info.fields if field.required}
    given = {field.name: _strategy(field.type) for field in info.fields if not field.required}
    return st.fixed_dictionaries(needed, optional=given).map(lambda values: info.cls(**values))


def to_plain(value: Any) -> Any:
    """A struct as plain values, to compare and to show."""
    return msgspec.to_builtins(value)
