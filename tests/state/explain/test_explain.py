"""Explain: the right person is found, and the page says what is known of them and why, in plain words."""

import re
from pathlib import Path

import pytest

from domain.action import Explanation
from domain.record import DEFAULT_PARTITIONS, partition_of
from operators.steps import STEPS
from state.decisions.log import HISTORY_TTL, MAX_HISTORY, record_decision
from state.explain.explain import (
    MAX_SHOWN_CAMPAIGNS,
    MAX_SHOWN_MESSAGES,
    decision_key,
    describe_timer,
    explain,
    find_persons,
)
from state.merge import build_merge_response, merge_into
from state.person import codec
from state.person.addresses import hash_address, suppress_address
from state.person.model import (
    CompletedRuns,
    Coupon,
    Decision,
    ExposureCounter,
    Person,
    ProfileFragment,
    SentMessage,
    routing_key,
)
from state.playbook.compiled import compile_rules
from tests.harness.cluster import ShardCluster
from tests.harness.person import T0, PersonHarness, make_playbook
from tests.harness.shard import empty_playbook, record
from tests.harness.support import ROOT

MUG = {"product_id": "mug", "name": "Tazza mug", "price": 18, "quantity": 1}


def encoded_store(*people: Person) -> dict[tuple[int, str], bytes]:
    """A store of these people."""
    return {
        (partition_of(routing_key(person.id), DEFAULT_PARTITIONS), person.id): codec.encode(person) for person in people
    }


def found_keys(who: str, *people: Person) -> list[str]:
    store = encoded_store(*people)
    return [
        person.id
        for person in find_persons(who, lambda partition, key: store.get((partition, key)), DEFAULT_PARTITIONS)
    ]


def test_explain_anonymous_visitor_with_a_cart() -> None:
    visitor = PersonHarness(make_playbook(), country="CA", device="mobile")
    visitor.emit(0, "Page Viewed")
    visitor.emit(1_000, "Product Viewed", **MUG)
    visitor.emit(2_000, "Product Added", **MUG)
    page = explain(visitor.person, "EUR").splitlines()
    assert page[0] == "a:x  (anonymous visitor)"
    assert {
        "  from            mobile, CA, Europe/Rome",
        "  session         since 2023-11-14 22:13:20: 1 page, 1 product, 1 added to the cart, first session",
        "  cart            1 product, 18.00 EUR",
        "  viewed          Tazza mug",
        "  did             Product Added: once, last 2023-11-14 22:13:22",
    } <= set(page)
    assert page[-1] == "No decisions yet."
    assert "  cart            1 product, 18.00" in explain(visitor.person, "").splitlines()


def test_messages_and_suppressed_addresses_are_listed() -> None:
    ann = Person("u:ann", messages=[SentMessage(f"m{n}", "hello", "email", 1_569_888_000_000 + n) for n in range(12)])
    ann.messages[-1].status = "bounced"
    suppress_address(ann, "email", hash_address("ann@x.example"), 1_569_888_000_000)
    page = explain(ann, "EUR").splitlines()
    written = [line for line in page if "message  " in line]
    assert written[0] == "  message         hello by email on 2019-10-01 00:00:00: bounced"
    assert len(written) == MAX_SHOWN_MESSAGES
    assert "  suppressed      by email: address suppressed on 2019-10-01 00:00:00" in page


def test_merged_customer_is_found_by_either_browser_id(tmp_path: Path) -> None:
    town = ShardCluster(tmp_path, STEPS, empty_playbook())
    for n, browser in enumerate(("phone", "laptop")):
        at = 10_000 * (n + 1)
        town.feed(
            record(browser, at=at),
            record(browser, "Product Viewed", at + 1, properties=MUG),
            record(browser, "Identified", at + 2, type="identify", userId="ann")._replace(stream="people"),
        )
    order = {"order_id": "o1", "revenue": 36, "currency": "EUR"}
    town.feed(record("laptop", "Order Completed", 30_000, userId="ann", properties=order))
    for name in ("ann", "u:ann", "phone", "a:phone", "laptop"):
        (found,) = find_persons(name, town.store.person, DEFAULT_PARTITIONS)
        page = explain(found, "EUR").splitlines()
        assert page[0] == "u:ann  (known customer)"
        assert "  also known as   a:phone, a:laptop" in page
        assert "  did             Product Viewed: 2 times, last 1970-01-01 00:00:20" in page
        assert "  orders          1, 36.00 EUR net, last 1970-01-01 00:00:30" in page


