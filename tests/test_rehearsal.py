"""Rehearsal: the same steps over what is recorded; against what was live, against itself, and what it says."""

import re
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from attimo import cli
from connectors.history import recorded
from connectors.ingest_file import ingest_file
from connectors.kafka_topics import create_topics
from connectors.log import LogError
from connectors.open_log import open_log
from connectors.playbook_folder import read
from connectors.rehearsal_report import text
from domain.action import Action, Content, Send
from domain.effect import Effect
from domain.event import Track
from domain.message import Message
from domain.model import Model
from domain.partition import partition_of
from domain.playbook import Playbook
from domain.record import Outgoing
from domain.rehearsal import decode
from domain.rehearsal import encode as canonical
from domain.settings import Settings
from domain.streams import PUBLIC
from flows.rehearsal import decisions, follow, rehearse
from flows.rehearsal_plan import Wish
from state import chances
from state.context import Context, Happening
from state.family import Family, Stage, item_of
from state.person import Person
from state.reactions import Reactions
from state.rehearsal import Period
from state.rules import compile_rules
from state.virtual import Household, Learned
from tests.live import T0, Live
from tests.shards import record

SHOP = """
currency = "EUR"
timezone = "Europe/Rome"
[limits]
per_session = 4
cooldown = "20s"
[consent]
default = "denied"
purposes = { marketing = "granted" }
"""
FILES = {
    "segments/browsing.toml": "[when]\nsession = { products_at_least = 2 }\n",
    "segments/asleep.toml": '[when]\nsession = { pages_at_least = 1 }\ncart = { untouched_for = "3m" }\n',
    "campaigns/hello.toml": """
format = "banner"
trigger = { seconds_on_site = 60 }
[when]
session = { pages_at_least = 1 }
[content.default]
title = "Hello"
""",
    "campaigns/added.toml": """
format = "bar"
priority = 5
trigger = { event = "Product Added" }
limits = { per_session = 2 }
[content.default]
title = "Good choice: {{ cart.value | money }}"
""",
    "campaigns/also_added.toml": """
format = "bar"
trigger = { event = "Product Added" }
[content.default]
title = "Another bar"
""",
    "campaigns/looking.toml": """
format = "popup"
trigger = { segment = "browsing" }
[content.default]
title = "Anything we can help with?"
""",
    "campaigns/cart_waits.toml": """
format = "popup"
trigger = { segment = "asleep" }
[content.default]
title = "Your cart waits"
""",
    "campaigns/leaving.toml": """
format = "popup"
trigger = { exit_intent = true }
valid_for = "5m"
[when]
cart = { items_at_least = 1 }
[content.default]
title = "{{ cart.count }} things"
""",
    "campaigns/likely.toml": """
format = "popup"
trigger = { exit_intent = true }
priority = 9
[when]
in_segment = "likely_buyers"
[content.default]
title = "For you"
""",
    "campaigns/nudge.toml": """
format = "popup"
trigger = { workflow = true }
[content.default]
title = "Still here?"
""",
    "campaigns/receipt.toml": """
format = "email"
purpose = "service"
trigger = { event = "Order Completed" }
limits = { per_day = 3 }
[content.default]
title = "Thank you"
body = "<p>It is on its way.</p>"
""",
    "workflows/wake.toml": """
enters = { segment = "browsing" }
leaves = { did = { event = "Order Completed", within = "1h" } }
again = "always"
[[steps]]
wait = "2m"
[[steps]]
send = "nudge"
patience = "10m"
[[steps]]
wait_for = { event = "Product Added", within = "5m", otherwise = "over" }
[[steps]]
tag = "woken"
[[steps]]
id = "over"
exit = true
""",
    "segments/woken.toml": "static = true\n",
}
CUP = {"product_id": "cup", "name": "Cup", "price": 9.5, "currency": "EUR", "quantity": 1}


def folder(at: Path, **more: str) -> Path:
    """The playbook of these tests, with other files in place of some."""
    for name, content in {"shop.toml": SHOP, **FILES, **more}.items():
        (at / name).parent.mkdir(parents=True, exist_ok=True)
        (at / name).write_text(content)
    return at


def model(n: int) -> Model:
    return Model(kind="propensity", version=n, hash=f"model-{n}", weights={"products": 0.9 * (-1) ** n}, intercept=0.1)


