"""Explain: the right person is found, and the page says what is known of them and why, in plain words."""

import re
from pathlib import Path

import pytest

from domain.action import Because
from domain.partition import partition_of
from domain.streams import PARTITIONS
from flows.onsite import STEPS
from state import codec
from state.addresses import give_up, mark
from state.decisions import EARLIER_FOR, MAX_EARLIER, remember
from state.explain import MOST, NEWEST, explain, find, held_at
from state.merge import absorb, hand_over
from state.next_look import in_words
from state.person import Been, Coupon, Decision, Facts, Person, Said, Written, routing_key
from state.rules import compile_rules
from tests.shards import record, shop
from tests.support import ROOT
from tests.town import Town
from tests.visitor import T0, Visitor, playbook

MUG = {"product_id": "mug", "name": "Tazza mug", "price": 18, "quantity": 1}


def kept(*people: Person) -> dict[tuple[int, str], bytes]:
    """A store of these people."""
    return {(partition_of(routing_key(person.id), PARTITIONS), person.id): codec.encode(person) for person in people}


def keys(who: str, *people: Person) -> list[str]:
    store = kept(*people)
    return [person.id for person in find(who, lambda partition, key: store.get((partition, key)), PARTITIONS)]


def test_an_anonymous_visitor_with_a_cart() -> None:
    visitor = Visitor(playbook(), country="CA", device="mobile")
    visitor.does(0, "Page Viewed")
    visitor.does(1_000, "Product Viewed", **MUG)
    visitor.does(2_000, "Product Added", **MUG)
    page = explain(visitor.person, "EUR").splitlines()
    assert page[0] == "a:x  (anonymous visitor)"
    assert {
        "  from            mobile, CA, Europe/Rome",
        "  visit           since 2023-11-14 22:13:20: 1 page, 1 product, 1 added to the cart, first visit",
        "  cart            1 product, 18.00 EUR",
        "  looked at       Tazza mug",
        "  did             Product Added: once, last 2023-11-14 22:13:22",
    } <= set(page)
    assert page[-1] == "Nothing was decided yet."
    assert "  cart            1 product, 18.00" in explain(visitor.person, "").splitlines()


def test_what_was_written_and_which_address_was_given_up() -> None:
    ann = Person("u:ann", written=[Written(f"m{n}", "hello", "email", 1_569_888_000_000 + n) for n in range(12)])
    ann.written[-1].state = "bounced"
    give_up(ann, "email", mark("ann@x.example"), 1_569_888_000_000)
    page = explain(ann, "EUR").splitlines()
    written = [line for line in page if "was written" in line]
    assert written[0] == "  was written     hello by email on 2019-10-01 00:00:00: bounced"
    assert len(written) == NEWEST
    assert "  not reached     by email: an address was given up on 2019-10-01 00:00:00" in page


def test_a_known_customer_who_absorbed_two_browsers_is_found_by_either(tmp_path: Path) -> None:
    town = Town(tmp_path, STEPS, shop())
    for n, browser in enumerate(("phone", "laptop")):
        at = 10_000 * (n + 1)
        town.feed(record(browser, at=at), record(browser, "Product Viewed", at + 1, properties=MUG),
                  record(browser, "Identified", at + 2, type="identify", userId="ann")._replace(stream="people"))
    order = {"order_id": "o1", "revenue": 36, "currency": "EUR"}
    town.feed(record("laptop", "Order Completed", 30_000, userId="ann", properties=order))
    for name in ("ann", "u:ann", "phone", "a:phone", "laptop"):
        (found,) = find(name, town.store.person, PARTITIONS)
        page = explain(found, "EUR").splitlines()
        assert page[0] == "u:ann  (known customer)"
        assert "  also known as   a:phone, a:laptop" in page
        assert "  did             Product Viewed: 2 times, last 1970-01-01 00:00:20" in page
        assert "  orders          1, 36.00 EUR net, last 1970-01-01 00:00:30" in page


def test_nobody_is_known_by_that_id() -> None:
    ann, browser, lost = Person("u:ann"), Person("a:x", alias_of="u:ann"), Person("a:y", alias_of="u:gone")
    assert keys("bob", ann, browser) == []
    assert keys("a:ann", ann, browser) == []
    assert keys("u:x", ann, browser) == []
    assert keys("", ann) == []
    assert keys("y", ann, lost) == []
    assert keys("a", Person("a:a", alias_of="a:b"), Person("a:b", alias_of="a:a")) == [], "a ring ends"


