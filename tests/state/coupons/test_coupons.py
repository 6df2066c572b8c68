"""Coupons: how codes are made and leased, whom one is reserved for and whom it is not, and what becomes of it."""

from pathlib import Path
from typing import Any

import pytest

from connectors.playbook.folder import read_playbook
from domain import record as rejects
from domain.action import CouponEvent, Discount, Send, ShardMessage
from domain.action import encode_shard_message as letter_bytes
from domain.diagnostics import PlaybookError
from domain.event import Track
from domain.playbook.coupon import CODE_ALPHABET, CodeGenerator, CouponPool
from domain.record import DEFAULT_PARTITIONS, SHARD_MESSAGES, Record, partition_of
from operators.record_feedback import order_codes
from state.context import StepContext
from state.coupons.leasing import allocator_key
from state.coupons.wallet import active_coupon, active_discount, reserve_coupon
from state.person.model import MAX_COUPONS, Coupon, Order, Person
from state.playbook.compiled import compile_rules
from state.playbook.coupon_pool import PoolRule
from tests.harness.person import T0, PersonHarness
from tests.harness.person import make_playbook as full_playbook
from tests.harness.shard import ShardHarness
from tests.laws.test_coupons import DAY, CouponCluster, ReserveStep, pool_playbook


def coupon_cluster(folder: Path, **pools: Any) -> CouponCluster:
    return CouponCluster(folder, pool_playbook(**pools))


def coupon_events(cluster: CouponCluster) -> list[tuple[str, str, str]]:
    return [(one.person, one.pool, one.status) for one in cluster.coupon_events()]


def code_in(got: Coupon | str) -> str:
    assert isinstance(got, Coupon), got
    return got.code


def granted_count(cluster: CouponCluster) -> int:
    """Codes that the home of the pool "ten" has granted."""
    home = cluster.person(allocator_key("ten"))
    assert home is not None
    assert home.pool_allocator is not None
    return home.pool_allocator.granted


def coupon_states(cluster: CouponCluster, who: str) -> list[tuple[str, str]]:
    person = cluster.person(who)
    return [(one.pool, one.state) for one in person.coupons] if person is not None else []


# -- codes -------------------------------------------------------------------------------------------------------


def test_codes_are_unique_and_reversible() -> None:
    codes = CodeGenerator(b"a secret", "winback", "BACK-")
    numbers = [*range(50_000), *range(50_000, 10_000_000, 991), 9_999_999]
    assert [codes.number(codes.code(n)) for n in numbers] == numbers
    some = codes.code(7)
    assert some.startswith("BACK-")
    assert set(some[5:]) <= set(CODE_ALPHABET)
    assert not set(CODE_ALPHABET) & set("0O1IL2Z5S8BUV")


def test_codes_depend_on_secret_and_pool() -> None:
    one, other = CodeGenerator(b"a secret", "winback", ""), CodeGenerator(b"another", "winback", "")
    third = CodeGenerator(b"a secret", "welcome", "")
    assert not {one.code(n) for n in range(500)} & {two.code(n) for two in (other, third) for n in range(500)}
    assert one.fingerprint not in {
        other.fingerprint,
        third.fingerprint,
        CodeGenerator(b"a secret", "winback", "X").fingerprint,
    }
    near = sum(a == b for n in range(2_000) for a, b in zip(one.code(n), one.code(n + 1), strict=True))
    assert near < 2 * 2_000 * 10 / len(CODE_ALPHABET)  # letters agree no more often than by chance


def test_pool_recognises_typed_codes() -> None:
    rule = PoolRule(CouponPool("p", prefix="HI-", size=10))
    inside, outside = CodeGenerator(b"s", "p", "HI-").code(9), CodeGenerator(b"s", "p", "HI-").code(10)
    assert [
        rule.contains(code, b"s") for code in (inside, f" {inside.lower()} ", outside, "HI-", "", "HI-" + "O" * 10)
    ] == [True, True, False, False, False, False]


# -- leases ------------------------------------------------------------------------------------------------------