def lived(tmp_path: Path, seed: int, moments: int = 250) -> Live:
    """Some people over some hours: they look, add, log in on several browsers, leave, buy; shards come along."""
    live = Live(tmp_path / "data", compile_rules(read(folder(tmp_path / "shop"))), seed)
    chance = live.chance
    for n in range(moments):
        live.now += chance.choice((0, 1, 40, 900, 5_000, 30_000, 61_000, 200_000, 1_900_000))
        who = f"b{chance.randrange(9)}"
        user = f"user-{chance.randrange(3)}" if who > "b3" and chance.random() < 0.3 else ""
        name = chance.choice(("Page Viewed", "Product Viewed", "Product Viewed", "Product Added", "Product Added",
                              "Exit Intent", "Exit Intent", "Order Completed", "Cart Cleared", "Signed Out",
                              "Identified"))
        more: dict[str, Any] = {"properties": {**CUP, "order_id": f"o{n}"}}
        if name == "Identified":
            more = {"traits": {"email": f"{user or who}@shop.example"}}
        live.happens(who, name, user, **more)
        if chance.random() < 0.1:
            live.learns(model(n))
        for partition in range(4):
            if chance.random() < 0.6:
                live.reads(partition, chance.choice((1, 2, 1_000)))
            if chance.random() < 0.5:
                live.ticks(partition)
    live.rests()
    return live


@pytest.mark.parametrize("seed", range(6))
def test_as_recorded_is_what_was_live(tmp_path: Path, seed: int) -> None:
    """Every action and message again, with the same id and the same bytes: logins, timers, models, late readers."""
    live = lived(tmp_path, seed)
    expected = live.decided()
    live.close()
    wish = Wish(str(tmp_path / "shop"), as_recorded=True, end="2031-01-01")
    found = {decided.id: msgspec.json.encode(decided) for decided in decisions(live.settings, wish)
             if isinstance(decided, Action | Message)}
    kinds = Counter(msgspec.json.decode(body).get("type", "message") for body in expected.values())
    assert min(kinds[kind] for kind in ("send", "arm", "disarm", "hold", "move", "message")) > 3
    assert found.keys() == expected.keys()
    assert found == expected


def test_followed_with_another_playbook_letters_say_what_is_rehearsed(tmp_path: Path) -> None:
    """What a browser was told live before login is no part of what moves along in the rehearsal."""
    live = Live(tmp_path / "data", compile_rules(read(folder(tmp_path / "shop"))), 1)
    for user in ("", "", "ann", "ann"):
        live.now += 30_000
        live.happens("phone", "Product Added", user, properties=CUP)
        live.rests()
        live.now += 1_000
        live.happens("phone", "Offer Shown", user, properties={"action_id": "any", "campaign": "added"})
        live.rests()
    live.close()
    other = folder(tmp_path / "other")
    (other / "campaigns" / "added.toml").rename(other / "campaigns" / "other_name.toml")
    for playbook, named in ((tmp_path / "shop", True), (other, False)):
        page = follow(live.settings, Wish(str(playbook), as_recorded=True), "ann")
        assert "also known as   a:phone" in page
        assert bool(re.search(r"(shown|send|hold|disarm) +added ", page.partition("At the end")[2])) == named


# -- what is assumed of people ---------------------------------------------------------------------------------------


@pytest.fixture
def shop(tmp_path: Path) -> Live:
    """A log to write to; nothing is live."""
    return Live(tmp_path / "data", compile_rules(read(folder(tmp_path / "shop"))), 0)


def told(shop: Live, name: str, playbook: str = "", **how: Any) -> Any:
    """What is reported of a campaign."""
    wish = Wish(playbook or str(Path(shop.settings.data).parent / "shop"), processes=1, **{"end": "2031-01-01", **how})
    return rehearse(shop.settings, wish).found.campaigns.get(name)


def test_what_is_sent_counts_as_shown_so_limits_are_spent(shop: Live) -> None:
    for _ in range(4):
        shop.now += 60_000
        shop.happens("ann", "Product Added", properties=CUP)
    found = told(shop, "added")
    assert found.per_day == {"bar": {"2025-06-15": 2}}
    assert found.holds["limit"].times == 1


