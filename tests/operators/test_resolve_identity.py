"""A login loses nothing: before and after, late letters or not, it is one person and one outcome."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from domain import outcome as outcomes
from domain.action import Disarm
from domain.letter import Letter
from domain.outcome import Outcome
from domain.playbook import Playbook
from domain.record import Record
from domain.streams import OUTCOMES
from operators import fold_profile, resolve_identity, score
from state.context import Context, Step
from state.person import Armed, Person
from state.rules import compile_rules
from state.view import known
from tests.shards import record, shop
from tests.town import Town

STEPS: Sequence[Step] = (resolve_identity.step, fold_profile.step, score.step)
CUP: dict[str, Any] = {"product_id": "cup", "name": "Cup", "price": 12.5, "quantity": 1, "currency": "EUR"}


def story(at: int = 1_000) -> list[Record]:
    """Ann looks, puts a cup into the cart, logs in, and buys; the browser sends both ids from then on."""
    both: dict[str, Any] = {"userId": "ann"}
    return [
        record("x1", at=at),
        record("x1", "Product Viewed", at + 1_000, properties=CUP),
        record("x1", "Product Added", at + 2_000, properties=CUP),
        record("x1", "Identified", at + 3_000, type="identify", traits={"first_name": "Ann"}, **both)._replace(
            stream="people"),
        record("x1", "Order Completed", at + 4_000, **both,
               properties={"order_id": "o1", "revenue": 12.5, "currency": "EUR", "products": [CUP]}),
    ]


def found(town: Town) -> list[Outcome]:
    return cast("list[Outcome]", town.said(OUTCOMES, outcomes.decode))


def ann(town: Town) -> Person:
    person = town.person("u:ann")
    assert person is not None
    return person


@pytest.mark.parametrize("post", [True, False])
def test_view_cart_login_order_is_one_person_and_one_positive_outcome(tmp_path: Path, post: bool) -> None:
    town = Town(tmp_path, STEPS, shop())
    town.feed(*story(), post=post)
    town.deliver()
    town.tick(10_000_000)
    facts = known(ann(town))
    assert (facts.pages, facts.counts["Product Viewed"].n, facts.counts["Product Added"].n) == (1, 1, 1)
    assert (facts.order_count, facts.revenue, facts.sessions) == (1, 1250, 1)
    assert [outcome.label for outcome in found(town)] == [True]
    browser = town.person("a:x1")
    assert browser is not None
    assert (browser.alias_of, browser.facets, browser.session) == ("u:ann", {}, None)


def test_what_the_browser_held_ready_is_taken_back_with_the_reason() -> None:
    browser = Person(id="a:x1", armed={"exit_intent": Armed("offer", "id", "key", 9_000, "x1")})
    context = Context(0, compile_rules(Playbook()))
    claim = Letter(kind="claim", sender="u:ann", to="a:x1", seq=1)
    (disarm,) = [one for one in resolve_identity.step(browser, claim, context) if isinstance(one, Disarm)]
    assert (disarm.because.trigger, disarm.because.reason) == ("letter", "they logged in")
    assert disarm.because.playbook == context.rules.short


def test_what_the_browser_does_later_without_the_user_id_is_forwarded(tmp_path: Path) -> None:
    town = Town(tmp_path, STEPS, shop())
    town.feed(*story(), record("x1", "Product Viewed", 9_000, properties=CUP))
    assert known(ann(town)).counts["Product Viewed"].n == 2
    assert town.person("a:x1").facets == {}  # type: ignore[union-attr]  # asserted above to exist


def test_the_cart_and_the_open_visit_move_along(tmp_path: Path) -> None:
    town = Town(tmp_path, STEPS, shop())
    town.feed(*story()[:4])
    person = ann(town)
    assert person.cart is not None
    assert person.cart.value == 1250
    assert person.session is not None
    assert (person.session.started_at, person.session.pages, person.session.products) == (1_000, 1, 1)
    assert person.session.anonymous_id == "x1"


def test_two_browsers_of_one_customer(tmp_path: Path) -> None:
    town = Town(tmp_path, STEPS, shop())
    desktop = story()
    phone = [record("x2", "Product Viewed", 20_000, properties=CUP),
             record("x2", at=21_000, userId="ann")]
    town.feed(*desktop, *phone)
    person = ann(town)
    assert {name for name, link in person.links.items() if link.state == "joined"} == {"a:x1", "a:x2"}
    assert known(person).order_count == 1
    assert known(person).counts["Product Viewed"].n == 2


def test_an_alias_call_joins_as_a_login_does(tmp_path: Path) -> None:
    town = Town(tmp_path, STEPS, shop())
    town.feed(record("x1", "Product Viewed", 1_000, properties=CUP))
    alias = record("x9", "Aliased", 2_000, type="alias", userId="ann", previousId="x1", anonymousId=None)
    town.feed(alias._replace(stream="people"))
    assert known(ann(town)).counts["Product Viewed"].n == 1


def test_a_second_customer_on_the_same_browser_takes_nothing_of_the_first(tmp_path: Path) -> None:
    town = Town(tmp_path, STEPS, shop())
    town.feed(*story(), record("x1", at=50_000, userId="bob"), record("x1", at=51_000))
    bob = town.person("u:bob")
    assert bob is not None
    assert (known(bob).order_count, known(bob).pages) == (0, 2)
    assert known(ann(town)).order_count == 1


def test_claims_are_sent_once(tmp_path: Path) -> None:
    town = Town(tmp_path, STEPS, shop())
    town.feed(*story(), *[record("x1", at=20_000 + n, userId="ann") for n in range(5)])
    assert sum(row.stream == "letters" for row in town.rows) == 2  # one claim, one handover
