"""Scenarios: every story of the shipped shop is told as it is written; a story that is not says where and why."""

from pathlib import Path

import msgspec
import pytest

from connectors.playbook_folder import read
from connectors.scenario_folder import scenarios
from domain import scenario
from domain.condition import Condition, InSession
from domain.scenario import Scenario
from domain.segment import Segment
from flows.scenarios import tell
from state.rules import Rules, compile_rules
from tests.support import ROOT

SHOP = ROOT / "shop"
STORIES, UNREADABLE = scenarios(SHOP)
HEAD = "# A story\n\n| at | who | what | which | details |\n|---|---|---|---|---|\n"


@pytest.fixture(scope="module")
def rules() -> Rules:
    return compile_rules(read(SHOP))


def story(*rows: str) -> list[Scenario]:
    found, problems = scenario.read("s.md", HEAD + "\n".join(rows))
    assert not problems, problems
    return found


def wrong(rules: Rules, *rows: str) -> list[str]:
    [one] = story(*rows)
    return [str(problem) for problem in tell(one, rules)]


def test_every_file_of_the_shop_can_be_read() -> None:
    assert not UNREADABLE
    assert STORIES


@pytest.mark.parametrize("one", STORIES, ids=lambda one: f"{Path(one.file).stem}: {one.title}")
def test_the_shop_tells_its_stories(one: Scenario, rules: Rules) -> None:
    assert [str(problem) for problem in tell(one, rules)] == []


CANADA = ("| | | given | country | CA |", "| 0s | | does | Page Viewed | |", "| 1s | | does | Page Viewed | |",
          "| 2s | | does | Page Viewed | |", "| 60s | | time passes | | |")


@pytest.mark.parametrize(("row", "said"), [
    ("| 59s | | shown | welcome_canada | |", "s.md, line 10, shown: it came at 60 s"),
    ("| | | shown | welcome_canada | as popup |", "shown: it came as banner"),
    ("| | | shown | welcome_canada | title contains Brazil |", "its title is"),
    ("| | | not shown | welcome_canada | |", "welcome_canada was shown at 60 s"),
    ("| | | nothing | | |", "nobody expected that Ann gets welcome_canada at 60 s"),
    ("| | | is not in | new_visitors | |", "Ann is in new_visitors"),
    ("| | | is in | customers | |", "Ann is not in customers"),
    ("| | | held | welcome_canada | |", "welcome_canada did not come. What came of it: shown at 60 s."),
    ("| | | shown | welcome_canada | title lacks hello |", "its title is 'Bonjour, hello, Canada'"),
    ("| | | shown | welcome_canada | body contains seven days |", "its body is '<p>We ship to you from Italy in six"),
    ("| | | shown | welcome_canada | button contains buy |", "its button is 'How we ship'"),
    ("| | | shown | welcome_canada | url contains /cart |", "its url is '/shop/'"),
    ("| | | shown | welcome_canada | image contains lamp |", "its image is ''"),
    ("| | | shown | welcome_canada | coupon contains LUME |", "its coupon is ''"),
    ("| | | shown | welcome_canada | discount contains 10 percent |", "its discount is ''"),
    ("| | | shown | welcome_canada | variant mobile |", "it was variant default"),
    ("| | | leaves | new_visitors | |", "leaves: new_visitors did not come. Ann is in new_visitors, since 0 s: "),
    ("| | | shown | thank_you | |", 'Its occasion never came: no "Order Completed" so far.'),
    ("| | | shown | need_a_hand | |", "Ann is not in hesitating_with_cart: what does not hold is cart"),
    ("| | | message | cart_mail | |", "Ann never entered the workflow cart. What makes people leave it holds already"),
    ("| | | workflow | after_order | entered |", 'Ann never entered the workflow after_order. "Order Completed" lets'),
    ("| | | workflow | welcome | entered |", "Ann is not in letters_welcome: what does not hold is"),
    ("| | | coupon | winback | reserved |", "coupon: winback did not come. Nothing of the kind came."),
])
def test_what_is_not_as_told_is_said(rules: Rules, row: str, said: str) -> None:
    found = wrong(rules, *CANADA, row)
    assert any(said in one for one in found), found


def test_why_it_did_not_come_is_said_in_the_words_of_its_conditions(rules: Rules) -> None:
    found = wrong(rules, CANADA[0].replace("CA", "IT"), *CANADA[1:], "| | | shown | welcome_canada | |")
    assert found == ["s.md, line 10, shown: welcome_canada did not come. "
                     "What did not hold at the end: is in CA (IT)"]