def test_who_leaves_sees_what_was_armed_then(shop: Live) -> None:
    shop.happens("ann", "Product Added", properties=CUP)
    shop.now += 30_000
    shop.happens("ann", "Exit Intent")
    shop.happens("bob", "Exit Intent")
    found = told(shop, "leaving")
    assert (found.people, found.armed_people, found.per_day) == (1, 1, {"popup": {"2025-06-15": 1}})


def test_what_is_no_longer_armed_is_not_seen(shop: Live) -> None:
    """The offer is taken back when the cart is emptied."""
    shop.happens("ann", "Product Added", properties=CUP)
    shop.now += 30_000
    shop.happens("ann", "Cart Cleared")
    shop.now += 30_000
    shop.happens("ann", "Exit Intent")
    found = told(shop, "leaving")
    assert (found.people, found.armed) == (0, 1)
    assert found.taken_back == 1


def test_reactions_to_what_was_live_are_passed_over(shop: Live) -> None:
    """Somebody was shown another playbook's offer of the same campaign, and closed it."""
    for _ in range(2):
        shop.happens("ann", "Offer Shown", properties={"action_id": "clicks-0-1-respect_limits-0", "campaign": "added"})
    shop.happens("ann", "Offer Dismissed", properties={"action_id": "clicks-0-1-respect_limits-0", "campaign": "added"})
    shop.now += 60_000
    shop.happens("ann", "Product Added", properties=CUP)
    assert told(shop, "added").people == 1


def test_closing_what_the_rehearsal_says_as_well_counts(shop: Live) -> None:
    """The same decision was live, and they closed it: so it does not come again in that visit."""
    shop.happens("ann", "Product Added", properties=CUP)
    found = [decided for decided in decisions(shop.settings, Wish(str(Path(shop.settings.data).parent / "shop")))
             if isinstance(decided, Send) and decided.campaign == "added"]
    shop.now += 1_000
    shop.reacts("Offer Dismissed", found[0])
    shop.now += 60_000
    shop.happens("ann", "Product Added", properties=CUP)
    added = told(shop, "added")
    assert (added.closed, added.holds["dismissed"].times, added.people) == (1, 1, 1)


def test_what_happened_before_warms_up_and_is_not_reported(shop: Live) -> None:
    shop.happens("ann", "Product Added", properties=CUP)
    shop.happens("bob", "Page Viewed")
    shop.now += 2 * 86_400_000
    shop.happens("ann", "Exit Intent")
    wish = Wish(str(Path(shop.settings.data).parent / "shop"), begin="2025-06-16", end="2025-06-18", processes=1)
    warm, cold = (rehearse(shop.settings, wish._replace(cold=cold)).found for cold in (False, True))
    assert (warm.events, warm.warm_up, warm.people) == (1, 2, 1)
    assert (cold.events, cold.warm_up, cold.people) == (1, 0, 1)
    assert warm.campaigns["leaving"].armed_people == 1, "the cart of two days ago is known"
    assert "leaving" not in cold.campaigns
    assert "added" not in warm.campaigns, "it was told before the time that is reported"


def test_whom_it_would_annoy(shop: Live) -> None:
    """Ann comes to the shop's limit of four in one visit; that is four things in a day, too."""
    for n in range(7):
        shop.now += 50_000
        shop.happens("ann", "Product Added" if n % 2 else "Product Viewed", properties={**CUP, "product_id": f"p{n}"})
        shop.happens("ann", "Page Viewed")
        shop.happens("ann", "Exit Intent")
    shop.happens("bob", "Page Viewed")
    found = rehearse(shop.settings, Wish(str(Path(shop.settings.data).parent / "shop"), processes=1)).found
    assert found.annoyed == {"day": 1, "limit": 1}
    assert (found.annoyed_people, found.people, found.reached) == (1, 2, 1)
    assert found.busiest[:2] == (4, 4)


def test_what_fills_a_place_or_goes_to_a_machine_annoys_nobody(shop: Live) -> None:
    folder = Path(shop.settings.data).parent / "shop"
    for name, how in {"hero": 'format = "slot"\nslot = "#hero"',
                      "crm": 'format = "webhook"\npurpose = "service"\nlimits = { every = "1s" }'}.items():
        (folder / "campaigns" / f"{name}.toml").write_text(
            f'{how}\ntrigger = {{ event = "Page Viewed" }}\ncontent.default.title = "Hello"\n')
    for _ in range(6):
        shop.now += 50_000
        shop.happens("ann", "Page Viewed")
    report = rehearse(shop.settings, Wish(str(folder), processes=1))
    found = report.found
    assert "was told 4 things in one day (slots, webhooks and files apart), or was told" in text(report)
    assert found.busiest == (13, 13, (("crm", 6), ("hello", 1), ("hero", 6)))
    assert found.annoyed == {}


