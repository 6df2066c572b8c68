"""Tests of the backtest: against live decisions, with assumed reactions, and its report."""

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
from connectors.ingest.command import ingest_file
from connectors.log.history import read_history
from connectors.log.kafka_admin import create_topics
from connectors.log.log import LogError
from connectors.log.open import open_log
from connectors.playbook.folder import read_playbook
from domain.action import Action, Effect, Message, RenderedContent, Send
from domain.event import Track
from domain.model import Model
from domain.playbook.playbook import Playbook
from domain.record import PUBLIC_STREAMS, NewRecord, partition_of
from domain.settings import Settings
from flows.backtest import reach
from flows.backtest.counts import Period, decode_report
from flows.backtest.counts import encode_report as canonical
from flows.backtest.household import BacktestRun, ClusterHistory, scheduled_record
from flows.backtest.report import format_report
from flows.backtest.run import BacktestOptions, backtest_effects, backtest_person, run_backtest
from flows.simulation.reactions import ReactionSimulator
from flows.simulation.virtual_time import ClusterSimulation, LiveModels
from state.context import Input, StepContext
from state.person.model import Person
from state.playbook.compiled import compile_rules
from tests.harness.live_shop import T0, LiveShop
from tests.harness.shard import record

SHOP = """
currency = "EUR"
timezone = "Europe/Rome"
[frequency_caps]
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
frequency_caps = { per_session = 2 }
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
frequency_caps = { per_day = 3 }
[content.default]
title = "Thank you"
body = "<p>It is on its way.</p>"
""",
    "workflows/wake.toml": """
enter_on = { segment = "browsing" }
exit_when = { did = { event = "Order Completed", within = "1h" } }
reentry = "always"
[[steps]]
wait = "2m"
[[steps]]
send = "nudge"
timeout = "10m"
[[steps]]
wait_for = { event = "Product Added", timeout = "5m", else = "over" }
[[steps]]
add_to_segment = "woken"
[[steps]]
id = "over"
exit = true
""",
    "segments/woken.toml": "static = true\n",
}
CUP = {"product_id": "cup", "name": "Cup", "price": 9.5, "currency": "EUR", "quantity": 1}


def write_shop(at: Path, **more: str) -> Path:
    """Write the playbook of these tests, with `more` files added or replaced."""
    for name, content in {"shop.toml": SHOP, **FILES, **more}.items():
        (at / name).parent.mkdir(parents=True, exist_ok=True)
        (at / name).write_text(content)
    return at


def make_model(n: int) -> Model:
    return Model(kind="propensity", version=n, hash=f"model-{n}", weights={"products": 0.9 * (-1) ** n}, intercept=0.1)


def random_live_shop(tmp_path: Path, seed: int, moments: int = 250) -> LiveShop:
    """Random people and events over some hours, read by the shards with varying delays."""
    live = LiveShop(tmp_path / "data", compile_rules(read_playbook(write_shop(tmp_path / "shop"))), seed)
    chance = live.random
    for n in range(moments):
        live.now += chance.choice((0, 1, 40, 900, 5_000, 30_000, 61_000, 200_000, 1_900_000))
        who = f"b{chance.randrange(9)}"
        user = f"user-{chance.randrange(3)}" if who > "b3" and chance.random() < 0.3 else ""
        name = chance.choice(
            (
                "Page Viewed",
                "Product Viewed",
                "Product Viewed",
                "Product Added",
                "Product Added",
                "Exit Intent",
                "Exit Intent",
                "Order Completed",
                "Cart Cleared",
                "Signed Out",
                "Identified",
            )
        )
        more: dict[str, Any] = {"properties": {**CUP, "order_id": f"o{n}"}}
        if name == "Identified":
            more = {"traits": {"email": f"{user or who}@shop.example"}}
        live.emit(who, name, user, **more)
        if chance.random() < 0.1:
            live.publish_model(make_model(n))
        for partition in range(4):
            if chance.random() < 0.6:
                live.read(partition, chance.choice((1, 2, 1_000)))
            if chance.random() < 0.5:
                live.tick(partition)
    live.drain()
    return live


