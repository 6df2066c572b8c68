"""Tests of scenarios: those of the shipped shop pass; a failing one reports line and reason."""

from pathlib import Path

import msgspec
import pytest

from connectors.playbook.folder import read_playbook, read_scenarios
from domain.playbook import scenario
from domain.playbook.condition import Condition, InSession
from domain.playbook.scenario import Scenario
from domain.playbook.segment import Segment
from flows.scenarios.run import run_scenario
from state.playbook.compiled import Rules, compile_rules
from tests.harness.support import ROOT

SHOP = ROOT / "shop"
SCENARIOS, UNREADABLE = read_scenarios(SHOP)
HEADER = "# A scenario\n\n| at | person | step | name | details |\n|---|---|---|---|---|\n"


@pytest.fixture(scope="module")
def compiled_playbook() -> Rules:
    return compile_rules(read_playbook(SHOP))


def make_scenario(*rows: str) -> list[Scenario]:
    found, errors = scenario.parse_scenarios("s.md", HEADER + "\n".join(rows))
    assert not errors, errors
    return found


def failures_of(rules: Rules, *rows: str) -> list[str]:
    [one] = make_scenario(*rows)
    return [str(error) for error in run_scenario(one, rules)]


def test_shipped_scenarios_can_be_read() -> None:
    assert not UNREADABLE
    assert SCENARIOS


@pytest.mark.parametrize("one", SCENARIOS, ids=lambda one: f"{Path(one.file).stem}: {one.title}")
def test_shipped_scenarios_pass(one: Scenario, compiled_playbook: Rules) -> None:
    assert [str(error) for error in run_scenario(one, compiled_playbook)] == []


CANADA = (
    "| | | given | country | CA |",
    "| 0s | | does | Page Viewed | |",
    "| 1s | | does | Page Viewed | |",
    "| 2s | | does | Page Viewed | |",
    "| 60s | | time passes | | |",
)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("| 59s | | shown | welcome_canada | |", "s.md, line 10, shown: it happened at 60 s"),
        ("| | | shown | welcome_canada | as popup |", "shown: it was sent as banner"),
        ("| | | shown | welcome_canada | title contains Brazil |", "its title is"),
        ("| | | not shown | welcome_canada | |", "welcome_canada was shown at 60 s"),
        ("| | | nothing | | |", "Ann unexpectedly got welcome_canada at 60 s"),
        ("| | | is not in | new_visitors | |", "Ann is in new_visitors"),
        ("| | | is in | customers | |", "Ann is not in customers"),
        ("| | | suppressed | welcome_canada | |", "welcome_canada was not suppressed. Results: shown at 60 s."),
        ("| | | shown | welcome_canada | title lacks hello |", "its title is 'Bonjour, hello, Canada'"),
        (
            "| | | shown | welcome_canada | body contains seven days |",
            "its body is '<p>We ship to you from Italy in six",
        ),
        ("| | | shown | welcome_canada | button contains buy |", "its button is 'How we ship'"),
        ("| | | shown | welcome_canada | url contains /cart |", "its url is '/shop/'"),
        ("| | | shown | welcome_canada | image contains lamp |", "its image is ''"),
        ("| | | shown | welcome_canada | coupon contains LUME |", "its coupon is ''"),
        ("| | | shown | welcome_canada | discount contains 10 percent |", "its discount is ''"),
        ("| | | shown | welcome_canada | variant mobile |", "it was variant default"),
        ("| | | exits | new_visitors | |", "exits: new_visitors was not exited. Ann is in new_visitors, since 0 s: "),
        ("| | | shown | thank_you | |", 'Trigger never fired: no "Order Completed" so far.'),
        ("| | | shown | need_a_hand | |", "Ann is not in hesitating_with_cart: false: cart"),
        (
            "| | | message | cart_mail | |",
            "Ann never entered the workflow cart. Entry is blocked because the exit condition is true",
        ),
        (
            "| | | workflow | after_order | entered |",
            'Ann never entered the workflow after_order. "Order Completed" is an entry trigger',
        ),
        ("| | | workflow | welcome | entered |", "Ann is not in email_subscribers: false: "),
        ("| | | coupon | winback | reserved |", "coupon: winback had no such coupon event. No result of this kind."),
    ],
)
def test_each_failed_expectation_is_reported(compiled_playbook: Rules, row: str, expected: str) -> None:
    found = failures_of(compiled_playbook, *CANADA, row)
    assert any(expected in one for one in found), found


