"""Coupons: how codes are made and leased, whom one is reserved for and whom it is not, and what becomes of it."""

from pathlib import Path
from typing import Any

import pytest

from connectors.playbook_folder import read
from domain import reject as rejects
from domain.action import CouponNews, Discount, Send
from domain.codes import ALPHABET, Codes
from domain.coupon import Pool
from domain.event import Track
from domain.letter import Letter
from domain.letter import encode as letter_bytes
from domain.partition import partition_of
from domain.problem import PlaybookError
from domain.record import Record
from domain.streams import LETTERS, PARTITIONS
from operators.redeem import codes_in
from state.context import Context
from state.coupons import discount, held, reserve
from state.desk import home_key
from state.person import MAX_COUPONS, Coupon, Order, Person
from state.pools import PoolRule
from state.rules import compile_rules
from tests.shards import Bench
from tests.test_coupons_laws import DAY, CouponTown, Wishes, playbook
from tests.visitor import T0, Visitor
from tests.visitor import playbook as full_playbook


def town(folder: Path, **pools: Any) -> CouponTown:
    return CouponTown(folder, playbook(**pools))


def news(found: CouponTown) -> list[tuple[str, str, str]]:
    return [(one.person, one.pool, one.what) for one in found.news()]


def code_of(got: Coupon | str) -> str:
    assert isinstance(got, Coupon), got
    return got.code


def granted(found: CouponTown) -> int:
    """Codes that the home of the pool "ten" has granted."""
    home = found.person(home_key("ten"))
    assert home is not None
    assert home.home is not None
    return home.home.granted


def states(found: CouponTown, who: str) -> list[tuple[str, str]]:
    person = found.person(who)
    return [(one.pool, one.state) for one in person.coupons] if person is not None else []


# -- codes -------------------------------------------------------------------------------------------------------


def test_codes_are_all_different_for_each_says_its_number() -> None:
    codes = Codes(b"a secret", "winback", "BACK-")
    numbers = [*range(50_000), *range(50_000, 10_000_000, 991), 9_999_999]
    assert [codes.number(codes.code(n)) for n in numbers] == numbers
    some = codes.code(7)
    assert some.startswith("BACK-")
    assert set(some[5:]) <= set(ALPHABET)
    assert not set(ALPHABET) & set("0O1IL2Z5S8BUV")


def test_codes_differ_by_secret_and_pool_and_tell_nothing_of_their_neighbours() -> None:
    one, other = Codes(b"a secret", "winback", ""), Codes(b"another", "winback", "")
    third = Codes(b"a secret", "welcome", "")
    assert not {one.code(n) for n in range(500)} & {two.code(n) for two in (other, third) for n in range(500)}
    assert one.mark not in {other.mark, third.mark, Codes(b"a secret", "winback", "X").mark}
    near = sum(a == b for n in range(2_000) for a, b in zip(one.code(n), one.code(n + 1), strict=True))
    assert near < 2 * 2_000 * 10 / len(ALPHABET)  # letters agree no more often than by chance


def test_a_code_of_the_pool_is_recognised_however_it_is_typed() -> None:
    rule = PoolRule(Pool("p", prefix="HI-", size=10))
    inside, outside = Codes(b"s", "p", "HI-").code(9), Codes(b"s", "p", "HI-").code(10)
    assert [rule.has(code, b"s") for code in (inside, f" {inside.lower()} ", outside, "HI-", "", "HI-" + "O" * 10)] == [
        True, True, False, False, False, False]


# -- leases ------------------------------------------------------------------------------------------------------


def test_a_large_pool_is_leased_ahead_so_that_nobody_waits(tmp_path: Path) -> None:
    found = town(tmp_path, ten={"size": 100_000})
    found.does("a:x", "Page Viewed")
    found.deliver()
    assert granted(found) == 100, "a block for this shard, a block for the one where the pool is at home"
    found.does("a:x", "Wished", properties={"pool": "ten"})
    assert code_of(found.wishes.told["a:x", "ten"]) == Codes(b"", "ten", "").code(0)


def test_a_desk_asks_for_more_before_it_has_none_left(tmp_path: Path) -> None:
    found = town(tmp_path, ten={"size": 100_000})
    here = partition_of(b"x", PARTITIONS)
    crowd = [f"a:v{n}" for n in range(10_000) if partition_of(f"v{n}".encode(), PARTITIONS) == here][:60]
    assert len(crowd) == 60
    got = [found.wish(who) for who in crowd]
    assert got[0] != "coupon_pending", "told again when the grant was here"
    assert len({code_of(one) for one in got}) == 60
    assert granted(found) == 150


