"""Scenarios: every story of the shipped shop is told as it is written; a story that is not says where and why."""

from pathlib import Path

import pytest

from connectors.playbook_folder import read
from connectors.scenario_folder import scenarios
from domain import scenario
from domain.scenario import Scenario
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
    ("| | | held | welcome_canada | |", "welcome_canada did not come"),
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
    ("| 0s | | dose | Page Viewed | |", 's.md, line 5, what: there is no "dose"; did you mean "does"?'),
    ("| | | given | contry | CA |", '"contry" cannot be given; did you mean "country"?'),
    ("| soon | | does | Page Viewed | |", 'at: should be a duration'),
    ("| | | time passes | | |", "at: is missing: until when?"),
    ("| | | shown | | |", "which: is missing"),
])
def test_a_story_that_cannot_be_read_says_where(row: str, said: str) -> None:
    _, problems = scenario.read("s.md", HEAD + row)
    assert any(said in str(problem) for problem in problems), problems


def test_time_does_not_run_back() -> None:
    _, problems = scenario.read("s.md", HEAD + "| 5s | | does | Page Viewed | |\n| 1s | | does | Page Viewed | |")
    assert "line 6, at: is before the row above" in str(problems[0])


def test_a_file_without_a_story_is_a_mistake() -> None:
    _, problems = scenario.read("s.md", "# Only words")
    assert "there is no story in it" in str(problems[0])


def test_the_same_story_is_told_the_same_twice(rules: Rules) -> None:
    [one] = story(*CANADA, "| | | nothing | | |")
    assert tell(one, rules) == tell(one, rules)
