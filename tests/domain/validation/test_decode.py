"""All errors of a file are reported at once, each with a suggestion."""

from collections.abc import Iterator
from typing import Any

import pytest

from domain.playbook.introspect import field_types, is_struct, metas, plain_types
from domain.playbook.playbook import Playbook
from tests.domain.validation.test_validate import BAR, FLOW, SHOP, C, F, P, S, errors_of


def declared_types(kind: Any, seen: set[Any]) -> Iterator[Any]:
    """Yield every type inside a type."""
    yield kind
    for one in plain_types(kind):
        arguments = [argument for argument in getattr(one, "__args__", ()) if not isinstance(argument, str)]
        if is_struct(one) and one not in seen:
            seen.add(one)
            arguments += field_types(one).values()
        for argument in arguments:
            yield from declared_types(argument, seen)


def test_every_pattern_is_described_in_words() -> None:
    found = [meta for kind in declared_types(Playbook, set()) for meta in metas(kind) if meta.pattern]
    assert {meta.pattern for meta in found} >= {"^[A-Z]{3}$", "^[A-Z0-9-]*$", r"^[!-~]+$"}
    assert [meta.pattern for meta in found if not meta.description] == []


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        (
            P,
            "percent = 10\nprefix = 'spring'",
            'prefix: should be capital letters, digits and -, such as "SPRING-", is "spring"',
        ),
        (P, "amount = 0.004\nprefix = 'A-'", "amount: is less than the smallest unit of EUR"),
        (
            P,
            "percent = 10\ncodes = ['A B']",
            "codes[1]: should be letters, digits and signs, without spaces or accents",
        ),
        ("shop.toml", "country = 'Italy'", 'country: should be a two-letter code such as "IT", is "Italy"'),
        (C, "valid_for = 30\n" + BAR, 'valid_for: should be a duration such as "30s", "5m", "2h", "7d", "2w", is 30'),
        (
            C,
            "start = 2026-12-01\n" + BAR,
            'start: should be a date or a date and time: "2026-12-01", "2026-12-01 09:00", is 2026-12-01',
        ),
        (
            C,
            BAR.replace('title = "Hello"', "title = 5"),
            'title: should be text, is 5; write it in quotes: title = "5"',
        ),
        (
            C,
            "priority = '5'\n" + BAR,
            'priority: should be a whole number, is "5"; write it without quotes: priority = 5',
        ),
        (
            C,
            "ignore_quiet_hours = 'no'\n" + BAR,
            'ignore_quiet_hours: should be true or false, is "no"; write ignore_quiet_hours = false',
        ),
        (
            C,
            BAR + "[[when]]\ncart = { empty = true }",
            "when: should be a table, is a list; write [when] in place of [[when]]",
        ),
        (
            C,
            'format = "bar"\ntrigger = "exit_intent"\n[content.default]\ntitle = "Hello"',
            'trigger: should be a table, is "exit_intent"; write trigger = { exit_intent = true }, for example',
        ),
        (
            C,
            'format = "bar"\ntrigger = "leaving"\n[content.default]\ntitle = "Hello"',
            'write trigger = { event = "Product Added" }',
        ),
        (
            C,
            "cancel_on = 'Order Completed'\n" + BAR,
            'cancel_on: should be a list, is "Order Completed"; write cancel_on = ["Order Completed"]',
        ),
        (
            F,
            "enter_on = { event = 'Product Added' }\n[steps]\nwait = '1d'",
            "steps: should be a list, is a table; write [[steps]] in place of [steps]",
        ),
        (F, FLOW, 'steps: is missing; write [[steps]] and below it wait = "30s", for example'),
        (C, "title = 'x'\n" + BAR, 'title: unknown field "title"; it belongs in [content.default]'),
        (S, "[when]\npages_at_least = 3", 'unknown field "pages_at_least"; it belongs in [when.session]'),
        # lists of names
        (C, BAR.replace("Hello", "{{ name }}"), 'no variable "name"; did you mean "product.name" or "shop.name"?'),
        (
            C,
            BAR.replace("Hello", "{{ zzz }}"),
            'there is no variable "zzz"; there are product, products, cart, order, first_name',
        ),
        (F, FLOW + "[[steps]]\nid = 'a'\nwait = '1d'\ngoto = 'end'", 'there is no step "end"; there is only a'),
        (F, FLOW + "[[steps]]\nsend = 'zzz'", 'there is no campaign "zzz"; there are bar and mail'),
    ],
)
def test_each_error_suggests_a_fix(file: str, text: str, expected: str) -> None:
    found = errors_of({file: text})
    assert any(expected in problem for problem in found), found
    assert len(found) == 1, found