def test_unknown_id_is_not_found() -> None:
    ann, browser, lost = Person("u:ann"), Person("a:x", merged_into="u:ann"), Person("a:y", merged_into="u:gone")
    assert found_keys("bob", ann, browser) == []
    assert found_keys("a:ann", ann, browser) == []
    assert found_keys("u:x", ann, browser) == []
    assert found_keys("", ann) == []
    assert found_keys("y", ann, lost) == []
    assert found_keys("a", Person("a:a", merged_into="a:b"), Person("a:b", merged_into="a:a")) == [], "a ring ends"


def test_ambiguous_id_is_resolved_by_prefix() -> None:
    people = Person("u:x"), Person("a:x")
    assert found_keys("x", *people) == ["u:x", "a:x"]
    assert found_keys("a:x", *people) == ["a:x"]
    assert found_keys("x", Person("u:x"), Person("a:x", merged_into="u:x")) == ["u:x"]


def person_with_decisions() -> PersonHarness:
    """Somebody who is told one thing, spared another, and for whom the third never comes up."""
    limits = {"frequency_caps": {"per_session": 1}}
    visitor = PersonHarness(
        make_playbook(
            campaigns={
                "hello": {"trigger": {"event": "Quiz Finished"}, "when": {"has": {"country": "IT"}}, **limits},
                "stay": {"trigger": {"exit_intent": True}, "when": {"session": {"pages_at_least": 1}}},
                "never": {"trigger": {"event": "Order Refunded"}},
            }
        )
    )
    visitor.emit(0, "Page Viewed")
    (send,) = [one for one in visitor.emit(1_000, "Quiz Finished") if one.because.trigger != "exit intent"]
    visitor.emit(2_000, "Offer Shown", action_id=send.id, campaign="hello")
    return visitor


def test_reasons_of_sends_and_preloads_are_explained() -> None:
    visitor = person_with_decisions()
    assert explain(visitor.person, "EUR", "hello").splitlines() == [
        "a:x  (times are those of UTC)",
        "Decisions, newest first",
        '  2023-11-14 22:13:22  shown     hello                     event "Quiz Finished"',
        "                                 because is in IT (IT)",
        "                                 shown once, last 2023-11-14 22:13:22",
    ]
    assert explain(visitor.person, "EUR", "stay").splitlines() == [
        "a:x  (times are those of UTC)",
        "Decisions, newest first",
        "  2023-11-14 22:13:20  preload   stay                      exit intent",
        "                                 because at least 1 page this session (has 1)",
    ]


def test_suppressed_and_untriggered_campaigns_are_explained() -> None:
    visitor = person_with_decisions()
    visitor.emit(3_000, "Quiz Finished")
    words = explain(visitor.person, "EUR", "hello").splitlines()
    assert words[2] == "  2023-11-14 22:13:23  suppress  hello                     campaign_cap: 1 of 1 in this session"
    assert explain(visitor.person, "EUR", "never").splitlines()[1:] == ["No decision about never yet."]
    whole = explain(visitor.person, "EUR")
    assert whole.index("suppress  hello") < whole.index("preload   stay"), "newest first"
    assert "never" not in whole


def test_exposure_under_a_merged_id_is_reported() -> None:
    ann = Person("u:ann", exposures={"hello": ExposureCounter(2, 5_000)})
    assert explain(ann, "EUR", "hello").splitlines()[2:] == [
        "  1970-01-01 00:00:05  shown     hello                     reason no longer stored",
        "                                 shown 2 times, last 1970-01-01 00:00:05",
    ]