@pytest.mark.parametrize("seed", range(6))
def test_as_recorded_backtest_matches_live_decisions(tmp_path: Path, seed: int) -> None:
    """All actions and messages have the same ids and bytes, with logins, timers, models and late readers."""
    live = random_live_shop(tmp_path, seed)
    expected = live.published_decisions()
    live.close()
    options = BacktestOptions(str(tmp_path / "shop"), as_recorded=True, end="2031-01-01")
    found = {
        effect.id: msgspec.json.encode(effect)
        for effect in backtest_effects(live.settings, options)
        if isinstance(effect, Action | Message)
    }
    kinds = Counter(msgspec.json.decode(body).get("type", "message") for body in expected.values())
    assert min(kinds[kind] for kind in ("send", "preload", "cancel", "suppress", "segment_change", "message")) > 3
    assert found.keys() == expected.keys()
    assert found == expected


def test_shard_messages_carry_backtest_state(tmp_path: Path) -> None:
    """Live exposures of a browser before login are not merged in the backtest."""
    live = LiveShop(tmp_path / "data", compile_rules(read_playbook(write_shop(tmp_path / "shop"))), 1)
    for user in ("", "", "ann", "ann"):
        live.now += 30_000
        live.emit("phone", "Product Added", user, properties=CUP)
        live.drain()
        live.now += 1_000
        live.emit("phone", "Offer Shown", user, properties={"action_id": "any", "campaign": "added"})
        live.drain()
    live.close()
    other = write_shop(tmp_path / "other")
    (other / "campaigns" / "added.toml").rename(other / "campaigns" / "other_name.toml")
    for playbook, named in ((tmp_path / "shop", True), (other, False)):
        page = backtest_person(live.settings, BacktestOptions(str(playbook), as_recorded=True), "ann")
        assert "also known as   a:phone" in page
        assert bool(re.search(r"(shown|send|suppress|cancel) +added ", page.partition("At the end")[2])) == named


# -- assumed reactions -------------------------------------------------------------------------------------------------


@pytest.fixture
def live_shop(tmp_path: Path) -> LiveShop:
    """A log without a live engine."""
    return LiveShop(tmp_path / "data", compile_rules(read_playbook(write_shop(tmp_path / "shop"))), 0)


def campaign_report(live_shop: LiveShop, name: str, playbook: str = "", **how: Any) -> Any:
    """The counts of one campaign."""
    options = BacktestOptions(
        playbook or str(Path(live_shop.settings.data).parent / "shop"), processes=1, **{"end": "2031-01-01", **how}
    )
    return run_backtest(live_shop.settings, options).result.campaigns.get(name)


def test_sends_count_as_exposures_in_a_backtest(live_shop: LiveShop) -> None:
    for _ in range(4):
        live_shop.now += 60_000
        live_shop.emit("ann", "Product Added", properties=CUP)
    found = campaign_report(live_shop, "added")
    assert found.per_day == {"bar": {"2025-06-15": 2}}
    assert found.suppressed["campaign_cap"].times == 1


def test_exit_intent_shows_the_preloaded_offer(live_shop: LiveShop) -> None:
    live_shop.emit("ann", "Product Added", properties=CUP)
    live_shop.now += 30_000
    live_shop.emit("ann", "Exit Intent")
    live_shop.emit("bob", "Exit Intent")
    found = campaign_report(live_shop, "leaving")
    assert (found.people, found.preloaded_people, found.per_day) == (1, 1, {"popup": {"2025-06-15": 1}})


def test_cancelled_preload_is_not_shown(live_shop: LiveShop) -> None:
    """Emptying the cart cancels the preloaded offer."""
    live_shop.emit("ann", "Product Added", properties=CUP)
    live_shop.now += 30_000
    live_shop.emit("ann", "Cart Cleared")
    live_shop.now += 30_000
    live_shop.emit("ann", "Exit Intent")
    found = campaign_report(live_shop, "leaving")
    assert (found.people, found.preloaded) == (0, 1)
    assert found.cancelled == 1


def test_feedback_on_live_actions_is_ignored(live_shop: LiveShop) -> None:
    """Feedback on another playbook's action of the same campaign does not count."""
    for _ in range(2):
        live_shop.emit("ann", "Offer Shown", properties={"action_id": "clicks-0-1-decide-0", "campaign": "added"})
    live_shop.emit("ann", "Offer Dismissed", properties={"action_id": "clicks-0-1-decide-0", "campaign": "added"})
    live_shop.now += 60_000
    live_shop.emit("ann", "Product Added", properties=CUP)
    assert campaign_report(live_shop, "added").people == 1