def test_large_pool_prefetches_leases(tmp_path: Path) -> None:
    found = coupon_cluster(tmp_path, ten={"size": 100_000})
    found.emit("a:x", "Page Viewed")
    found.deliver()
    assert granted_count(found) == 100, "a block for this shard, a block for the one where the pool is at home"
    found.emit("a:x", "Wished", properties={"pool": "ten"})
    assert code_in(found.reserve_step.results["a:x", "ten"]) == CodeGenerator(b"", "ten", "").code(0)


def test_code_cache_refills_before_it_is_empty(tmp_path: Path) -> None:
    found = coupon_cluster(tmp_path, ten={"size": 100_000})
    here = partition_of(b"x", DEFAULT_PARTITIONS)
    crowd = [f"a:v{n}" for n in range(10_000) if partition_of(f"v{n}".encode(), DEFAULT_PARTITIONS) == here][:60]
    assert len(crowd) == 60
    got = [found.request(who) for who in crowd]
    assert got[0] != "coupon_pending", "told again when the grant was here"
    assert len({code_in(one) for one in got}) == 60
    assert granted_count(found) == 150


def test_small_pool_leases_on_demand_to_the_last_code(tmp_path: Path) -> None:
    found = coupon_cluster(tmp_path, ten={"size": 5})
    found.emit("a:v0", "Wished", properties={"pool": "ten"})
    assert found.reserve_step.results["a:v0", "ten"] == "coupon_pending"
    found.deliver()
    found.tick(found.clock)
    assert isinstance(found.reserve_step.results["a:v0", "ten"], Coupon)
    got = []
    for n in range(1, 7):
        found.request(f"a:v{n}")
        found.tick(found.clock)
        got.append(found.reserve_step.results[f"a:v{n}", "ten"])
    assert [isinstance(one, Coupon) for one in got] == [True] * 4 + [False] * 2
    assert got[4:] == ["sold_out", "sold_out"]
    found.rules = compile_rules(pool_playbook(ten={"size": 6}))  # the marketer makes it larger
    found.request("a:v6")
    assert isinstance(found.reserve_step.results["a:v6", "ten"], Coupon)


def test_granted_codes_must_keep_their_position(tmp_path: Path) -> None:
    found = coupon_cluster(tmp_path, ten={"codes": ["A", "B", "C"]})
    assert code_in(found.request("a:v0")) == "A"
    found.rules = compile_rules(pool_playbook(ten={"codes": ["A", "B", "C", "D"]}))  # one at the end: fine
    assert code_in(found.request("a:v1")) == "B"
    found.rules = compile_rules(pool_playbook(ten={"codes": ["B", "C", "D"]}))  # the used one taken out
    assert found.request("a:v2") == "codes_changed"
    found.rules = compile_rules(pool_playbook(ten={"codes": ["A", "B", "C"]}))
    assert code_in(found.request("a:v2")) == "C"
    assert found.request("a:v3") == "sold_out"


@pytest.mark.parametrize(
    ("kind", "sender", "to", "body"),
    [
        ("lease_request", "a:eve", "c:ten", {}),
        ("lease_request", "d:ten#0#999", "c:ten", {}),
        ("lease_request", "d:ten#9999999#0", "c:ten", {}),
        ("lease_request", "d:ten#x#0", "c:ten", {}),
        ("lease_grant", "c:ten", "a:eve", {"codes": ["MINE"]}),
        ("lease_grant", "a:eve", "d:ten#0#0", {"codes": ["MINE"]}),
        ("codes_available", "a:eve", "a:eve", {}),
        ("codes_available", "HERE", "c:ten", {}),
        ("lease_request", "HERE", "c:ten", {"wanted": "all"}),
        ("lease_grant", "c:ten", "HERE", {"codes": [1]}),
        ("lease_grant", "c:ten", "HERE", {"codes": "ABC"}),
    ],
)
def test_unrelated_shard_messages_move_no_codes(
    tmp_path: Path, kind: str, sender: str, to: str, body: dict[str, Any]
) -> None:
    from state.coupons.leasing import code_cache_key

    here = partition_of(b"ten", DEFAULT_PARTITIONS)
    bench = ShardHarness(tmp_path, [ReserveStep()], here)
    bench.rules = compile_rules(pool_playbook(ten={"size": 5}))
    key = code_cache_key("ten", here, DEFAULT_PARTITIONS)
    letter = ShardMessage(kind, sender.replace("HERE", key), to.replace("HERE", key), 3, body)
    rows = bench.apply(Record(SHARD_MESSAGES, here, 1, T0, b"ten", letter_bytes(letter)))
    assert [rejects.decode_dead_letter(row.body).kind for row in rows] == ["invalid"]
    assert bench.shard.errors == []