def test_a_row_stands_for_one_happening(rules: Rules) -> None:
    found = wrong(rules, *CANADA, "| | | shown | welcome_canada | |", "| | | shown | welcome_canada | |")
    assert found == ["s.md, line 11, shown: it came only once"]


@pytest.mark.parametrize(("row", "said"), [
    ("| 0s | | does | Page Viewd | |", 'which: there is no event "Page Viewd"; did you mean "Page Viewed"?'),
    ("| 0s | | does | Page Viewed | url /shop/ |", 'details: "url /shop/" is no property: write name=value'),
    ("| 0s | | does | Message Opened | campaign=cart_male |",
     'there is no campaign "cart_male"; did you mean "cart_mail"?'),
    ("| 0s | | does | Message Held | campaign=cart_mail |", "which: says nothing: what is shown counts as seen"),
    ("| 0s | | does | Order Completed | coupon={winbak} |", 'there are no coupons "winbak" in coupons/; did you mean'),
    ("| | | shown | welcom_canada | |", 'there is no campaign "welcom_canada"; did you mean "welcome_canada"?'),
    ("| | | shown | cart_mail | |", "what: cart_mail is written, by email: the word is `message`"),
    ("| | | message | thank_you | |", "what: thank_you is shown on the site, as bar: the word is `shown`"),
    ("| | | armed | thank_you | |", "what: thank_you is no exit offer"),
    ("| | | shown | thank_you | as baner |", 'details: there is no "baner"; did you mean "banner"?'),
    ("| | | shown | thank_you | titel contains x |",
     'details: "titel contains x" says nothing here; did you mean "title"?'),
    ("| | | shown | thank_you | title Thank |", 'written as "title contains …" or "title lacks …", is "title Thank"'),
    ("| | | shown | thank_you | button contains |", 'or "button lacks …", is "button contains"'),
    ("| | | message | winback_mail | discount contains 10 |", "winback_mail is written"),
    ("| | | shown | thank_you | title=Thank |", 'says nothing here; did you mean "title contains Thank"?'),
    ("| | | message | cart_mail | variant shrot |", 'cart_mail has no variant "shrot"; did you mean "short"?'),
    ("| | | held | cart_mail | because limits |", 'there is no reason "limits"; did you mean "limit"?'),
    ("| | | held | cart_mail | because |", "details: is missing the reason: because limit, say"),
    ("| | | held | cart_mail | because con |", 'there is no reason "con"'),
    ("| | | enters | custmers | |", 'there is no segment "custmers"; did you mean "customers"?'),
    ("| | | is in | customers | because limit |", "details: nothing can be said about `is in` here: leave it empty"),
    ("| | | coupon | winback | reservd |", 'there is no "reservd"; did you mean "reserved"?'),
    ("| | | workflow | lamp | |", 'there is no workflow "lamp"; did you mean "lamps"?'),
    ("| | | workflow | lamps | step visit |", 'lamps has no step "visit"; did you mean "visits"?'),
    ("| | | workflow | browse | goal came_bak |", 'browse has no goal "came_bak"; did you mean "came_back"?'),
    ("| | | workflow | cart | goal won |", 'cart has no goal "won"; possible are none'),
    ("| | Bob | is in | customers | |", "who: Bob does nothing in this story; it is about Ann"),
    ("| | | given | country | Canada |", 'details: should be a two-letter code such as "CA", is "Canada"'),
    ("| | | given | country | UK |", 'details: there is no country "UK"; did you mean "GB"?'),
    ("| | | given | consent | granted |", "which: is missing a name: `consent email:marketing`"),
    ("| | | given | consent emial:marketing | granted |", 'there is no channel "emial"; did you mean "email"?'),
    ("| | | given | consent marketing | perhaps |", 'details: should be granted or denied, is "perhaps"'),
    ("| | | given | device | fridge |", 'there is no "fridge"; possible are desktop, mobile'),
    ("| | | given | score | high |", "details: should be how likely they are to buy, a number between 0 and 1"),
    ("| | | given | starts | monday |", "details: should be a day and a time such as 2026-03-02 10:00"),
    ("| | | given | timezone | Rome |", 'there is no time zone "Rome"'),
    ("| | | given | customer | |", "details: is missing"),
    ("| 0s | | does | logs in | custmer=ann |", "details: is missing who they are: customer=ann-1"),
    ("| 0s | | does | Message Opened | |", "details: is missing what they answer: campaign=NAME"),
    ("| 0s | | does | Message Opened | campaign=cart_mail |", "details: Ann was told nothing of cart_mail by then"),
    ("| 0s | | does | Offer Dismissed | campaign=thank_you |", "details: Ann was told nothing of thank_you by then"),
    ("| 0s | | does | Coupon Entered | coupon={winback} |", "details: Ann has no coupon of winback at that time"),
    ("| | | nothing | thank_you | |", "which: `nothing` is about all campaigns; for one of them"),
    ("| 5s | | time passes | 3s | |", "which: nothing can be said about `time passes` here: leave it empty"),
    ("| 9s | | nothing | | |", "at: `nothing` is about all the time since the row that moved the story on"),
    ("| 9s | | is not in | customers | |", "at: `is not in` is about all the time since"),
    ("| 9s | | given | country | CA |", "at: what is given holds from the beginning"),
])
def test_a_story_that_says_nothing_is_not_told(rules: Rules, row: str, said: str) -> None:
    found = wrong(rules, CANADA[1], row)
    assert len(found) == 1, found
    assert found[0].startswith("s.md, line 6, ")
    assert said in found[0]