def test_dismissal_of_the_same_decision_counts(live_shop: LiveShop) -> None:
    """A dismissal of the same live decision suppresses the campaign for the session."""
    live_shop.emit("ann", "Product Added", properties=CUP)
    found = [
        decided
        for decided in backtest_effects(
            live_shop.settings, BacktestOptions(str(Path(live_shop.settings.data).parent / "shop"))
        )
        if isinstance(decided, Send) and decided.campaign == "added"
    ]
    live_shop.now += 1_000
    live_shop.send_feedback("Offer Dismissed", found[0])
    live_shop.now += 60_000
    live_shop.emit("ann", "Product Added", properties=CUP)
    added = campaign_report(live_shop, "added")
    assert (added.dismissed, added.suppressed["dismissed"].times, added.people) == (1, 1, 1)


def test_events_before_the_period_are_not_reported(live_shop: LiveShop) -> None:
    live_shop.emit("ann", "Product Added", properties=CUP)
    live_shop.emit("bob", "Page Viewed")
    live_shop.now += 2 * 86_400_000
    live_shop.emit("ann", "Exit Intent")
    options = BacktestOptions(
        str(Path(live_shop.settings.data).parent / "shop"), start="2025-06-16", end="2025-06-18", processes=1
    )
    warm, cold = (run_backtest(live_shop.settings, options._replace(cold=cold)).result for cold in (False, True))
    assert (warm.events, warm.backfill_events, warm.people) == (1, 2, 1)
    assert (cold.events, cold.backfill_events, cold.people) == (1, 0, 1)
    assert warm.campaigns["leaving"].preloaded_people == 1, "the cart of two days ago is in the profile"
    assert "leaving" not in cold.campaigns
    assert "added" not in warm.campaigns, "it was sent before the period"


def test_contact_pressure_is_counted_per_session_and_day(live_shop: LiveShop) -> None:
    """Ann reaches the cap of four per session, which is also four contacts in one day."""
    for n in range(7):
        live_shop.now += 50_000
        live_shop.emit("ann", "Product Added" if n % 2 else "Product Viewed", properties={**CUP, "product_id": f"p{n}"})
        live_shop.emit("ann", "Page Viewed")
        live_shop.emit("ann", "Exit Intent")
    live_shop.emit("bob", "Page Viewed")
    found = run_backtest(
        live_shop.settings, BacktestOptions(str(Path(live_shop.settings.data).parent / "shop"), processes=1)
    ).result
    assert found.pressured == {"per_day": 1, "frequency_cap": 1}
    assert (found.pressured_people, found.people, found.reached) == (1, 2, 1)
    assert found.most_contacted[:2] == (4, 4)


def test_slots_and_webhooks_cause_no_contact_pressure(live_shop: LiveShop) -> None:
    folder = Path(live_shop.settings.data).parent / "shop"
    for name, how in {
        "hero": 'format = "slot"\nslot = "#hero"',
        "crm": 'format = "webhook"\npurpose = "service"\nfrequency_caps = { min_interval = "1s" }',
    }.items():
        (folder / "campaigns" / f"{name}.toml").write_text(
            f'{how}\ntrigger = {{ event = "Page Viewed" }}\ncontent.default.title = "Hello"\n'
        )
    for _ in range(6):
        live_shop.now += 50_000
        live_shop.emit("ann", "Page Viewed")
    report = run_backtest(live_shop.settings, BacktestOptions(str(folder), processes=1))
    found = report.result
    assert (
        "Contact pressure exceeded for no one (shop-wide caps, 4 contacts in one day, contacts after"
        in format_report(report)
    )
    assert found.most_contacted == (13, 13, (("crm", 6), ("hello", 1), ("hero", 6)))
    assert found.pressured == {}


def test_conflicting_and_overlapping_campaigns_are_counted(live_shop: LiveShop) -> None:
    live_shop.emit("ann", "Product Added", properties=CUP)
    live_shop.now += 30_000
    live_shop.emit("ann", "Exit Intent")
    assert campaign_report(live_shop, "also_added").lost_to == {"added": 1}
    assert campaign_report(live_shop, "added").overlap == {"leaving": 1}


def test_timers_fire_until_the_given_end(live_shop: LiveShop) -> None:
    live_shop.emit("ann", "Product Added", properties=CUP)
    live_shop.emit("ann", "Page Viewed")
    before = campaign_report(live_shop, "cart_waits", end="2025-06-15 17:07")  # the cart was touched at 17:06:40
    after = campaign_report(live_shop, "cart_waits", end="2025-06-15 17:10")
    assert before is None
    assert after.people == 1