def test_of_a_small_pool_everybody_waits_a_moment_and_the_last_code_is_given(tmp_path: Path) -> None:
    found = town(tmp_path, ten={"size": 5})
    found.does("a:v0", "Wished", properties={"pool": "ten"})
    assert found.wishes.told["a:v0", "ten"] == "coupon_pending"
    found.deliver()
    found.tick(found.clock)
    assert isinstance(found.wishes.told["a:v0", "ten"], Coupon)
    got = []
    for n in range(1, 7):
        found.wish(f"a:v{n}")
        found.tick(found.clock)
        got.append(found.wishes.told[f"a:v{n}", "ten"])
    assert [isinstance(one, Coupon) for one in got] == [True] * 4 + [False] * 2
    assert got[4:] == ["sold_out", "sold_out"]
    found.rules = compile_rules(playbook(ten={"size": 6}))  # the marketer makes it larger
    found.wish("a:v6")
    assert isinstance(found.wishes.told["a:v6", "ten"], Coupon)


def test_codes_that_were_given_out_must_stay_where_they_are(tmp_path: Path) -> None:
    found = town(tmp_path, ten={"codes": ["A", "B", "C"]})
    assert code_of(found.wish("a:v0")) == "A"
    found.rules = compile_rules(playbook(ten={"codes": ["A", "B", "C", "D"]}))  # one at the end: fine
    assert code_of(found.wish("a:v1")) == "B"
    found.rules = compile_rules(playbook(ten={"codes": ["B", "C", "D"]}))  # the used one taken out
    assert found.wish("a:v2") == "codes_changed"
    found.rules = compile_rules(playbook(ten={"codes": ["A", "B", "C"]}))
    assert code_of(found.wish("a:v2")) == "C"
    assert found.wish("a:v3") == "sold_out"


@pytest.mark.parametrize(("kind", "sender", "to", "body"), [
    ("lease", "a:eve", "c:ten", {}),
    ("lease", "d:ten#0#999", "c:ten", {}),
    ("lease", "d:ten#9999999#0", "c:ten", {}),
    ("lease", "d:ten#x#0", "c:ten", {}),
    ("grant", "c:ten", "a:eve", {"codes": ["MINE"]}),
    ("grant", "a:eve", "d:ten#0#0", {"codes": ["MINE"]}),
    ("codes", "a:eve", "a:eve", {}),
    ("codes", "HERE", "c:ten", {}),
    ("lease", "HERE", "c:ten", {"wanted": "all"}),
    ("grant", "c:ten", "HERE", {"codes": [1]}),
    ("grant", "c:ten", "HERE", {"codes": "ABC"}),
])
def test_no_other_letter_moves_a_code(tmp_path: Path, kind: str, sender: str, to: str, body: dict[str, Any]) -> None:
    from state.desk import desk_key

    here = partition_of(b"ten", PARTITIONS)
    bench = Bench(tmp_path, [Wishes()], here)
    bench.rules = compile_rules(playbook(ten={"size": 5}))
    key = desk_key("ten", here, PARTITIONS)
    letter = Letter(kind, sender.replace("HERE", key), to.replace("HERE", key), 3, body)
    rows = bench.apply(Record(LETTERS, here, 1, T0, b"ten", letter_bytes(letter)))
    assert [rejects.decode(row.body).kind for row in rows] == ["unreadable"]
    assert bench.shard.bugs == []


def test_what_a_failing_step_took_is_back_on_the_desk(tmp_path: Path) -> None:
    found = town(tmp_path, ten={"size": 100_000})
    found.does("a:x", "Page Viewed")
    found.deliver()
    found.boom("a:x")
    assert states(found, "a:x") == []
    here = partition_of(b"x", PARTITIONS)
    other = next(f"a:v{n}" for n in range(10_000) if partition_of(f"v{n}".encode(), PARTITIONS) == here)
    codes = Codes(b"", "ten", "")
    assert [code_of(found.wish(who)) for who in (other, "a:x")] == [codes.code(0), codes.code(1)]


def test_recorded_days_spend_no_code() -> None:
    visitor = Visitor(playbook(ten={"size": 5}))
    visitor.context.history = True
    assert reserve(visitor.person, "ten", "c", visitor.context) == "recorded_days"
    assert reserve(visitor.person, "nine", "c", visitor.context) == "no_coupon"