@pytest.mark.parametrize("n", [MAX_SHOWN_CAMPAIGNS, MAX_SHOWN_CAMPAIGNS + 7])
def test_explanation_is_bounded(n: int) -> None:
    ann = Person(
        "u:ann",
        fragments={"u:ann": ProfileFragment()},
        exposures={f"c{at}": ExposureCounter(1, at) for at in range(n)},
        decisions={"last": Decision(n, "suppress", "campaign_cap")},
    )
    page = explain(ann, "EUR")
    assert "  last " in page
    assert page.count("reason no longer stored") == MAX_SHOWN_CAMPAIGNS - 1
    assert page.splitlines()[-1] == f"  and {n + 1 - MAX_SHOWN_CAMPAIGNS} older decisions"


def test_times_use_the_shop_time_zone() -> None:
    visitor = person_with_decisions()
    whole = explain(visitor.person, "EUR", timezone="Europe/Rome")
    assert whole.count("Europe/Rome)") == 1
    assert "last seen 2023-11-14 23:13:21 (Europe/Rome)" in whole
    assert "  2023-11-14 23:13:22  shown     hello" in whole
    assert " 22:13" not in whole
    about = explain(visitor.person, "EUR", "hello", timezone="Europe/Rome")
    assert about.splitlines()[0] == "a:x  (times are those of Europe/Rome)"
    assert " 22:13" not in about


def test_variant_and_playbook_of_a_decision_are_shown() -> None:
    visitor = person_with_decisions()
    visitor.emit(3_000, "Quiz Finished")
    (earlier,) = visitor.person.decision_history
    told = {
        earlier.action_id: Explanation(variant="short", propensity=0.45, playbook="5d2f9ac0"),
        decision_key("hello", T0 + 3_000): Explanation(variant="default", playbook="77777777"),
    }
    words = explain(visitor.person, "EUR", "hello", logged=told).splitlines()
    assert words[3] == "                                 with playbook 77777777"
    assert (
        "                                 with variant short, assigned with probability 45.0%, playbook 5d2f9ac0"
        in words
    )
    assert "with" not in explain(visitor.person, "EUR", "hello")


def test_every_timer_kind_is_described() -> None:
    """Of every kind of timer that there is: a name of ours would tell a marketer nothing."""
    code = "".join(path.read_text() for folder in ("operators", "state") for path in (ROOT / folder).rglob("*.py"))
    kinds = set(re.findall(r'(?:TIMER = |timer = |timers\[f?)"([a-z_]+):', code))
    assert {"session_end", "workflow", "again", "untag", "segment", "arm"} <= kinds
    for kind in kinds:
        assert ":" not in describe_timer(f"{kind}:x", Person(id="a:x")), kind
    visitor = PersonHarness(make_playbook())
    visitor.emit(0, "Page Viewed")
    page = explain(visitor.person, "EUR")
    assert "  timer           2023-11-14 22:43:20  (the session ends unless there is more activity)" in page


# -- why not -----------------------------------------------------------------------------------------------------


def test_untriggered_campaign_lists_failed_conditions() -> None:
    book = make_playbook(
        campaigns={
            "canada": {
                "trigger": {"event": "Product Added"},
                "when": {"has": {"country": "CA"}, "session": {"seconds_at_least": 60}},
            }
        }
    )
    visitor = PersonHarness(book, country="IT")
    visitor.emit(0, "Page Viewed")
    words = explain(visitor.person, "EUR", "canada", visitor.context.rules, T0 + 20_000)
    assert "No decision about canada" in words
    assert "no   is in CA (IT)" in words
    assert "no   at least 60 s on the site (has 20)" in words
    assert 'Trigger never fired: no "Product Added" so far' in words