def test_failed_step_returns_its_code(tmp_path: Path) -> None:
    found = coupon_cluster(tmp_path, ten={"size": 100_000})
    found.emit("a:x", "Page Viewed")
    found.deliver()
    found.fail_step("a:x")
    assert coupon_states(found, "a:x") == []
    here = partition_of(b"x", DEFAULT_PARTITIONS)
    other = next(f"a:v{n}" for n in range(10_000) if partition_of(f"v{n}".encode(), DEFAULT_PARTITIONS) == here)
    codes = CodeGenerator(b"", "ten", "")
    assert [code_in(found.request(who)) for who in (other, "a:x")] == [codes.code(0), codes.code(1)]


def test_history_reserves_no_codes() -> None:
    visitor = PersonHarness(pool_playbook(ten={"size": 5}))
    visitor.context.history = True
    assert reserve_coupon(visitor.person, "ten", "c", visitor.context) == "history_import"
    assert reserve_coupon(visitor.person, "nine", "c", visitor.context) == "no_coupon"


# -- promises ----------------------------------------------------------------------------------------------------


def test_coupon_is_reused_until_it_expires(tmp_path: Path) -> None:
    found = coupon_cluster(tmp_path, ten={"size": 100_000, "valid_for": "2d"})
    first = code_in(found.request("a:x"))
    began = found.clock
    found.clock += DAY
    assert code_in(found.request("a:x")) == first
    found.tick(began + 2 * DAY - 1)
    assert coupon_states(found, "a:x") == [("ten", "reserved")]
    rows = found.tick(began + 2 * DAY)
    assert coupon_states(found, "a:x") == [("ten", "expired")]
    assert [row.at for row in rows if b'"expired"' in row.body] == [began + 2 * DAY]
    assert found.request("a:x") == "coupon_once_per_person"
    assert coupon_events(found) == [("a:x", "ten", "reserved"), ("a:x", "ten", "expired")]


def test_repeatable_coupon_gets_a_new_code_each_time(tmp_path: Path) -> None:
    found = coupon_cluster(tmp_path, ten={"size": 100_000, "valid_for": "1d", "once_per_person": False})
    codes = set()
    for n in range(MAX_COUPONS + 5):
        codes.add(code_in(found.request("a:x")))
        found.emit("a:x", "Order Completed", properties={"order_id": f"o{n}", "coupon": code_in(found.request("a:x"))})
        found.clock += DAY
    assert len(codes) == MAX_COUPONS + 5
    person = found.person("a:x")
    assert person is not None
    assert len(person.coupons) == MAX_COUPONS
    assert not [name for name in person.timers if name.startswith("coupon:")]


def test_mutually_exclusive_coupons(tmp_path: Path) -> None:
    found = coupon_cluster(
        tmp_path, ten={"size": 100_000, "valid_for": "1d"}, big={"size": 100_000, "not_combinable_with": ["ten"]}
    )
    found.request("a:x")
    assert found.request("a:x", "big") == "coupon_not_combinable"
    assert isinstance(found.request("a:y", "big"), Coupon)
    assert isinstance(found.request("a:y"), Coupon), "only one of the two says so"
    found.clock += DAY
    found.tick(found.clock)
    assert isinstance(found.request("a:x", "big"), Coupon), "what is over excludes nothing"


