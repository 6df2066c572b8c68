"""Every kind of playbook error is reported with file, line, field and a suggestion."""

import pytest

from connectors.playbook.folder import parse_playbook
from domain.diagnostics import PlaybookError

SHOP = """
custom_events = ["Quiz Finished"]
[groups.discounts]
per_week = 2
[[funnel]]
name = "looking"
when = { did = { event = "Product Viewed" } }
[[funnel]]
name = "buying"
when = { cart = { items_at_least = 1 } }
[rfm]
"""
VALID_FILES = {
    "shop.toml": SHOP,
    "segments/engaged.toml": "[when]\nsession = { pages_at_least = 3 }",
    "segments/empty_handed.toml": "[when]\ncart = { empty = true }",
    "segments/active.toml": 'static = true\nexpires_after = "30d"\n[[enter_on]]\nevent = "Message Opened"',
    "coupons/winback.toml": "percent = 10",
    "campaigns/mail.toml": 'format = "email"\ntrigger = { workflow = true }\n[content.default]\ntitle = "Hello"',
    "campaigns/bar.toml": 'format = "bar"\ntrigger = { segment = "engaged" }\n[content.default]\ntitle = "Hello"',
    "workflows/back.toml": """
enter_on = { segment = "engaged" }
[[steps]]
send = "mail"
[[steps]]
id = "ask"
wait_for = { event = "Message Opened", timeout = "2d", else = "end" }
[[steps]]
add_to_segment = "active"
[[steps]]
id = "end"
exit = true
""",
}
S, C, F, P = "segments/x.toml", "campaigns/x.toml", "workflows/x.toml", "coupons/x.toml"
BAR = 'format = "bar"\ntrigger = { event = "Product Added" }\n[content.default]\ntitle = "Hello"\n'
MAIL = 'format = "email"\ntrigger = { event = "Product Added" }\n'
FLOW = 'enter_on = { event = "Product Added" }\n'


def errors_of(changes: dict[str, str]) -> list[str]:
    """What is expected of the good playbook with these files in it."""
    try:
        parse_playbook({name: text.encode() for name, text in {**VALID_FILES, **changes}.items()})
    except PlaybookError as error:
        return [str(problem) for problem in error.diagnostics]
    return []


