"""A former name of a playbook field, value or scenario word is an error that names the current one."""

import re

import msgspec
import pytest

from domain.playbook.renamed_fields import (
    RENAMED_COLUMNS,
    RENAMED_FIELDS,
    RENAMED_PRECONDITIONS,
    RENAMED_RUN_STATES,
    RENAMED_STEPS,
)
from domain.playbook.scenario import COLUMNS, PRECONDITIONS, STEP_NAMES, parse_scenarios
from domain.validation.scenarios import RUN_STATES
from tests.domain.validation.test_validate import BAR, FLOW, SHOP, VALID_FILES, C, F, P, S, errors_of
from tests.harness.support import ROOT


def test_every_current_name_exists_and_no_former_name_does() -> None:
    for struct, names in RENAMED_FIELDS.items():
        fields = {field.encode_name for field in msgspec.structs.fields(struct)}
        assert set(names.values()) <= fields, struct
        assert not set(names) & fields, struct
    for words, renamed in (
        (COLUMNS, RENAMED_COLUMNS),
        (STEP_NAMES, RENAMED_STEPS),
        (PRECONDITIONS, RENAMED_PRECONDITIONS),
        (RUN_STATES, RENAMED_RUN_STATES),
    ):
        assert set(renamed.values()) <= set(words)
        assert not set(renamed) & set(words)


@pytest.mark.parametrize(
    ("file", "text", "field", "old", "new"),
    [
        ("shop.toml", "limits = { per_day = 3 }\n" + SHOP, "limits", "limits", "frequency_caps"),
        ("shop.toml", SHOP + "[quiet_hours]\nbegin = '22:00'\nend = '08:00'", "quiet_hours.begin", "begin", "start"),
        ("shop.toml", SHOP + "money = [1, 2, 3, 4]", "rfm.money", "money", "monetary"),
        (C, "urgent = true\n" + BAR, "urgent", "urgent", "ignore_quiet_hours"),
        (C, BAR + "[frequency_caps]\nevery = '1d'", "frequency_caps.every", "every", "min_interval"),
        (C, BAR.replace("event", "left_segment"), "trigger.left_segment", "left_segment", "exited_segment"),
        (S, "[when]\nhas = { known = true }", "when.has.known", "known", "identified"),
        (S, "[when]\nwas_said = { campaign = 'mail' }", "when.was_said", "was_said", "was_shown"),
        (S, "[when]\nhas = { trait = { plan = { known = true } } }", "when.has.trait.plan.known", "known", "exists"),
        (F, FLOW.replace("enter_on", "enters") + "[[steps]]\nwait = '1d'", "enters", "enters", "enter_on"),
        (F, FLOW + "leaves = { cart = { empty = true } }\n[[steps]]\nwait = '1d'", "leaves", "leaves", "exit_when"),
        (F, FLOW + "[[steps]]\nsend = 'mail'\npatience = '6h'", "steps[1].patience", "patience", "timeout"),
        (F, FLOW + "[[steps]]\nwait = '1d'\notherwise = 'x'", "steps[1].otherwise", "otherwise", "else"),
        (
            F,
            FLOW + "[[steps]]\nwait_for = { event = 'Page Viewed', within = '1d' }",
            "steps[1].wait_for.within",
            "within",
            "timeout",
        ),
        (P, "percent = 10\nprefix = 'X-'\nonce = false", "once", "once", "once_per_person"),
    ],
)
def test_former_field_name_is_one_error(file: str, text: str, field: str, old: str, new: str) -> None:
    [found] = errors_of({file: text})
    assert found.startswith(f"{file}, line ")
    assert found.endswith(f', {field}: unknown field "{old}"; it is now called "{new}"')


def test_former_value_is_one_error() -> None:
    [found] = errors_of({F: 'on_change = "leave"\n' + VALID_FILES["workflows/back.toml"]})
    assert found.endswith('is "leave"; it is now called "exit"')


def test_former_scenario_words_are_errors() -> None:
    _, errors = parse_scenarios(
        "a.md",
        "# A\n| at | what | which |\n|---|---|---|\n\n| step | name |\n|---|---|\n| held | x |\n| given | starts |",
    )
    assert [str(error) for error in errors] == [
        'a.md, line 2, what: unknown column "what"; it is now called "step"',
        'a.md, line 2, which: unknown column "which"; it is now called "name"',
        'a.md, line 7, step: unknown step "held"; it is now called "suppressed"',
        'a.md, line 8, name: unknown precondition "starts"; it is now called "start"',
    ]


def test_shop_and_pages_use_no_former_field_name() -> None:
    files = [*(ROOT / "shop").rglob("*.toml"), *(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]
    old = {name for names in RENAMED_FIELDS.values() for name in names}
    current = {field.encode_name for struct in RENAMED_FIELDS for field in msgspec.structs.fields(struct)} | {
        "set",
        "events",
        "within",
        "value",
        "known",
        "share",
    }
    pattern = re.compile(rf"^\s*({'|'.join(sorted(old - current))}) = ", re.MULTILINE)
    found = {
        (str(file.relative_to(ROOT)), match[1])
        for file in files
        for text in (
            [file.read_text()]
            if file.suffix == ".toml"
            else re.findall(r"```toml\n(.*?)```", file.read_text(), re.DOTALL)
        )
        for match in pattern.finditer(text)
    }
    assert not found