def test_missing_action_lists_failed_conditions(compiled_playbook: Rules) -> None:
    found = failures_of(
        compiled_playbook, CANADA[0].replace("CA", "IT"), *CANADA[1:], "| | | shown | welcome_canada | |"
    )
    assert found == ["s.md, line 10, shown: welcome_canada was not shown. False at the end: is in CA (IT)"]


def test_one_row_matches_one_action(compiled_playbook: Rules) -> None:
    found = failures_of(
        compiled_playbook, *CANADA, "| | | shown | welcome_canada | |", "| | | shown | welcome_canada | |"
    )
    assert found == ["s.md, line 11, shown: it happened only once"]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("| 0s | | does | Page Viewd | |", 'name: there is no event "Page Viewd"; did you mean "Page Viewed"?'),
        ("| 0s | | does | Page Viewed | url /shop/ |", 'details: "url /shop/" is not a property: write name=value'),
        (
            "| 0s | | does | Message Opened | campaign=cart_male |",
            'there is no campaign "cart_male"; did you mean "cart_mail"?',
        ),
        (
            "| 0s | | does | Message Suppressed | campaign=cart_mail |",
            "name: has no effect: campaigns count as seen at once",
        ),
        ("| 0s | | does | Order Completed | coupon={winbak} |", 'there is no coupon pool "winbak"; did you mean'),
        ("| | | shown | welcom_canada | |", 'there is no campaign "welcom_canada"; did you mean "welcome_canada"?'),
        ("| | | shown | cart_mail | |", "step: cart_mail is sent by email: use `message`"),
        ("| | | message | thank_you | |", "step: thank_you is shown on the site as bar: use `shown`"),
        ("| | | preloaded | thank_you | |", "step: thank_you has no exit_intent trigger"),
        ("| | | shown | thank_you | as baner |", 'details: there is no "baner"; did you mean "banner"?'),
        (
            "| | | shown | thank_you | titel contains x |",
            'details: unknown detail "titel contains x"; did you mean "title"?',
        ),
        (
            "| | | shown | thank_you | title Thank |",
            'written as "title contains …" or "title lacks …", is "title Thank"',
        ),
        ("| | | shown | thank_you | button contains |", 'or "button lacks …", is "button contains"'),
        (
            "| | | message | winback_mail | discount contains 10 |",
            "only on-site campaigns have a discount: winback_mail is sent by email",
        ),
        (
            "| | | shown | thank_you | title=Thank |",
            '"title=Thank" has no effect here; did you mean "title contains Thank"?',
        ),
        ("| | | message | cart_mail | variant shrot |", 'cart_mail has no variant "shrot"; did you mean "short"?'),
        (
            "| | | suppressed | cart_mail | because campaign_caps |",
            'there is no reason "campaign_caps"; did you mean "campaign_cap"?',
        ),
        ("| | | suppressed | cart_mail | because |", "details: needs a reason, for example: because campaign_cap"),
        ("| | | suppressed | cart_mail | because con |", 'there is no reason "con"'),
        ("| | | enters | custmers | |", 'there is no segment "custmers"; did you mean "customers"?'),
        (
            "| | | is in | customers | because campaign_cap |",
            "details: `is in` has no value in this column: leave it empty",
        ),
        ("| | | coupon | winback | reservd |", 'there is no "reservd"; did you mean "reserved"?'),
        ("| | | workflow | lamp | |", 'there is no workflow "lamp"; did you mean "lamps"?'),
        ("| | | workflow | lamps | step visit |", 'lamps has no step "visit"; did you mean "visits"?'),
        ("| | | workflow | browse | goal came_bak |", 'browse has no goal "came_bak"; did you mean "came_back"?'),
        ("| | | workflow | cart | goal won |", 'cart has no goal "won"; possible are none'),
        ("| | Bob | is in | customers | |", "person: Bob does nothing in this scenario; its people are Ann"),
        ("| | | given | country | Canada |", 'details: should be a two-letter code such as "CA", is "Canada"'),
        ("| | | given | country | UK |", 'details: there is no country "UK"; did you mean "GB"?'),
        ("| | | given | consent | granted |", "name: needs a name: `consent email:marketing`"),
        ("| | | given | consent emial:marketing | granted |", 'there is no channel "emial"; did you mean "email"?'),
        ("| | | given | consent marketing | perhaps |", 'details: should be granted or denied, is "perhaps"'),
        ("| | | given | device | fridge |", 'there is no "fridge"; possible are desktop, mobile'),
        ("| | | given | score | high |", "details: should be the probability of an order, a number between 0 and 1"),
        ("| | | given | start | monday |", "details: should be a date and a time such as 2026-03-02 10:00"),
        ("| | | given | timezone | Rome |", 'there is no time zone "Rome"'),
        ("| | | given | customer | |", "details: is missing"),
        ("| 0s | | does | logs in | custmer=ann |", "details: needs the customer id: customer=ann-1"),
        ("| 0s | | does | Message Opened | |", "details: needs the campaign: campaign=NAME"),
        (
            "| 0s | | does | Message Opened | campaign=cart_mail |",
            "details: Ann has received nothing from cart_mail by then",
        ),
        (
            "| 0s | | does | Offer Dismissed | campaign=thank_you |",
            "details: Ann has received nothing from thank_you by then",
        ),
        ("| 0s | | does | Coupon Entered | coupon={winback} |", "details: Ann has no coupon from winback at that time"),
        ("| | | nothing | thank_you | |", "name: `nothing` covers all campaigns; for one campaign use `not shown`"),
        ("| 5s | | time passes | 3s | |", "name: `time passes` has no value in this column: leave it empty"),
        ("| 9s | | nothing | | |", "at: `nothing` covers the whole time since the last"),
        ("| 9s | | is not in | customers | |", "at: `is not in` covers the whole time since"),
        ("| 9s | | given | country | CA |", "at: a `given` row applies from the start: leave `at` empty"),
    ],
)
def test_scenario_without_expectations_is_an_error(compiled_playbook: Rules, row: str, expected: str) -> None:
    found = failures_of(compiled_playbook, CANADA[1], row)
    assert len(found) == 1, found
    assert found[0].startswith("s.md, line 6, ")
    assert expected in found[0]