def test_people_messaged_while_inactive_count_as_reached(live_shop: LiveShop) -> None:
    """Percentages never exceed 100 %."""
    live_shop.emit("ann", "Product Added", properties=CUP)
    live_shop.emit("bob", "Page Viewed")
    folder = str(Path(live_shop.settings.data).parent / "shop")
    report = run_backtest(
        live_shop.settings, BacktestOptions(folder, start="2025-06-15 17:07", end="2025-06-15 17:10", processes=1)
    )
    assert (report.result.people, report.result.reached, report.result.population) == (0, 1, 1)
    assert "  1 of 1 person (100 %) reached, 1 contact in total\n  1 person of these had no events" in format_report(
        report
    )


def test_merged_ids_count_as_one_person(live_shop: LiveShop) -> None:
    """After a login, frequency caps apply to the merged person, and one person is reported."""
    live_shop.emit("phone", "Product Added", properties=CUP)
    live_shop.now += 30_000
    live_shop.emit("phone", "Page Viewed", "ann")
    live_shop.emit("laptop", "Page Viewed", "ann")
    live_shop.now += 30_000
    live_shop.emit("laptop", "Product Added", "ann", properties=CUP)
    live_shop.now += 30_000
    live_shop.emit("phone", "Product Added", properties=CUP)
    found = run_backtest(
        live_shop.settings, BacktestOptions(str(Path(live_shop.settings.data).parent / "shop"), processes=1)
    ).result
    assert found.people == 1
    assert (found.campaigns["added"].people, found.campaigns["added"].suppressed["campaign_cap"].people) == (1, 1)


def test_coupons_are_counted_without_real_codes(live_shop: LiveShop, tmp_path: Path) -> None:
    extra = write_shop(
        tmp_path / "coupons",
        **{
            "coupons/ten.toml": 'percent = 10\nprefix = "TEN-"\n',
            "campaigns/gift.toml": """
format = "popup"
coupon = "ten"
priority = 50
trigger = { event = "Product Viewed" }
[content.default]
title = "Your code: {{ coupon.code }}"
""",
        },
    )
    for who in ("ann", "bob"):
        live_shop.emit(who, "Product Viewed", properties=CUP)
    options = BacktestOptions(str(extra), processes=1)
    report = run_backtest(live_shop.settings, options)
    assert report.result.coupons["ten"]["reserved"] == 2
    assert report.result.campaigns["gift"].people == 2
    assert b"TEN-" not in canonical(report)
    assert "TEN-" not in format_report(report)


# -- reports ----------------------------------------------------------------------------------------------------------


def test_report_is_identical_with_one_or_two_processes(tmp_path: Path) -> None:
    live = random_live_shop(tmp_path, 5, moments=120)
    live.close()
    options = BacktestOptions(str(tmp_path / "shop"), processes=1)
    first = canonical(run_backtest(live.settings, options))
    again = canonical(run_backtest(live.settings, options))
    two = canonical(run_backtest(live.settings, options._replace(processes=2)))
    assert first == again == two
    assert decode_report(first).result.reached > 5


def test_backtest_writes_nothing(tmp_path: Path) -> None:
    live = random_live_shop(tmp_path, 6, moments=60)
    live.close()

    def content() -> dict[str, bytes]:
        return {
            str(path): path.read_bytes()
            for path in sorted((tmp_path / "data").rglob("*"))
            if path.is_file() and not path.name.endswith("-shm") and path.stat().st_size
        }

    before = content()
    run_backtest(live.settings, BacktestOptions(str(tmp_path / "shop"), processes=1))
    run_backtest(live.settings, BacktestOptions(str(tmp_path / "shop"), processes=1, as_recorded=True))
    backtest_person(live.settings, BacktestOptions(str(tmp_path / "shop")), "b1")
    assert content() == before


