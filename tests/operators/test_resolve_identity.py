"""A login loses nothing: before and after, late letters or not, it is one person and one outcome."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from domain import action as outcomes
from domain.action import Cancel, Outcome, ShardMessage
from domain.playbook.playbook import Playbook
from domain.record import OUTCOMES, Record
from operators import resolve_identity, score, update_profile
from state.context import StepContext, StepFunction
from state.person.model import Person, PreloadedOffer
from state.playbook.compiled import compile_rules
from state.profile.profile import merged_profile
from tests.harness.cluster import ShardCluster
from tests.harness.shard import empty_playbook, record

STEPS: Sequence[StepFunction] = (resolve_identity.step, update_profile.step, score.step)
CUP: dict[str, Any] = {"product_id": "cup", "name": "Cup", "price": 12.5, "quantity": 1, "currency": "EUR"}


def purchase_events(at: int = 1_000) -> list[Record]:
    """Ann looks, puts a cup into the cart, logs in, and buys; the browser sends both ids from then on."""
    both: dict[str, Any] = {"userId": "ann"}
    return [
        record("x1", at=at),
        record("x1", "Product Viewed", at + 1_000, properties=CUP),
        record("x1", "Product Added", at + 2_000, properties=CUP),
        record("x1", "Identified", at + 3_000, type="identify", traits={"first_name": "Ann"}, **both)._replace(
            stream="people"
        ),
        record(
            "x1",
            "Order Completed",
            at + 4_000,
            **both,
            properties={"order_id": "o1", "revenue": 12.5, "currency": "EUR", "products": [CUP]},
        ),
    ]


def decoded_outcomes(cluster: ShardCluster) -> list[Outcome]:
    return cast("list[Outcome]", cluster.decoded(OUTCOMES, outcomes.decode_outcome))


def get_ann(cluster: ShardCluster) -> Person:
    person = cluster.person("u:ann")
    assert person is not None
    return person


@pytest.mark.parametrize("post", [True, False])
def test_login_merges_session_into_one_positive_outcome(tmp_path: Path, post: bool) -> None:
    town = ShardCluster(tmp_path, STEPS, empty_playbook())
    town.feed(*purchase_events(), deliver=post)
    town.deliver()
    town.tick(10_000_000)
    facts = merged_profile(get_ann(town))
    assert (
        facts.pages,
        facts.lifetime_counts["Product Viewed"].count,
        facts.lifetime_counts["Product Added"].count,
    ) == (1, 1, 1)
    assert (facts.order_count, facts.revenue, facts.sessions) == (1, 1250, 1)
    assert [outcome.label for outcome in decoded_outcomes(town)] == [True]
    browser = town.person("a:x1")
    assert browser is not None
    assert (browser.merged_into, browser.fragments, browser.session) == ("u:ann", {}, None)


def test_login_cancels_preloaded_offers() -> None:
    browser = Person(id="a:x1", preloaded={"exit_intent": PreloadedOffer("offer", "id", "key", 9_000, "x1")})
    context = StepContext(0, compile_rules(Playbook()))
    claim = ShardMessage(kind="merge_request", sender="u:ann", recipient="a:x1", seq=1)
    (disarm,) = [one for one in resolve_identity.step(browser, claim, context) if isinstance(one, Cancel)]
    assert (disarm.because.trigger, disarm.because.reason) == ("shard_message", "they logged in")
    assert disarm.because.playbook == context.rules.short_hash


def test_later_anonymous_events_are_forwarded(tmp_path: Path) -> None:
    town = ShardCluster(tmp_path, STEPS, empty_playbook())
    town.feed(*purchase_events(), record("x1", "Product Viewed", 9_000, properties=CUP))
    assert merged_profile(get_ann(town)).lifetime_counts["Product Viewed"].count == 2
    assert town.person("a:x1").fragments == {}  # type: ignore[union-attr]  # asserted above to exist


def test_cart_and_open_session_move_along(tmp_path: Path) -> None:
    town = ShardCluster(tmp_path, STEPS, empty_playbook())
    town.feed(*purchase_events()[:4])
    person = get_ann(town)
    assert person.cart is not None
    assert person.cart.value == 1250
    assert person.session is not None
    assert (person.session.started_at, person.session.pages, person.session.products) == (1_000, 1, 1)
    assert person.session.anonymous_id == "x1"


def test_two_browsers_merge_into_one_customer(tmp_path: Path) -> None:
    town = ShardCluster(tmp_path, STEPS, empty_playbook())
    desktop = purchase_events()
    phone = [record("x2", "Product Viewed", 20_000, properties=CUP), record("x2", at=21_000, userId="ann")]
    town.feed(*desktop, *phone)
    person = get_ann(town)
    assert {name for name, link in person.identity_links.items() if link.state == "merged"} == {"a:x1", "a:x2"}
    assert merged_profile(person).order_count == 1
    assert merged_profile(person).lifetime_counts["Product Viewed"].count == 2


def test_alias_call_merges_like_a_login(tmp_path: Path) -> None:
    town = ShardCluster(tmp_path, STEPS, empty_playbook())
    town.feed(record("x1", "Product Viewed", 1_000, properties=CUP))
    alias = record("x9", "Aliased", 2_000, type="alias", userId="ann", previousId="x1", anonymousId=None)
    town.feed(alias._replace(stream="people"))
    assert merged_profile(get_ann(town)).lifetime_counts["Product Viewed"].count == 1


def test_second_customer_takes_nothing_from_the_first(tmp_path: Path) -> None:
    town = ShardCluster(tmp_path, STEPS, empty_playbook())
    town.feed(*purchase_events(), record("x1", at=50_000, userId="bob"), record("x1", at=51_000))
    bob = town.person("u:bob")
    assert bob is not None
    assert (merged_profile(bob).order_count, merged_profile(bob).pages) == (0, 2)
    assert merged_profile(get_ann(town)).order_count == 1


def test_merge_requests_are_sent_once(tmp_path: Path) -> None:
    town = ShardCluster(tmp_path, STEPS, empty_playbook())
    town.feed(*purchase_events(), *[record("x1", at=20_000 + n, userId="ann") for n in range(5)])
    assert sum(row.stream == "shard-messages" for row in town.rows) == 2  # one merge request, one merge response