def test_unknown_campaign_gets_a_suggestion() -> None:
    visitor = PersonHarness(make_playbook(campaigns={"canada": {"trigger": {"exit_intent": True}}}))
    visitor.emit(0, "Page Viewed")
    words = explain(visitor.person, "EUR", "canda", visitor.context.rules, T0)
    assert 'There is no campaign, workflow or segment "canda" in the playbook; did you mean "canada"?' in words
    assert words.endswith('"canada"?')
    assert "decided" not in words


WORKFLOW_PLAYBOOK = make_playbook(
    segments={
        "busy": {"when": {"session": {"pages_at_least": 2}}},
        "reachable": {"when": {"has": {"address": "email"}, "in_segment": "busy"}},
        "vip": {"static": True, "enter_on": [{"event": "Order Completed"}]},
    },
    campaigns={
        "letter": {"format": "email", "trigger": {"workflow": True}},
        "gift": {"trigger": {"segment": "reachable"}},
        "lonely": {"trigger": {"workflow": True}},
    },
    workflows={
        "story": {
            "enter_on": [{"segment": "reachable"}, {"event": "Quiz Finished"}],
            "steps": [{"wait": "1h"}, {"send": "letter"}],
        }
    },
)


def explanation_lines(harness: PersonHarness, name: str, at: int) -> list[str]:
    return explain(harness.person, "EUR", name, harness.context.rules, T0 + at, "Europe/Rome").splitlines()[1:]


def test_workflow_campaign_explains_the_entry_conditions() -> None:
    visitor = PersonHarness(WORKFLOW_PLAYBOOK)
    visitor.emit(0, "Page Viewed")
    ways_in = [
        "They never entered the workflow story.",
        "They are not in reachable: false: can be reached by email; is in busy.",
        "They are not in busy: false: at least 2 pages this session (has 1).",
        '"Quiz Finished" is an entry trigger (its conditions must be true at that time): it never occurred.',
    ]
    assert explanation_lines(visitor, "story", 1_000) == ways_in
    words = explanation_lines(visitor, "letter", 1_000)
    assert words[:3] == [
        "No decision about letter yet.",
        "Now: no conditions of its own",
        "Trigger: workflow step; story sends it",
    ]
    assert words[3:7] == ["     " + line for line in ways_in]
    assert "Trigger: workflow step; no workflow sends it" in explanation_lines(visitor, "lonely", 1_000)
    assert "     " + ways_in[1] in explanation_lines(visitor, "gift", 1_000)
    visitor.emit(2_000, "Quiz Finished")
    assert explanation_lines(visitor, "story", 3_000) == [
        "They are at the step step_1 of the workflow story and wait for time to pass, until 2023-11-15 00:13:22."
    ]
    person = visitor.person
    person.runs.clear()
    person.completed_runs["story"] = CompletedRuns(1, T0 + 3_600_000)
    assert explanation_lines(visitor, "story", 5 * 3_600_000)[:2] == [
        "They were in the workflow story and exited on 2023-11-15 00:13:20 (4 hours ago).",
        "Reentry is not allowed.",
    ]


def test_entry_blocked_by_exit_condition_is_explained() -> None:
    leaves = {"session": {"pages_at_least": 2}}
    book = make_playbook(
        workflows={"story": {"enter_on": [{"event": "Quiz Finished"}], "exit_when": leaves, "steps": [{"wait": "1h"}]}}
    )
    visitor = PersonHarness(book)
    visitor.emit(0, "Page Viewed")
    never = "They never entered the workflow story."
    came = '"Quiz Finished" is an entry trigger (its conditions must be true at that time)'
    assert explanation_lines(visitor, "story", 1_000) == [never, f"{came}: it never occurred."]
    visitor.emit(2_000, "Page Viewed")
    visitor.emit(3_000, "Quiz Finished")
    assert explanation_lines(visitor, "story", 4_000) == [
        never,
        "Entry is blocked because the exit condition is true: at least 2 pages this session (has 2).",
        f"{came}: it occurred once, last on 2023-11-14 23:13:23 (1 s ago).",
    ]