def test_live_and_backtest_counts_are_compared(tmp_path: Path) -> None:
    """With the same playbook and recorded reactions, live and backtest reach the same people."""
    live = random_live_shop(tmp_path, 8, moments=150)
    live.close()
    found = run_backtest(
        live.settings, BacktestOptions(str(tmp_path / "shop"), as_recorded=True, processes=1, end="2031-01-01")
    ).result
    assert found.live_decisions > 100
    for name, one in found.campaigns.items():
        assert (one.live.backtest_only, one.live.live_only, one.live.in_both) == (0, 0, one.people), name
        assert one.live.times == sum(sum(days.values()) for days in one.per_day.values()), name
    (tmp_path / "shop" / "campaigns" / "added.toml").unlink()
    without = run_backtest(live.settings, BacktestOptions(str(tmp_path / "shop"), processes=1, end="2031-01-01")).result
    assert without.campaigns["added"].live.live_only == found.campaigns["added"].live.people > 0


def test_report_contains_no_personal_data(tmp_path: Path) -> None:
    live = random_live_shop(tmp_path, 8, moments=120)
    live.close()
    report = run_backtest(live.settings, BacktestOptions(str(tmp_path / "shop"), processes=1))
    for name in [f"b{n}" for n in range(9)] + [f"user-{n}" for n in range(3)]:
        assert f'"{name}"'.encode() not in canonical(report)
        assert f":{name}" not in format_report(report)
    assert b"@shop.example" not in canonical(report)


def test_text_report_starts_with_the_key_figures(live_shop: LiveShop) -> None:
    live_shop.emit("ann", "Product Added", properties=CUP)
    live_shop.now += 30_000
    live_shop.emit("ann", "Exit Intent")
    live_shop.emit("bob", "Page Viewed")
    options = BacktestOptions(str(Path(live_shop.settings.data).parent / "shop"), processes=1)
    lines = format_report(run_backtest(live_shop.settings, options)).splitlines()
    assert lines[1] == "3 events of 2 people, 0 earlier events as backfill; no model"
    assert lines[5] == "  1 of 2 people (50 %) reached, 2 contacts in total"
    assert any(re.fullmatch(r"  leaving +1 +50 % +1 +0", line) for line in lines)
    assert any(re.fullmatch(r"  lost to +added 1 \(same placement at the same time\)", line) for line in lines)
    narrow = format_report(run_backtest(live_shop.settings, options), "added").splitlines()
    assert narrow[4] == "added"
    assert not any("leaving" in line for line in narrow[4:5])


GOAL_CAMPAIGN = """
format = "bar"
trigger = {{ event = "Product Added" }}
goal = {{ within = "1h", value = "{value}" }}
frequency_caps = {{ per_session = 2 }}
[content.default]
title = "Good choice"
"""


@pytest.mark.parametrize(
    ("value", "currency", "amount"),
    [("total", "EUR", "20.50 EUR"), ("total", "JPY", "21 JPY"), ("points", "EUR", "3.5 (points)")],
)
def test_goal_values_and_pending_goals_are_reported(tmp_path: Path, value: str, currency: str, amount: str) -> None:
    where = write_shop(
        tmp_path / "shop",
        **{"shop.toml": SHOP.replace("EUR", currency), "campaigns/added.toml": GOAL_CAMPAIGN.format(value=value)},
    )
    live = LiveShop(tmp_path / "data", compile_rules(read_playbook(where)), 1)
    for who in ("ann", "bob"):
        live.emit(who, "Product Added", properties={"product_id": "cup", "price": 5, "quantity": 1})
    live.now += 60_000
    live.emit("ann", "Order Completed", properties={"order_id": "o1", "total": 20.5, "points": 3.5})
    live.now += 3_700_000
    live.emit("cid", "Product Added", properties={"product_id": "cup", "price": 5, "quantity": 1})
    live.drain()
    page = format_report(run_backtest(live.settings, BacktestOptions(str(where), processes=1)), "added")
    assert f"reached 1 of 3 (33 %), value {amount}, 1 pending at the end" in page


def test_workflow_goals_are_reported_by_name(tmp_path: Path) -> None:
    where = write_shop(
        tmp_path / "shop",
        **{
            "workflows/wake.toml": 'enter_on = { event = "Product Added" }\n[[steps]]\ngoal = "woke_up"\n'
            '[[steps]]\nsend = "nudge"\n[[steps]]\nadd_to_segment = "woken"\n'
        },
    )
    live = LiveShop(tmp_path / "data", compile_rules(read_playbook(where)), 1)
    live.emit("ann", "Product Added", properties=CUP)
    live.drain()
    options = BacktestOptions(str(where), processes=1)
    assert "goal woke_up 1, step step_2 1" in format_report(run_backtest(live.settings, options))
    assert "workflow wake: goal woke_up" in backtest_person(live.settings, options, "ann")