def test_valid_playbook_has_no_errors() -> None:
    assert errors_of({}) == []


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        # conditions
        (
            S,
            "[when]\nsequence = { steps = ['Product Viewed', 'Product Aded'] }",
            'line 2, when.sequence.steps[2]: there is no event "Product Aded"; did you mean "Product Added"?',
        ),
        (
            S,
            "[when]\nsequence = { steps = ['Product Viewed', { event = 'Product Added', at_least = 2 }] }",
            "a step of a sequence can have only event and where",
        ),
        (S, "[when]\ndid = { event = 'Product Added', after = 'Order Complete' }", 'did you mean "Order Completed"?'),
        (S, "[when]\ndid = { event = 'Order Completed', sum = { of = 'total' } }", "sum: needs at_least or below"),
        (
            S,
            "[when]\ndid = { event = 'Order Completed', sum = { of = 'total', at_least = 5, below = 5 } }",
            "when.did.sum.below: can never be true",
        ),
        (
            S,
            "[when]\ndid = { event = 'Product Added', where = { price = { at_lest = 5 } } }",
            'when.did.where.price.at_lest: unknown field "at_lest"; did you mean "at_least"?',
        ),
        (
            S,
            "[when]\ndid = { event = 'Product Added', where = { price = { at_least = 5, below = 2 } } }",
            "when.did.where.price.below: can never be true",
        ),
        (
            S,
            "[when]\nfunnel = { stage = 'bying' }",
            'when.funnel.stage: there is no stage "bying"; did you mean "buying"?',
        ),
        (
            S,
            "[when]\nrfm = { recency_at_least = 4, recency_at_most = 2 }",
            "when.rfm.recency_at_most: can never be true",
        ),
        (S, "[when]\nrfm = { group = 'champion' }", 'is "champion"; did you mean "champions"?'),
        (S, "[when]\nin_segment = 'rfm_champion'", 'did you mean "rfm_champions"?'),
        (S, "[when]\nholds_coupon = { pool = 'winbak' }", 'there is no coupon pool "winbak"; did you mean "winback"?'),
        (S, "[when]\nwas_shown = { campaign = 'male' }", 'there is no campaign "male"; did you mean "mail"?'),
        (S, "[when]\nhas = { first_seen_within = 'soon' }", "when.has.first_seen_within: should be a duration"),
        (
            S,
            "[when]\nhas = { country = ['IT', 'UK'] }",
            'when.has.country: there is no country "UK"; did you mean "GB"?',
        ),
        (S, "[when]\nhas = { country = 'Italy' }", 'should be a two-letter code such as "CA", is "Italy"'),
        ("shop.toml", "country = 'UK'" + SHOP, 'country: there is no country "UK"; did you mean "GB"?'),
        (
            S,
            "[when]\nhas = { language = 'german' }",
            'language: should be a language code such as "fr" or "fr-CA", is "german"',
        ),
        (S, "[when]\nhas = { consent = 'marketin' }", 'there is no purpose "marketin"; did you mean "marketing"?'),
        # contradictions, also in other segments
        (
            S,
            "[when]\nin_segment = 'empty_handed'\ncart = { value_at_least = 5 }",
            'can never be true: something is in the cart, and the cart is empty (in "empty_handed")',
        ),
        (
            S,
            "[when]\nall = [{ score = { at_least = 0.7 } }, { score = { below = 0.3 } }]",
            "can never be true: the score is at least 0.7",
        ),
        (
            S,
            "[when]\nhas = { country = 'IT' }\nany = [{ has = { country = 'FR' } }, { has = { country = 'DE' } }]",
            "no alternative in `any` is possible",
        ),
        (S, "[when]\ndid = { event = 'Product Added' }\ndid_not = { event = 'Product Added' }", "can never be true"),
        (
            S,
            "[when]\norders = { last_before = '30d' }\nall = [{ orders = { last_within = '7d' } }]",
            "can never be true: the last order is at least 30 days ago, and the last order is less than 7 days ago",
        ),
        (S, "[when]\nin_segment = 'engaged'\nnot = { in_segment = 'engaged' }", "can never be true"),
        (
            S,
            "[when]\nfunnel = { stage = 'looking', at_least = 'buying' }",
            "can never be true: they are at the stage looking",
        ),
        # segments
        (S, "static = true\n[when]\ncart = { empty = true }", "when: is not allowed in a static segment"),
        (
            S,
            "expires_after = '3d'\n[when]\ncart = { empty = true }",
            "line 1, expires_after: is allowed only with static = true",
        ),
        (
            S,
            "static = true\n[[enter_on]]\nsegment = 'engagd'",
            'line 3, enter_on[1].segment: there is no segment "engagd"',
        ),
        (
            S,
            "static = true\n[[enter_on]]\nsegment = 'engaged'\nevent = 'Product Added'",
            "should be exactly one of event, segment",
        ),
        (S, "static = true\n[[enter_on]]\nsegment = 'x'", "circular segment references: x -> x"),
        ("segments/funnel_x.toml", "[when]\ncart = { empty = true }", "name: is reserved for a funnel stage"),
        ("segments/rfm_loyal.toml", "[when]\ncart = { empty = true }", "name: is reserved for an RFM cell"),
        # campaigns
        (C, "unless = {}\n" + BAR, "line 1, unless: is empty"),
        (C, 'group = "discount"\n' + BAR, 'group: shop.toml has no [groups.discount]; did you mean "discounts"?'),
        (C, 'coupon = "winbak"\n' + BAR, 'coupon: there is no coupon pool "winbak"; did you mean "winback"?'),
        (
            C,
            "frequency_caps = { per_day = 5, per_week = 2 }\n" + BAR,
            "frequency_caps.per_day: is more than the per_week of 2",
        ),
        (
            C,
            "frequency_caps = { per_day = 5, total = 2 }\n" + BAR,
            "frequency_caps.per_day: is more than the total of 2",
        ),
        (C, BAR.replace('"bar"', '"slot"'), "slot: is missing: name the element to fill, such as `#hero`"),
        (C, 'format = "slot"\nslot = "##hero"\n' + BAR[15:], "slot: should be a CSS selector"),
        (C, 'format = "slot"\nslot = "div[data-x"\n' + BAR[15:], "slot: should be a CSS selector"),
        (C, BAR + 'button = "x"\nurl = "www.shop.example"', 'url: should start with https://, is "www.shop.example"'),
        (
            C,
            BAR + "body = \"<a href='www.shop.example'>x</a>\"",
            'body: should start with https://, is "www.shop.example"',
        ),
        (C, BAR + "priority = 3", "priority: does not belong in content.default: write it above the first [table]"),
        (
            F,
            FLOW + '[[steps]]\n[steps.wait_for]\nevent = "Product Added"\nid = "x"',
            "steps[1].wait_for.id: does not belong in steps.wait_for; write it one level higher",
        ),
        (C, 'slot = "#hero"\n' + BAR, 'slot: is allowed only with format = "slot"'),
        (C, 'format = "slot"\nslot = "#a{}"\n' + BAR[15:], "slot: should be a CSS selector"),
        (C, "ignore_quiet_hours = true\n" + BAR, "ignore_quiet_hours: is allowed only for messages"),
        (
            C,
            'format = "email"\ntrigger = { exit_intent = true }\n[content.default]\ntitle = "x"',
            "is sent as a message",
        ),
        (C, 'format = "emial"\n' + BAR[15:], 'is "emial"; did you mean "email"?'),
        (
            C,
            'format = "email"\n' + BAR[15:] + '[content.mobile]\ntitle = "x"',
            "content.mobile: is not allowed in a message",
        ),
        (C, 'start = "2026-13-01"\n' + BAR, 'start: is not a valid date or time: "2026-13-01"'),
        (C, 'start = "2026-12-02"\nend = "2026-12-01"\n' + BAR, "line 2, end: is not after start"),
        (C, 'start = "tomorrow"\n' + BAR, "start: should be a date or a date and time"),
        (C, "holdout = 1.0\n" + BAR, "holdout: holds out everyone"),
        (C, BAR + "[variants.a]\n", "variants: an experiment needs at least two variants"),
        (C, BAR + "[variants.holdout]\n[variants.a]\n", 'variants.holdout: "holdout" is a reserved name'),
        (C, BAR + "[variants.a]\nweight = 0\n[variants.b]\n", "weight: should be a number of more than 0, is 0"),
        (
            C,
            BAR + "[variants.a.content.default]\ntitle = '{{ frist_name }}'\n[variants.b]\n",
            'variants.a.content.default.title: there is no variable "frist_name"',
        ),
        (C, BAR + "[goal]\nevent = 'Order Complete'", 'goal.event: there is no event "Order Complete"; did you mean'),
        (C, BAR.replace('"Product Added" }', '"Product Added", delay = "x" }'), "trigger.delay: should be a duration"),
        (
            C,
            BAR.replace('event = "Product Added"', 'exit_intent = true, delay = "5m"'),
            "trigger.delay: is allowed only with event",
        ),
        (
            C,
            BAR.replace('event = "Product Added"', "workflow = true"),
            "trigger.workflow: no workflow sends this campaign",
        ),
        # workflows
        (F, FLOW, "steps: is missing"),
        (F, FLOW + "[[steps]]\n", "steps[1]: should do exactly one thing: one of wait"),
        (
            F,
            FLOW + "[[steps]]\nwait = '1d'\nsend = 'mail'",
            "line 2, steps[1]: should do exactly one thing, but does wait and send",
        ),
        (
            F,
            FLOW + "[[steps]]\nwait = '1d'\ngoto = 'ennd'\n[[steps]]\nid = 'end'\nexit = true",
            'line 4, steps[1].goto: there is no step "ennd"; did you mean "end"?',
        ),
        (F, FLOW + "[[steps]]\nsend = 'bar'", 'steps[1].send: campaign "bar" has its own trigger'),
        (F, FLOW + "[[steps]]\nsend = 'male'", 'there is no campaign "male"; did you mean "mail"?'),
        (F, FLOW + "[[steps]]\nadd_to_segment = 'engaged'", 'steps[1].add_to_segment: "engaged" is not static'),
        (F, FLOW + "[[steps]]\ncoupon = 'w'", 'there is no coupon pool "w"'),
        (F, FLOW + "[[steps]]\nexit = true\n[[steps]]\nwait = '1d'", 'steps[2]: step "step_2" is unreachable'),
        (
            F,
            FLOW
            + "[[steps]]\nid = 'a'\nadd_to_segment = 'active'\n[[steps]]\nremove_from_segment = 'active'\ngoto = 'a'",
            "endless loop without a wait: a -> step_2 -> a",
        ),
        (
            F,
            FLOW + "[[steps]]\nwait_for = { timeout = '2d' }",
            "steps[1].wait_for: should be exactly one of event, when",
        ),
        (F, FLOW + "[[steps]]\nwait_until = { }", "steps[1].wait_until: is empty"),
        (F, FLOW + "[[steps]]\nwait_until = { time = '9:30' }", 'should be a time of day, "09:30", is "9:30"'),
        (F, FLOW + "[[steps]]\nwait_until = { weekday = 'mon' }", 'did you mean "monday"?'),
        (F, FLOW + "[[steps]]\nwait = '1d'\ntimeout = '1d'", "timeout: is allowed only with `send`"),
        (
            F,
            FLOW + "[[steps]]\nbranch = [{ when = {}, goto = 'end' }]\n[[steps]]\nid = 'end'\nexit = true",
            "branch[1].when: is empty",
        ),
        (
            F,
            FLOW + "[[steps]]\nid = 'a'\nwait = '1d'\n[[steps]]\nid = 'a'\nwait = '1d'",
            'step 1 already has the id "a"',
        ),
        (
            F,
            "enter_on = { event = 'Product Aded' }\n[[steps]]\nwait = '1d'",
            "line 1, enter_on.event: there is no event",
        ),
        (F, FLOW + "exit_when = {}\n[[steps]]\nwait = '1d'", "exit_when: is empty: everyone would exit at once"),
        # coupons
        (P, 'percent = 10\nsize = 10\ncodes = ["A-1"]', "size: is allowed only with generated codes"),
        (P, "", "coupons/x.toml, line 1, percent: should have exactly one of percent, amount, free_shipping"),
        (
            P,
            "percent = 10\namount = 5",
            "line 2, amount: should have exactly one of percent, amount, free_shipping, has percent and amount",
        ),
        (P, "percent = 110", "percent: should be a number of at most 100, is 110"),
        (P, "percent = 10\nnot_combinable_with = ['x']", "not_combinable_with: names its own pool"),
        (P, "percent = 10\nvalid_for = '5s'", "valid_for: should be at least 60s"),
        # the shop
        ("shop.toml", SHOP + "recency = ['30d', '60d', '90d']", "rfm.recency: should have exactly 4 entries"),
        (
            "shop.toml",
            SHOP + "recency = ['30d', '30d', '60d', '90d']",
            "rfm.recency: each value should be greater than the one before",
        ),
        ("shop.toml", SHOP.replace("buying", "looking"), 'funnel[2].name: duplicate stage "looking"'),
        ("shop.toml", "[[funnel]]\nname = 'a'\nwhen = { funnel = { stage = 'a' } }", "a stage cannot refer to a stage"),
        (
            "shop.toml",
            "[contact_pressure]\nper_day = 5\nper_week = 3",
            "contact_pressure.per_day: is more than the per_week of 3",
        ),
        ("shop.toml", "[contact_pressure.weights]\nemial = 3", 'there is no format "emial"; did you mean "email"?'),
        ("shop.toml", "[quiet_hours]\nstart = '08:00'\nend = '08:00'", "quiet_hours.end: is the same as start"),
        ("shop.toml", "[quiet_hours]\nstart = '8'", 'quiet_hours.start: should be a time of day, "09:30", is "8"'),
        (
            "shop.toml",
            "[consent.purposes]\n'emial:marketing' = 'denied'",
            'line 2, consent.purposes.emial:marketing: there is no channel "emial"; did you mean "email"?',
        ),
        (
            "shop.toml",
            "[consent.purposes]\n'email:marketin' = 'denied'",
            'there is no purpose "marketin"; did you mean "marketing"?',
        ),
        (
            "shop.toml",
            "[consent]\npurposes = { 'marketing:email' = 'denied' }",
            '"marketing:email" is the wrong way round; did you mean "email:marketing"?',
        ),
        (
            "shop.toml",
            "[consent]\npurposes = { 'sms:service' = 'denied' }",
            "`service` needs no consent on any channel",
        ),
    ],
)
def test_each_error_is_reported(file: str, text: str, expected: str) -> None:
    check_error(file, text, expected)


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        # triggers and conditions that never match
        (S, "static = true", "line 1, static: no one can ever be in it: add enter_on, or a workflow"),
        (
            S,
            "static = true\n[[enter_on]]\nevent = 'Product Added'\n[[exit_on]]\nevent = 'Product Added'",
            "line 2, enter_on[1]: adds no one: exit_on[1] matches the same event, and exits win",
        ),
        (
            S,
            "static = true\nenter_on = [{ segment = 'engaged', when = { cart = { empty = true } } }]\n"
            "exit_on = [{ segment = 'engaged' }]",
            "line 2, enter_on[1]: adds no one",
        ),
        (
            S,
            "static = true\n[[enter_on]]\nsegment = 'empty_handed'\nwhen = { cart = { items_at_least = 1 } }",
            "line 4, enter_on[1].when: can never be true for this trigger: at least 1 is in the cart, and the cart "
            "is empty",
        ),
        (
            S,
            "[when]\nhas = { consent = 'emial:marketing' }",
            'has.consent: there is no channel "emial"; did you mean "email"?',
        ),
        (
            S,
            "[when]\nholds_coupon = { pool = 'winback' }",
            "line 2, when.holds_coupon.pool: can never be true: "
            'no campaign (coupon = "winback") and no workflow step hands out such a coupon',
        ),
        (
            C,
            "coupon = 'winback'\nwhen = { holds_coupon = { pool = 'winback' } }\n" + BAR,
            "no workflow step hands out such a coupon",
        ),
        (
            C,
            BAR.replace('event = "Product Added"', 'segment = "empty_handed"') + "[when.cart]\nvalue_at_least = 5",
            "when: can never be true for this trigger: something is in the cart, and the cart is empty",
        ),
        (
            C,
            BAR.replace('event = "Product Added"', 'exited_segment = "engaged"') + "[when]\nin_segment = 'engaged'",
            'when: can never be true for this trigger: they are in "engaged", and they are not in "engaged"',
        ),
        (
            C,
            'when = { in_segment = "engaged" }\nunless = { in_segment = "engaged" }\n' + BAR,
            'line 2, unless: excludes everyone: they are in "engaged", and they are not in "engaged"',
        ),
        (
            F,
            "enter_on = { segment = 'engaged' }\nexit_when = { in_segment = 'engaged' }\n[[steps]]\nwait = '1d'",
            "line 1, enter_on: no one can enter: `exit_when` is already true for everyone who matches",
        ),
        # how it looks
        (
            C,
            'slot = "#hero"\n'
            + BAR.replace('"bar"', '"slot"').replace('event = "Product Added"', "exit_intent = true"),
            "trigger.exit_intent: is not allowed with a slot, which is always part of the page",
        ),
        (
            C,
            MAIL + "[content.default]\nbody = '<p>Hello</p>'",
            "content.default.title: is missing: it is the subject of the email",
        ),
        (
            C,
            MAIL.replace("email", "push") + "[content.default]\nbody = 'Hello'",
            "is missing: it is the headline of the notification",
        ),
        (
            C,
            MAIL + "[content.default]\nbody = 'x'\n[variants.a.content.default]\ntitle = 'x'\n[variants.b]",
            "content.default.title: is missing",
        ),
        *(
            (
                C,
                MAIL.replace("email", "sms") + f"[content.default]\ntitle = 'x'\n{field} = 'x'",
                f"line 5, content.default.{field}: is not allowed with sms: a text message consists of its title only",
            )
            for field in ("body", "button", "image_url")
        ),
        (
            C,
            MAIL + "[content.default]\ntitle = 'x'\nurl = '/cart'",
            'line 5, content.default.url: "/cart" is relative and does not work in a message',
        ),
        (C, MAIL + "[content.default]\ntitle = 'x'\nimage_url = 'cup.png'", 'image_url: "cup.png" is relative'),
        (C, MAIL + "[content.default]\ntitle = 'x'\nbody = '<a href=\"/cart\">Cart</a>'", 'body: "/cart" is relative'),
        (C, BAR + "body = '{{ shop.url }}'", "body: uses {{ shop.url }}, but shop.toml has no url"),
        # what can never be true
        (
            S,
            "[when]\nsession = { first_session = true }\nhas = { sessions_at_least = 2 }",
            "line 1, when: can never be true: they have had at least 2 sessions, and it is the first session",
        ),
        (
            S,
            "[when]\nsession = { pages_at_least = 2 }\nhas = { last_seen_before = '30m' }",
            "can never be true: they were last seen at least 30 minutes ago, and a session is open",
        ),
        (
            S,
            "[when]\nfunnel = { stage = 'buying' }\ncart = { empty = true }",
            "can never be true: at least 1 is in the cart (at the stage buying), and the cart is empty",
        ),
        (S, "[when]\nin_segment = 'funnel_buying'\ncart = { empty = true }", "and the cart is empty"),
        (
            S,
            "[when]\norders = { count_is = 1 }\nnot = { orders = { count_at_least = 1 } }",
            "can never be true: they have exactly 1 order, and they have fewer than 1 order",
        ),
        (
            S,
            "[when]\nrfm = { group = 'champions', recency_at_most = 2 }",
            "can never be true: they are champions (recency 4 to 5), and recency is at most 2",
        ),
        (S, "[when]\nin_segment = 'rfm_champions'\nrfm = { group = ['loyal', 'lost'] }", "can never be true: "),
        (S, "[when]\nin_segment = 'rfm_511'\nrfm = { group = 'champions' }", "can never be true: "),
        (S, "[when]\nin_segment = 'rfm_lost'\norders = { count_is = 0 }", "can never be true: they have ordered"),
        (
            S,
            "[when]\ndid = { event = 'Product Added', at_least = 5, within = '7d' }\ndid_not = { event = 'Product "
            "Added', "
            "within = '30d' }",
            'can never be true: "Product Added" was done 5 times in the last 7 days, and "Product Added" '
            "was not done in the last 30 days",
        ),
        (
            S,
            "[when]\ndid = { event = 'Product Added', where = { a = 1 }, within = '7d' }\n"
            "not = { did = { event = 'Product Added' } }",
            "can never be true: ",
        ),
        (S, "[when]\norders = { count_is = 0, last_within = '7d' }", "can never be true: they have ordered, and"),
        (S, "[when]\nhas = { first_seen_within = '1d', last_seen_before = '1d' }", "they were first seen less than"),
        (
            S,
            "[when]\ndid = { event = 'Product Added', first_within = '1d', last_before = '2d' }",
            "can never be true: the last",
        ),
        (
            S,
            "[when]\nsequence = { steps = ['Page Viewed', 'Product Added'] }\ndid_not = { event = 'Product Added' }",
            'can never be true: "Product Added" was done, and',
        ),
        (
            S,
            "[when]\nhas = { country = 'CA' }\nnot = { has = { country = ['CA', 'US'] } }",
            "line 1, when: can never be true: `not` excludes everything that the rest requires",
        ),
        (
            S,
            "[when]\nin_segment = 'engaged'\nnot = { session = { pages_at_least = 2 } }",
            "`not` excludes everything that the rest",
        ),
        (
            C,
            BAR.replace(
                "[content",
                "unless = { has = { identified = true } }\nwhen = { has = { identified = true, device = 'mobile' } "
                "}\n[content",
            ),
            "unless: excludes everyone: `not` excludes everything that the rest requires",
        ),
        (
            C,
            BAR.replace(
                'trigger = { event = "Product Added" }',
                "trigger = { seconds_on_site = 60 }\nunless = { session = { seconds_at_least = 30 } }",
            ),
            "unless: excludes everyone",
        ),
        (
            C,
            BAR.replace("[content", "when = { did_not = { event = 'Product Added' } }\n[content"),
            'when: can never be true for this trigger: "Product Added" was done in the last 30 minutes, and "Product '
            'Added" was',
        ),
        (
            S,
            "static = true\n[[enter_on]]\nevent = 'Product Added'\nwhen = { did_not = { event = 'Product Added' } }",
            "line 4, enter_on[1].when: can never be true for this trigger",
        ),
        (
            F,
            FLOW + "exit_when = { did = { event = 'Product Added', within = '1h' } }\n[[steps]]\nwait = '1d'",
            "line 1, enter_on: no one can enter: `exit_when` is already true for everyone who matches",
        ),
        (
            F,
            FLOW + "[[steps]]\nbranch = [\n  { when = { cart = { empty = true } }, goto = 'e' },\n"
            "  { when = { cart = { empty = true }, has = { identified = true } }, goto = 'e' },\n]\n[[steps]]\n"
            "id = 'e'\nexit = true",
            "line 5, steps[1].branch[2]: is never taken: branch 1 comes first and its condition is less strict",
        ),
        # content
        (
            C,
            BAR + "body = '{% for p in products %}{{ p.nmae }}{% endfor %}'",
            'content.default.body: "p" has no field "nmae"; did you mean "name"?',
        ),
        (
            "templates/x.liquid",
            "{% for one in cart.items %}\n{{ one.url }}{% endfor %}",
            'line 2, one.url: "one" has no field "url"; there are id, name, price, category and quantity',
        ),
        # coupons in content
        (C, BAR + "body = '{{ coupon.code }}'", "content.default.body: uses a coupon, but the campaign has none"),
        (
            C,
            BAR + "body = '{{ coupon.percent }} {{ coupon.code }}'\ncoupon = 'TEN'",
            "uses {{ coupon.percent }}: a code for everyone has only {{ coupon.code }}",
        ),
        (
            C,
            "coupon = 'winback'\n" + BAR + "body = '{{ coupon.amount | money }}'",
            "uses {{ coupon.amount }}, but coupons/winback.toml has no amount; did you mean {{ coupon.percent }}?",
        ),
        (C, "coupon = 'winback'\n" + BAR + "body = '{{ coupon.min_value }}'", "coupons/winback.toml has no min_value"),
        (
            P,
            "amount = 5",
            "is missing, as in coupons/winback.toml: both pools could generate the same code; give each its own prefix",
        ),
        # how often
        (C, "purpose = 'email:marketing'\n" + BAR, 'purpose: names a channel: write purpose = "marketing"'),
        (C, "purpose = 'service'\nholdout = 0.1\n" + BAR, "line 2, holdout: is not allowed with the purpose `service`"),
        # workflows
        (
            F,
            FLOW + "reentry_after = '3d'\n[[steps]]\nwait = '1d'",
            'line 2, reentry_after: is used only with reentry = "after"; reentry is "never"',
        ),
        (
            F,
            FLOW + "[[steps]]\nwait_for = { event = 'Message Opened', then = 'end', else = 'end' }\ngoto = 'end'\n"
            "[[steps]]\nid = 'end'\nexit = true",
            "steps[1].goto: is never used: `then` and `else` name the next step",
        ),
        (
            F,
            FLOW + "[[steps]]\nsplit = { a = 1, b = 1 }\ngoto = 'a'\n[[steps]]\nid = 'a'\nwait = '1d'\n[[steps]]\n"
            "id = 'b'\nwait = '1d'",
            "steps[1].goto: is never used: every run follows one of the paths of `split`",
        ),
        (
            F,
            FLOW + "[[steps]]\nid = 'a'\nadd_to_segment = 'active'\n[[steps]]\nid = 'empty'\n"
            "wait_for = { when = { cart = { empty = true } }, then = 'a', else = 'end' }\n[[steps]]\nid = 'end'\n"
            "exit = true",
            'endless loop without a wait: a -> empty -> a; the condition of "empty" is already true when the run',
        ),
        (
            F,
            FLOW + "[[steps]]\nid = 'a'\nbranch = [{ when = { cart = { empty = true } }, goto = 'b' }]\n[[steps]]\n"
            "exit = true\n[[steps]]\nid = 'b'\ngoal = 'seen'\ngoto = 'a'",
            "endless loop without a wait: a -> b -> a",
        ),
    ],
)
def test_each_semantic_error_is_reported(file: str, text: str, expected: str) -> None:
    check_error(file, text, expected)