def test_conflicts_and_overlap(shop: Live) -> None:
    shop.happens("ann", "Product Added", properties=CUP)
    shop.now += 30_000
    shop.happens("ann", "Exit Intent")
    assert told(shop, "also_added").lost_to == {"added": 1}
    assert told(shop, "added").also == {"leaving": 1}


def test_timers_go_on_until_the_end_that_was_named(shop: Live) -> None:
    shop.happens("ann", "Product Added", properties=CUP)
    shop.happens("ann", "Page Viewed")
    before = told(shop, "cart_waits", end="2025-06-15 17:07")  # the cart was touched at 17:06:40
    after = told(shop, "cart_waits", end="2025-06-15 17:10")
    assert before is None
    assert after.people == 1


def test_who_is_written_to_while_away_counts_among_those_it_reaches(shop: Live) -> None:
    """A share is never of fewer people than it counts."""
    shop.happens("ann", "Product Added", properties=CUP)
    shop.happens("bob", "Page Viewed")
    folder = str(Path(shop.settings.data).parent / "shop")
    report = rehearse(shop.settings, Wish(folder, begin="2025-06-15 17:07", end="2025-06-15 17:10", processes=1))
    assert (report.found.people, report.found.reached, report.found.everybody) == (0, 1, 1)
    assert "  1 of 1 person (100 %) would be told something, once in all\n  1 person of these did" in text(report)


def test_one_shop_two_ids_one_person(shop: Live) -> None:
    """What is learned by login counts: the limits are those of one person, and one person is reported."""
    shop.happens("phone", "Product Added", properties=CUP)
    shop.now += 30_000
    shop.happens("phone", "Page Viewed", "ann")
    shop.happens("laptop", "Page Viewed", "ann")
    shop.now += 30_000
    shop.happens("laptop", "Product Added", "ann", properties=CUP)
    shop.now += 30_000
    shop.happens("phone", "Product Added", properties=CUP)
    found = rehearse(shop.settings, Wish(str(Path(shop.settings.data).parent / "shop"), processes=1)).found
    assert found.people == 1
    assert (found.campaigns["added"].people, found.campaigns["added"].holds["limit"].people) == (1, 1)


def test_coupons_are_counted_and_their_codes_are_good_for_nothing(shop: Live, tmp_path: Path) -> None:
    extra = folder(tmp_path / "coupons", **{
        "coupons/ten.toml": "percent = 10\nprefix = \"TEN-\"\n",
        "campaigns/gift.toml": """
format = "popup"
coupon = "ten"
priority = 50
trigger = { event = "Product Viewed" }
[content.default]
title = "Your code: {{ coupon.code }}"
"""})
    for who in ("ann", "bob"):
        shop.happens(who, "Product Viewed", properties=CUP)
    wish = Wish(str(extra), processes=1)
    report = rehearse(shop.settings, wish)
    assert report.found.coupons["ten"]["reserved"] == 2
    assert report.found.campaigns["gift"].people == 2
    assert b"TEN-" not in canonical(report)
    assert "TEN-" not in text(report)


# -- reports ----------------------------------------------------------------------------------------------------------


def test_two_runs_give_the_same_bytes_in_one_process_or_two(tmp_path: Path) -> None:
    live = lived(tmp_path, 5, moments=120)
    live.close()
    wish = Wish(str(tmp_path / "shop"), processes=1)
    first = canonical(rehearse(live.settings, wish))
    again = canonical(rehearse(live.settings, wish))
    two = canonical(rehearse(live.settings, wish._replace(processes=2)))
    assert first == again == two
    assert decode(first).found.reached > 5


