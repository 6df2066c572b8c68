"""Every kind of mistake in a playbook: each is reported with file, line, field, and what was expected or meant."""

import pytest

from connectors.playbook_folder import parse
from domain.problem import PlaybookError

SHOP = """
events = ["Quiz Finished"]
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
GOOD = {
    "shop.toml": SHOP,
    "segments/engaged.toml": "[when]\nsession = { pages_at_least = 3 }",
    "segments/empty_handed.toml": "[when]\ncart = { empty = true }",
    "segments/active.toml": 'static = true\nstays = "30d"\n[[enter_on]]\nevent = "Message Opened"',
    "coupons/winback.toml": "percent = 10",
    "campaigns/mail.toml": 'format = "email"\ntrigger = { workflow = true }\n[content.default]\ntitle = "Hello"',
    "campaigns/bar.toml": 'format = "bar"\ntrigger = { segment = "engaged" }\n[content.default]\ntitle = "Hello"',
    "workflows/back.toml": """
enters = { segment = "engaged" }
[[steps]]
send = "mail"
[[steps]]
id = "ask"
wait_for = { event = "Message Opened", within = "2d", otherwise = "end" }
[[steps]]
tag = "active"
[[steps]]
id = "end"
exit = true
""",
}
S, C, F, P = "segments/x.toml", "campaigns/x.toml", "workflows/x.toml", "coupons/x.toml"
BAR = 'format = "bar"\ntrigger = { event = "Product Added" }\n[content.default]\ntitle = "Hello"\n'
MAIL = 'format = "email"\ntrigger = { event = "Product Added" }\n'
FLOW = 'enters = { event = "Product Added" }\n'


def mistakes(changes: dict[str, str]) -> list[str]:
    """What is said of the good playbook with these files in it."""
    try:
        parse({name: text.encode() for name, text in {**GOOD, **changes}.items()})
    except PlaybookError as wrong:
        return [str(problem) for problem in wrong.problems]
    return []


def test_the_good_one_is_good() -> None:
    assert mistakes({}) == []


@pytest.mark.parametrize(("file", "text", "said"), [
    # conditions
    (S, "[when]\nsequence = { steps = ['Product Viewed', 'Product Aded'] }",
     'line 2, when.sequence.steps[2]: there is no event "Product Aded"; did you mean "Product Added"?'),
    (S, "[when]\nsequence = { steps = ['Product Viewed', { event = 'Product Added', at_least = 2 }] }",
     "a step of a sequence has an event and its `where`"),
    (S, "[when]\ndid = { event = 'Product Added', after = 'Order Complete' }", 'did you mean "Order Completed"?'),
    (S, "[when]\ndid = { event = 'Order Completed', sum = { of = 'total' } }", "sum: needs at_least or below"),
    (S, "[when]\ndid = { event = 'Order Completed', sum = { of = 'total', at_least = 5, below = 5 } }",
     "when.did.sum.below: can never hold"),
    (S, "[when]\ndid = { event = 'Product Added', where = { price = { at_lest = 5 } } }",
     'when.did.where.price.at_lest: there is nothing called "at_lest" here; did you mean "at_least"?'),
    (S, "[when]\ndid = { event = 'Product Added', where = { price = { at_least = 5, below = 2 } } }",
     "when.did.where.price.below: can never hold"),
    (S, "[when]\nfunnel = { stage = 'bying' }", 'when.funnel.stage: there is no stage "bying"; did you mean "buying"?'),
    (S, "[when]\nrfm = { recency_at_least = 4, recency_at_most = 2 }", "when.rfm.recency_at_most: can never hold"),
    (S, "[when]\nrfm = { group = 'champion' }", 'is "champion"; did you mean "champions"?'),
    (S, "[when]\nin_segment = 'rfm_champion'", 'did you mean "rfm_champions"?'),
    (S, "[when]\nholds_coupon = { pool = 'winbak' }",
     'there are no coupons "winbak" in coupons/; did you mean "winback"?'),
    (S, "[when]\nwas_said = { campaign = 'male' }", 'there is no campaign "male"; did you mean "mail"?'),
    (S, "[when]\nhas = { first_seen_within = 'soon' }", "when.has.first_seen_within: should be a duration"),
    (S, "[when]\nhas = { country = ['IT', 'UK'] }", 'when.has.country: there is no country "UK"; did you mean "GB"?'),
    (S, "[when]\nhas = { country = 'Italy' }", 'should be a two-letter code such as "CA", is "Italy"'),
    ("shop.toml", "country = 'UK'" + SHOP, 'country: there is no country "UK"; did you mean "GB"?'),
    (S, "[when]\nhas = { language = 'german' }", 'language: should be a code such as "fr" or "fr-CA", is "german"'),
    (S, "[when]\nhas = { consent = 'marketin' }", 'there is no purpose "marketin"; did you mean "marketing"?'),
    # what can never hold, through other segments too
    (S, "[when]\nin_segment = 'empty_handed'\ncart = { value_at_least = 5 }",
     "can never hold: something is in the cart, and the cart is empty (in \"empty_handed\")"),
    (S, "[when]\nall = [{ score = { at_least = 0.7 } }, { score = { below = 0.3 } }]",
     "can never hold: the score is at least 0.7"),
    (S, "[when]\nhas = { country = 'IT' }\nany = [{ has = { country = 'FR' } }, { has = { country = 'DE' } }]",
     "none of the ways in `any` is possible"),
    (S, "[when]\ndid = { event = 'Product Added' }\ndid_not = { event = 'Product Added' }", "can never hold"),
    (S, "[when]\norders = { last_before = '30d' }\nall = [{ orders = { last_within = '7d' } }]",
     "can never hold: the last order is at least 30 days ago, and the last order is less than 7 days ago"),
    (S, "[when]\nin_segment = 'engaged'\nnot = { in_segment = 'engaged' }", "can never hold"),
    (S, "[when]\nfunnel = { stage = 'looking', at_least = 'buying' }", "can never hold: they are at the stage looking"),
    # segments
    (S, "static = true\n[when]\ncart = { empty = true }", "when: a static segment has none"),
    (S, "stays = '3d'\n[when]\ncart = { empty = true }", "line 1, stays: goes only with static = true"),
    (S, "static = true\n[[enter_on]]\nsegment = 'engagd'", 'line 3, enter_on[1].segment: there is no segment "engagd"'),
    (S, "static = true\n[[enter_on]]\nsegment = 'engaged'\nevent = 'Product Added'",
     "should be exactly one of event, segment"),
    (S, "static = true\n[[enter_on]]\nsegment = 'x'", "refer to each other in a circle: x -> x"),
    ("segments/funnel_x.toml", "[when]\ncart = { empty = true }", "name: is the name of a stage"),
    ("segments/rfm_loyal.toml", "[when]\ncart = { empty = true }", "name: is the name of an RFM cell"),
    # campaigns
    (C, 'unless = {}\n' + BAR, "line 1, unless: says nothing"),
    (C, 'group = "discount"\n' + BAR, 'group: shop.toml has no [groups.discount]; did you mean "discounts"?'),
    (C, 'coupon = "winbak"\n' + BAR, 'coupon: there are no coupons "winbak" in coupons/; did you mean "winback"?'),
    (C, 'limits = { per_day = 5, per_week = 2 }\n' + BAR, "limits.per_day: is more than the per_week of 2"),
    (C, 'limits = { per_day = 5, total = 2 }\n' + BAR, "limits.per_day: is more than the total of 2"),
    (C, BAR.replace('"bar"', '"slot"'), "slot: is missing: which element is filled?"),
    (C, 'format = "slot"\nslot = "##hero"\n' + BAR[15:], "slot: should be a CSS selector"),
    (C, 'format = "slot"\nslot = "div[data-x"\n' + BAR[15:], "slot: should be a CSS selector"),
    (C, BAR + 'button = "x"\nurl = "www.shop.example"', 'url: should begin with https://, is "www.shop.example"'),
    (C, BAR + 'body = "<a href=\'www.shop.example\'>x</a>"', 'body: should begin with https://, is "www.shop.example"'),
    (C, BAR + "priority = 3", "priority: does not belong into content.default: write it above the first [table]"),
    (F, FLOW + '[[steps]]\n[steps.wait_for]\nevent = "Product Added"\nid = "x"',
     "steps[1].wait_for.id: does not belong into steps.wait_for, but beside it"),
    (C, 'slot = "#hero"\n' + BAR, 'slot: goes only with format = "slot"'),
    (C, 'format = "slot"\nslot = "#a{}"\n' + BAR[15:], "slot: should be a CSS selector"),
    (C, 'urgent = true\n' + BAR, "urgent: goes only with messages"),
    (C, 'format = "email"\ntrigger = { exit_intent = true }\n[content.default]\ntitle = "x"', "goes out by message"),
    (C, 'format = "emial"\n' + BAR[15:], 'is "emial"; did you mean "email"?'),
    (C, 'format = "email"\n' + BAR[15:] + '[content.mobile]\ntitle = "x"',
     "content.mobile: a message is read on any device"),
    (C, 'start = "2026-13-01"\n' + BAR, 'start: there is no such day or time: "2026-13-01"'),
    (C, 'start = "2026-12-02"\nend = "2026-12-01"\n' + BAR, "line 2, end: is not after the start"),
    (C, 'start = "tomorrow"\n' + BAR, 'start: should be a day or a minute'),
    (C, 'holdout = 1.0\n' + BAR, "holdout: holds out everybody"),
    (C, BAR + "[variants.a]\n", "variants: an experiment needs at least two variants"),
    (C, BAR + "[variants.holdout]\n[variants.a]\n", "variants.holdout: \"holdout\" means something else"),
    (C, BAR + "[variants.a]\nshare = 0\n[variants.b]\n", "share: should be a number of more than 0, is 0"),
    (C, BAR + "[variants.a.content.default]\ntitle = '{{ frist_name }}'\n[variants.b]\n",
     'variants.a.content.default.title: there is no variable "frist_name"'),
    (C, BAR + "[goal]\nevent = 'Order Complete'", 'goal.event: there is no event "Order Complete"; did you mean'),
    (C, BAR.replace('"Product Added" }', '"Product Added", delay = "x" }'), "trigger.delay: should be a duration"),
    (C, BAR.replace('event = "Product Added"', 'exit_intent = true, delay = "5m"'),
     "trigger.delay: goes only with event"),
    (C, BAR.replace('event = "Product Added"', "workflow = true"), "trigger.workflow: no workflow ever sends it"),
    # workflows
    (F, FLOW, "steps: is missing"),
    (F, FLOW + "[[steps]]\n", "steps[1]: should do exactly one thing: one of wait"),
    (F, FLOW + "[[steps]]\nwait = '1d'\nsend = 'mail'",
     "line 2, steps[1]: should do exactly one thing, does wait and send"),
    (F, FLOW + "[[steps]]\nwait = '1d'\ngo = 'ennd'\n[[steps]]\nid = 'end'\nexit = true",
     'line 4, steps[1].go: there is no step "ennd"; did you mean "end"?'),
    (F, FLOW + "[[steps]]\nsend = 'bar'", 'steps[1].send: campaign "bar" has an occasion of its own'),
    (F, FLOW + "[[steps]]\nsend = 'male'", 'there is no campaign "male"; did you mean "mail"?'),
    (F, FLOW + "[[steps]]\ntag = 'engaged'", 'steps[1].tag: "engaged" is not static'),
    (F, FLOW + "[[steps]]\ncoupon = 'w'", 'there are no coupons "w"'),
    (F, FLOW + "[[steps]]\nexit = true\n[[steps]]\nwait = '1d'", 'steps[2]: nobody ever comes to "step_2"'),
    (F, FLOW + "[[steps]]\nid = 'a'\ntag = 'active'\n[[steps]]\nuntag = 'active'\ngo = 'a'",
     "goes round for ever without waiting: a -> step_2 -> a"),
    (F, FLOW + "[[steps]]\nwait_for = { within = '2d' }", "steps[1].wait_for: should be exactly one of event, when"),
    (F, FLOW + "[[steps]]\nwait_until = { }", "steps[1].wait_until: says nothing"),
    (F, FLOW + "[[steps]]\nwait_until = { time = '9:30' }", 'should be a time of day, "09:30", is "9:30"'),
    (F, FLOW + "[[steps]]\nwait_until = { weekday = 'mon' }", 'did you mean "monday"?'),
    (F, FLOW + "[[steps]]\nwait = '1d'\npatience = '1d'", "patience: goes only with `send`"),
    (F, FLOW + "[[steps]]\nbranch = [{ when = {}, go = 'end' }]\n[[steps]]\nid = 'end'\nexit = true",
     "branch[1].when: says nothing"),
    (F, FLOW + "[[steps]]\nid = 'a'\nwait = '1d'\n[[steps]]\nid = 'a'\nwait = '1d'",
     '"a" is the name of step 1 already'),
    (F, "enters = { event = 'Product Aded' }\n[[steps]]\nwait = '1d'", 'line 1, enters.event: there is no event'),
    (F, FLOW + "leaves = {}\n[[steps]]\nwait = '1d'", "leaves: says nothing: everybody would leave at once"),
    # coupons
    (P, 'percent = 10\nsize = 10\ncodes = ["A-1"]', "size: goes only with codes that are made up"),
    (P, "", "coupons/x.toml, line 1, percent: should be worth exactly one of percent, amount, free_shipping"),
    (P, "percent = 10\namount = 5", "line 2, amount: should be worth exactly one of percent, amount, free_shipping, is "
     "worth percent and amount"),
    (P, "percent = 110", "percent: should be a number of at most 100, is 110"),
    (P, "percent = 10\nnot_with = ['x']", "not_with: names itself"),
    (P, "percent = 10\nvalid_for = '5s'", "valid_for: should be at least 60s"),
    # the shop
    ("shop.toml", SHOP + "recency = ['30d', '60d', '90d']",
     "rfm.recency: should have exactly 4 entries"),
    ("shop.toml", SHOP + "recency = ['30d', '30d', '60d', '90d']",
     "rfm.recency: each should be more than the one before"),
    ("shop.toml", SHOP.replace("buying", "looking"), 'funnel[2].name: there is a stage "looking" already'),
    ("shop.toml", "[[funnel]]\nname = 'a'\nwhen = { funnel = { stage = 'a' } }", "a stage cannot ask for a stage"),
    ("shop.toml", "[pressure]\nper_day = 5\nper_week = 3", "pressure.per_day: is more than the per_week of 3"),
    ("shop.toml", "[pressure.weights]\nemial = 3", 'there is no format "emial"; did you mean "email"?'),
    ("shop.toml", "[quiet_hours]\nbegin = '08:00'\nend = '08:00'", "quiet_hours.end: is when they begin"),
    ("shop.toml", "[quiet_hours]\nbegin = '8'", 'quiet_hours.begin: should be a time of day, "09:30", is "8"'),
    ("shop.toml", "[consent.purposes]\n'emial:marketing' = 'denied'",
     'line 2, consent.purposes.emial:marketing: there is no channel "emial"; did you mean "email"?'),
    ("shop.toml", "[consent.purposes]\n'email:marketin' = 'denied'",
     'there is no purpose "marketin"; did you mean "marketing"?'),
    ("shop.toml", "[consent]\npurposes = { 'marketing:email' = 'denied' }",
     '"marketing:email" is the wrong way round; did you mean "email:marketing"?'),
    ("shop.toml", "[consent]\npurposes = { 'sms:service' = 'denied' }", "`service` never needs consent, on no channel"),
])
def test_each_mistake_is_said(file: str, text: str, said: str) -> None:
    the_mistake_is_said(file, text, said)


@pytest.mark.parametrize(("file", "text", "said"), [
    # what never comes, and whom it would never reach
    (S, "static = true", "line 1, static: nobody is ever in it: it needs enter_on, or a workflow"),
    (S, "static = true\n[[enter_on]]\nevent = 'Product Added'\n[[leave_on]]\nevent = 'Product Added'",
     "line 2, enter_on[1]: puts nobody in: leave_on[1] takes out at the same moment, and what takes out wins"),
    (S, "static = true\nenter_on = [{ segment = 'engaged', when = { cart = { empty = true } } }]\n"
        "leave_on = [{ segment = 'engaged' }]", "line 2, enter_on[1]: puts nobody in"),
    (S, "static = true\n[[enter_on]]\nsegment = 'empty_handed'\nwhen = { cart = { items_at_least = 1 } }",
     "line 4, enter_on[1].when: can never hold on this occasion: at least 1 is in the cart, and the cart is empty"),
    (S, "[when]\nhas = { consent = 'emial:marketing' }",
     'has.consent: there is no channel "emial"; did you mean "email"?'),
    (S, "[when]\nholds_coupon = { pool = 'winback' }", "line 2, when.holds_coupon.pool: nobody ever holds one: "
     'no campaign (coupon = "winback") and no step of a workflow hands it out'),
    (C, "coupon = 'winback'\nwhen = { holds_coupon = { pool = 'winback' } }\n" + BAR, "nobody ever holds one"),
    (C, BAR.replace('event = "Product Added"', 'segment = "empty_handed"') + "[when.cart]\nvalue_at_least = 5",
     "when: can never hold on this occasion: something is in the cart, and the cart is empty"),
    (C, BAR.replace('event = "Product Added"', 'left_segment = "engaged"') + "[when]\nin_segment = 'engaged'",
     'when: can never hold on this occasion: they are in "engaged", and they are not in "engaged"'),
    (C, 'when = { in_segment = "engaged" }\nunless = { in_segment = "engaged" }\n' + BAR,
     'line 2, unless: leaves nobody: they are in "engaged", and they are not in "engaged"'),
    (F, "enters = { segment = 'engaged' }\nleaves = { in_segment = 'engaged' }\n[[steps]]\nwait = '1d'",
     "line 1, enters: lets nobody in, because `leaves` holds for all of them already"),
    # how it looks
    (C, 'slot = "#hero"\n' + BAR.replace('"bar"', '"slot"').replace('event = "Product Added"', "exit_intent = true"),
     "trigger.exit_intent: does not go with a slot, which is part of the page from the beginning"),
    (C, MAIL + "[content.default]\nbody = '<p>Hello</p>'", "content.default.title: is missing: it is its subject"),
    (C, MAIL.replace("email", "push") + "[content.default]\nbody = 'Hello'", "is missing: it is what people see"),
    (C, MAIL + "[content.default]\nbody = 'x'\n[variants.a.content.default]\ntitle = 'x'\n[variants.b]",
     "content.default.title: is missing"),
    *((C, MAIL.replace("email", "sms") + f"[content.default]\ntitle = 'x'\n{field} = 'x'",
       f"line 5, content.default.{field}: does not go with sms: a text message is its title and nothing else")
      for field in ("body", "button", "image_url")),
    (C, MAIL + "[content.default]\ntitle = 'x'\nurl = '/cart'",
     'line 5, content.default.url: "/cart" leads nowhere from a message, which is read outside the shop'),
    (C, MAIL + "[content.default]\ntitle = 'x'\nimage_url = 'cup.png'", 'image_url: "cup.png" leads nowhere'),
    (C, MAIL + "[content.default]\ntitle = 'x'\nbody = '<a href=\"/cart\">Cart</a>'", 'body: "/cart" leads nowhere'),
    (C, BAR + "body = '{{ shop.url }}'", "body: asks for {{ shop.url }}, and shop.toml has no url"),
    # what can never hold
    (S, "[when]\nsession = { first_visit = true }\nhas = { visits_at_least = 2 }",
     "line 1, when: can never hold: they were here at least 2 times, and it is the first visit"),
    (S, "[when]\nsession = { pages_at_least = 2 }\nhas = { last_seen_before = '30m' }",
     "can never hold: they were last seen at least 30 minutes ago, and a visit is open"),
    (S, "[when]\nfunnel = { stage = 'buying' }\ncart = { empty = true }",
     "can never hold: at least 1 is in the cart (at the stage buying), and the cart is empty"),
    (S, "[when]\nin_segment = 'funnel_buying'\ncart = { empty = true }", "and the cart is empty"),
    (S, "[when]\norders = { count_is = 1 }\nnot = { orders = { count_at_least = 1 } }",
     "can never hold: they have exactly 1 order, and they have fewer than 1 order"),
    (S, "[when]\nrfm = { group = 'champions', recency_at_most = 2 }",
     "can never hold: they are champions (recency 4 to 5), and recency is at most 2"),
    (S, "[when]\nin_segment = 'rfm_champions'\nrfm = { group = ['loyal', 'lost'] }", "can never hold: "),
    (S, "[when]\nin_segment = 'rfm_511'\nrfm = { group = 'champions' }", "can never hold: "),
    (S, "[when]\nin_segment = 'rfm_lost'\norders = { count_is = 0 }", "can never hold: they have ordered"),
    (S, "[when]\ndid = { event = 'Product Added', at_least = 5, within = '7d' }\ndid_not = { event = 'Product Added', "
        "within = '30d' }", 'can never hold: "Product Added" was done 5 times in the last 7 days, and "Product Added" '
     "was not done in the last 30 days"),
    (S, "[when]\ndid = { event = 'Product Added', where = { a = 1 }, within = '7d' }\n"
        "not = { did = { event = 'Product Added' } }", "can never hold: "),
    (S, "[when]\norders = { count_is = 0, last_within = '7d' }", "can never hold: they have ordered, and"),
    (S, "[when]\nhas = { first_seen_within = '1d', last_seen_before = '1d' }", "they were first seen less than"),
    (S, "[when]\ndid = { event = 'Product Added', first_within = '1d', last_before = '2d' }",
     "can never hold: the last"),
    (S, "[when]\nsequence = { steps = ['Page Viewed', 'Product Added'] }\ndid_not = { event = 'Product Added' }",
     'can never hold: "Product Added" was done, and'),
    (S, "[when]\nhas = { country = 'CA' }\nnot = { has = { country = ['CA', 'US'] } }",
     "line 1, when: can never hold: all that is ruled out is asked for"),
    (S, "[when]\nin_segment = 'engaged'\nnot = { session = { pages_at_least = 2 } }", "all that is ruled out is asked"),
    (C, BAR.replace("[content", "unless = { has = { known = true } }\n"
                    "when = { has = { known = true, device = 'mobile' } }\n[content"),
     "unless: leaves nobody: all that is ruled out is asked for"),
    (C, BAR.replace("trigger = { event = \"Product Added\" }", "trigger = { seconds_on_site = 60 }\n"
                    "unless = { session = { seconds_at_least = 30 } }"), "unless: leaves nobody"),
    (C, BAR.replace("[content", "when = { did_not = { event = 'Product Added' } }\n[content"),
     'when: can never hold on this occasion: "Product Added" was done in the last 30 minutes, and "Product Added" was'),
    (S, "static = true\n[[enter_on]]\nevent = 'Product Added'\nwhen = { did_not = { event = 'Product Added' } }",
     "line 4, enter_on[1].when: can never hold on this occasion"),
    (F, FLOW + "leaves = { did = { event = 'Product Added', within = '1h' } }\n[[steps]]\nwait = '1d'",
     "line 1, enters: lets nobody in, because `leaves` holds for all of them already"),
    (F, FLOW + "[[steps]]\nbranch = [\n  { when = { cart = { empty = true } }, go = 'e' },\n"
        "  { when = { cart = { empty = true }, has = { known = true } }, go = 'e' },\n]\n[[steps]]\n"
        "id = 'e'\nexit = true",
     "line 5, steps[1].branch[2]: nobody takes this way: who could takes way 1, which stands before it and asks less"),
    # words
    (C, BAR + "body = '{% for p in products %}{{ p.nmae }}{% endfor %}'",
     'content.default.body: "p" has no field "nmae"; did you mean "name"?'),
    ("templates/x.liquid", "{% for one in cart.items %}\n{{ one.url }}{% endfor %}",
     'line 2, one.url: "one" has no field "url"; there are id, name, price, category and quantity'),
    # coupons in words
    (C, BAR + "body = '{{ coupon.code }}'", "content.default.body: asks for a coupon, and the campaign has none"),
    (C, BAR + "body = '{{ coupon.percent }} {{ coupon.code }}'\ncoupon = 'TEN'",
     "asks for {{ coupon.percent }}: a code that is the same for everybody has only {{ coupon.code }}"),
    (C, "coupon = 'winback'\n" + BAR + "body = '{{ coupon.amount | money }}'", "asks for {{ coupon.amount }}, and "
     "coupons/winback.toml has no amount; did you mean {{ coupon.percent }}?"),
    (C, "coupon = 'winback'\n" + BAR + "body = '{{ coupon.min_value }}'", "coupons/winback.toml has no min_value"),
    (P, "amount = 5", "is missing, as in coupons/winback.toml: both could make up the same code; give each its own"),
    # how often
    (C, "purpose = 'email:marketing'\n" + BAR, 'purpose: names a channel: write purpose = "marketing"'),
    (C, "purpose = 'service'\nholdout = 0.1\n" + BAR, "line 2, holdout: does not go with what is for `service`"),
    # workflows
    (F, FLOW + "again_after = '3d'\n[[steps]]\nwait = '1d'",
     'line 2, again_after: goes only with again = "after", and again is "never"'),
    (F, FLOW + "[[steps]]\nwait_for = { event = 'Message Opened', then = 'end', otherwise = 'end' }\ngo = 'end'\n"
     "[[steps]]\nid = 'end'\nexit = true", "steps[1].go: nobody takes it: `then` and `otherwise` say where to go on"),
    (F, FLOW + "[[steps]]\nsplit = { a = 1, b = 1 }\ngo = 'a'\n[[steps]]\nid = 'a'\nwait = '1d'\n[[steps]]\n"
     "id = 'b'\nwait = '1d'", "steps[1].go: nobody takes it: everybody takes one of the ways of the split"),
    (F, FLOW + "[[steps]]\nid = 'a'\ntag = 'active'\n[[steps]]\nid = 'empty'\n"
     "wait_for = { when = { cart = { empty = true } }, then = 'a', otherwise = 'end' }\n[[steps]]\nid = 'end'\n"
     "exit = true", 'goes round for ever without waiting: a -> empty -> a; what "empty" waits for holds when they'),
    (F, FLOW + "[[steps]]\nid = 'a'\nbranch = [{ when = { cart = { empty = true } }, go = 'b' }]\n[[steps]]\n"
     "exit = true\n[[steps]]\nid = 'b'\ngoal = 'seen'\ngo = 'a'", "goes round for ever without waiting: a -> b -> a"),
])
def test_each_further_mistake_is_said(file: str, text: str, said: str) -> None:
    the_mistake_is_said(file, text, said)


def the_mistake_is_said(file: str, text: str, said: str) -> None:
    """With its file and its line."""
    found = mistakes({file: text})
    assert any(said in problem and problem.startswith(file) for problem in found), found
    assert all(", line " in problem.partition(": ")[0] for problem in found), found


@pytest.mark.parametrize("text", [
    "[when]\nany = [{ cart = { empty = true } }, { cart = { items_at_least = 1 } }]",
    "[when]\nnot = { cart = { items_at_least = 2 } }\ncart = { items_at_least = 1 }",
    "[when]\ndid = { event = 'Product Added', within = '7d' }\ndid_not = { event = 'Product Added', within = '1d' }",
    "[when]\ndid = { event = 'Product Added', where = { category = 'a' } }\n"
    "did_not = { event = 'Product Added', where = { category = 'b' } }",
    "[when]\nin_segment = ['engaged', 'empty_handed']\ncart = { items_at_least = 1 }",
    "[when]\norders = { last_before = '7d', last_within = '30d' }",
    "[when]\nrfm = { recency_at_least = 4, recency_at_most = 4 }",
    "[when]\nrfm = { group = 'champions', recency_at_most = 4 }",
    "[when]\nrfm = { group = ['champions', 'lost'], recency_at_most = 2 }",
    "[when]\nin_segment = 'rfm_555'\nrfm = { group = 'champions' }",
    "[when]\nsession = { first_visit = false }\nhas = { visits_at_least = 2 }",
    "[when]\nsession = { first_visit = true }\nhas = { visits_at_least = 1 }",
    "[when]\nsession = { seconds_at_least = 300 }\nhas = { last_seen_before = '5m' }",
    "[when]\nfunnel = { stage = ['looking', 'buying'] }\ncart = { empty = true }",
    "[when]\nfunnel = { at_least = 'looking' }\ncart = { empty = true }",
    "[when]\ndid = { event = 'Product Added', at_least = 2, within = '7d' }\n"
    "did_not = { event = 'Product Added', at_least = 3, within = '30d' }",
    "[when]\ndid = { event = 'Product Added', within = '7d' }\n"
    "did_not = { event = 'Product Added', where = { a = 1 }, within = '30d' }",
    "[when]\ndid = { event = 'Product Added', within = '7d' }\n"
    "did_not = { event = 'Product Added', after = 'Order Completed' }",
])
def test_what_can_hold_is_not_blamed(text: str) -> None:
    assert mistakes({S: text}) == []


@pytest.mark.parametrize("changes", [
    # put in by some, taken out by others
    {S: "static = true\n[[enter_on]]\nevent = 'Product Added'\n[[leave_on]]\nevent = 'Product Added'\n"
        "when = { cart = { value_at_least = 100 } }"},
    {S: "static = true\nenter_on = [{ event = 'Order Completed', properties = { plan = 'a' } }]\n"
        "leave_on = [{ event = 'Order Completed', properties = { plan = 'b' } }]"},
    {S: "static = true", F: FLOW + "[[steps]]\ntag = 'x'"},
    # words
    {C: MAIL + "[content.default]\nbody = 'x'\n[variants.a.content.default]\ntitle = 'x'\n"
               "[variants.b.content.default]\ntitle = 'y'"},
    {C: MAIL + "[content.default]\ntitle = 'x'\nurl = '{{ product.url }}'"},
    {C: MAIL + "[content.default]\ntitle = 'x'\nurl = '/cart'", "shop.toml": "url = 'https://x.example'\n" + SHOP},
    {C: BAR + "url = '/cart'\nbody = '<a href=\"/cart\">Cart</a>'"},
    {C: MAIL.replace("email", "webhook") + "[content.default]\nbody = 'x'"},
    {C: BAR + "body = '{% if coupon %}{{ coupon.code }}{% endif %}'"},
    {C: BAR + "body = '{{ coupon | default: \"-\" }}'"},
    {C: BAR + "body = '{{ coupon.code }} {{ coupon }}'\ncoupon = 'TEN'"},
    {C: BAR + "body = '{{ coupon.code }}'\n[variants.a.content.default]\ncoupon = 'A'\n"
              "[variants.b.content.default]\ncoupon = 'B'"},
    {C: BAR + "coupon = 'A'\n[content.mobile]\nbody = '{{ coupon.code }}'\n[variants.a.content.default]\n"
              "body = '{{ coupon }}'\n[variants.b]"},
    {C: "coupon = 'winback'\n" + BAR + "body = '{{ coupon.percent }} {{ coupon.expires }}'"},
    # coupons
    {C: "coupon = 'winback'\n" + BAR, S: "[when]\nholds_coupon = { pool = 'winback' }"},
    {F: FLOW + "[[steps]]\ncoupon = 'winback'", S: "[when]\nholds_coupon = { pool = ['winback', 'more'] }",
     "coupons/more.toml": "amount = 5\nprefix = 'MORE-'"},
    {P: "amount = 5\ncodes = ['ONE']"},
    # consent
    {"shop.toml": SHOP + "[consent.purposes]\nclub = 'denied'\n'email:club' = 'denied'\nsms = 'denied'",
     S: "[when]\nhas = { consent = ['club', 'email', 'sms:club', 'email:marketing'] }", C: "purpose = 'club'\n" + BAR},
    # the budget
    {"shop.toml": SHOP + "[pressure]\nper_day = 1", C: BAR, "campaigns/mail.toml": 'format = "email"\n'
     'purpose = "service"\ntrigger = { workflow = true }\n[content.default]\ntitle = "Hello"'},
    {F: FLOW + "[[steps]]\nbranch = [{ when = { cart = { empty = true }, has = { known = true } }, go = 'e' }, "
               "{ when = { cart = { empty = true } }, go = 'e' }]\n[[steps]]\nid = 'e'\nexit = true"},
    {C: BAR + "body = '{% for p in products %}{{ p.name }}{{ forloop.index }}{% endfor %}{% for t in traits %}"
              "{{ t.x }}{% endfor %}'"},
    # occasions
    {C: BAR.replace('event = "Product Added"', 'segment = "empty_handed", delay = "5m"') +
     "[when.cart]\nvalue_at_least = 5"},
    {C: BAR.replace('event = "Product Added"', 'left_segment = "empty_handed"') + "[when.cart]\nitems_at_least = 1"},
    {C: 'when = { in_segment = "engaged" }\nunless = { in_segment = "empty_handed" }\n' + BAR},
    {F: "enters = { segment = 'engaged' }\nleaves = { in_segment = 'empty_handed' }\n[[steps]]\nwait = '1d'"},
    # circles with a wait in them, or which nobody goes round twice
    {F: FLOW + "[[steps]]\nid = 'a'\nwait_for = { event = 'Product Added' }\n[[steps]]\ntag = 'active'\ngo = 'a'"},
    {F: FLOW + "[[steps]]\nid = 'full'\nwait_for = { when = { cart = { items_at_least = 1 } }, otherwise = 'end' }\n"
     "[[steps]]\nwait_for = { when = { cart = { empty = true } }, then = 'full', otherwise = 'end' }\n[[steps]]\n"
     "id = 'end'\nexit = true"},
    {F: FLOW + "[[steps]]\nid = 'a'\nwait_for = { when = { cart = { empty = true } }, within = '1d', then = 'end', "
     "otherwise = 'a' }\n[[steps]]\nid = 'end'\nexit = true"},
    {F: FLOW + "[[steps]]\nid = 'a'\nbranch = [{ when = { in_segment = 'active' }, go = 'out' }]\n[[steps]]\n"
     "exit = true\n[[steps]]\nid = 'out'\nuntag = 'active'\ngo = 'a'"},
    {F: FLOW + "[[steps]]\nid = 'a'\nbranch = [{ when = { has = { trait = { seen = true } } }, go = 'end' }]\n"
     "[[steps]]\nset = { seen = true }\ngo = 'a'\n[[steps]]\nid = 'end'\nexit = true"},
    {F: "again = 'after'\nagain_after = '3d'\n" + FLOW + "[[steps]]\nwait = '1d'"},
])
def test_what_is_right_is_not_blamed(changes: dict[str, str]) -> None:
    assert mistakes(changes) == []


def test_what_weighs_more_than_the_budget_is_never_said() -> None:
    found = mistakes({"shop.toml": SHOP + "[pressure]\nper_week = 2"})
    assert found == ["campaigns/mail.toml, line 1, format: email weighs 3 points, and the pressure budget of shop.toml "
                     "is 2 a week: it would never be said"]


def test_who_refers_to_a_broken_file_is_not_to_blame() -> None:
    found = mistakes({"campaigns/mail.toml": "format = ", "segments/active.toml": "static = 1",
                      "coupons/winback.toml": "percent = 'x'", C: 'coupon = "winback"\n' + BAR})
    assert {problem.split(",")[0] for problem in found} == {
        "campaigns/mail.toml", "segments/active.toml", "coupons/winback.toml"}, found


def test_a_stage_that_asks_for_a_stage_is_one_mistake() -> None:
    asks = SHOP.replace("{ cart = { items_at_least = 1 } }", '{ funnel = { stage = "looking" } }')
    assert mistakes({"shop.toml": asks}) == ["shop.toml, line 10, funnel[2].when: a stage cannot ask for a stage"]


def test_a_file_that_is_no_text_lacks_nothing_else_and_a_mark_at_its_beginning_is_no_mistake() -> None:
    with pytest.raises(PlaybookError) as wrong:
        parse({name: text.encode("latin1") for name, text in {**GOOD, C: BAR.replace("Hello", "Größe")}.items()})
    assert [str(one) for one in wrong.value.problems] == [
        "campaigns/x.toml, line 4: should be UTF-8 text (invalid start byte)"]
    marked = {name: b"\xef\xbb\xbf" + text.encode() for name, text in GOOD.items()}
    parse({**marked, "codes/winback.txt": b"\xef\xbb\xbfA-1\n"})


def test_that_there_is_no_shop_is_said_beside_what_asks_for_it() -> None:
    files = {name: text.encode() for name, text in GOOD.items() if name != "shop.toml"}
    parse(files)
    with pytest.raises(PlaybookError) as wrong:
        parse({**files, C: b'group = "discounts"\n' + BAR.encode()})
    assert [str(one) for one in wrong.value.problems] == [
        "campaigns/x.toml, line 1, group: shop.toml has no [groups.discounts]",
        "shop.toml: is not there: it names the shop's events, stages, groups and purposes"]