# -- promises ----------------------------------------------------------------------------------------------------


def test_a_coupon_is_offered_again_until_it_ends_and_then_never(tmp_path: Path) -> None:
    found = town(tmp_path, ten={"size": 100_000, "valid_for": "2d"})
    first = code_of(found.wish("a:x"))
    began = found.clock
    found.clock += DAY
    assert code_of(found.wish("a:x")) == first
    found.tick(began + 2 * DAY - 1)
    assert states(found, "a:x") == [("ten", "reserved")]
    rows = found.tick(began + 2 * DAY)
    assert states(found, "a:x") == [("ten", "expired")]
    assert [row.at for row in rows if b'"expired"' in row.body] == [began + 2 * DAY]
    assert found.wish("a:x") == "coupon_once"
    assert news(found) == [("a:x", "ten", "reserved"), ("a:x", "ten", "expired")]


def test_who_may_have_more_than_one_gets_another_code_each_time(tmp_path: Path) -> None:
    found = town(tmp_path, ten={"size": 100_000, "valid_for": "1d", "once": False})
    codes = set()
    for n in range(MAX_COUPONS + 5):
        codes.add(code_of(found.wish("a:x")))
        found.does("a:x", "Order Completed", properties={"order_id": f"o{n}", "coupon": code_of(found.wish("a:x"))})
        found.clock += DAY
    assert len(codes) == MAX_COUPONS + 5
    person = found.person("a:x")
    assert person is not None
    assert len(person.coupons) == MAX_COUPONS
    assert not [name for name in person.timers if name.startswith("coupon:")]


def test_coupons_that_exclude_each_other(tmp_path: Path) -> None:
    found = town(tmp_path, ten={"size": 100_000, "valid_for": "1d"}, big={"size": 100_000, "not_with": ["ten"]})
    found.wish("a:x")
    assert found.wish("a:x", "big") == "coupon_not_with"
    assert isinstance(found.wish("a:y", "big"), Coupon)
    assert isinstance(found.wish("a:y"), Coupon), "only one of the two says so"
    found.clock += DAY
    found.tick(found.clock)
    assert isinstance(found.wish("a:x", "big"), Coupon), "what is over excludes nothing"


def test_the_first_order_coupon_is_not_for_who_bought_on_another_device_or_in_the_shop(tmp_path: Path) -> None:
    """The mistake nobody may make: she bought on the desktop, and the phone offers her the first-order coupon."""
    found = town(tmp_path, first={"size": 100_000, "first_order_only": True})
    found.does("a:desktop", "Order Completed", properties={"order_id": "o1", "total": 30})
    found.does("u:ann", "Page Viewed", anonymousId="desktop")
    found.deliver()
    code_of(found.wish("a:phone", "first"))  # nobody knows yet who that is
    found.does("u:ann", "Page Viewed", anonymousId="phone")
    found.deliver()
    assert states(found, "u:ann") == [("first", "released")]
    assert found.wish("u:ann", "first") == "coupon_first_order"
    assert news(found) == [("a:phone", "first", "reserved"), ("u:ann", "first", "released")]
    till = {"context": {"attimo": {"offline": True}}, "properties": {"order_id": "t1", "total": 9}}
    found.does("u:bob", "Order Completed", **till)
    assert found.wish("u:bob", "first") == "coupon_first_order"


def test_a_first_order_ends_the_promise_and_its_cancellation_renews_it(tmp_path: Path) -> None:
    found = town(tmp_path, first={"size": 100_000, "first_order_only": True})
    code = code_of(found.wish("a:x", "first"))
    found.does("a:x", "Order Completed", properties={"order_id": "o1", "total": 30})  # without the coupon
    assert states(found, "a:x") == [("first", "released")]
    found.does("a:x", "Order Cancelled", properties={"order_id": "o1"})
    assert code_of(found.wish("a:x", "first")) == code


def test_who_holds_as_many_as_anybody_can_gets_no_more() -> None:
    visitor = Visitor(playbook(ten={"size": 5}))
    visitor.person.coupons = [Coupon(f"C{n}", f"p{n}", "reserved", 0, 2 * T0) for n in range(MAX_COUPONS)]
    assert reserve(visitor.person, "ten", "c", visitor.context) == "coupon_limit"