def test_an_id_may_mean_two_and_its_prefix_says_which() -> None:
    people = Person("u:x"), Person("a:x")
    assert keys("x", *people) == ["u:x", "a:x"]
    assert keys("a:x", *people) == ["a:x"]
    assert keys("x", Person("u:x"), Person("a:x", alias_of="u:x")) == ["u:x"]


def deciding() -> Visitor:
    """Somebody who is told one thing, spared another, and for whom the third never comes up."""
    limits = {"limits": {"per_session": 1}}
    visitor = Visitor(playbook(campaigns={
        "hello": {"trigger": {"event": "Quiz Finished"}, "when": {"has": {"country": "IT"}}, **limits},
        "stay": {"trigger": {"exit_intent": True}, "when": {"session": {"pages_at_least": 1}}},
        "never": {"trigger": {"event": "Order Refunded"}}}))
    visitor.does(0, "Page Viewed")
    (send,) = [one for one in visitor.does(1_000, "Quiz Finished") if one.because.trigger != "exit intent"]
    visitor.does(2_000, "Offer Shown", action_id=send.id, campaign="hello")
    return visitor


def test_why_it_was_shown_or_armed() -> None:
    visitor = deciding()
    assert explain(visitor.person, "EUR", "hello").splitlines() == [
        "a:x  (times are those of UTC)",
        "Decisions, newest first",
        '  2023-11-14 22:13:22  shown   hello                     event "Quiz Finished"',
        "                               because is in IT (IT)",
        "                               shown once, last 2023-11-14 22:13:22",
    ]
    assert explain(visitor.person, "EUR", "stay").splitlines() == [
        "a:x  (times are those of UTC)",
        "Decisions, newest first",
        "  2023-11-14 22:13:20  arm     stay                      exit intent",
        "                               because at least 1 page this visit (has 1)",
    ]


def test_a_campaign_that_was_held_and_one_that_never_came_up() -> None:
    visitor = deciding()
    visitor.does(3_000, "Quiz Finished")
    words = explain(visitor.person, "EUR", "hello").splitlines()
    assert words[2] == "  2023-11-14 22:13:23  hold    hello                     limit: 1 of 1 in this visit"
    assert explain(visitor.person, "EUR", "never").splitlines()[1:] == ["Nothing was decided about never so far."]
    whole = explain(visitor.person, "EUR")
    assert whole.index("hold    hello") < whole.index("arm     stay"), "newest first"
    assert "never" not in whole


def test_what_was_shown_under_another_id_is_not_denied() -> None:
    ann = Person("u:ann", said={"hello": Said(2, 5_000)})
    assert explain(ann, "EUR", "hello").splitlines()[2:] == [
        "  1970-01-01 00:00:05  shown   hello                     why is not known any more",
        "                               shown 2 times, last 1970-01-01 00:00:05",
    ]


@pytest.mark.parametrize("n", [MOST, MOST + 7])
def test_the_page_is_bounded(n: int) -> None:
    ann = Person("u:ann", facets={"u:ann": Facts()}, said={f"c{at}": Said(1, at) for at in range(n)},
                 decisions={"last": Decision(n, "hold", "limit")})
    page = explain(ann, "EUR")
    assert "  last " in page
    assert page.count("why is not known any more") == MOST - 1
    assert page.splitlines()[-1] == f"  and {n + 1 - MOST} older ones"


def test_times_are_those_of_the_shop() -> None:
    visitor = deciding()
    whole = explain(visitor.person, "EUR", zone="Europe/Rome")
    assert whole.count("Europe/Rome)") == 1
    assert "last seen 2023-11-14 23:13:21 (Europe/Rome)" in whole
    assert "  2023-11-14 23:13:22  shown   hello" in whole
    assert " 22:13" not in whole
    about = explain(visitor.person, "EUR", "hello", zone="Europe/Rome")
    assert about.splitlines()[0] == "a:x  (times are those of Europe/Rome)"
    assert " 22:13" not in about