def test_segment_is_explained_per_predicate() -> None:
    visitor = PersonHarness(WORKFLOW_PLAYBOOK)
    visitor.emit(0, "Page Viewed")
    assert explanation_lines(visitor, "reachable", 1_000) == [
        "They are not in reachable.",
        "     no   can be reached by email",
        "     no   is in busy",
        "     They are not in busy: false: at least 2 pages this session (has 1).",
    ]
    assert explanation_lines(visitor, "vip", 1_000) == [
        "They are not in vip: no entry event so far, or the membership expired.",
        '     Entry triggers (their conditions must be true at that time): event "Order Completed"',
    ]
    visitor.emit(2_000, "Page Viewed")
    assert explanation_lines(visitor, "busy", 3_000) == [
        "They are in busy, since 2023-11-14 23:13:22.",
        "     yes  at least 2 pages this session (has 2)",
    ]


def test_rfm_groups_and_score_bands_are_explained() -> None:
    visitor = PersonHarness(make_playbook(shop={"rfm": {}}))
    assert explanation_lines(visitor, "rfm_lost", 0) == ["They are not in rfm_lost.", "     no RFM cell: no orders"]
    visitor.emit(0, "Order Completed", order_id="o1", total=60, currency="EUR", products=[MUG])
    assert explanation_lines(visitor, "rfm_512", 1_000)[1] == ("     RFM cell rfm_512, group rfm_new_customers")
    assert explanation_lines(visitor, "rfm_555", 1_000)[0] == "They are not in rfm_555."
    assert explanation_lines(visitor, "rfm_556", 1_000) == [
        'There is no campaign, workflow or segment "rfm_556" in the playbook.'
    ]
    assert explanation_lines(PersonHarness(make_playbook()), "rfm_555", 0)[0].startswith(
        'There is no campaign, workflow or segment "rfm_555"'
    )
    assert explanation_lines(visitor, "undecided", 1_000)[1].startswith("     no score")
    visitor.person.score, visitor.person.band = 0.42, "likely_buyers"
    assert (
        explanation_lines(visitor, "undecided", 1_000)[1]
        == "     their latest score is 42.0%: they are in likely_buyers"
    )


def test_deferred_campaign_shows_its_due_time() -> None:
    visitor = PersonHarness(
        make_playbook(
            campaigns={
                "later": {"trigger": {"event": "Product Viewed", "delay": "30s"}},
                "second": {"trigger": {"seconds_on_site": 30}, "when": {"session": {"products_at_least": 1}}},
            }
        )
    )
    visitor.emit(0, "Product Viewed", **MUG)
    assert explanation_lines(visitor, "later", 10_000)[2:] == [
        'Trigger event: "Product Viewed" occurred once, last 10 s ago',
        "Decision due on 2023-11-14 23:13:50 (in 20 s)",
    ]
    assert explanation_lines(visitor, "second", 10_000)[1:4] == [
        "Now: conditions are true, but the time has not come",
        "     yes  at least 1 product this session (has 1)",
        "     may change over time in 20 s",
    ]


def test_every_predicate_is_listed() -> None:
    many = [{"session": {"pages_at_least": n}} for n in range(1, 41)]
    visitor = PersonHarness(make_playbook(segments={"deep": {"when": {"all": many}}}))
    for n in range(15):
        visitor.emit(n, "Page Viewed")
    words = explanation_lines(visitor, "deep", 1_000)
    assert sum(line.startswith("     yes") for line in words) == 15
    assert sum(line.startswith("     no") for line in words) == 25