# -- orders ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("says", [
    lambda code: {"coupon": code},
    lambda code: {"coupon": f"  {code.lower()} "},
    lambda code: {"coupons": ["OTHER", code]},
    lambda code: {"discount_codes": [{"code": code, "amount": "5.00"}]},
    lambda code: {"products": [{"product_id": "p", "coupon": code}]},
])
def test_an_order_redeems_what_is_theirs(tmp_path: Path, says: Any) -> None:
    found = town(tmp_path, ten={"size": 100_000})
    code = code_of(found.wish("a:x"))
    order = {"order_id": "o1", "total": 30, **says(code)}
    found.does("a:x", "Order Completed", properties=order)
    found.does("a:x", "Order Completed", properties=order)
    person = found.person("a:x")
    assert person is not None
    assert [(one.state, one.order_id) for one in person.coupons] == [("redeemed", "o1")]
    assert not [name for name in person.timers if name.startswith("coupon:")]
    assert found.wish("a:x") == "coupon_once"
    assert news(found) == [("a:x", "ten", "reserved"), ("a:x", "ten", "redeemed")]


def test_a_cancelled_order_gives_the_coupon_back_while_it_lasts(tmp_path: Path) -> None:
    found = town(tmp_path, ten={"size": 100_000, "valid_for": "2d"})
    code, began = code_of(found.wish("a:x")), found.clock
    for order in ("o1", "o2"):
        found.does("a:x", "Order Completed", properties={"order_id": order, "total": 30, "coupon": code})
        found.does("a:x", "Order Cancelled", properties={"order_id": order})
        assert code_of(found.wish("a:x")) == code
    found.does("a:x", "Order Completed", properties={"order_id": "o3", "total": 30, "coupon": code})
    found.does("a:x", "Order Refunded", properties={"order_id": "o3", "total": 30})
    assert states(found, "a:x") == [("ten", "redeemed")], "goods that come back bring no coupon back"
    found.clock = began + 2 * DAY
    found.does("a:x", "Order Cancelled", properties={"order_id": "o3"})
    assert states(found, "a:x") == [("ten", "expired")]


def test_somebody_elses_code_is_counted_and_redeemed_by_nobody(tmp_path: Path) -> None:
    from state.desk import desk_key

    found = town(tmp_path, ten={"size": 100_000})
    code = code_of(found.wish("a:x"))
    found.does("a:thief", "Order Completed", properties={"order_id": "o1", "coupon": code})
    found.does("a:thief", "Order Completed", properties={"order_id": "o2", "coupon": "NOT-OURS"})
    assert states(found, "a:x") == [("ten", "reserved")]
    assert states(found, "a:thief") == []
    keeper = found.person(desk_key("ten", partition_of(b"thief", PARTITIONS), PARTITIONS))
    assert keeper is not None
    assert keeper.desk is not None
    assert keeper.desk.strangers == 1


def test_the_shop_has_the_last_word_a_code_that_was_over_is_redeemed_when_an_order_was_placed_with_it(
        tmp_path: Path) -> None:
    found = town(tmp_path, ten={"size": 100_000, "valid_for": "1d"})
    code = code_of(found.wish("a:x"))
    found.clock += 3 * DAY
    found.tick(found.clock)
    found.does("a:x", "Order Completed", properties={"order_id": "o1", "coupon": code})
    assert states(found, "a:x") == [("ten", "redeemed")]


@pytest.mark.parametrize("properties", [
    {"coupon": 7}, {"coupon": ["x" * 65]}, {"coupons": {"a": 1}}, {"products": "p"},
    {"products": [None, {"coupon": {}}]}, {"discount_codes": [[]]}, {"coupon": ""}, {"coupon": "   "}, {},
])
def test_what_is_no_code_is_passed_over(properties: dict[str, Any]) -> None:
    assert list(codes_in(properties)) == []


def test_an_order_with_a_thousand_codes_is_read_to_its_fiftieth() -> None:
    assert len(list(codes_in({"coupons": [f"C{n}" for n in range(1_000)]}))) == 50


# -- one person ---------------------------------------------------------------------------------------------------