def test_nothing_is_written(tmp_path: Path) -> None:
    live = lived(tmp_path, 6, moments=60)
    live.close()

    def content() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in sorted((tmp_path / "data").rglob("*"))
                if path.is_file() and not path.name.endswith("-shm") and path.stat().st_size}

    before = content()
    rehearse(live.settings, Wish(str(tmp_path / "shop"), processes=1))
    rehearse(live.settings, Wish(str(tmp_path / "shop"), processes=1, as_recorded=True))
    follow(live.settings, Wish(str(tmp_path / "shop")), "b1")
    assert content() == before


def test_live_and_rehearsed_are_set_side_by_side(tmp_path: Path) -> None:
    """As recorded with the same playbook, nobody gets anything newly, and nobody gets anything no longer."""
    live = lived(tmp_path, 8, moments=150)
    live.close()
    found = rehearse(live.settings, Wish(str(tmp_path / "shop"), as_recorded=True, processes=1, end="2031-01-01")).found
    assert found.decided_live > 100
    for name, one in found.campaigns.items():
        assert (one.live.new, one.live.gone, one.live.both) == (0, 0, one.people), name
        assert one.live.times == sum(sum(days.values()) for days in one.per_day.values()), name
    (tmp_path / "shop" / "campaigns" / "added.toml").unlink()
    without = rehearse(live.settings, Wish(str(tmp_path / "shop"), processes=1, end="2031-01-01")).found
    assert without.campaigns["added"].live.gone == found.campaigns["added"].live.people > 0


def test_the_report_names_nobody(tmp_path: Path) -> None:
    live = lived(tmp_path, 8, moments=120)
    live.close()
    report = rehearse(live.settings, Wish(str(tmp_path / "shop"), processes=1))
    for name in [f"b{n}" for n in range(9)] + [f"user-{n}" for n in range(3)]:
        assert f'"{name}"'.encode() not in canonical(report)
        assert f":{name}" not in text(report)
    assert b"@shop.example" not in canonical(report)


def test_the_text_says_the_top_facts_first(shop: Live) -> None:
    shop.happens("ann", "Product Added", properties=CUP)
    shop.now += 30_000
    shop.happens("ann", "Exit Intent")
    shop.happens("bob", "Page Viewed")
    wish = Wish(str(Path(shop.settings.data).parent / "shop"), processes=1)
    lines = text(rehearse(shop.settings, wish)).splitlines()
    assert lines[1] == "3 events of 2 people, 0 before as a warm-up; no model"
    assert lines[5] == "  1 of 2 people (50 %) would be told something, twice in all"
    assert any(re.fullmatch(r"  leaving +1 +50 % +1 +0", line) for line in lines)
    assert any(re.fullmatch(r"  lost to +added 1 \(the same place at the same moment\)", line) for line in lines)
    narrow = text(rehearse(shop.settings, wish), "added").splitlines()
    assert narrow[4] == "added"
    assert not any("leaving" in line for line in narrow[4:5])


GOAL = """
format = "bar"
trigger = {{ event = "Product Added" }}
goal = {{ within = "1h", value = "{value}" }}
limits = {{ per_session = 2 }}
[content.default]
title = "Good choice"
"""


@pytest.mark.parametrize(("value", "currency", "worth"), [
    ("total", "EUR", "20.50 EUR"), ("total", "JPY", "21 JPY"), ("points", "EUR", "3.5 (points)")])
def test_what_a_goal_was_worth_and_how_many_are_still_open(
        tmp_path: Path, value: str, currency: str, worth: str) -> None:
    where = folder(tmp_path / "shop", **{"shop.toml": SHOP.replace("EUR", currency),
                                         "campaigns/added.toml": GOAL.format(value=value)})
    live = Live(tmp_path / "data", compile_rules(read(where)), 1)
    for who in ("ann", "bob"):
        live.happens(who, "Product Added", properties={"product_id": "cup", "price": 5, "quantity": 1})
    live.now += 60_000
    live.happens("ann", "Order Completed", properties={"order_id": "o1", "total": 20.5, "points": 3.5})
    live.now += 3_700_000
    live.happens("cid", "Product Added", properties={"product_id": "cup", "price": 5, "quantity": 1})
    live.rests()
    page = text(rehearse(live.settings, Wish(str(where), processes=1)), "added")
    assert f"reached 1 of 3 times (33 %), worth {worth}, still open once at the end" in page