def block_lines(page: str, begin: str) -> list[str]:
    """The lines of one block of the report, without their alignment."""
    lines = page.splitlines()
    at = lines.index(begin) + 1
    end = next((n for n in range(at, len(lines)) if not lines[n]), len(lines))
    return [re.sub("  +", "  ", line.strip()) for line in lines[at:end]]


def test_reach_from_triggers_to_sends_is_reported(live_shop: LiveShop) -> None:
    live_shop.emit("ann", "Product Added", properties=CUP)
    for _ in range(2):
        live_shop.now += 60_000
        live_shop.emit("ann", "Page Viewed")
    live_shop.emit("bob", "Exit Intent")
    options = BacktestOptions(str(Path(live_shop.settings.data).parent / "shop"), processes=1)
    report = run_backtest(live_shop.settings, options)
    came = report.result.eligibility
    assert (came["added"].triggered, came["added"].eligible, came["added"].failed_conditions) == (1, 1, {})
    assert (came["leaving"].triggered, came["leaving"].failed_conditions) == (1, {"at least 1 in the cart": 1})
    assert (came["hello"].triggered, came["hello"].eligible) == (2, 1), "ann and bob have one session each"
    page = format_report(report)
    assert "trigger  1 triggered, 1 eligible, 0 suppressed, 1 reached" in block_lines(page, "added")
    why = dict(line.split("  ", 1) for line in block_lines(page, "Campaigns that reached no one"))
    assert (
        why["leaving"]
        == "triggered once, never eligible; the condition that failed most often: at least 1 in the cart (once)"
    )
    assert why["also_added"] == "eligible once, suppressed once: lower_priority"
    assert why["receipt"] == 'never triggered: event "Order Completed"'
    assert why["looking"] == (
        "never triggered: entered browsing; the condition of browsing that failed most often: at "
        "least 2 products this session (2 people)"
    )
    assert why["nudge"] == (
        "no one entered the workflow wake; the condition of browsing that failed most often: at least 2 "
        "products this session (2 people)"
    )
    assert "no one  " + why["leaving"] in block_lines(format_report(report, "leaving"), "leaving")


def test_reach_analysis_is_skipped_for_too_many_campaigns(live_shop: LiveShop, monkeypatch: pytest.MonkeyPatch) -> None:
    live_shop.emit("ann", "Product Added", properties=CUP)
    options = BacktestOptions(str(Path(live_shop.settings.data).parent / "shop"), processes=1)
    followed = run_backtest(live_shop.settings, options).result
    monkeypatch.setattr(reach, "MAX_ANALYZED", 3)
    report = run_backtest(live_shop.settings, options)
    assert (report.result.eligibility, report.header.trigger_paths) == ({}, {})
    assert report.result.campaigns == followed.campaigns
    why = block_lines(format_report(report), "Campaigns that reached no one")
    assert "leaving  not analyzed: the playbook has too many campaigns and segments" in why


def test_progress_reaches_the_end(live_shop: LiveShop) -> None:
    live_shop.emit("ann", "Product Added", properties=CUP)
    calls: list[tuple[str, int, int]] = []
    run_backtest(
        live_shop.settings,
        BacktestOptions(str(Path(live_shop.settings.data).parent / "shop"), processes=1),
        lambda *progress: calls.append(progress),
    )
    assert calls[0] == ("reading", 1, 1)
    assert {phase for phase, _, _ in calls[1:]} == {"running"}


def test_timeline_of_one_person(live_shop: LiveShop) -> None:
    live_shop.emit("phone", "Product Added", properties=CUP)
    live_shop.now += 30_000
    live_shop.emit("phone", "Exit Intent", "ann")
    live_shop.emit("bob", "Product Added", properties=CUP)
    options = BacktestOptions(str(Path(live_shop.settings.data).parent / "shop"))
    page = backtest_person(live_shop.settings, options, "phone")
    assert page == backtest_person(live_shop.settings, options, "ann"), "both ids are hers"
    assert "  17:06:40  Product Added  product_id cup" in page
    assert '    send      added  event "Product Added"' in page
    assert "    suppress  also_added  lower_priority: added is shown" in page
    assert "u:ann  (known customer)" in page
    assert "bob" not in page
    assert "also_added" not in backtest_person(live_shop.settings, options._replace(campaign="added"), "ann")
    assert "(Europe/Rome)" in page
    assert "UTC" not in page, "one zone on one page"
    with pytest.raises(ValueError, match="eve: no person with this id"):
        backtest_person(live_shop.settings, options, "eve")