def test_on_login_her_own_coupon_stays_and_the_other_is_released(tmp_path: Path) -> None:
    found = town(tmp_path, ten={"size": 100_000})
    lost = code_of(found.wish("a:x"))
    found.clock += 5_000
    kept = code_of(found.wish("u:ann"))
    found.does("u:ann", "Page Viewed", anonymousId="x")
    found.deliver()
    assert states(found, "u:ann") == [("ten", "released"), ("ten", "reserved")]
    assert states(found, "a:x") == []
    person = found.person("u:ann")
    assert person is not None
    assert held(person, "ten") == person.coupons[1]
    assert person.coupons[1].code == kept
    assert [name for name in person.timers if name.startswith("coupon:")] == ["coupon:" + kept]
    found.does("u:ann", "Order Completed", properties={"order_id": "o1", "coupon": lost})
    assert states(found, "u:ann") == [("ten", "redeemed"), ("ten", "released")], "she had that code in her hand"


@pytest.mark.parametrize("first", ["x", "y"])
def test_of_two_visitors_who_are_one_the_older_coupon_stays_in_whatever_order_they_log_in(
        tmp_path: Path, first: str) -> None:
    found = town(tmp_path, ten={"size": 100_000})
    older = code_of(found.wish("a:x"))
    found.clock += 5_000
    found.wish("a:y")
    for who in (first, "y" if first == "x" else "x"):
        found.does("u:ann", "Page Viewed", anonymousId=who)
        found.deliver()
    person = found.person("u:ann")
    assert person is not None
    assert [(one.code, one.origin) for one in person.coupons if one.state == "reserved"] == [(older, "a:x")]


def test_a_coupon_that_was_used_before_the_login_is_used(tmp_path: Path) -> None:
    found = town(tmp_path, ten={"size": 100_000})
    found.does("a:x", "Order Completed", properties={"order_id": "o1", "coupon": code_of(found.wish("a:x"))})
    found.wish("u:ann")
    found.does("u:ann", "Page Viewed", anonymousId="x")
    found.deliver()
    assert states(found, "u:ann") == [("ten", "redeemed"), ("ten", "released")]
    assert found.wish("u:ann") == "coupon_once"


def test_who_waited_and_logged_in_meanwhile_is_found_under_the_new_name(tmp_path: Path) -> None:
    found = town(tmp_path, ten={"size": 5})
    found.does("a:x", "Wished", properties={"pool": "ten"})
    found.does("u:ann", "Page Viewed", anonymousId="x")
    while waiting := [row for row in found.letters if b'"lease"' not in row.body]:
        found.letters.remove(waiting[0])
        found.hand(waiting[0])
    found.deliver()
    found.tick(found.clock)
    found.deliver()
    found.tick(found.clock)
    person = found.person("a:x")
    assert person is not None
    assert person.alias_of == "u:ann"
    assert not person.coupons
    assert not person.timers
    assert states(found, "u:ann") == [("ten", "reserved")]


# -- what campaigns and pages make of it --------------------------------------------------------------------------


def test_what_a_coupon_is_worth() -> None:
    rules = compile_rules(playbook(ten={}, five={"percent": None, "amount": 5.0, "min_value": 20, "products": ["p1"]},
                                   post={"percent": None, "free_shipping": True}))
    person = Person(id="a:x", coupons=[
        Coupon(name.upper(), name, "reserved", 0, 9) for name in ("ten", "five", "post")])
    assert discount(person, "ten", rules) == Discount("TEN", percent=10.0, expires_at=9)
    assert discount(person, "five", rules) == Discount(
        "FIVE", amount=5.0, currency="EUR", min_value=20.0, products=("p1",), expires_at=9)
    assert discount(person, "post", rules) == Discount("POST", free_shipping=True, expires_at=9)
    person.coupons[0].state = "redeemed"
    assert discount(person, "ten", rules) is None


def test_a_coupon_is_offered_with_its_code_and_recalled_when_its_owner_lands() -> None:
    visitor = Visitor(full_playbook(
        coupons=[{"name": "back", "percent": 15, "valid_for": "14d", "codes": ["BACK-1"]}],
        campaigns={
            "offer": {"trigger": {"event": "Product Viewed"}, "coupon": "back", "valid_for": "10m", "content": {
                "default": {"title": "{{ coupon.percent }} % with {{ coupon }} until {{ coupon.expires }}"}}},
            "reminder": {"format": "bar", "trigger": {"event": "Page Viewed"}, "coupon": "back",
                         "when": {"holds_coupon": {"pool": "back"}},
                         "content": {"default": {"title": "Your code {{ coupon.code }} is waiting"}}}}))
    visitor.does(0, "Page Viewed")
    visitor.does(1_000, "Product Viewed", product_id="p1")
    visitor.waits(2_000)
    [offer] = [one for one in visitor.actions if isinstance(one, Send)]
    assert offer.content.title == "15 % with BACK-1 until 2023-11-28"
    assert offer.discount == Discount("BACK-1", percent=15.0, expires_at=T0 + 1_000 + 14 * DAY)
    visitor.does(13 * DAY, "Page Viewed")
    said = [one.content.title for one in visitor.actions if isinstance(one, Send)]
    assert said[1:] == ["Your code BACK-1 is waiting"]
    began = len(visitor.actions)
    visitor.does(15 * DAY, "Page Viewed")
    assert not [one for one in visitor.actions[began:] if isinstance(one, Send)], "it has ended"
    assert [one.what for one in visitor.news] == ["reserved", "expired"]