def test_segment_row_needs_a_person_of_the_scenario(compiled_playbook: Rules) -> None:
    bea = "| 0s | Bea | does | Page Viewed | |"
    for what in ("is in", "is not in"):
        assert failures_of(compiled_playbook, bea, f"| | | {what} | new_visitors | |") == [
            "s.md, line 6, person: is missing: Ann does nothing in this scenario; its people are Bea"
        ]
    assert failures_of(compiled_playbook, bea, "| | Bea | is in | new_visitors | |") == []


def test_given_value_can_be_set_once(compiled_playbook: Rules) -> None:
    found = failures_of(
        compiled_playbook,
        "| | | given | country | CA |",
        "| | Ann | given | device | phone |",
        "| | | given | device | tablet |",
        "| | Ann | given | country | IT |",
        "| 0s | | does | Page Viewed | |",
        "| | | given | trait plan | gold |",
        "| | | given | trait plan | silver |",
    )
    assert found == ["s.md, line 11, name: trait plan is already given in line 10"]


def test_given_source_is_the_session_source(compiled_playbook: Rules) -> None:
    asks = compile_rules(
        msgspec.structs.replace(
            compiled_playbook.playbook,
            segments=(
                *compiled_playbook.playbook.segments,
                Segment("sent", Condition(session=InSession(source="google"))),
            ),
        )
    )
    for more in ("trait plan | gold", "consent marketing | granted", "language | it"):
        assert (
            failures_of(
                asks,
                "| | | given | source | google |",
                f"| | | given | {more} |",
                "| 0s | | does | Page Viewed | |",
                "| | | is in | sent | |",
            )
            == []
        )