def test_goals_of_a_workflow_are_told_by_their_names(tmp_path: Path) -> None:
    where = folder(tmp_path / "shop", **{
        "workflows/wake.toml": 'enters = { event = "Product Added" }\n[[steps]]\ngoal = "woke_up"\n'
                               '[[steps]]\nsend = "nudge"\n[[steps]]\ntag = "woken"\n'})
    live = Live(tmp_path / "data", compile_rules(read(where)), 1)
    live.happens("ann", "Product Added", properties=CUP)
    live.rests()
    wish = Wish(str(where), processes=1)
    assert "goal woke_up 1, step step_2 1" in text(rehearse(live.settings, wish))
    assert "workflow wake: goal woke_up" in follow(live.settings, wish, "ann")


def lines_of(page: str, begin: str) -> list[str]:
    """The lines of one block of the report, without their alignment."""
    lines = page.splitlines()
    at = lines.index(begin) + 1
    end = next((n for n in range(at, len(lines)) if not lines[n]), len(lines))
    return [re.sub("  +", "  ", line.strip()) for line in lines[at:end]]


def test_from_occasions_to_what_was_said(shop: Live) -> None:
    shop.happens("ann", "Product Added", properties=CUP)
    for _ in range(2):
        shop.now += 60_000
        shop.happens("ann", "Page Viewed")
    shop.happens("bob", "Exit Intent")
    wish = Wish(str(Path(shop.settings.data).parent / "shop"), processes=1)
    report = rehearse(shop.settings, wish)
    came = report.found.chances
    assert (came["added"].came, came["added"].fitted, came["added"].failed) == (1, 1, {})
    assert (came["leaving"].came, came["leaving"].failed) == (1, {"at least 1 in the cart": 1})
    assert (came["hello"].came, came["hello"].fitted) == (2, 1), "ann and bob have a visit each"
    page = text(report)
    assert "occasion  came once, its conditions held once, held back 0 times, told once" in lines_of(page, "added")
    why = dict(line.split("  ", 1) for line in lines_of(page, "Told to nobody, and why"))
    assert why["leaving"] == "came once, and what failed most often is: at least 1 in the cart (once)"
    assert why["also_added"] == "its conditions held once, and it was held back once: lower_priority"
    assert why["receipt"] == 'its occasion never came: event "Order Completed"'
    assert why["looking"] == ("its occasion never came: entered browsing; what failed most often for browsing is: at "
                              "least 2 products this visit (2 people)")
    assert why["nudge"] == ("nobody entered the workflow wake; what failed most often for browsing is: at least 2 "
                            "products this visit (2 people)")
    assert "nobody  " + why["leaving"] in lines_of(text(report, "leaving"), "leaving")


def test_chances_are_not_followed_where_there_are_too_many_campaigns(
        shop: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.happens("ann", "Product Added", properties=CUP)
    wish = Wish(str(Path(shop.settings.data).parent / "shop"), processes=1)
    followed = rehearse(shop.settings, wish).found
    monkeypatch.setattr(chances, "FOLLOWED", 3)
    report = rehearse(shop.settings, wish)
    assert (report.found.chances, report.about.leads) == ({}, {})
    assert report.found.campaigns == followed.campaigns
    why = lines_of(text(report), "Told to nobody, and why")
    assert "leaving  there are too many campaigns to follow the chances of each" in why


def test_the_bar_of_reading_comes_to_its_end(shop: Live) -> None:
    shop.happens("ann", "Product Added", properties=CUP)
    said: list[tuple[str, int, int]] = []
    rehearse(shop.settings, Wish(str(Path(shop.settings.data).parent / "shop"), processes=1),
             lambda *progress: said.append(progress))
    assert said[0] == ("reading", 1, 1)
    assert {what for what, _, _ in said[1:]} == {"rehearsing"}


def test_one_person_is_told_step_by_step(shop: Live) -> None:
    shop.happens("phone", "Product Added", properties=CUP)
    shop.now += 30_000
    shop.happens("phone", "Exit Intent", "ann")
    shop.happens("bob", "Product Added", properties=CUP)
    wish = Wish(str(Path(shop.settings.data).parent / "shop"))
    page = follow(shop.settings, wish, "phone")
    assert page == follow(shop.settings, wish, "ann"), "both ids are hers"
    assert "  17:06:40  Product Added  product_id cup" in page
    assert "    send    added  event \"Product Added\"" in page
    assert "    hold    also_added  lower_priority: added is shown" in page
    assert "u:ann  (known customer)" in page
    assert "bob" not in page
    assert "also_added" not in follow(shop.settings, wish._replace(campaign="added"), "ann")
    assert "(Europe/Rome)" in page
    assert "UTC" not in page, "one zone on one page"
    with pytest.raises(ValueError, match="nobody is recorded as eve"):
        follow(shop.settings, wish, "eve")


# -- what stands against it -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("how", "words"), [
    ({"begin": "yesterday"}, "yesterday: write a day"),
    ({"begin": "2025-06-16", "end": "2025-06-15"}, "is not before --to"),
    ({"begin": "2026-06-16"}, "nothing is recorded since then"),
    ({"end": "2001-01-01"}, "the log holds nothing of this time"),
    ({"model": "no/such/file"}, "there is no such file"),
    ({"as_recorded": True}, "no turns are recorded here"),
    ({"campaign": "aded"}, 'none of this name in .*; did you mean "added"'),
])
def test_what_cannot_be_rehearsed_says_why(shop: Live, how: dict[str, Any], words: str) -> None:
    shop.happens("ann", "Product Added", properties=CUP)
    with pytest.raises(ValueError, match=words):
        rehearse(shop.settings, Wish(str(Path(shop.settings.data).parent / "shop"), processes=1, **how))