def test_with_what_it_was_decided_is_said_where_it_is_known() -> None:
    visitor = deciding()
    visitor.does(3_000, "Quiz Finished")
    (earlier,) = visitor.person.earlier
    told = {earlier.action_id: Because(variant="short", propensity=0.45, playbook="5d2f9ac0"),
            held_at("hello", T0 + 3_000): Because(variant="default", playbook="77777777")}
    words = explain(visitor.person, "EUR", "hello", told=told).splitlines()
    assert words[3] == "                               with playbook 77777777"
    assert "                               with variant short, a side that 45.0% get, playbook 5d2f9ac0" in words
    assert "with" not in explain(visitor.person, "EUR", "hello")


def test_what_somebody_is_looked_at_again_for_is_told_in_words() -> None:
    """Of every kind of timer that there is: a name of ours would tell a marketer nothing."""
    code = "".join(path.read_text() for folder in ("operators", "state") for path in (ROOT / folder).glob("*.py"))
    kinds = set(re.findall(r'(?:TIMER = |timer = |timers\[f?)"([a-z_]+):', code))
    assert {"session_end", "workflow", "again", "untag", "segment", "arm"} <= kinds
    for kind in kinds:
        assert ":" not in in_words(f"{kind}:x", Person(id="a:x")), kind
    visitor = Visitor(playbook())
    visitor.does(0, "Page Viewed")
    page = explain(visitor.person, "EUR")
    assert "  will be looked at again  2023-11-14 22:43:20  (their visit ends, if nothing more happens)" in page


# -- why not -----------------------------------------------------------------------------------------------------


def test_what_never_came_up_is_explained_from_its_conditions() -> None:
    book = playbook(campaigns={"canada": {"trigger": {"event": "Product Added"}, "when": {
        "has": {"country": "CA"}, "session": {"seconds_at_least": 60}}}})
    visitor = Visitor(book, country="IT")
    visitor.does(0, "Page Viewed")
    words = explain(visitor.person, "EUR", "canada", visitor.context.rules, T0 + 20_000)
    assert "Nothing was decided about canada" in words
    assert "no   is in CA (IT)" in words
    assert "no   at least 60 s on the site (has 20)" in words
    assert 'Its occasion never came: no "Product Added" so far' in words


def test_a_campaign_nobody_wrote_is_said_with_what_was_meant() -> None:
    visitor = Visitor(playbook(campaigns={"canada": {"trigger": {"exit_intent": True}}}))
    visitor.does(0, "Page Viewed")
    words = explain(visitor.person, "EUR", "canda", visitor.context.rules, T0)
    assert 'There is no campaign, workflow or segment "canda" in the playbook; did you mean "canada"?' in words
    assert words.endswith('"canada"?')
    assert "decided" not in words


STORY = playbook(
    segments={"busy": {"when": {"session": {"pages_at_least": 2}}},
              "reachable": {"when": {"has": {"address": "email"}, "in_segment": "busy"}},
              "vip": {"static": True, "enter_on": [{"event": "Order Completed"}]}},
    campaigns={"letter": {"format": "email", "trigger": {"workflow": True}},
               "gift": {"trigger": {"segment": "reachable"}}, "lonely": {"trigger": {"workflow": True}}},
    workflows={"story": {"enters": [{"segment": "reachable"}, {"event": "Quiz Finished"}],
                         "steps": [{"wait": "1h"}, {"send": "letter"}]}})


def why(visitor: Visitor, name: str, at: int) -> list[str]:
    return explain(visitor.person, "EUR", name, visitor.context.rules, T0 + at, "Europe/Rome").splitlines()[1:]


def test_what_a_workflow_sends_is_explained_by_what_lets_people_in() -> None:
    visitor = Visitor(STORY)
    visitor.does(0, "Page Viewed")
    ways_in = ["They never entered the workflow story.",
               "They are not in reachable: what does not hold is can be reached by email; belongs to busy.",
               "They are not in busy: what does not hold is at least 2 pages this visit (has 1).",
               '"Quiz Finished" lets people in, if its conditions hold then: it never came.']
    assert why(visitor, "story", 1_000) == ways_in
    words = why(visitor, "letter", 1_000)
    assert words[:3] == ["Nothing was decided about letter so far.", "Now: it has no conditions of its own",
                         "Its occasion is a workflow's step: story sends it"]
    assert words[3:7] == ["     " + line for line in ways_in]
    assert "Its occasion is a workflow's step: no workflow sends it" in why(visitor, "lonely", 1_000)
    assert "     " + ways_in[1] in why(visitor, "gift", 1_000)
    visitor.does(2_000, "Quiz Finished")
    assert why(visitor, "story", 3_000) == [
        "They are at the step step_1 of the workflow story and wait for time to pass, until 2023-11-15 00:13:22."]
    person = visitor.person
    person.runs.clear()
    person.been["story"] = Been(1, T0 + 3_600_000)
    assert why(visitor, "story", 5 * 3_600_000)[:2] == [
        "They were in the workflow story and left it on 2023-11-15 00:13:20 (4 hours ago).",
        "It lets nobody in a second time."]