def test_who_is_in_a_segment_is_somebody_who_does_something(rules: Rules) -> None:
    bea = "| 0s | Bea | does | Page Viewed | |"
    for what in ("is in", "is not in"):
        assert wrong(rules, bea, f"| | | {what} | new_visitors | |") == [
            "s.md, line 6, who: of whom? Ann does nothing in this story; it is about Bea"]
    assert wrong(rules, bea, "| | Bea | is in | new_visitors | |") == []


def test_what_is_given_is_given_once(rules: Rules) -> None:
    found = wrong(rules, "| | | given | country | CA |", "| | Ann | given | device | phone |",
                  "| | | given | device | tablet |", "| | Ann | given | country | IT |",
                  "| 0s | | does | Page Viewed | |", "| | | given | trait plan | gold |",
                  "| | | given | trait plan | silver |")
    assert found == ["s.md, line 11, which: trait plan is given in line 10 already"]


def test_the_source_is_that_of_the_visit_also_where_more_is_given(rules: Rules) -> None:
    asks = compile_rules(msgspec.structs.replace(rules.playbook, segments=(
        *rules.playbook.segments, Segment("sent", Condition(session=InSession(source="google"))))))
    for more in ("trait plan | gold", "consent marketing | granted", "language | it"):
        assert wrong(asks, "| | | given | source | google |", f"| | | given | {more} |",
                     "| 0s | | does | Page Viewed | |", "| | | is in | sent | |") == []


def test_an_event_that_would_be_refused_is_said(rules: Rules) -> None:
    found = wrong(rules, CANADA[1], "| 5s | | does | Order Completed | total=abc |")
    assert found == ["s.md, line 6, details: this event would be refused: properties.total: should be an amount of "
                     "money, is 'abc'"]


@pytest.mark.parametrize("row", [
    "| | | given | score | 1 |", "| | | given | consent sms | no |", "| | | given | consent email:marketing | denied |",
    "| | | given | starts | 2026-12-24 |", "| | | given | trait plan | gold |",
    "| 0s | | does | logs in | customer=ann |",
    "| 0s | Bob | does | Page Viewed | |", "| | | is not in | rfm_555 | |", "| | | is not in | funnel_paying | |",
    "| | | not shown | cart_mail | |", "| 0s | | is not in | customers | |", "| 0s | | nothing | | |",
    "| | Bob | given | country | CA |",
])
def test_what_can_be_told_is_told(rules: Rules, row: str) -> None:
    assert wrong(rules, CANADA[1], row) == []


def test_a_letter_may_come_back(rules: Rules) -> None:
    assert not wrong(
        rules, "| | | given | customer | ann |", "| | | given | trait email | ann@shop.example |",
        "| | | given | consent email:marketing | granted |",
        "| 0s | | does | Product Added | product_id=p1, name=Mug, price=12, quantity=1 |", "| 1h | | time passes | | |",
        "| | | shown | need_a_hand | |", "| | | message | cart_mail | |",
        "| +1m | | does | Message Bounced | campaign=cart_mail, type=hard |",
        "| +1m | | does | Order Completed | order_id=o1, total=12 |", "| | | shown | thank_you | |",
        "| +10d | | time passes | | |", "| | | not shown | how_was_it | |")


def test_what_is_spared_to_one_may_be_told_to_another(rules: Rules) -> None:
    ben = ("| 60s | Ben | does | Page Viewed | |", "| | Ann | shown | welcome_canada | |")
    assert wrong(rules, *CANADA[:4], *ben, "| | Ben | not shown | welcome_canada | |") == []
    assert wrong(rules, *CANADA[:4], *ben, "| | Ann | not shown | welcome_canada | |") == [
        "s.md, line 11, not shown: welcome_canada was shown at 60 s"]