def test_first_order_coupon_checks_all_devices_and_stores(tmp_path: Path) -> None:
    """The mistake nobody may make: she bought on the desktop, and the phone offers her the first-order coupon."""
    found = coupon_cluster(tmp_path, first={"size": 100_000, "first_order_only": True})
    found.emit("a:desktop", "Order Completed", properties={"order_id": "o1", "total": 30})
    found.emit("u:ann", "Page Viewed", anonymousId="desktop")
    found.deliver()
    code_in(found.request("a:phone", "first"))  # nobody knows yet who that is
    found.emit("u:ann", "Page Viewed", anonymousId="phone")
    found.deliver()
    assert coupon_states(found, "u:ann") == [("first", "released")]
    assert found.request("u:ann", "first") == "coupon_first_order_only"
    assert coupon_events(found) == [("a:phone", "first", "reserved"), ("u:ann", "first", "released")]
    till = {"context": {"attimo": {"offline": True}}, "properties": {"order_id": "t1", "total": 9}}
    found.emit("u:bob", "Order Completed", **till)
    assert found.request("u:bob", "first") == "coupon_first_order_only"


def test_first_order_releases_coupon_and_cancel_restores_it(tmp_path: Path) -> None:
    found = coupon_cluster(tmp_path, first={"size": 100_000, "first_order_only": True})
    code = code_in(found.request("a:x", "first"))
    found.emit("a:x", "Order Completed", properties={"order_id": "o1", "total": 30})  # without the coupon
    assert coupon_states(found, "a:x") == [("first", "released")]
    found.emit("a:x", "Order Cancelled", properties={"order_id": "o1"})
    assert code_in(found.request("a:x", "first")) == code


def test_coupons_per_person_are_limited() -> None:
    visitor = PersonHarness(pool_playbook(ten={"size": 5}))
    visitor.person.coupons = [Coupon(f"C{n}", f"p{n}", "reserved", 0, 2 * T0) for n in range(MAX_COUPONS)]
    assert reserve_coupon(visitor.person, "ten", "c", visitor.context) == "coupon_limit"


# -- orders ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "says",
    [
        lambda code: {"coupon": code},
        lambda code: {"coupon": f"  {code.lower()} "},
        lambda code: {"coupons": ["OTHER", code]},
        lambda code: {"discount_codes": [{"code": code, "amount": "5.00"}]},
        lambda code: {"products": [{"product_id": "p", "coupon": code}]},
    ],
)
def test_order_redeems_own_coupon(tmp_path: Path, says: Any) -> None:
    found = coupon_cluster(tmp_path, ten={"size": 100_000})
    code = code_in(found.request("a:x"))
    order = {"order_id": "o1", "total": 30, **says(code)}
    found.emit("a:x", "Order Completed", properties=order)
    found.emit("a:x", "Order Completed", properties=order)
    person = found.person("a:x")
    assert person is not None
    assert [(one.state, one.order_id) for one in person.coupons] == [("redeemed", "o1")]
    assert not [name for name in person.timers if name.startswith("coupon:")]
    assert found.request("a:x") == "coupon_once_per_person"
    assert coupon_events(found) == [("a:x", "ten", "reserved"), ("a:x", "ten", "redeemed")]


def test_cancelled_order_returns_an_unexpired_coupon(tmp_path: Path) -> None:
    found = coupon_cluster(tmp_path, ten={"size": 100_000, "valid_for": "2d"})
    code, began = code_in(found.request("a:x")), found.clock
    for order in ("o1", "o2"):
        found.emit("a:x", "Order Completed", properties={"order_id": order, "total": 30, "coupon": code})
        found.emit("a:x", "Order Cancelled", properties={"order_id": order})
        assert code_in(found.request("a:x")) == code
    found.emit("a:x", "Order Completed", properties={"order_id": "o3", "total": 30, "coupon": code})
    found.emit("a:x", "Order Refunded", properties={"order_id": "o3", "total": 30})
    assert coupon_states(found, "a:x") == [("ten", "redeemed")], "goods that come back bring no coupon back"
    found.clock = began + 2 * DAY
    found.emit("a:x", "Order Cancelled", properties={"order_id": "o3"})
    assert coupon_states(found, "a:x") == [("ten", "expired")]