def test_nan_and_infinity_are_rejected() -> None:
    """TOML has `nan` and `inf`, but the canonical bytes of a playbook (JSON) do not."""
    several = errors_of(
        {
            C: BAR
            + (
                "[when]\nany = [{ did = { event = 'Order Completed', sum = { of = 'total', at_least = nan } } },"
                " { has = { trait = { size = [1, -inf, inf] } } }]\n"
            )
        }
    )
    assert [text.partition("when.")[2] for text in several] == [
        "any[1].did.sum.at_least: should be a number, is nan",
        "any[2].has.trait.size[2]: should be a number, is -inf",
        "any[2].has.trait.size[3]: should be a number, is inf",
    ]
    [found] = errors_of({F: FLOW + "[[steps]]\nwait = '1d'\n[[steps]]\nset_traits = { a = nan }\n"})
    assert found.endswith("set_traits.a: should be a number, is nan")


def test_errors_in_every_list_entry_are_reported() -> None:
    found = errors_of(
        {
            S: "[when]\nall = [\n  { cart = { emty = true } },\n  { cart = 5 },\n"
            "  { did = { evnt = 'x' } },\n  { in_segment = 'engagd', "
            "has = { country = 'Canada' } },\n]\nany = [3, { crat = {} }]"
        }
    )
    assert [problem.split(": ")[0] for problem in found] == [
        f"segments/x.toml, line {line}, {field}"
        for line, field in (
            (3, "when.all[1].cart.emty"),
            (4, "when.all[2].cart"),
            (5, "when.all[3].did.evnt"),
            (6, "when.all[4].has.country"),
            (6, "when.all[4].in_segment"),
            (8, "when.any[1]"),
            (8, "when.any[2].crat"),
        )
    ], found
    assert found[5].endswith('should be a table, is 3; write { did = { event = "Product Viewed" } }, for example')


def test_type_errors_do_not_hide_unresolved_names() -> None:
    steps = "[[steps]]\nwait = 3\n[[steps]]\nsend = 'male'\n[[steps]]\nadd_to_segment = 'actve'"
    found = errors_of(
        {
            F: "reentry = 5\n" + FLOW + steps,
            C: "priority = true\ngroup = 'discount'\n" + BAR.replace("Hello", "{{ frist_name }}"),
        }
    )
    assert [problem.partition(": ")[0] for problem in found] == [
        "campaigns/x.toml, line 1, priority",
        "campaigns/x.toml, line 2, group",
        "campaigns/x.toml, line 6, content.default.title",
        "workflows/x.toml, line 1, reentry",
        "workflows/x.toml, line 4, steps[1].wait",
        "workflows/x.toml, line 6, steps[2].send",
        "workflows/x.toml, line 8, steps[3].add_to_segment",
    ], found


def test_all_missing_fields_are_reported() -> None:
    found = errors_of({C: "description = 'x'"})
    assert [problem.split(":")[0] for problem in found] == [
        f"campaigns/x.toml, line 1, {field}" for field in ("content", "format", "trigger")
    ], found


def test_invalid_part_is_reported_once() -> None:
    found = errors_of({F: FLOW + "[[steps]]\nid = 3\nwait = '1d'\n[[steps]]\nbranch = [{ when = {}, to = 'x' }]"})
    assert [problem.split(": ")[0] for problem in found] == [
        "workflows/x.toml, line 3, steps[1].id",
        "workflows/x.toml, line 6, steps[2].branch[1].goto",
        "workflows/x.toml, line 6, steps[2].branch[1].to",
    ], found


@pytest.mark.parametrize("shop", [SHOP + "recencyy = 3", "currency = euro\n" + SHOP])
def test_broken_shop_toml_causes_no_unresolved_names(shop: str) -> None:
    used = "[when]\ndid = { event = 'Quiz Finished' }\nfunnel = { stage = 'buying' }\nrfm = { group = 'loyal' }"
    assert errors_of({S: used, C: "group = 'discounts'\n" + BAR}) == []
    found = errors_of({"shop.toml": shop, S: used, C: "group = 'discounts'\n" + BAR})
    assert len(found) == 1, found


def test_error_count_is_limited() -> None:
    assert len(errors_of({S: "[when]\nany = [" + "3, " * 5_000 + "]"})) == 20