def test_invalid_scenario_event_is_reported(compiled_playbook: Rules) -> None:
    found = failures_of(compiled_playbook, CANADA[1], "| 5s | | does | Order Completed | total=abc |")
    assert found == [
        "s.md, line 6, details: this event is invalid: properties.total: should be an amount of money, is 'abc'"
    ]


@pytest.mark.parametrize(
    "row",
    [
        "| | | given | score | 1 |",
        "| | | given | consent sms | no |",
        "| | | given | consent email:marketing | denied |",
        "| | | given | start | 2026-12-24 |",
        "| | | given | trait plan | gold |",
        "| 0s | | does | logs in | customer=ann |",
        "| 0s | Bob | does | Page Viewed | |",
        "| | | is not in | rfm_555 | |",
        "| | | is not in | funnel_paying | |",
        "| | | not shown | cart_mail | |",
        "| 0s | | is not in | customers | |",
        "| 0s | | nothing | | |",
        "| | Bob | given | country | CA |",
    ],
)
def test_valid_rows_pass(compiled_playbook: Rules, row: str) -> None:
    assert failures_of(compiled_playbook, CANADA[1], row) == []


def test_scenario_with_message_feedback(compiled_playbook: Rules) -> None:
    assert not failures_of(
        compiled_playbook,
        "| | | given | customer | ann |",
        "| | | given | trait email | ann@shop.example |",
        "| | | given | consent email:marketing | granted |",
        "| 0s | | does | Product Added | product_id=p1, name=Mug, price=12, quantity=1 |",
        "| 1h | | time passes | | |",
        "| | | shown | need_a_hand | |",
        "| | | message | cart_mail | |",
        "| +1m | | does | Message Bounced | campaign=cart_mail, type=hard |",
        "| +1m | | does | Order Completed | order_id=o1, total=12 |",
        "| | | shown | thank_you | |",
        "| +10d | | time passes | | |",
        "| | | not shown | how_was_it | |",
    )


def test_expectations_are_per_person(compiled_playbook: Rules) -> None:
    ben = ("| 60s | Ben | does | Page Viewed | |", "| | Ann | shown | welcome_canada | |")
    assert failures_of(compiled_playbook, *CANADA[:4], *ben, "| | Ben | not shown | welcome_canada | |") == []
    assert failures_of(compiled_playbook, *CANADA[:4], *ben, "| | Ann | not shown | welcome_canada | |") == [
        "s.md, line 11, not shown: welcome_canada was shown at 60 s"
    ]


def test_failure_reasons_are_per_person(compiled_playbook: Rules) -> None:
    found = failures_of(
        compiled_playbook,
        "| | Ben | given | consent marketing | denied |",
        *CANADA[:4],
        "| 2s | Ben | does | Page Viewed | |",
        "| 2s | Ben | does | Page Viewed | |",
        "| 2s | Ben | does | Page Viewed | |",
        "| 62s | | time passes | | |",
        "| | Ann | shown | welcome_canada | |",
        "| | Ben | suppressed | welcome_canada | because consent |",
        "| | Ann | suppressed | welcome_canada | because consent |",
    )
    assert found == [
        "s.md, line 16, suppressed: welcome_canada was not suppressed. "
        "Results: shown at 60 s, suppressed at 62 s to Ben."
    ]


def test_feedback_refers_to_the_same_persons_action(compiled_playbook: Rules) -> None:
    both = [
        f"| | {who} | {row} |"
        for who in ("Ann", "Ben")
        for row in (f"given | customer | {who.lower()}", f"given | trait email | {who.lower()}@shop.example")
    ]
    found = failures_of(
        compiled_playbook,
        *both,
        "| 0s | Ann | does | Consent Updated | email:marketing=true |",
        "| | Ann | message | welcome_mail | |",
        "| 5s | Ben | does | Message Opened | campaign=welcome_mail |",
    )
    assert found == [
        "s.md, line 11, details: Ben has received nothing from welcome_mail by then, so this event has no message"
    ]