# -- files --------------------------------------------------------------------------------------------------------


def shop(folder: Path, codes: str, pool: str = "percent = 10") -> Path:
    for name in ("coupons", "codes"):
        (folder / name).mkdir(parents=True)
    (folder / "coupons" / "ten.toml").write_text(pool)
    (folder / "codes" / "ten.txt").write_text(codes)
    return folder


def test_codes_come_from_their_file(tmp_path: Path) -> None:
    found = read(shop(tmp_path, "# spring\nAB-1\n\n  AB-2   # for Ann\nA#3\r\n"))
    assert found.coupons[0].codes == ("AB-1", "AB-2", "A#3")


@pytest.mark.parametrize(("codes", "says"), [
    ("A\nB\na\n", 'codes/ten.txt, line 3: "a" stands in line 1 already (capitals make no difference)'),
    ("two words\n", "codes/ten.txt, line 1: should be one code: 1 to 64 letters, digits and signs, without blanks or "
                    'accents; is "two words"'),
    ("caffè\n", "codes/ten.txt, line 1: should be one code"),
    ("x" * 65, "codes/ten.txt, line 1: should be one code"),
    ("# nothing\n", "codes/ten.txt, line 1: has no code in it"),
    ("\n".join(f"C{n}" for n in range(100_001)), "codes/ten.txt, line 1: has 100,001 codes; at most 100,000 are read"),
    ("\n".join(["A"] * 500), "codes/ten.txt, line 22: … and 479 more like these"),
])
def test_a_file_of_codes_with_a_mistake_is_refused_by_its_line(tmp_path: Path, codes: str, says: str) -> None:
    with pytest.raises(PlaybookError) as wrong:
        read(shop(tmp_path, codes))
    assert any(str(problem).startswith(says) for problem in wrong.value.problems), wrong.value.problems


def test_codes_belong_to_one_pool(tmp_path: Path) -> None:
    folder = shop(tmp_path, "A\nB\n", 'percent = 10\ncodes = ["C"]')
    (folder / "coupons" / "five.toml").write_text('percent = 5\ncodes = ["b", "D", "d"]')
    (folder / "codes" / "lost.txt").write_text("X\n")
    with pytest.raises(PlaybookError) as wrong:
        read(folder)
    assert sorted(str(problem) for problem in wrong.value.problems) == [
        'codes/lost.txt, line 1: belongs to no coupons: there is no coupons/lost.toml',
        'coupons/five.toml, line 2, codes: lists a code twice (capitals make no difference)',
        'coupons/ten.toml, line 2, codes: has a code that coupons/five has too: "B"',
        'coupons/ten.toml, line 2, codes: stands beside codes/ten.txt: choose one',
    ]


# -- by itself ----------------------------------------------------------------------------------------------------


def test_reserving_leaves_everything_else_of_the_order_alone() -> None:
    """An order of who has no coupon, in a shop without any, costs one look."""
    context = Context(0, compile_rules(playbook()))
    person = Person(id="a:x")
    person.own().orders.append(Order("o1", T0))
    from operators.redeem import cancelled, ordered

    event = Track(event="Order Completed", properties={"order_id": "o1", "coupon": "X"})
    assert ordered(person, event, context) == ()
    assert cancelled(person, event, context) == ()
    assert person == Person(id="a:x", facets=person.facets)


def test_news_has_an_id_of_its_own(tmp_path: Path) -> None:
    found = town(tmp_path, ten={"size": 100_000}, five={"size": 100_000})
    for who in ("a:x", "a:y"):
        for pool in ("ten", "five"):
            found.wish(who, pool)
    ids = [one.id for one in found.news() if isinstance(one, CouponNews)]
    assert len(set(ids)) == len(ids) == 4