def check_error(file: str, text: str, expected: str) -> None:
    """Check that an error has its file, line and text."""
    found = errors_of({file: text})
    assert any(expected in problem and problem.startswith(file) for problem in found), found
    assert all(", line " in problem.partition(": ")[0] for problem in found), found


@pytest.mark.parametrize(
    "text",
    [
        "[when]\nany = [{ cart = { empty = true } }, { cart = { items_at_least = 1 } }]",
        "[when]\nnot = { cart = { items_at_least = 2 } }\ncart = { items_at_least = 1 }",
        "[when]\ndid = { event = 'Product Added', within = '7d' }\ndid_not = { event = 'Product Added', within = "
        "'1d' }",
        "[when]\ndid = { event = 'Product Added', where = { category = 'a' } }\n"
        "did_not = { event = 'Product Added', where = { category = 'b' } }",
        "[when]\nin_segment = ['engaged', 'empty_handed']\ncart = { items_at_least = 1 }",
        "[when]\norders = { last_before = '7d', last_within = '30d' }",
        "[when]\nrfm = { recency_at_least = 4, recency_at_most = 4 }",
        "[when]\nrfm = { group = 'champions', recency_at_most = 4 }",
        "[when]\nrfm = { group = ['champions', 'lost'], recency_at_most = 2 }",
        "[when]\nin_segment = 'rfm_555'\nrfm = { group = 'champions' }",
        "[when]\nsession = { first_session = false }\nhas = { sessions_at_least = 2 }",
        "[when]\nsession = { first_session = true }\nhas = { sessions_at_least = 1 }",
        "[when]\nsession = { seconds_at_least = 300 }\nhas = { last_seen_before = '5m' }",
        "[when]\nfunnel = { stage = ['looking', 'buying'] }\ncart = { empty = true }",
        "[when]\nfunnel = { at_least = 'looking' }\ncart = { empty = true }",
        "[when]\ndid = { event = 'Product Added', at_least = 2, within = '7d' }\n"
        "did_not = { event = 'Product Added', at_least = 3, within = '30d' }",
        "[when]\ndid = { event = 'Product Added', within = '7d' }\n"
        "did_not = { event = 'Product Added', where = { a = 1 }, within = '30d' }",
        "[when]\ndid = { event = 'Product Added', within = '7d' }\n"
        "did_not = { event = 'Product Added', after = 'Order Completed' }",
    ],
)
def test_satisfiable_conditions_are_accepted(text: str) -> None:
    assert errors_of({S: text}) == []