def test_whom_a_workflow_does_not_let_in_because_they_would_leave_at_once_is_told() -> None:
    leaves = {"session": {"pages_at_least": 2}}
    book = playbook(workflows={"story": {
        "enters": [{"event": "Quiz Finished"}], "leaves": leaves, "steps": [{"wait": "1h"}]}})
    visitor = Visitor(book)
    visitor.does(0, "Page Viewed")
    never = "They never entered the workflow story."
    came = '"Quiz Finished" lets people in, if its conditions hold then'
    assert why(visitor, "story", 1_000) == [never, f"{came}: it never came."]
    visitor.does(2_000, "Page Viewed")
    visitor.does(3_000, "Quiz Finished")
    assert why(visitor, "story", 4_000) == [
        never,
        "What makes people leave it holds already, so it does not let them in: at least 2 pages this visit (has 2).",
        f"{came}: it came once, last on 2023-11-14 23:13:23 (1 s ago)."]


def test_a_segment_is_explained_statement_by_statement() -> None:
    visitor = Visitor(STORY)
    visitor.does(0, "Page Viewed")
    assert why(visitor, "reachable", 1_000) == [
        "They are not in reachable.", "     no   can be reached by email", "     no   belongs to busy",
        "     They are not in busy: what does not hold is at least 2 pages this visit (has 1)."]
    assert why(visitor, "vip", 1_000) == [
        "They are not in vip: nothing has put them in, or it is over.",
        '     What puts people in, if its conditions hold then: event "Order Completed"']
    visitor.does(2_000, "Page Viewed")
    assert why(visitor, "busy", 3_000) == [
        "They are in busy, since 2023-11-14 23:13:22.", "     yes  at least 2 pages this visit (has 2)"]


def test_cells_groups_and_bands_are_segments_that_no_file_describes() -> None:
    visitor = Visitor(playbook(shop={"rfm": {}}))
    assert why(visitor, "rfm_lost", 0) == [
        "They are not in rfm_lost.", "     they have no cell of recency, frequency and money: they never ordered"]
    visitor.does(0, "Order Completed", order_id="o1", total=60, currency="EUR", products=[MUG])
    assert why(visitor, "rfm_512", 1_000)[1] == (
        "     their cell of recency, frequency and money is rfm_512, of the group rfm_new_customers")
    assert why(visitor, "rfm_555", 1_000)[0] == "They are not in rfm_555."
    assert why(visitor, "rfm_556", 1_000) == ['There is no campaign, workflow or segment "rfm_556" in the playbook.']
    assert why(Visitor(playbook()), "rfm_555", 0)[0].startswith('There is no campaign, workflow or segment "rfm_555"')
    assert why(visitor, "undecided", 1_000)[1].startswith("     they have no score")
    visitor.person.score, visitor.person.band = 0.42, "likely_buyers"
    assert why(visitor, "undecided", 1_000)[1] == "     their latest score is 42.0%: they are in likely_buyers"


def test_what_waits_for_its_moment_says_which() -> None:
    visitor = Visitor(playbook(campaigns={
        "later": {"trigger": {"event": "Product Viewed", "delay": "30s"}},
        "second": {"trigger": {"seconds_on_site": 30}, "when": {"session": {"products_at_least": 1}}}}))
    visitor.does(0, "Product Viewed", **MUG)
    assert why(visitor, "later", 10_000)[2:] == [
        'Its occasion: "Product Viewed" came once, last 10 s ago',
        "It is decided on 2023-11-14 23:13:50 (in 20 s)"]
    assert why(visitor, "second", 10_000)[1:4] == [
        "Now: its conditions hold, and its moment has not come", "     yes  at least 1 product this visit (has 1)",
        "     by the passing of time alone this may change in 20 s"]


