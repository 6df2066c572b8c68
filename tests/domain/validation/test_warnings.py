"""Warnings report settings that are probably not intended, and do not stop a playbook from going live."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from attimo import cli
from connectors.playbook.folder import PlaybookWatcher, locate_diagnostics, parse_playbook, read_playbook
from domain.validation.validate import validate
from domain.validation.warnings import warnings
from flows.commands.check import check
from tests.harness.support import ROOT

SHOP = """
[quiet_hours]
start = "22:00"
end = "08:00"
[groups.discounts]
per_week = 2
[frequency_caps]
per_session = 3
per_day = 4
"""
VALID_FILES = {
    "shop.toml": SHOP,
    "segments/engaged.toml": "[when]\nsession = { pages_at_least = 3 }",
    "coupons/ten.toml": 'percent = 10\nvalid_for = "7d"',
    "templates/bar.liquid": "<p>Hello</p>",
    "campaigns/text.toml": 'format = "sms"\ntrigger = { workflow = true }\n[content.default]\ntitle = "Hello"',
    "campaigns/bar.toml": 'format = "bar"\ngroup = "discounts"\ncoupon = "ten"\ntrigger = { segment = "engaged" }\n'
    '[content.default]\ntemplate = "bar.liquid"',
    "campaigns/popup.toml": 'format = "popup"\ngroup = "discounts"\ntrigger = { event = "Product Added" }\n'
    '[content.default]\ntitle = "Hello"',
    "workflows/w.toml": "enter_on = { segment = 'engaged' }\n[[steps]]\nsend = 'text'",
}
S, C, F, P, T = "segments/x.toml", "campaigns/x.toml", "workflows/x.toml", "coupons/x.toml", "shop.toml"
BAR = 'format = "bar"\ntrigger = { event = "Product Added" }\n[content.default]\ntitle = "Hello"\n'
MAIL = BAR.replace("bar", "email") + "[frequency_caps]\nper_week = 1\n"
SENT = MAIL.replace('event = "Product Added"', "workflow = true")
USES = "campaigns/uses.toml"
ASKS = BAR + "[when]\nin_segment = 'x'"
SLOT = (
    'format = "slot"\nslot = "#x"\npriority = 0\ncontent = { default = { title = "Hello" } }\n'
    '[trigger]\nevent = "Product Added"\n'
)
FLOW = 'enter_on = { event = "Product Added" }\n'


def warnings_of(changes: dict[str, str], scenario_names: tuple[str, ...] = ()) -> list[str]:
    """Return the warnings of the valid playbook with these files."""
    files = {name: text.encode() for name, text in {**VALID_FILES, **changes}.items()}
    return [str(problem) for problem in locate_diagnostics(files, warnings(parse_playbook(files), scenario_names))]


def test_valid_playbook_has_no_warnings() -> None:
    assert warnings_of({}) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        # unused items
        (
            {S: "[when]\ncart = { empty = true }"},
            "segments/x.toml, line 1, when: unused segment: no campaign, workflow, other segment or scenario refers "
            "to it",
        ),
        ({P: "amount = 5\nprefix = 'X-'"}, 'coupons/x.toml, line 1: unused coupon pool: no campaign (coupon = "x")'),
        (
            {"templates/x.liquid": "<p></p>"},
            'templates/x.liquid, line 1: unused template: no campaign refers to it (template = "x.liquid")',
        ),
        (
            {T: SHOP + "[groups.more]\nper_day = 1"},
            'line 10, groups.more: unused group: no campaign belongs to it (group = "more")',
        ),
        (
            {"campaigns/bar.toml": VALID_FILES["campaigns/bar.toml"].replace('group = "discounts"', "")},
            'groups.discounts: only "popup" belongs to it: frequency_caps in the campaign would be enough',
        ),
        (
            {
                T: SHOP + "[[funnel]]\nname = 'a'\nwhen = { cart = { empty = true }, orders = { count_is = 0 } }\n"
                "[[funnel]]\nname = 'b'\nwhen = { cart = { empty = true } }"
            },
            'line 10, funnel[1]: no one is ever at this stage: everyone here is also at "b"',
        ),
        (
            {T: SHOP + "[consent.purposes]\nmarketting = 'denied'"},
            "line 11, consent.purposes.marketting: is a custom "
            'purpose that no campaign uses; did you mean "marketing"?',
        ),
        # frequency caps
        (
            {C: BAR.replace("bar", "email")},
            "campaigns/x.toml, line 1, frequency_caps: no frequency cap of its own; only the shop-wide cap of 4 per "
            "day applies",
        ),
        (
            {C: SENT.partition("[frequency_caps]")[0], F: FLOW + "reentry = 'always'\n[[steps]]\nsend = 'x'"},
            "frequency_caps: no frequency cap of its own",
        ),
        (
            {C: 'group = "discounts"\n' + BAR + "[frequency_caps]\nper_week = 3"},
            "line 7, frequency_caps.per_week: is never reached: its group discounts allows 2",
        ),
        (
            {C: BAR + "[frequency_caps]\nper_day = 5"},
            "frequency_caps.per_day: is never reached: [frequency_caps] in shop.toml allows 4 for",
        ),
        (
            {C: BAR + "[frequency_caps]\nper_session = 4"},
            "frequency_caps.per_session: is never reached: [frequency_caps] in shop.toml allows 3",
        ),
        (
            {C: BAR + "[frequency_caps]\nmin_interval = '10m'"},
            "line 6, frequency_caps.min_interval: has no effect: the campaign is shown once per session",
        ),
        (
            {C: BAR + "[frequency_caps]\nmin_interval = '2d'\nper_session = 2"},
            "frequency_caps.per_session: is never reached: min_interval keeps two of them at least 2 days apart",
        ),
        ({C: MAIL + "per_session = 2"}, "frequency_caps.per_session: has no effect on messages: use per_day, per_week"),
        (
            {C: BAR + "[frequency_caps]\nmin_interval = '1d'\nper_day = 3"},
            "line 7, frequency_caps.per_day: is never reached: min_interval keeps two of them at least 1 day apart",
        ),
        (
            {C: MAIL.replace("per_week = 1", "per_week = 5\nmin_interval = '2d'")},
            "frequency_caps.per_week: is never reached",
        ),
        # priority
        (
            {C: SLOT, USES: SLOT},
            'line 3, priority: is the same as that of "uses", which also fills #x: the name decides',
        ),
        (
            {C: SLOT + "properties = { path = '/a' }", USES: SLOT + "properties = { path = ['/b', '/a'] }"},
            "priority: is the same as that",
        ),
        # addresses and goals
        (
            {C: MAIL + "[when]\nhas = { address = 'phone' }"},
            'line 8, when.has.address: is not the address that email needs; did you mean "email"?',
        ),
        (
            {C: MAIL.replace("email", "sms") + "[[when.all]]\nhas = { address = ['email', 'push'] }"},
            'when.all[1].has.address: is not the address that sms needs; did you mean "phone"?',
        ),
        (
            {C: 'coupon = "ten"\n' + BAR + "[goal]\nwithin = '14d'"},
            "line 7, goal.within: orders count for 14 days, but a "
            "coupon of ten is valid for 7 days: orders without it count too",
        ),
        (
            {C: BAR + "[goal]\nevent = 'Product Added'"},
            "line 6, goal.event: is also the trigger: every repetition counts",
        ),
        # workflows
        (
            {C: SENT, F: FLOW + "[[steps]]\nsend = 'x'\ntimeout = '6h'"},
            "line 4, steps[1].timeout: is shorter than the quiet hours (10 hours)",
        ),
        (
            {C: SENT.replace("email", "popup"), F: FLOW + "[[steps]]\nwait = '1d'\n[[steps]]\nsend = 'x'"},
            'line 5, steps[2].send: "x" is shown on the site, where few people are right after a wait: timeout = "7d"',
        ),
        (
            {C: SENT, F: FLOW + "[[steps]]\nsend = 'x'\nelse = 'end'\n[[steps]]\nid = 'end'\nexit = true"},
            "line 4, steps[1].else: names the step that follows anyway: leave it out",
        ),
        (
            {C: SENT, F: FLOW + "[[steps]]\nsend = 'x'\n[[steps]]\nsend = 'x'"},
            'line 5, steps[2].send: "x" is also sent by the previous step, at the same moment; add a wait between them',
        ),
        (
            {C: SENT, F: FLOW + "[[steps]]\nwait_until = { time = '23:30' }\n[[steps]]\nsend = 'x'"},
            'line 3, steps[1].wait_until: ends at 23:30, in the quiet hours: "x" is sent at 08:00; wait until then, or',
        ),
        ({C: SENT, F: FLOW + "[[steps]]\nwait_until = { weekday = 'monday' }\n[[steps]]\nsend = 'x'"}, "ends at 00:00"),
        (
            {
                F: FLOW
                + "[[steps]]\nwait_for = { event = 'Message Clicked', where = { campaign = 'text' } }\n[[steps]]\n"
                "send = 'x'",
                C: SENT,
            },
            'line 3, steps[1].wait_for.where.campaign: this workflow never sends "text"; there is only x',
        ),
        # feedback that a campaign cannot have
        (
            {S: "[when]\ndid = { event = 'Message Opened', where = { campaign = 'text' } }", USES: ASKS},
            'line 2, when.did.where.campaign: "text" is sent by sms, which does not report opens; '
            'did you mean event = "Message Clicked"',
        ),
        (
            {S: "[when]\ndid = { event = 'Message Opened', where = { campaign = ['popup'] } }", USES: ASKS},
            '"popup" is shown on the site and has no "Message Opened" events; did you mean event = "Offer Shown"?',
        ),
        (
            {
                C: SENT,
                F: FLOW + "[[steps]]\nsend = 'x'\n[[steps]]\nwait_for = { event = 'Offer Clicked', where = "
                "{ campaign = 'x' } }",
            },
            'line 5, steps[2].wait_for.where.campaign: "x" is sent by email and has no "Offer Clicked" events; '
            'did you mean event = "Message Clicked"?',
        ),
        (
            {
                S: "static = true\n[[enter_on]]\nevent = 'Offer Clicked'\nproperties = { campaign = 'popop' }",
                USES: ASKS,
            },
            'line 4, enter_on[1].properties.campaign: there is no campaign "popop"; did you mean "popup"?',
        ),
        # properties of products, and markup
        (
            {S: "[when]\ndid = { event = 'Order Completed', where = { category = 'Mugs' } }", USES: ASKS},
            'line 2, when.did.where.category: is a property of each product in "Order Completed", but `where` does '
            "not search "
            'lists of products; did you mean orders = { contains_category = "Mugs" }?',
        ),
        (
            {C: BAR + "[goal]\nwhere = { product_id = 'p1' }"},
            "line 6, goal.where.product_id: is a property of each product in",
        ),
        ({C: BAR + "[goal]\nwhere = { brand = ['a', 'b'] }"}, "does not search lists of products"),
        (
            {C: BAR.replace('"Product Added"', '"Checkout Started", properties = { product_id = "p1" }')},
            'trigger.properties.product_id: is a property of each product in "Checkout Started", but `properties` '
            "does not search "
            'lists of products; did you mean cart = { contains_product = "p1" }?',
        ),
        (
            {
                S: "[when]\nsequence = { steps = ['Product Viewed', { event = 'Order Completed', where = { sku = '1' "
                "} }] }",
                USES: ASKS,
            },
            "when.sequence.steps[2].where.sku: is a property of each product",
        ),
        (
            {C: BAR.replace('"Hello"', '"<b>Hello</b>"')},
            "line 4, content.default.title: is plain text: <b> is shown literally",
        ),
        (
            {C: BAR + "button = 'Buy<br/>now'\nurl = '/x'"},
            "line 5, content.default.button: is plain text: <br/> is shown",
        ),
        (
            {C: BAR + "[variants.a]\n[variants.b.content.default]\ntitle = '<i>Hi</i>'"},
            "line 7, variants.b.content.default.title: is plain text: <i> is shown literally",
        ),
        (
            {C: BAR + "[variants.a]\n[variants.b]\n"},
            'line 6, variants.b: has the same content as "a": the experiment compares nothing',
        ),
        ({C: SLOT.replace("#x", "hero")}, 'line 2, slot: matches every <hero> of the page; did you mean "#hero"?'),
        (
            {T: "custom_events = ['Product viewed']" + SHOP},
            'line 1, custom_events[1]: differs from "Product Viewed" only in upper and lower case, and is a '
            "different event",
        ),
    ],
)
def test_each_warning_is_reported(changes: dict[str, str], expected: str) -> None:
    found = warnings_of(changes)
    assert len(found) == 1, found
    assert expected in found[0]


@pytest.mark.parametrize(
    ("changes", "scenario_names"),
    [
        # used items
        ({S: "[when]\ncart = { empty = true }"}, ("x",)),
        ({S: "[when]\ncart = { empty = true }", USES: BAR + "[unless.not]\nin_segment = 'x'"}, ()),
        (
            {
                S: "[when]\ncart = { empty = true }",
                USES: BAR.replace('event = "Product Added"', "exited_segment = 'x'"),
            },
            (),
        ),
        (
            {
                S: "[when]\ncart = { empty = true }",
                F: FLOW + "[[steps]]\nbranch = [{ when = { in_segment = 'x' }, goto = 'e' }]\n"
                "[[steps]]\nid = 'e'\nexit = true",
            },
            (),
        ),
        ({P: "amount = 5\nprefix = 'X-'", F: FLOW + "[[steps]]\ncoupon = 'x'"}, ()),
        (
            {
                "templates/x.liquid": "<p></p>",
                C: BAR + "[variants.a.content.mobile]\ntemplate = 'x.liquid'\n"
                "[variants.a.content.default]\n[variants.b]",
            },
            (),
        ),
        (
            {
                T: SHOP + "[[funnel]]\nname = 'a'\nwhen = { cart = { empty = true } }\n[[funnel]]\nname = 'b'\n"
                "when = { cart = { empty = true }, orders = { count_is = 0 } }"
            },
            (),
        ),
        (
            {
                T: SHOP + "[consent.purposes]\nmarkets = 'denied'\nsms = 'denied'",
                C: BAR.replace("[content", "purpose = 'markets'\n[content", 1),
            },
            (),
        ),
        # with a cap
        ({C: BAR.replace("bar", "email"), T: SHOP + "[contact_pressure]\nper_week = 9"}, ()),
        ({C: 'group = "discounts"\n' + BAR.replace("bar", "email")}, ()),
        ({C: 'purpose = "service"\n' + BAR.replace("bar", "email")}, ()),
        ({C: SENT.partition("[frequency_caps]")[0], F: FLOW + "reentry = 'after'\n[[steps]]\nsend = 'x'"}, ()),
        # within other caps, or exempt
        ({C: 'group = "discounts"\n' + BAR + "[frequency_caps]\nper_week = 2\nper_session = 3"}, ()),
        ({C: 'purpose = "service"\n' + BAR + "[frequency_caps]\nper_day = 9\nper_session = 9"}, ()),
        ({C: 'slot = "#x"\n' + BAR.replace("bar", "slot") + "[frequency_caps]\nper_day = 9\nper_session = 9"}, ()),
        ({C: BAR + "[frequency_caps]\nmin_interval = '1d'"}, ()),
        ({C: BAR + "[frequency_caps]\nmin_interval = '10m'\nper_session = 3"}, ()),
        # addresses and goals
        ({C: MAIL + "[when]\nhas = { address = ['phone', 'email'] }"}, ()),
        ({C: MAIL + "[[when.any]]\nhas = { address = 'phone' }\n[[when.any]]\ncart = { empty = true }"}, ()),
        ({C: MAIL + "[unless]\nhas = { address = 'phone' }"}, ()),
        ({C: 'coupon = "ten"\n' + BAR + "[goal]\nwithin = '7d'"}, ()),
        ({C: BAR.replace("Product Added", "Order Completed") + "[goal]\nevent = 'Order Completed'"}, ()),
        # a message in quiet hours is decided again when they end, however short valid_for is
        ({C: 'valid_for = "5m"\n' + MAIL}, ()),
        # workflows
        ({C: SENT, F: FLOW + "[[steps]]\nsend = 'x'\ntimeout = '10h'"}, ()),
        ({C: "ignore_quiet_hours = true\n" + SENT, F: FLOW + "[[steps]]\nsend = 'x'\ntimeout = '1h'"}, ()),
        (
            {
                C: SENT,
                F: FLOW + "[[steps]]\nsend = 'x'\ntimeout = '1h'",
                T: SHOP.replace("[groups", "channels = ['sms']\n[groups"),
            },
            (),
        ),
        ({C: SENT.replace("email", "popup"), F: FLOW + "[[steps]]\nsend = 'x'"}, ()),
        (
            {
                C: SENT,
                F: FLOW + "[[steps]]\nsend = 'x'\nelse = 'late'\n[[steps]]\nexit = true\n[[steps]]\nid = 'late'\n"
                "goal = 'late'",
            },
            (),
        ),
        # different placements, people or moments
        ({C: SLOT, USES: SLOT.replace("priority = 0", "priority = 1")}, ()),
        ({C: SLOT, USES: SLOT.replace("#x", "#y")}, ()),
        ({C: SLOT + "properties = { path = '/a' }", USES: SLOT + "properties = { path = ['/b', '/c'] }"}, ()),
        ({C: SLOT + "[when]\ncart = { empty = true }", USES: SLOT + "[when]\ncart = { items_at_least = 1 }"}, ()),
        ({C: SLOT + "[when]\ncart = { empty = true }", USES: SLOT + "[unless]\ncart = { empty = true }"}, ()),
        ({C: SLOT.replace("Product Added", "Product Viewed"), USES: SLOT}, ()),
        ({C: MAIL.replace("per_week = 1", "per_week = 4\nmin_interval = '2d'")}, ()),
        ({C: SENT, F: FLOW + "[[steps]]\nwait_until = { time = '09:30' }\n[[steps]]\nsend = 'x'"}, ()),
        (
            {
                C: "ignore_quiet_hours = true\n" + SENT,
                F: FLOW + "[[steps]]\nwait_until = { time = '23:30' }\n[[steps]]\nsend = 'x'",
            },
            (),
        ),
        (
            {
                F: FLOW
                + "[[steps]]\nsend = 'x'\n[[steps]]\nwait_for = { event = 'Message Clicked', where = { campaign = "
                "['text', 'x'] } }",
                C: SENT,
            },
            (),
        ),
        # feedback of a campaign
        ({S: "[when]\ndid = { event = 'Message Clicked', where = { campaign = 'text' } }", USES: ASKS}, ()),
        ({S: "[when]\ndid = { event = 'Offer Dismissed', where = { campaign = 'popup' } }", USES: ASKS}, ()),
        ({S: "[when]\ndid = { event = 'Message Opened' }", USES: ASKS}, ()),
        ({S: "[when]\ndid = { event = 'Promotion Clicked', where = { campaign = 'spring' } }", USES: ASKS}, ()),
    ],
)
def test_intended_settings_cause_no_warning(changes: dict[str, str], scenario_names: tuple[str, ...]) -> None:
    assert warnings_of(changes, scenario_names) == []


def test_past_end_date_is_a_warning() -> None:
    texts = {**VALID_FILES, T: 'timezone = "Europe/Rome"\n' + SHOP, C: 'end = "2026-12-01"\n' + BAR}
    files = {name: text.encode() for name, text in texts.items()}
    midnight = 1_796_079_600_000  # in Rome, 23:00 UTC
    assert datetime.fromtimestamp(midnight / 1_000, UTC).isoformat() == "2026-11-30T23:00:00+00:00"
    assert warnings(parse_playbook(files), (), midnight - 1) == []
    assert [str(problem) for problem in locate_diagnostics(files, warnings(parse_playbook(files), (), midnight))] == [
        "campaigns/x.toml, line 1, end: is past (2026-12-01): the campaign is not shown any more"
    ]


# -- the shipped shop, and the command -----------------------------------------------------------------------------


def test_shipped_shop_has_no_warnings() -> None:
    assert check(ROOT / "shop").warnings == []


def write_files(place: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)
    return place


def test_warnings_do_not_block_the_playbook(tmp_path: Path) -> None:
    place = write_files(tmp_path / "shop", {**VALID_FILES, S: "[when]\ncart = { empty = true }"})
    result = CliRunner().invoke(cli, ["check", str(place)])
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[:2] == [
        "warning: segments/x.toml, line 1, when: unused segment: no campaign, workflow, other segment or "
        "scenario refers to it",
        "warning: scenarios: no scenarios. A scenario tests what people are shown (docs/scenarios.md)",
    ]
    assert lines[2].startswith(f"{place}: no errors, 2 warnings (segments: 2,")
    assert validate(read_playbook(place)) == []


def test_error_keeps_the_live_playbook(tmp_path: Path) -> None:
    place = write_files(tmp_path / "shop", VALID_FILES)
    watcher = PlaybookWatcher(place, interval=0)
    live = watcher.load_first()
    (place / C).write_text(BAR + "body = '{{ coupon.code }}'")
    assert [watcher.poll(n) for n in range(1, 4)] == [None, None, None]
    assert [problem.file for problem in watcher.diagnostics] == [C]
    result = CliRunner().invoke(cli, ["check", str(place)])
    assert result.exit_code == 2
    assert "campaigns/x.toml, line 5, content.default.body: uses a coupon" in result.output
    assert "warning:" not in result.output
    (place / C).unlink()
    watcher.poll(5)
    assert (watcher.poll(6), watcher.diagnostics, read_playbook(place)) == (None, (), live)


def test_segment_used_by_a_scenario_is_not_unused(tmp_path: Path) -> None:
    place = tmp_path / "shop"
    shutil.copytree(ROOT / "shop", place)
    (place / "scenarios" / "on_the_site.md").unlink()
    assert [problem.file for problem in check(place).warnings] == ["segments/engaged.toml"]


def test_correct_markup_and_selectors_cause_no_warning() -> None:
    assert warnings_of({C: BAR.replace('"Hello"', '"1 < 2, {% if first_name %}<3{% endif %}"')}) == []
    assert warnings_of({C: SLOT.replace("#x", "main")}) == []
    assert warnings_of({C: SLOT.replace("#x", "shop-hero")}) == []
    assert warnings_of({C: BAR + "[variants.a]\n[variants.b.content.default]\ntitle = 'Hi'"}) == []
    assert (
        warnings_of({S: "[when]\ndid = { event = 'Product Added', where = { category = 'Mugs' } }", USES: ASKS}) == []
    )
    assert warnings_of({S: "[when]\ndid = { event = 'Order Completed', where = { total = 3 } }", USES: ASKS}) == []