# -- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({"start": "yesterday"}, "yesterday: expected a day"),
        ({"start": "2025-06-16", "end": "2025-06-15"}, "must be before --to"),
        ({"start": "2026-06-16"}, "no events since then"),
        ({"end": "2001-01-01"}, "the log has no events in this period"),
        ({"model": "no/such/file"}, "no such file"),
        ({"as_recorded": True}, "no recorded batches"),
        ({"campaign": "aded"}, 'no such campaign in .*; did you mean "added"'),
    ],
)
def test_invalid_backtest_options_are_explained(live_shop: LiveShop, how: dict[str, Any], expected: str) -> None:
    live_shop.emit("ann", "Product Added", properties=CUP)
    with pytest.raises(ValueError, match=expected):
        run_backtest(
            live_shop.settings, BacktestOptions(str(Path(live_shop.settings.data).parent / "shop"), processes=1, **how)
        )


def test_backtest_requires_a_log(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="no history was recorded"):
        run_backtest(Settings(data=str(tmp_path / "empty")), BacktestOptions(str(write_shop(tmp_path / "shop"))))
    assert not (tmp_path / "empty").exists(), "reading creates no files"


def test_unknown_campaign_fails_before_reading(tmp_path: Path) -> None:
    options = BacktestOptions(str(write_shop(tmp_path / "shop")), campaign="aded")
    for perform in (run_backtest, partial(backtest_person, person="ann")):
        with pytest.raises(ValueError, match=r'--campaign aded: .*; did you mean "added"'):
            perform(Settings(data=str(tmp_path / "empty")), options)


def test_undecodable_records_are_counted(live_shop: LiveShop) -> None:
    live_shop.log.append(
        [
            NewRecord("clicks", b"x", b"not json"),
            NewRecord("clicks", b"x", b'{"type":"page"}'),
            NewRecord("clicks", b"ann", b'{"type":"track","event":7,"anonymousId":"ann"}', 0),
        ]
    )
    live_shop.emit("ann", "Product Added", properties={**CUP, "price": "cheap"})
    live_shop.emit("ann", "Page Viewed")
    found = run_backtest(
        live_shop.settings, BacktestOptions(str(Path(live_shop.settings.data).parent / "shop"), processes=1)
    ).result
    assert found.dead_letters == {"missing_id": 1, "invalid": 3}


def test_misrouted_record_is_forwarded(live_shop: LiveShop) -> None:
    value = b'{"type":"track","event":"Product Added","anonymousId":"ann","properties":{"product_id":"cup","price":9}}'
    for partition in range(4):
        live_shop.log.append([NewRecord("carts", b"ann", value.replace(b"cup", b"cup%d" % partition), partition)])
    assert campaign_report(live_shop, "leaving").preloaded_people == 1
    found = run_backtest(
        live_shop.settings, BacktestOptions(str(Path(live_shop.settings.data).parent / "shop"), processes=1)
    ).result
    assert found.people == 1


def test_failing_step_drops_one_record_and_counts_once() -> None:
    def fails(person: Person, event: Input, context: StepContext) -> Sequence[Effect]:
        if isinstance(event, Track) and event.properties.get("product_id") == "bad":
            raise ZeroDivisionError
        return ()

    def sends(person: Person, event: Input, context: StepContext) -> Sequence[Effect]:
        if not isinstance(event, Track) or event.event != "Product Added":
            return ()
        return (
            Send(
                id=context.next_effect_id("sends"),
                at=context.now,
                person=person.id,
                campaign="x",
                format="bar",
                content=RenderedContent(),
                not_after=context.now,
            ),
        )

    run = BacktestRun((sends, fails), compile_rules(Playbook()), 4, Period(0, 1 << 50, "UTC"), lambda *_: LiveModels())
    cluster = ClusterHistory()
    for n, product in enumerate(("good", "bad", "good")):
        one = record(
            "ann", "Product Added", at=T0 + n, partition=partition_of(b"ann", 4), properties={"product_id": product}
        )
        cluster.items.append(scheduled_record(one, LiveModels()))
    found = run.run_and_count("a:ann", cluster, True, ())
    assert found.campaigns["x"].per_day == {"bar": {"2025-06-15": 2}}
    assert run.counts.effects["dead_letter", "internal_error"] == 1