def test_non_matching_trigger_events_are_explained() -> None:
    book = {
        "hello": {"trigger": {"event": "Order Completed"}, "format": "webhook"},
        "bye": {"trigger": {"segment": "bought"}, "format": "webhook"},
    }
    order = {"order_id": "o1", "total": 60, "currency": "EUR", "products": [MUG]}
    bought = {"bought": {"when": {"orders": {"count_at_least": 1}}}}
    late = (
        "     (events that arrive more than 2 hours late, or that are older than the playbook, "
        "do not trigger campaigns)"
    )
    visitor = PersonHarness(make_playbook(campaigns={"else": {"trigger": {"event": "Exit Intent"}}}, segments=bought))
    visitor.emit(0, "Order Completed", **order)
    visitor.context.rules = compile_rules(make_playbook(shop={"late_after": "2h"}, campaigns=book, segments=bought))
    assert late in explanation_lines(visitor, "hello", 1_000)
    assert late in explanation_lines(visitor, "bye", 1_000)
    visitor.emit(2_000, "Order Completed", **{**order, "order_id": "o2"})
    assert late not in explanation_lines(visitor, "hello", 3_000)


def test_long_durations_are_readable() -> None:
    visitor = PersonHarness(
        make_playbook(
            campaigns={
                "late": {
                    "trigger": {"event": "Product Viewed"},
                    "when": {"did": {"event": "Product Viewed", "within": "1d"}},
                }
            }
        )
    )
    visitor.emit(0, "Product Viewed", **MUG)
    words = explain(visitor.person, "EUR", "late", visitor.context.rules, T0 + 225_814_000_123)
    assert 'Trigger event: "Product Viewed" occurred once, last 7 years ago' in words
    assert "(last 7 years ago)" in words
    assert "e+" not in words


def test_expected_suppression_is_shown_without_side_effects() -> None:
    book = make_playbook(
        shop={"consent": {"default": "denied"}},
        campaigns={
            "half": {"trigger": {"event": "Product Added"}, "holdout": 0.999999},
            "free": {"trigger": {"event": "Product Added"}, "purpose": "service"},
        },
    )
    visitor = PersonHarness(book)
    visitor.emit(0, "Page Viewed")
    before = codec.encode(visitor.person)
    words = explain(visitor.person, "EUR", "half", visitor.context.rules, T0)
    assert "It would be suppressed: consent (no consent to marketing)" in words
    assert "They are in the control group (holdout)" in words
    assert "suppressed" not in explain(visitor.person, "EUR", "free", visitor.context.rules, T0)
    assert codec.encode(visitor.person) == before


def test_decision_history_is_bounded_and_merges_on_login() -> None:
    person = Person(id="a:x")
    for n in range(100):
        record_decision(person, "bar", n * 1_000, "suppress" if n % 2 else "send", f"reason {n}", action_id=f"i{n}")
    assert len(person.decision_history) == MAX_HISTORY
    words = explain(person, "EUR", "bar")
    assert "reason 99" in words
    assert "reason 98" in words
    assert "reason 60" not in words
    known = Person(id="u:ann")
    record_decision(known, "other", 98_500, "suppress", "campaign_cap")
    body = build_merge_response(person)
    merge_into(known, body, 100_000)
    assert "reason 99" in explain(known, "EUR", "bar")
    assert [one.at for one in known.decision_history] == sorted(one.at for one in known.decision_history)
    record_decision(known, "other", 100_000 + HISTORY_TTL, "suppress", "consent")
    assert all(one.at >= 100_000 for one in known.decision_history) or len(known.decision_history) <= 1


def test_coupons_are_listed() -> None:
    person = Person(
        id="a:x",
        coupons=[
            Coupon("BACK-1", "winback", "reserved", T0, T0 + 86_400_000),
            Coupon("HI-2", "welcome", "redeemed", T0, T0 + 1, order_id="o-7"),
        ],
    )
    lines = [line.strip() for line in explain(person, "EUR").splitlines() if line.startswith("  coupon")]
    assert lines == [
        "coupon          BACK-1 (winback): reserved, until 2023-11-15 22:13:20",
        "coupon          HI-2 (welcome): redeemed by order o-7",
    ]