@pytest.mark.parametrize(
    "changes",
    [
        # entry and exit triggers that differ
        {
            S: "static = true\n[[enter_on]]\nevent = 'Product Added'\n[[exit_on]]\nevent = 'Product Added'\n"
            "when = { cart = { value_at_least = 100 } }"
        },
        {
            S: "static = true\nenter_on = [{ event = 'Order Completed', properties = { plan = 'a' } }]\n"
            "exit_on = [{ event = 'Order Completed', properties = { plan = 'b' } }]"
        },
        {S: "static = true", F: FLOW + "[[steps]]\nadd_to_segment = 'x'"},
        # content
        {
            C: MAIL + "[content.default]\nbody = 'x'\n[variants.a.content.default]\ntitle = 'x'\n"
            "[variants.b.content.default]\ntitle = 'y'"
        },
        {C: MAIL + "[content.default]\ntitle = 'x'\nurl = '{{ product.url }}'"},
        {C: MAIL + "[content.default]\ntitle = 'x'\nurl = '/cart'", "shop.toml": "url = 'https://x.example'\n" + SHOP},
        {C: BAR + "url = '/cart'\nbody = '<a href=\"/cart\">Cart</a>'"},
        {C: MAIL.replace("email", "webhook") + "[content.default]\nbody = 'x'"},
        {C: BAR + "body = '{% if coupon %}{{ coupon.code }}{% endif %}'"},
        {C: BAR + "body = '{{ coupon | default: \"-\" }}'"},
        {C: BAR + "body = '{{ coupon.code }} {{ coupon }}'\ncoupon = 'TEN'"},
        {
            C: BAR + "body = '{{ coupon.code }}'\n[variants.a.content.default]\ncoupon = 'A'\n"
            "[variants.b.content.default]\ncoupon = 'B'"
        },
        {
            C: BAR + "coupon = 'A'\n[content.mobile]\nbody = '{{ coupon.code }}'\n[variants.a.content.default]\n"
            "body = '{{ coupon }}'\n[variants.b]"
        },
        {C: "coupon = 'winback'\n" + BAR + "body = '{{ coupon.percent }} {{ coupon.expires }}'"},
        # coupons
        {C: "coupon = 'winback'\n" + BAR, S: "[when]\nholds_coupon = { pool = 'winback' }"},
        {
            F: FLOW + "[[steps]]\ncoupon = 'winback'",
            S: "[when]\nholds_coupon = { pool = ['winback', 'more'] }",
            "coupons/more.toml": "amount = 5\nprefix = 'MORE-'",
        },
        {P: "amount = 5\ncodes = ['ONE']"},
        # consent
        {
            "shop.toml": SHOP + "[consent.purposes]\nclub = 'denied'\n'email:club' = 'denied'\nsms = 'denied'",
            S: "[when]\nhas = { consent = ['club', 'email', 'sms:club', 'email:marketing'] }",
            C: "purpose = 'club'\n" + BAR,
        },
        # the budget
        {
            "shop.toml": SHOP + "[contact_pressure]\nper_day = 1",
            C: BAR,
            "campaigns/mail.toml": 'format = "email"\n'
            'purpose = "service"\ntrigger = { workflow = true }\n[content.default]\ntitle = "Hello"',
        },
        {
            F: FLOW
            + "[[steps]]\nbranch = [{ when = { cart = { empty = true }, has = { identified = true } }, goto = 'e' }, "
            "{ when = { cart = { empty = true } }, goto = 'e' }]\n[[steps]]\nid = 'e'\nexit = true"
        },
        {
            C: BAR + "body = '{% for p in products %}{{ p.name }}{{ forloop.index }}{% endfor %}{% for t in traits %}"
            "{{ t.x }}{% endfor %}'"
        },
        # triggers
        {
            C: BAR.replace('event = "Product Added"', 'segment = "empty_handed", delay = "5m"')
            + "[when.cart]\nvalue_at_least = 5"
        },
        {
            C: BAR.replace('event = "Product Added"', 'exited_segment = "empty_handed"')
            + "[when.cart]\nitems_at_least = 1"
        },
        {C: 'when = { in_segment = "engaged" }\nunless = { in_segment = "empty_handed" }\n' + BAR},
        {F: "enter_on = { segment = 'engaged' }\nexit_when = { in_segment = 'empty_handed' }\n[[steps]]\nwait = '1d'"},
        # loops with a wait, or with a changing condition
        {
            F: FLOW + "[[steps]]\nid = 'a'\nwait_for = { event = 'Product Added' }\n[[steps]]\nadd_to_segment = "
            "'active'\ngoto = 'a'"
        },
        {
            F: FLOW + "[[steps]]\nid = 'full'\nwait_for = { when = { cart = { items_at_least = 1 } }, else = 'end' }\n"
            "[[steps]]\nwait_for = { when = { cart = { empty = true } }, then = 'full', else = 'end' }\n[[steps]]\n"
            "id = 'end'\nexit = true"
        },
        {
            F: FLOW
            + "[[steps]]\nid = 'a'\nwait_for = { when = { cart = { empty = true } }, timeout = '1d', then = 'end', "
            "else = 'a' }\n[[steps]]\nid = 'end'\nexit = true"
        },
        {
            F: FLOW + "[[steps]]\nid = 'a'\nbranch = [{ when = { in_segment = 'active' }, goto = 'out' }]\n[[steps]]\n"
            "exit = true\n[[steps]]\nid = 'out'\nremove_from_segment = 'active'\ngoto = 'a'"
        },
        {
            F: FLOW + "[[steps]]\nid = 'a'\nbranch = [{ when = { has = { trait = { seen = true } } }, goto = 'end' }]\n"
            "[[steps]]\nset_traits = { seen = true }\ngoto = 'a'\n[[steps]]\nid = 'end'\nexit = true"
        },
        {F: "reentry = 'after'\nreentry_after = '3d'\n" + FLOW + "[[steps]]\nwait = '1d'"},
    ],
)
def test_valid_files_are_accepted(changes: dict[str, str]) -> None:
    assert errors_of(changes) == []