def test_every_statement_is_told_however_many_there_are() -> None:
    many = [{"session": {"pages_at_least": n}} for n in range(1, 41)]
    visitor = Visitor(playbook(segments={"deep": {"when": {"all": many}}}))
    for n in range(15):
        visitor.does(n, "Page Viewed")
    words = why(visitor, "deep", 1_000)
    assert sum(line.startswith("     yes") for line in words) == 15
    assert sum(line.startswith("     no") for line in words) == 25


def test_what_came_and_was_no_occasion_is_told_why() -> None:
    book = {"hello": {"trigger": {"event": "Order Completed"}, "format": "webhook"},
            "bye": {"trigger": {"segment": "bought"}, "format": "webhook"}}
    order = {"order_id": "o1", "total": 60, "currency": "EUR", "products": [MUG]}
    bought = {"bought": {"when": {"orders": {"count_at_least": 1}}}}
    late = "     (what arrives more than 2 hours late is no occasion, nor what was before the playbook)"
    visitor = Visitor(playbook(campaigns={"else": {"trigger": {"event": "Exit Intent"}}}, segments=bought))
    visitor.does(0, "Order Completed", **order)
    visitor.context.rules = compile_rules(playbook(shop={"late_after": "2h"}, campaigns=book, segments=bought))
    assert late in why(visitor, "hello", 1_000)
    assert late in why(visitor, "bye", 1_000)
    visitor.does(2_000, "Order Completed", **{**order, "order_id": "o2"})
    assert late not in why(visitor, "hello", 3_000)


def test_how_long_ago_is_said_in_words_that_one_can_picture() -> None:
    visitor = Visitor(playbook(campaigns={"late": {"trigger": {"event": "Product Viewed"}, "when": {
        "did": {"event": "Product Viewed", "within": "1d"}}}}))
    visitor.does(0, "Product Viewed", **MUG)
    words = explain(visitor.person, "EUR", "late", visitor.context.rules, T0 + 225_814_000_123)
    assert 'Its occasion: "Product Viewed" came once, last 7 years ago' in words
    assert "(last 7 years ago)" in words
    assert "e+" not in words


def test_what_would_hold_it_back_is_said_and_asking_changes_nothing() -> None:
    book = playbook(shop={"consent": {"default": "denied"}}, campaigns={
        "half": {"trigger": {"event": "Product Added"}, "holdout": 0.999999},
        "free": {"trigger": {"event": "Product Added"}, "purpose": "service"}})
    visitor = Visitor(book)
    visitor.does(0, "Page Viewed")
    before = codec.encode(visitor.person)
    words = explain(visitor.person, "EUR", "half", visitor.context.rules, T0)
    assert "It would be held back: consent (no consent to marketing)" in words
    assert "They are held out (holdout)" in words
    assert "held back" not in explain(visitor.person, "EUR", "free", visitor.context.rules, T0)
    assert codec.encode(visitor.person) == before


def test_earlier_decisions_are_kept_some_time_and_move_along_on_login() -> None:
    person = Person(id="a:x")
    for n in range(100):
        remember(person, "bar", n * 1_000, "hold" if n % 2 else "send", f"reason {n}", action_id=f"i{n}")
    assert len(person.earlier) == MAX_EARLIER
    words = explain(person, "EUR", "bar")
    assert "reason 99" in words
    assert "reason 98" in words
    assert "reason 60" not in words
    known = Person(id="u:ann")
    remember(known, "other", 98_500, "hold", "limit")
    body = hand_over(person)
    absorb(known, body, 100_000)
    assert "reason 99" in explain(known, "EUR", "bar")
    assert [one.at for one in known.earlier] == sorted(one.at for one in known.earlier)
    remember(known, "other", 100_000 + EARLIER_FOR, "hold", "consent")
    assert all(one.at >= 100_000 for one in known.earlier) or len(known.earlier) <= 1


def test_the_coupons_of_a_person_are_said() -> None:
    person = Person(id="a:x", coupons=[
        Coupon("BACK-1", "winback", "reserved", T0, T0 + 86_400_000),
        Coupon("HI-2", "welcome", "redeemed", T0, T0 + 1, order_id="o-7")])
    lines = [line.strip() for line in explain(person, "EUR").splitlines() if line.startswith("  coupon")]
    assert lines == ["coupon          BACK-1 (winback): reserved, until 2023-11-15 22:13:20",
                     "coupon          HI-2 (welcome): redeemed by order o-7"]