def test_code_of_another_person_is_not_redeemed(tmp_path: Path) -> None:
    from state.coupons.leasing import code_cache_key

    found = coupon_cluster(tmp_path, ten={"size": 100_000})
    code = code_in(found.request("a:x"))
    found.emit("a:thief", "Order Completed", properties={"order_id": "o1", "coupon": code})
    found.emit("a:thief", "Order Completed", properties={"order_id": "o2", "coupon": "NOT-OURS"})
    assert coupon_states(found, "a:x") == [("ten", "reserved")]
    assert coupon_states(found, "a:thief") == []
    keeper = found.person(code_cache_key("ten", partition_of(b"thief", DEFAULT_PARTITIONS), DEFAULT_PARTITIONS))
    assert keeper is not None
    assert keeper.code_cache is not None
    assert keeper.code_cache.unknown_redemptions == 1


def test_order_redeems_an_expired_coupon(tmp_path: Path) -> None:
    found = coupon_cluster(tmp_path, ten={"size": 100_000, "valid_for": "1d"})
    code = code_in(found.request("a:x"))
    found.clock += 3 * DAY
    found.tick(found.clock)
    found.emit("a:x", "Order Completed", properties={"order_id": "o1", "coupon": code})
    assert coupon_states(found, "a:x") == [("ten", "redeemed")]


@pytest.mark.parametrize(
    "properties",
    [
        {"coupon": 7},
        {"coupon": ["x" * 65]},
        {"coupons": {"a": 1}},
        {"products": "p"},
        {"products": [None, {"coupon": {}}]},
        {"discount_codes": [[]]},
        {"coupon": ""},
        {"coupon": "   "},
        {},
    ],
)
def test_invalid_codes_are_ignored(properties: dict[str, Any]) -> None:
    assert list(order_codes(properties)) == []


def test_order_codes_are_limited_to_fifty() -> None:
    assert len(list(order_codes({"coupons": [f"C{n}" for n in range(1_000)]}))) == 50


# -- one person ---------------------------------------------------------------------------------------------------


def test_login_keeps_the_customers_own_coupon(tmp_path: Path) -> None:
    found = coupon_cluster(tmp_path, ten={"size": 100_000})
    lost = code_in(found.request("a:x"))
    found.clock += 5_000
    kept = code_in(found.request("u:ann"))
    found.emit("u:ann", "Page Viewed", anonymousId="x")
    found.deliver()
    assert coupon_states(found, "u:ann") == [("ten", "released"), ("ten", "reserved")]
    assert coupon_states(found, "a:x") == []
    person = found.person("u:ann")
    assert person is not None
    assert active_coupon(person, "ten") == person.coupons[1]
    assert person.coupons[1].code == kept
    assert [name for name in person.timers if name.startswith("coupon:")] == ["coupon:" + kept]
    found.emit("u:ann", "Order Completed", properties={"order_id": "o1", "coupon": lost})
    assert coupon_states(found, "u:ann") == [("ten", "redeemed"), ("ten", "released")], "she had that code in her hand"


@pytest.mark.parametrize("first", ["x", "y"])
def test_login_keeps_the_older_anonymous_coupon(tmp_path: Path, first: str) -> None:
    found = coupon_cluster(tmp_path, ten={"size": 100_000})
    older = code_in(found.request("a:x"))
    found.clock += 5_000
    found.request("a:y")
    for who in (first, "y" if first == "x" else "x"):
        found.emit("u:ann", "Page Viewed", anonymousId=who)
        found.deliver()
    person = found.person("u:ann")
    assert person is not None
    assert [(one.code, one.origin) for one in person.coupons if one.state == "reserved"] == [(older, "a:x")]