def test_why_one_did_not_get_it_is_not_why_another_did_not(rules: Rules) -> None:
    found = wrong(rules, "| | Ben | given | consent marketing | denied |", *CANADA[:4],
                  "| 2s | Ben | does | Page Viewed | |", "| 2s | Ben | does | Page Viewed | |",
                  "| 2s | Ben | does | Page Viewed | |", "| 62s | | time passes | | |",
                  "| | Ann | shown | welcome_canada | |", "| | Ben | held | welcome_canada | because consent |",
                  "| | Ann | held | welcome_canada | because consent |")
    assert found == ["s.md, line 16, held: welcome_canada did not come. "
                     "What came of it: shown at 60 s, held at 62 s to Ben."]


def test_an_answer_is_about_what_was_said_to_who_answers(rules: Rules) -> None:
    both = [f"| | {who} | {row} |" for who in ("Ann", "Ben") for row in (
        f"given | customer | {who.lower()}", f"given | trait email | {who.lower()}@shop.example")]
    found = wrong(
        rules, *both, "| 0s | Ann | does | Consent Updated | email:marketing=true |",
        "| | Ann | message | welcome_mail | |", "| 5s | Ben | does | Message Opened | campaign=welcome_mail |")
    assert found == ["s.md, line 11, details: Ben was told nothing of welcome_mail by then: there is nothing to answer"]


def test_what_one_row_has_wrong_another_may_have_right(rules: Rules) -> None:
    assert wrong(rules, *CANADA, "| 59s | | shown | welcome_canada | |", "| 60s | | shown | welcome_canada | |") == [
        "s.md, line 10, shown: it came at 60 s"]


def test_where_somebody_stands_in_a_workflow_is_said(rules: Rules) -> None:
    found = wrong(
        rules, "| | | given | customer | ann |", "| | | given | trait email | ann@shop.example |",
        "| | | given | consent email:marketing | granted |",
        "| 0s | | does | Product Added | product_id=p1, name=Mug, price=12, quantity=1 |", "| 1h | | time passes | | |",
        "| | | shown | need_a_hand | |", "| | | message | cart_mail | |", "| 1d | | time passes | | |",
        "| | | message | cart_text | |")
    assert len(found) == 1
    assert found[0].startswith('s.md, line 13, message: cart_text did not come. Ann is at the step step_2 of the '
                               'workflow cart and waits for event "Message Opened", until 1d 1h.')


@pytest.mark.parametrize(("row", "said"), [
    ("| 0s | | dose | Page Viewed | |", 's.md, line 5, what: there is no "dose"; did you mean "does"?'),
    ("| | | given | contry | CA |", '"contry" cannot be given; did you mean "country"?'),
    ("| soon | | does | Page Viewed | |", 'at: should be a duration'),
    ("| | | time passes | | |", "at: is missing: until when?"),
    ("| | | shown | | |", "which: is missing"),
    ("| 5 | | does | Page Viewed | |", 'is "5"; did you mean "5s"?'),
    ("| 5 | | time passes | | |", 'is "5"; did you mean "5s"?'),
    ("| 5s | | does | Page Viewed | a=1 | b=2 |", "line 5: the row has 6 cells, and the heading of the table has 5"),
])
def test_a_story_that_cannot_be_read_says_where(row: str, said: str) -> None:
    _, problems = scenario.read("s.md", HEAD + row)
    assert said in str(problems[0]), problems
    assert len(problems) == 1


def test_a_table_without_its_heading_is_one_mistake() -> None:
    _, problems = scenario.read("s.md", "# A story\n\n| 0s | does | Page Viewed | |\n| 5s | does | Page Viewed | |")
    assert [str(problem) for problem in problems] == [
        "s.md, line 3: a table begins with its heading: | at | who | what | which | details |"]


def test_time_does_not_run_back() -> None:
    _, problems = scenario.read("s.md", HEAD + "| 5s | | does | Page Viewed | |\n| 1s | | does | Page Viewed | |")
    assert "line 6, at: is before the row above" in str(problems[0])


def test_a_file_without_a_story_is_a_mistake() -> None:
    _, problems = scenario.read("s.md", "# Only words")
    assert "there is no story in it" in str(problems[0])


def test_the_same_story_is_told_the_same_twice(rules: Rules) -> None:
    [one] = story(*CANADA, "| | | nothing | | |")
    assert tell(one, rules) == tell(one, rules)


def test_what_was_said_can_be_told_word_for_word(rules: Rules) -> None:
    assert wrong(rules, *CANADA, "| 60s | | shown | welcome_canada | title contains HELLO, title lacks Brazil, "
                                 'body contains "days, duties paid", button contains ship, url contains /shop/, '
                                 '"title contains hello, canada", '
                                 "image lacks lamp, coupon lacks LUME, discount lacks percent, variant default |") == []