def test_without_a_log_there_is_nothing_to_rehearse(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="nothing was recorded"):
        rehearse(Settings(data=str(tmp_path / "empty")), Wish(str(folder(tmp_path / "shop"))))
    assert not (tmp_path / "empty").exists(), "asking makes nothing"


def test_a_campaign_that_is_not_there_is_said_before_anything_is_read(tmp_path: Path) -> None:
    wish = Wish(str(folder(tmp_path / "shop")), campaign="aded")
    for perform in (rehearse, partial(follow, person="ann")):
        with pytest.raises(ValueError, match=r'--campaign aded: .*; did you mean "added"'):
            perform(Settings(data=str(tmp_path / "empty")), wish)


def test_what_cannot_be_read_is_set_aside_and_counted(shop: Live) -> None:
    shop.log.append([Outgoing("clicks", b"x", b"not json"), Outgoing("clicks", b"x", b'{"type":"page"}'),
                     Outgoing("clicks", b"ann", b'{"type":"track","event":7,"anonymousId":"ann"}', 0)])
    shop.happens("ann", "Product Added", properties={**CUP, "price": "cheap"})
    shop.happens("ann", "Page Viewed")
    found = rehearse(shop.settings, Wish(str(Path(shop.settings.data).parent / "shop"), processes=1)).found
    assert found.rejects == {"no_person": 1, "unreadable": 3}


def test_a_record_in_the_wrong_partition_is_forwarded(shop: Live) -> None:
    value = b'{"type":"track","event":"Product Added","anonymousId":"ann","properties":{"product_id":"cup","price":9}}'
    for partition in range(4):
        shop.log.append([Outgoing("carts", b"ann", value.replace(b"cup", b"cup%d" % partition), partition)])
    assert told(shop, "leaving").armed_people == 1
    found = rehearse(shop.settings, Wish(str(Path(shop.settings.data).parent / "shop"), processes=1)).found
    assert found.people == 1


def test_a_step_that_fails_sets_one_record_aside_and_counts_nothing_twice() -> None:
    def fails(person: Person, event: Happening, context: Context) -> Sequence[Effect]:
        if isinstance(event, Track) and event.properties.get("product_id") == "bad":
            raise ZeroDivisionError
        return ()

    def speaks(person: Person, event: Happening, context: Context) -> Sequence[Effect]:
        if not isinstance(event, Track) or event.event != "Product Added":
            return ()
        return (Send(id=context.id("speaks"), at=context.now, person=person.id, campaign="x", format="bar",
                     content=Content(), not_after=context.now),)

    stage = Stage((speaks, fails), compile_rules(Playbook()), 4, Period(0, 1 << 50, "UTC"), lambda *_: Learned())
    family = Family()
    for n, product in enumerate(("good", "bad", "good")):
        one = record("ann", "Product Added", at=T0 + n, partition=partition_of(b"ann", 4),
                     properties={"product_id": product})
        family.items.append(item_of(one, Learned()))
    found = stage.count("a:ann", family, True, ())
    assert found.campaigns["x"].per_day == {"bar": {"2025-06-15": 2}}
    assert stage.tally.kinds["reject", "internal"] == 1