def test_timer_uses_the_model_live_when_due() -> None:
    """The timer was due while the first model was live; the next record was read with the second one."""
    first, second = LiveModels(make_model(1)), LiveModels(make_model(2))
    seen: list[tuple[str, str]] = []

    def notes(person: Person, event: Input, context: StepContext) -> Sequence[Effect]:
        seen.append((type(event).__name__, context.model.hash if context.model is not None else ""))
        if isinstance(event, Track) and event.event == "Product Added":
            person.timers["look:"] = context.now + 50
        return ()

    simulation = ClusterSimulation(
        ReactionSimulator((notes,)), compile_rules(Playbook()), 4, lambda _, at: first if at < T0 + 60 else second
    )
    partition = partition_of(b"ann", 4)
    simulation.run(
        [
            scheduled_record(record("ann", "Product Added", at=T0, partition=partition), first),
            scheduled_record(record("ann", "Product Viewed", at=T0 + 100, partition=partition), second),
        ],
        T0 + 200,
        True,
    )
    assert seen == [("Track", "model-1"), ("TimerFired", "model-1"), ("Track", "model-2")]


def test_rehearse_command(live_shop: LiveShop, tmp_path: Path) -> None:
    live_shop.emit("ann", "Product Added", properties=CUP)
    live_shop.close()

    def run(*words: str) -> Any:
        return CliRunner().invoke(cli, ["rehearse", *words, "--data", live_shop.settings.data, "--set", "partitions=4"])

    done = run(str(tmp_path / "shop"), "--json", str(tmp_path / "report.json"))
    assert done.exit_code == 0, done.output
    assert "1 of 1 person (100 %) reached" in done.output
    assert decode_report((tmp_path / "report.json").read_bytes()).result.people == 1
    assert "send      added" in run(str(tmp_path / "shop"), "--explain", "ann").output
    misspelled = run(str(tmp_path / "shop"), "--campaign", "aded")
    assert misspelled.exit_code == 2
    assert "no such campaign in" in misspelled.output
    assert misspelled.output.endswith('; did you mean "added"?\n')
    assert run(str(tmp_path / "shop"), "--json", str(tmp_path / "no" / "folder.json")).exit_code == 2
    (tmp_path / "shop" / "campaigns" / "added.toml").write_text("format = 7")
    broken = run(str(tmp_path / "shop"))
    assert broken.exit_code == 2
    assert "campaigns/added.toml" in broken.output


def test_history_is_read_in_log_order(live_shop: LiveShop) -> None:
    for n in range(3):
        live_shop.now += 1_000
        live_shop.emit("ann", "Page Viewed" if n else "Product Added", properties=CUP)
    found = list(read_history(live_shop.settings, PUBLIC_STREAMS, live_shop.now))
    assert [(one.stream, one.log_time - T0) for one in found] == [("carts", 1_000), ("clicks", 2_000)]


@pytest.mark.kafka
@pytest.mark.timeout(300)
def test_kafka_gives_the_same_report(tmp_path: Path, broker: str) -> None:
    """The same history on both logs."""
    lines = []
    for n in range(300):
        at = datetime.fromtimestamp(T0 / 1000 + 7 * n, UTC).isoformat()
        name = ("Product Viewed", "Product Added", "Exit Intent", "Order Completed")[n * n % 11 % 4]
        lines.append(
            {
                "type": "track",
                "event": name,
                "anonymousId": f"b{n % 13}",
                "messageId": f"m{n}",
                "timestamp": at,
                "properties": {**CUP, "order_id": f"o{n}"},
                **({"userId": f"user-{n % 5}"} if n % 17 == 3 else {}),
            }
        )
    days = tmp_path / "days.jsonl"
    days.write_bytes(b"\n".join(map(msgspec.json.encode, lines)))
    options = BacktestOptions(str(write_shop(tmp_path / "shop")), processes=1, end="2025-06-20")
    on_kafka = Settings(log=f"kafka://{broker}", shop="backtest", partitions=4, data=str(tmp_path / "k"))
    on_sqlite = Settings(partitions=4, data=str(tmp_path / "s"))
    create_topics(on_kafka)
    found = []
    for settings in (on_kafka, on_sqlite):
        with open_log(settings) as log:
            assert ingest_file(log, str(days), history=True).accepted == 300
        found.append(run_backtest(settings, options))
    assert found[0] == found[1]
    assert found[0].result.reached > 3