def test_matched_row_explains_a_failed_one(compiled_playbook: Rules) -> None:
    assert failures_of(
        compiled_playbook, *CANADA, "| 59s | | shown | welcome_canada | |", "| 60s | | shown | welcome_canada | |"
    ) == ["s.md, line 10, shown: it happened at 60 s"]


def test_failure_shows_the_current_workflow_step(compiled_playbook: Rules) -> None:
    found = failures_of(
        compiled_playbook,
        "| | | given | customer | ann |",
        "| | | given | trait email | ann@shop.example |",
        "| | | given | consent email:marketing | granted |",
        "| 0s | | does | Product Added | product_id=p1, name=Mug, price=12, quantity=1 |",
        "| 1h | | time passes | | |",
        "| | | shown | need_a_hand | |",
        "| | | message | cart_mail | |",
        "| 1d | | time passes | | |",
        "| | | message | cart_text | |",
    )
    assert len(found) == 1
    assert found[0].startswith(
        "s.md, line 13, message: cart_text was not sent. Ann is at the step step_2 of the "
        'workflow cart and waits for event "Message Opened", until 1d 1h.'
    )


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("| 0s | | dose | Page Viewed | |", 's.md, line 5, step: unknown step "dose"; did you mean "does"?'),
        ("| | | given | contry | CA |", 'unknown precondition "contry"; did you mean "country"?'),
        ("| soon | | does | Page Viewed | |", "at: should be a duration"),
        ("| | | time passes | | |", "at: is missing: write until when, for example 2d"),
        ("| | | shown | | |", "name: is missing"),
        ("| 5 | | does | Page Viewed | |", 'is "5"; did you mean "5s"?'),
        ("| 5 | | time passes | | |", 'is "5"; did you mean "5s"?'),
        ("| 5s | | does | Page Viewed | a=1 | b=2 |", "line 5: the row has 6 cells, but the table has 5 columns"),
    ],
)
def test_unreadable_scenario_reports_its_line(row: str, expected: str) -> None:
    _, errors = scenario.parse_scenarios("s.md", HEADER + row)
    assert expected in str(errors[0]), errors
    assert len(errors) == 1


def test_table_without_heading_is_one_error() -> None:
    _, errors = scenario.parse_scenarios(
        "s.md", "# A scenario\n\n| 0s | does | Page Viewed | |\n| 5s | does | Page Viewed | |"
    )
    assert [str(error) for error in errors] == [
        "s.md, line 3: a table starts with its column headings: | at | person | step | name | details |"
    ]


def test_time_must_not_decrease() -> None:
    _, errors = scenario.parse_scenarios(
        "s.md", HEADER + "| 5s | | does | Page Viewed | |\n| 1s | | does | Page Viewed | |"
    )
    assert "line 6, at: is earlier than the row above" in str(errors[0])


def test_file_without_a_scenario_is_an_error() -> None:
    _, errors = scenario.parse_scenarios("s.md", "# Only text")
    assert "the file has no scenario" in str(errors[0])


def test_scenario_results_are_deterministic(compiled_playbook: Rules) -> None:
    [one] = make_scenario(*CANADA, "| | | nothing | | |")
    assert run_scenario(one, compiled_playbook) == run_scenario(one, compiled_playbook)


def test_content_expectations_pass(compiled_playbook: Rules) -> None:
    assert (
        failures_of(
            compiled_playbook,
            *CANADA,
            "| 60s | | shown | welcome_canada | title contains HELLO, title lacks Brazil, "
            'body contains "days, duties paid", button contains ship, url contains /shop/, '
            '"title contains hello, canada", '
            "image lacks lamp, coupon lacks LUME, discount lacks percent, variant default |",
        )
        == []
    )