def test_a_timer_sees_the_model_of_its_own_time() -> None:
    """It came due while the first model was live, although the next record was read with the second one."""
    first, second = Learned(model(1)), Learned(model(2))
    seen: list[tuple[str, str]] = []

    def notes(person: Person, event: Happening, context: Context) -> Sequence[Effect]:
        seen.append((type(event).__name__, context.model.hash if context.model is not None else ""))
        if isinstance(event, Track) and event.event == "Product Added":
            person.timers["look:"] = context.now + 50
        return ()

    household = Household(Reactions((notes,)), compile_rules(Playbook()), 4,
                          lambda _, at: first if at < T0 + 60 else second)
    place = partition_of(b"ann", 4)
    household.live([item_of(record("ann", "Product Added", at=T0, partition=place), first),
                    item_of(record("ann", "Product Viewed", at=T0 + 100, partition=place), second)], T0 + 200, True)
    assert seen == [("Track", "model-1"), ("Due", "model-1"), ("Track", "model-2")]


def test_the_command(shop: Live, tmp_path: Path) -> None:
    shop.happens("ann", "Product Added", properties=CUP)
    shop.close()

    def run(*words: str) -> Any:
        return CliRunner().invoke(cli, ["rehearse", *words, "--data", shop.settings.data, "--set", "partitions=4"])

    done = run(str(tmp_path / "shop"), "--json", str(tmp_path / "report.json"))
    assert done.exit_code == 0, done.output
    assert "1 of 1 person (100 %) would be told something" in done.output
    assert decode((tmp_path / "report.json").read_bytes()).found.people == 1
    assert "send    added" in run(str(tmp_path / "shop"), "--explain", "ann").output
    misspelled = run(str(tmp_path / "shop"), "--campaign", "aded")
    assert misspelled.exit_code == 2
    assert 'there is none of this name in' in misspelled.output
    assert misspelled.output.endswith('; did you mean "added"?\n')
    assert run(str(tmp_path / "shop"), "--json", str(tmp_path / "no" / "folder.json")).exit_code == 2
    (tmp_path / "shop" / "campaigns" / "added.toml").write_text("format = 7")
    broken = run(str(tmp_path / "shop"))
    assert broken.exit_code == 2
    assert "campaigns/added.toml" in broken.output


def test_history_is_read_in_the_order_of_the_file(shop: Live) -> None:
    for n in range(3):
        shop.now += 1_000
        shop.happens("ann", "Page Viewed" if n else "Product Added", properties=CUP)
    found = list(recorded(shop.settings, PUBLIC, shop.now))
    assert [(one.stream, one.log_time - T0) for one in found] == [("carts", 1_000), ("clicks", 2_000)]


@pytest.mark.kafka
@pytest.mark.timeout(300)
def test_kafka_gives_the_same_report(tmp_path: Path, broker: str) -> None:
    """The same recorded days on both logs."""
    lines = []
    for n in range(300):
        at = datetime.fromtimestamp(T0 / 1000 + 7 * n, UTC).isoformat()
        name = ("Product Viewed", "Product Added", "Exit Intent", "Order Completed")[n * n % 11 % 4]
        lines.append({"type": "track", "event": name, "anonymousId": f"b{n % 13}", "messageId": f"m{n}",
                      "timestamp": at, "properties": {**CUP, "order_id": f"o{n}"},
                      **({"userId": f"user-{n % 5}"} if n % 17 == 3 else {})})
    days = tmp_path / "days.jsonl"
    days.write_bytes(b"\n".join(map(msgspec.json.encode, lines)))
    wish = Wish(str(folder(tmp_path / "shop")), processes=1, end="2025-06-20")
    on_kafka = Settings(log=f"kafka://{broker}", shop="rehearsed", partitions=4, data=str(tmp_path / "k"))
    on_sqlite = Settings(partitions=4, data=str(tmp_path / "s"))
    create_topics(on_kafka)
    found = []
    for settings in (on_kafka, on_sqlite):
        with open_log(settings) as log:
            assert ingest_file(log, str(days), history=True).accepted == 300
        found.append(rehearse(settings, wish))
    assert found[0] == found[1]
    assert found[0].found.reached > 3
