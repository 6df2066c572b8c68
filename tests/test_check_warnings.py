"""Warnings: what may be meant and more likely is not is said, and keeps nothing from going live."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from attimo import cli
from connectors.playbook_folder import Watcher, located, parse, read
from domain.check import findings
from domain.check_warnings import warnings
from flows.checking import check
from tests.support import ROOT

SHOP = """
[quiet_hours]
begin = "22:00"
end = "08:00"
[groups.discounts]
per_week = 2
[limits]
per_session = 3
per_day = 4
"""
GOOD = {
    "shop.toml": SHOP,
    "segments/engaged.toml": "[when]\nsession = { pages_at_least = 3 }",
    "coupons/ten.toml": 'percent = 10\nvalid_for = "7d"',
    "templates/bar.liquid": "<p>Hello</p>",
    "campaigns/text.toml": 'format = "sms"\ntrigger = { workflow = true }\n[content.default]\ntitle = "Hello"',
    "campaigns/bar.toml": 'format = "bar"\ngroup = "discounts"\ncoupon = "ten"\ntrigger = { segment = "engaged" }\n'
                          '[content.default]\ntemplate = "bar.liquid"',
    "campaigns/popup.toml": 'format = "popup"\ngroup = "discounts"\ntrigger = { event = "Product Added" }\n'
                            '[content.default]\ntitle = "Hello"',
    "workflows/w.toml": "enters = { segment = 'engaged' }\n[[steps]]\nsend = 'text'",
}
S, C, F, P, T = "segments/x.toml", "campaigns/x.toml", "workflows/x.toml", "coupons/x.toml", "shop.toml"
BAR = 'format = "bar"\ntrigger = { event = "Product Added" }\n[content.default]\ntitle = "Hello"\n'
MAIL = BAR.replace("bar", "email") + "[limits]\nper_week = 1\n"
SENT = MAIL.replace('event = "Product Added"', "workflow = true")
USES = "campaigns/uses.toml"
ASKS = BAR + "[when]\nin_segment = 'x'"
SLOT = ('format = "slot"\nslot = "#x"\npriority = 0\ncontent = { default = { title = "Hello" } }\n'
        '[trigger]\nevent = "Product Added"\n')
FLOW = 'enters = { event = "Product Added" }\n'


def doubts(changes: dict[str, str], told: tuple[str, ...] = ()) -> list[str]:
    """What is said of the good playbook with these files in it."""
    files = {name: text.encode() for name, text in {**GOOD, **changes}.items()}
    return [str(problem) for problem in located(files, warnings(parse(files), told))]


def test_of_the_good_one_nothing_is_said() -> None:
    assert doubts({}) == []


@pytest.mark.parametrize(("changes", "said"), [
    # what nobody asks for
    ({S: "[when]\ncart = { empty = true }"},
     "segments/x.toml, line 1, when: nobody asks for it: no campaign, no workflow, no other segment, no story"),
    ({P: "amount = 5\nprefix = 'X-'"}, 'coupons/x.toml, line 1: nobody is given one: no campaign (coupon = "x")'),
    ({"templates/x.liquid": "<p></p>"}, 'templates/x.liquid, line 1: no campaign shows it (template = "x.liquid")'),
    ({T: SHOP + "[groups.more]\nper_day = 1"}, 'line 10, groups.more: no campaign belongs to it (group = "more")'),
    ({"campaigns/bar.toml": GOOD["campaigns/bar.toml"].replace('group = "discounts"', "")},
     'groups.discounts: only "popup" belongs to it: limits of its own would do'),
    ({T: SHOP + "[[funnel]]\nname = 'a'\nwhen = { cart = { empty = true }, orders = { count_is = 0 } }\n"
                "[[funnel]]\nname = 'b'\nwhen = { cart = { empty = true } }"},
     'line 10, funnel[1]: nobody is ever at this stage: who has come this far is at "b" too'),
    ({T: SHOP + "[consent.purposes]\nmarketting = 'denied'"}, 'line 11, consent.purposes.marketting: is a purpose of '
     'your own, and no campaign has it; did you mean "marketing"?'),
    # how often
    ({C: BAR.replace("bar", "email")}, "campaigns/x.toml, line 1, limits: nothing but the 4 a day of everything"),
    ({C: SENT.partition("[limits]")[0], F: FLOW + "again = 'always'\n[[steps]]\nsend = 'x'"}, "limits: nothing but"),
    ({C: 'group = "discounts"\n' + BAR + "[limits]\nper_week = 3"},
     "line 7, limits.per_week: is never reached: its group discounts allows 2"),
    ({C: BAR + "[limits]\nper_day = 5"}, "limits.per_day: is never reached: [limits] of shop.toml allows 4 of"),
    ({C: BAR + "[limits]\nper_session = 4"}, "limits.per_session: is never reached: [limits] of shop.toml allows 3"),
    ({C: BAR + "[limits]\nevery = '10m'"}, "line 6, limits.every: makes no difference: it is shown once a visit"),
    ({C: BAR + "[limits]\nevery = '2d'\nper_session = 2"},
     "limits.per_session: is never reached: two of them are at least 2 days apart (every)"),
    ({C: MAIL + "per_session = 2"}, "limits.per_session: makes no difference to messages: use per_day, per_week"),
    ({C: BAR + "[limits]\nevery = '1d'\nper_day = 3"},
     "line 7, limits.per_day: is never reached: two of them are at least 1 day apart (every)"),
    ({C: MAIL.replace("per_week = 1", "per_week = 5\nevery = '2d'")}, "limits.per_week: is never reached"),
    # who comes first
    ({C: SLOT, USES: SLOT}, 'line 3, priority: is that of "uses", which fills #x too: for whom both are meant, the '
     "name decides"),
    ({C: SLOT + "properties = { path = '/a' }", USES: SLOT + "properties = { path = ['/b', '/a'] }"},
     "priority: is that"),
    # to whom, and what for
    ({C: MAIL + "[when]\nhas = { address = 'phone' }"}, "line 8, when.has.address: asks for another address than email "
     'needs; did you mean "email"?'),
    ({C: MAIL.replace("email", "sms") + "[[when.all]]\nhas = { address = ['email', 'push'] }"},
     'when.all[1].has.address: asks for another address than sms needs; did you mean "phone"?'),
    ({C: 'coupon = "ten"\n' + BAR + "[goal]\nwithin = '14d'"}, "line 7, goal.within: orders count for 14 days, and the "
     "coupon of ten is good for 7 days: orders without it count as well"),
    ({C: BAR + "[goal]\nevent = 'Product Added'"}, "line 6, goal.event: is its own occasion: whoever does it"),
    # workflows
    ({C: SENT, F: FLOW + "[[steps]]\nsend = 'x'\npatience = '6h'"},
     "line 4, steps[1].patience: is shorter than the quiet hours (10 hours)"),
    ({C: SENT.replace("email", "popup"), F: FLOW + "[[steps]]\nwait = '1d'\n[[steps]]\nsend = 'x'"},
     'line 5, steps[2].send: "x" is shown on the site, where they hardly are after a wait: patience = "7d"'),
    ({C: SENT, F: FLOW + "[[steps]]\nsend = 'x'\notherwise = 'end'\n[[steps]]\nid = 'end'\nexit = true"},
     "line 4, steps[1].otherwise: leads to where it goes on anyway: leave it out"),
    ({C: SENT, F: FLOW + "[[steps]]\nsend = 'x'\n[[steps]]\nsend = 'x'"},
     'line 5, steps[2].send: "x" is said by the step before as well, at the same moment; a wait belongs between them'),
    ({C: SENT, F: FLOW + "[[steps]]\nwait_until = { time = '23:30' }\n[[steps]]\nsend = 'x'"},
     'line 3, steps[1].wait_until: ends at 23:30, in the quiet hours: "x" goes out at 08:00; wait until then, or'),
    ({C: SENT, F: FLOW + "[[steps]]\nwait_until = { weekday = 'monday' }\n[[steps]]\nsend = 'x'"}, "ends at 00:00"),
    ({F: FLOW + "[[steps]]\nwait_for = { event = 'Message Clicked', where = { campaign = 'text' } }\n[[steps]]\n"
         "send = 'x'", C: SENT},
     'line 3, steps[1].wait_for.where.campaign: this workflow never sends "text"; there is only x'),
    # what cannot be told of a campaign
    ({S: "[when]\ndid = { event = 'Message Opened', where = { campaign = 'text' } }", USES: ASKS},
     'line 2, when.did.where.campaign: "text" goes out by sms, and nobody can tell whether a text was opened; '
     'did you mean event = "Message Clicked"'),
    ({S: "[when]\ndid = { event = 'Message Opened', where = { campaign = ['popup'] } }", USES: ASKS},
     '"popup" is shown on the site, so there is no "Message Opened" of it; did you mean event = "Offer Shown"?'),
    ({C: SENT, F: FLOW + "[[steps]]\nsend = 'x'\n[[steps]]\nwait_for = { event = 'Offer Clicked', where = "
                         "{ campaign = 'x' } }"},
     'line 5, steps[2].wait_for.where.campaign: "x" goes out by email, so there is no "Offer Clicked" of it; '
     'did you mean event = "Message Clicked"?'),
    ({S: "static = true\n[[enter_on]]\nevent = 'Offer Clicked'\nproperties = { campaign = 'popop' }", USES: ASKS},
     'line 4, enter_on[1].properties.campaign: there is no campaign "popop"; did you mean "popup"?'),
    # what is never found, and what is not shown as it is meant
    ({S: "[when]\ndid = { event = 'Order Completed', where = { category = 'Mugs' } }", USES: ASKS},
     'line 2, when.did.where.category: stands with each product of "Order Completed", and `where` does not look into '
     'lists of products; did you mean orders = { contains_category = "Mugs" }?'),
    ({C: BAR + "[goal]\nwhere = { product_id = 'p1' }"}, "line 6, goal.where.product_id: stands with each product of"),
    ({C: BAR + "[goal]\nwhere = { brand = ['a', 'b'] }"}, "does not look into lists of products"),
    ({C: BAR.replace('"Product Added"', '"Checkout Started", properties = { product_id = "p1" }')},
     'trigger.properties.product_id: stands with each product of "Checkout Started", and `properties` does not look '
     'into lists of products; did you mean cart = { contains_product = "p1" }?'),
    ({S: "[when]\nsequence = { steps = ['Product Viewed', { event = 'Order Completed', where = { sku = '1' } }] }",
      USES: ASKS}, "when.sequence.steps[2].where.sku: stands with each product"),
    ({C: BAR.replace('"Hello"', '"<b>Hello</b>"')},
     "line 4, content.default.title: is plain text: <b> is shown as it stands"),
    ({C: BAR + "button = 'Buy<br/>now'\nurl = '/x'"}, "line 5, content.default.button: is plain text: <br/> is shown"),
    ({C: BAR + "[variants.a]\n[variants.b.content.default]\ntitle = '<i>Hi</i>'"},
     "line 7, variants.b.content.default.title: is plain text: <i> is shown as it stands"),
    ({C: BAR + "[variants.a]\n[variants.b]\n"}, 'line 6, variants.b: says the same as "a": nothing would be compared'),
    ({C: SLOT.replace("#x", "hero")}, 'line 2, slot: is every <hero> of the page; did you mean "#hero"?'),
    ({T: "events = ['Product viewed']" + SHOP},
     'line 1, events[1]: differs only in capitals from "Product Viewed", and is another event'),
])
def test_each_warning_is_said(changes: dict[str, str], said: str) -> None:
    found = doubts(changes)
    assert len(found) == 1, found
    assert said in found[0]


@pytest.mark.parametrize(("changes", "told"), [
    # somebody asks for it
    ({S: "[when]\ncart = { empty = true }"}, ("x",)),
    ({S: "[when]\ncart = { empty = true }", USES: BAR + "[unless.not]\nin_segment = 'x'"}, ()),
    ({S: "[when]\ncart = { empty = true }", USES: BAR.replace('event = "Product Added"', "left_segment = 'x'")}, ()),
    ({S: "[when]\ncart = { empty = true }",
      F: FLOW + "[[steps]]\nbranch = [{ when = { in_segment = 'x' }, go = 'e' }]\n"
                "[[steps]]\nid = 'e'\nexit = true"}, ()),
    ({P: "amount = 5\nprefix = 'X-'", F: FLOW + "[[steps]]\ncoupon = 'x'"}, ()),
    ({"templates/x.liquid": "<p></p>", C: BAR + "[variants.a.content.mobile]\ntemplate = 'x.liquid'\n"
                                                "[variants.a.content.default]\n[variants.b]"}, ()),
    ({T: SHOP + "[[funnel]]\nname = 'a'\nwhen = { cart = { empty = true } }\n[[funnel]]\nname = 'b'\n"
                "when = { cart = { empty = true }, orders = { count_is = 0 } }"}, ()),
    ({T: SHOP + "[consent.purposes]\nmarkets = 'denied'\nsms = 'denied'", C: BAR.replace(
        "[content", "purpose = 'markets'\n[content", 1)}, ()),
    # something limits it
    ({C: BAR.replace("bar", "email"), T: SHOP + "[pressure]\nper_week = 9"}, ()),
    ({C: 'group = "discounts"\n' + BAR.replace("bar", "email")}, ()),
    ({C: 'purpose = "service"\n' + BAR.replace("bar", "email")}, ()),
    ({C: SENT.partition("[limits]")[0], F: FLOW + "again = 'after'\n[[steps]]\nsend = 'x'"}, ()),
    # it is within the others' limits, or exempt from them
    ({C: 'group = "discounts"\n' + BAR + "[limits]\nper_week = 2\nper_session = 3"}, ()),
    ({C: 'purpose = "service"\n' + BAR + "[limits]\nper_day = 9\nper_session = 9"}, ()),
    ({C: 'slot = "#x"\n' + BAR.replace("bar", "slot") + "[limits]\nper_day = 9\nper_session = 9"}, ()),
    ({C: BAR + "[limits]\nevery = '1d'"}, ()),
    ({C: BAR + "[limits]\nevery = '10m'\nper_session = 3"}, ()),
    # to whom, and what for
    ({C: MAIL + "[when]\nhas = { address = ['phone', 'email'] }"}, ()),
    ({C: MAIL + "[[when.any]]\nhas = { address = 'phone' }\n[[when.any]]\ncart = { empty = true }"}, ()),
    ({C: MAIL + "[unless]\nhas = { address = 'phone' }"}, ()),
    ({C: 'coupon = "ten"\n' + BAR + "[goal]\nwithin = '7d'"}, ()),
    ({C: BAR.replace("Product Added", "Order Completed") + "[goal]\nevent = 'Order Completed'"}, ()),
    # a letter in quiet hours waits for their end, however short it is good: it is decided anew
    ({C: 'valid_for = "5m"\n' + MAIL}, ()),
    # workflows
    ({C: SENT, F: FLOW + "[[steps]]\nsend = 'x'\npatience = '10h'"}, ()),
    ({C: "urgent = true\n" + SENT, F: FLOW + "[[steps]]\nsend = 'x'\npatience = '1h'"}, ()),
    ({C: SENT, F: FLOW + "[[steps]]\nsend = 'x'\npatience = '1h'", T: SHOP.replace(
        "[groups", "channels = ['sms']\n[groups")}, ()),
    ({C: SENT.replace("email", "popup"), F: FLOW + "[[steps]]\nsend = 'x'"}, ()),
    ({C: SENT, F: FLOW + "[[steps]]\nsend = 'x'\notherwise = 'late'\n[[steps]]\nexit = true\n[[steps]]\nid = 'late'\n"
                         "goal = 'late'"}, ()),
    # each has its place, or its people, or its moment
    ({C: SLOT, USES: SLOT.replace("priority = 0", "priority = 1")}, ()),
    ({C: SLOT, USES: SLOT.replace("#x", "#y")}, ()),
    ({C: SLOT + "properties = { path = '/a' }", USES: SLOT + "properties = { path = ['/b', '/c'] }"}, ()),
    ({C: SLOT + "[when]\ncart = { empty = true }", USES: SLOT + "[when]\ncart = { items_at_least = 1 }"}, ()),
    ({C: SLOT + "[when]\ncart = { empty = true }", USES: SLOT + "[unless]\ncart = { empty = true }"}, ()),
    ({C: SLOT.replace("Product Added", "Product Viewed"), USES: SLOT}, ()),
    ({C: MAIL.replace("per_week = 1", "per_week = 4\nevery = '2d'")}, ()),
    ({C: SENT, F: FLOW + "[[steps]]\nwait_until = { time = '09:30' }\n[[steps]]\nsend = 'x'"}, ()),
    ({C: "urgent = true\n" + SENT, F: FLOW + "[[steps]]\nwait_until = { time = '23:30' }\n[[steps]]\nsend = 'x'"}, ()),
    ({F: FLOW + "[[steps]]\nsend = 'x'\n[[steps]]\nwait_for = { event = 'Message Clicked', where = { campaign = "
         "['text', 'x'] } }", C: SENT}, ()),
    # what is told of a campaign
    ({S: "[when]\ndid = { event = 'Message Clicked', where = { campaign = 'text' } }", USES: ASKS}, ()),
    ({S: "[when]\ndid = { event = 'Offer Dismissed', where = { campaign = 'popup' } }", USES: ASKS}, ()),
    ({S: "[when]\ndid = { event = 'Message Opened' }", USES: ASKS}, ()),
    ({S: "[when]\ndid = { event = 'Promotion Clicked', where = { campaign = 'spring' } }", USES: ASKS}, ()),
])
def test_what_is_meant_is_not_doubted(changes: dict[str, str], told: tuple[str, ...]) -> None:
    assert doubts(changes, told) == []


def test_what_is_over_is_said_of_the_time_it_is() -> None:
    texts = {**GOOD, T: 'timezone = "Europe/Rome"\n' + SHOP, C: 'end = "2026-12-01"\n' + BAR}
    files = {name: text.encode() for name, text in texts.items()}
    midnight = 1_796_079_600_000  # in Rome, 23:00 in Greenwich
    assert datetime.fromtimestamp(midnight / 1_000, UTC).isoformat() == "2026-11-30T23:00:00+00:00"
    assert warnings(parse(files), (), midnight - 1) == []
    assert [str(problem) for problem in located(files, warnings(parse(files), (), midnight))] == [
        "campaigns/x.toml, line 1, end: is past (2026-12-01): it is said to nobody any more"]


# -- the shipped shop, and the command -----------------------------------------------------------------------------


def test_of_the_shipped_shop_nothing_is_said() -> None:
    assert check(ROOT / "shop").warnings == []


def folder_of(place: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)
    return place


def test_a_warning_is_said_and_keeps_nothing_from_going_live(tmp_path: Path) -> None:
    place = folder_of(tmp_path / "shop", {**GOOD, S: "[when]\ncart = { empty = true }"})
    result = CliRunner().invoke(cli, ["check", str(place)])
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[:2] == [
        "warning: segments/x.toml, line 1, when: nobody asks for it: no campaign, no workflow, no other segment, no "
        "story",
        "warning: scenarios: there are none: a story says in a table what somebody must be shown (docs/scenarios.md)"]
    assert lines[2].startswith(f"{place}: nothing is wrong, with 2 warnings (segments: 2,")
    assert findings(read(place)) == []


def test_a_mistake_is_said_and_the_playbook_that_is_live_stays(tmp_path: Path) -> None:
    place = folder_of(tmp_path / "shop", GOOD)
    watcher = Watcher(place, every=0)
    live = watcher.first()
    (place / C).write_text(BAR + "body = '{{ coupon.code }}'")
    assert [watcher.poll(n) for n in range(1, 4)] == [None, None, None]
    assert [problem.file for problem in watcher.problems] == [C]
    result = CliRunner().invoke(cli, ["check", str(place)])
    assert result.exit_code == 2
    assert "campaigns/x.toml, line 5, content.default.body: asks for a coupon" in result.output
    assert "warning:" not in result.output
    (place / C).unlink()
    watcher.poll(5)
    assert (watcher.poll(6), watcher.problems, read(place)) == (None, (), live)


def test_a_story_that_speaks_of_a_segment_asks_for_it(tmp_path: Path) -> None:
    place = tmp_path / "shop"
    shutil.copytree(ROOT / "shop", place)
    (place / "scenarios" / "on_the_site.md").unlink()
    assert [problem.file for problem in check(place).warnings] == ["segments/engaged.toml"]


def test_of_what_is_found_and_shown_as_it_is_meant_nothing_is_said() -> None:
    assert doubts({C: BAR.replace('"Hello"', '"1 < 2, {% if first_name %}<3{% endif %}"')}) == []
    assert doubts({C: SLOT.replace("#x", "main")}) == []
    assert doubts({C: SLOT.replace("#x", "shop-hero")}) == []
    assert doubts({C: BAR + "[variants.a]\n[variants.b.content.default]\ntitle = 'Hi'"}) == []
    assert doubts({S: "[when]\ndid = { event = 'Product Added', where = { category = 'Mugs' } }", USES: ASKS}) == []
    assert doubts({S: "[when]\ndid = { event = 'Order Completed', where = { total = 3 } }", USES: ASKS}) == []