def test_redeemed_coupon_stays_redeemed_after_login(tmp_path: Path) -> None:
    found = coupon_cluster(tmp_path, ten={"size": 100_000})
    found.emit("a:x", "Order Completed", properties={"order_id": "o1", "coupon": code_in(found.request("a:x"))})
    found.request("u:ann")
    found.emit("u:ann", "Page Viewed", anonymousId="x")
    found.deliver()
    assert coupon_states(found, "u:ann") == [("ten", "redeemed"), ("ten", "released")]
    assert found.request("u:ann") == "coupon_once_per_person"


def test_pending_lease_follows_the_login(tmp_path: Path) -> None:
    found = coupon_cluster(tmp_path, ten={"size": 5})
    found.emit("a:x", "Wished", properties={"pool": "ten"})
    found.emit("u:ann", "Page Viewed", anonymousId="x")
    while waiting := [row for row in found.pending_messages if b'"lease_request"' not in row.body]:
        found.pending_messages.remove(waiting[0])
        found.deliver_message(waiting[0])
    found.deliver()
    found.tick(found.clock)
    found.deliver()
    found.tick(found.clock)
    person = found.person("a:x")
    assert person is not None
    assert person.merged_into == "u:ann"
    assert not person.coupons
    assert not person.timers
    assert coupon_states(found, "u:ann") == [("ten", "reserved")]


# -- what campaigns and pages make of it --------------------------------------------------------------------------


def test_discount_of_a_coupon() -> None:
    rules = compile_rules(
        pool_playbook(
            ten={},
            five={"percent": None, "amount": 5.0, "min_value": 20, "products": ["p1"]},
            post={"percent": None, "free_shipping": True},
        )
    )
    person = Person(
        id="a:x", coupons=[Coupon(name.upper(), name, "reserved", 0, 9) for name in ("ten", "five", "post")]
    )
    assert active_discount(person, "ten", rules) == Discount("TEN", percent=10.0, expires_at=9)
    assert active_discount(person, "five", rules) == Discount(
        "FIVE", amount=5.0, currency="EUR", min_value=20.0, products=("p1",), expires_at=9
    )
    assert active_discount(person, "post", rules) == Discount("POST", free_shipping=True, expires_at=9)
    person.coupons[0].state = "redeemed"
    assert active_discount(person, "ten", rules) is None


def test_reminder_shows_the_reserved_coupon_until_it_expires() -> None:
    visitor = PersonHarness(
        full_playbook(
            coupons=[{"name": "back", "percent": 15, "valid_for": "14d", "codes": ["BACK-1"]}],
            campaigns={
                "offer": {
                    "trigger": {"event": "Product Viewed"},
                    "coupon": "back",
                    "valid_for": "10m",
                    "content": {
                        "default": {"title": "{{ coupon.percent }} % with {{ coupon }} until {{ coupon.expires }}"}
                    },
                },
                "reminder": {
                    "format": "bar",
                    "trigger": {"event": "Page Viewed"},
                    "coupon": "back",
                    "when": {"holds_coupon": {"pool": "back"}},
                    "content": {"default": {"title": "Your code {{ coupon.code }} is waiting"}},
                },
            },
        )
    )
    visitor.emit(0, "Page Viewed")
    visitor.emit(1_000, "Product Viewed", product_id="p1")
    visitor.advance(2_000)
    [offer] = [one for one in visitor.actions if isinstance(one, Send)]
    assert offer.content.title == "15 % with BACK-1 until 2023-11-28"
    assert offer.discount == Discount("BACK-1", percent=15.0, expires_at=T0 + 1_000 + 14 * DAY)
    visitor.emit(13 * DAY, "Page Viewed")
    said = [one.content.title for one in visitor.actions if isinstance(one, Send)]
    assert said[1:] == ["Your code BACK-1 is waiting"]
    began = len(visitor.actions)
    visitor.emit(15 * DAY, "Page Viewed")
    assert not [one for one in visitor.actions[began:] if isinstance(one, Send)], "it has ended"
    assert [one.status for one in visitor.coupon_events] == ["reserved", "expired"]