def test_campaign_heavier_than_the_budget_is_an_error() -> None:
    found = errors_of({"shop.toml": SHOP + "[contact_pressure]\nper_week = 2"})
    assert found == [
        "campaigns/mail.toml, line 1, format: email costs 3 points, but contact_pressure in shop.toml "
        "allows 2 per week: it could never be sent"
    ]


def test_reference_to_a_broken_file_is_no_second_error() -> None:
    found = errors_of(
        {
            "campaigns/mail.toml": "format = ",
            "segments/active.toml": "static = 1",
            "coupons/winback.toml": "percent = 'x'",
            C: 'coupon = "winback"\n' + BAR,
        }
    )
    assert {problem.split(",")[0] for problem in found} == {
        "campaigns/mail.toml",
        "segments/active.toml",
        "coupons/winback.toml",
    }, found


def test_stage_referring_to_a_stage_is_one_error() -> None:
    asks = SHOP.replace("{ cart = { items_at_least = 1 } }", '{ funnel = { stage = "looking" } }')
    assert errors_of({"shop.toml": asks}) == ["shop.toml, line 10, funnel[2].when: a stage cannot refer to a stage"]


def test_non_utf8_file_is_one_error_and_bom_is_accepted() -> None:
    with pytest.raises(PlaybookError) as error:
        parse_playbook(
            {name: text.encode("latin1") for name, text in {**VALID_FILES, C: BAR.replace("Hello", "Größe")}.items()}
        )
    assert [str(one) for one in error.value.diagnostics] == [
        "campaigns/x.toml, line 4: should be UTF-8 text (invalid start byte)"
    ]
    marked = {name: b"\xef\xbb\xbf" + text.encode() for name, text in VALID_FILES.items()}
    parse_playbook({**marked, "codes/winback.txt": b"\xef\xbb\xbfA-1\n"})


def test_missing_shop_toml_is_reported_where_it_is_needed() -> None:
    files = {name: text.encode() for name, text in VALID_FILES.items() if name != "shop.toml"}
    parse_playbook(files)
    with pytest.raises(PlaybookError) as error:
        parse_playbook({**files, C: b'group = "discounts"\n' + BAR.encode()})
    assert [str(one) for one in error.value.diagnostics] == [
        "campaigns/x.toml, line 1, group: shop.toml has no [groups.discounts]",
        "shop.toml: is missing: it declares the shop's events, stages, groups and purposes",
    ]