# -- files --------------------------------------------------------------------------------------------------------


def write_shop(folder: Path, codes: str, pool: str = "percent = 10") -> Path:
    for name in ("coupons", "codes"):
        (folder / name).mkdir(parents=True)
    (folder / "coupons" / "ten.toml").write_text(pool)
    (folder / "codes" / "ten.txt").write_text(codes)
    return folder


def test_codes_are_read_from_their_file(tmp_path: Path) -> None:
    found = read_playbook(write_shop(tmp_path, "# spring\nAB-1\n\n  AB-2   # for Ann\nA#3\r\n"))
    assert found.coupons[0].codes == ("AB-1", "AB-2", "A#3")


@pytest.mark.parametrize(
    ("codes", "says"),
    [
        ("A\nB\na\n", 'codes/ten.txt, line 3: "a" is already in line 1 (codes are not case-sensitive)'),
        (
            "two words\n",
            "codes/ten.txt, line 1: should be one code: 1 to 64 letters, digits and punctuation, without "
            'spaces or accents; got "two words"',
        ),
        ("caffè\n", "codes/ten.txt, line 1: should be one code"),
        ("x" * 65, "codes/ten.txt, line 1: should be one code"),
        ("# nothing\n", "codes/ten.txt, line 1: contains no codes"),
        (
            "\n".join(f"C{n}" for n in range(100_001)),
            "codes/ten.txt, line 1: has 100,001 codes; the maximum is 100,000",
        ),
        ("\n".join(["A"] * 500), "codes/ten.txt, line 22: … and 479 more errors"),
    ],
)
def test_invalid_code_file_is_reported_by_line(tmp_path: Path, codes: str, says: str) -> None:
    with pytest.raises(PlaybookError) as wrong:
        read_playbook(write_shop(tmp_path, codes))
    assert any(str(problem).startswith(says) for problem in wrong.value.diagnostics), wrong.value.diagnostics


def test_codes_belong_to_one_pool(tmp_path: Path) -> None:
    folder = write_shop(tmp_path, "A\nB\n", 'percent = 10\ncodes = ["C"]')
    (folder / "coupons" / "five.toml").write_text('percent = 5\ncodes = ["b", "D", "d"]')
    (folder / "codes" / "lost.txt").write_text("X\n")
    with pytest.raises(PlaybookError) as wrong:
        read_playbook(folder)
    assert sorted(str(problem) for problem in wrong.value.diagnostics) == [
        "codes/lost.txt, line 1: belongs to no coupon: coupons/lost.toml does not exist",
        "coupons/five.toml, line 2, codes: lists a code twice (codes are not case-sensitive)",
        "coupons/ten.toml, line 2, codes: codes/ten.txt exists too: use one of them",
        'coupons/ten.toml, line 2, codes: contains a code that is also in coupons/five: "B"',
    ]


# -- by itself ----------------------------------------------------------------------------------------------------


def test_orders_without_coupons_change_nothing() -> None:
    """An order of who has no coupon, in a shop without any, costs one look."""
    context = StepContext(0, compile_rules(pool_playbook()))
    person = Person(id="a:x")
    person.own_fragment().orders.append(Order("o1", T0))
    from operators.record_feedback import on_order_cancelled, on_order_completed

    event = Track(event="Order Completed", properties={"order_id": "o1", "coupon": "X"})
    assert on_order_completed(person, event, context) == ()
    assert on_order_cancelled(person, event, context) == ()
    assert person == Person(id="a:x", fragments=person.fragments)


def test_coupon_events_have_unique_ids(tmp_path: Path) -> None:
    found = coupon_cluster(tmp_path, ten={"size": 100_000}, five={"size": 100_000})
    for who in ("a:x", "a:y"):
        for pool in ("ten", "five"):
            found.request(who, pool)
    ids = [one.id for one in found.coupon_events() if isinstance(one, CouponEvent)]
    assert len(set(ids)) == len(ids) == 4
