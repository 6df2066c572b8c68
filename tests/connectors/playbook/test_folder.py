"""The playbook as a marketer meets it: read whole or not at all, every mistake named, swapped while the engine runs."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from attimo import cli
from connectors.playbook.folder import PlaybookWatcher, parse_playbook, read_playbook
from domain.diagnostics import PlaybookError
from domain.playbook.playbook import Playbook, decode_playbook, encode_playbook, playbook_hash
from domain.validation.validate import validate
from state.playbook.compiled import compile_rules, rules_from_source
from tests.harness.support import ROOT

VALID_FILES = {
    "shop.toml": 'currency = "EUR"\n',
    "segments/engaged.toml": "[when]\nsession = { pages_at_least = 3 }\n",
    "campaigns/hello.toml": 'format = "bar"\n\n[trigger]\nsegment = "engaged"\n\n[content.default]\ntitle = "Hello"\n',
}


def write_files(place: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return place


def errors_of(files: dict[str, str | bytes]) -> list[str]:
    merged: dict[str, bytes] = {name: text.encode() for name, text in VALID_FILES.items()}
    merged.update({name: text.encode() if isinstance(text, str) else text for name, text in files.items()})
    with pytest.raises(PlaybookError) as wrong:
        parse_playbook(merged)
    return [str(problem) for problem in wrong.value.diagnostics]


# -- the good ------------------------------------------------------------------------------------------------------


def test_shipped_shop_is_valid() -> None:
    playbook = read_playbook(ROOT / "shop")
    assert validate(playbook) == []
    assert {"welcome_canada", "exit_offer", "browse_help", "thank_you"} <= {one.name for one in playbook.campaigns}
    assert all(one.description for one in playbook.segments)
    assert all(one.description for one in playbook.campaigns)


def test_compiled_playbook_round_trips() -> None:
    rules = compile_rules(read_playbook(ROOT / "shop"))
    again = rules_from_source(rules.source)
    assert again.hash == rules.hash
    assert again.playbook == rules.playbook
    assert [one.name for one in again.ranked] == [one.name for one in rules.ranked]
    assert playbook_hash(encode_playbook(decode_playbook(rules.source))) == rules.hash


def test_hash_ignores_formatting(tmp_path: Path) -> None:
    plain = read_playbook(write_files(tmp_path / "a", VALID_FILES))
    spaced = {name: "# a word\n" + text.replace("\n\n", "\n\n\n") for name, text in VALID_FILES.items()}
    other = {"campaigns/hello.toml": VALID_FILES["campaigns/hello.toml"].replace("Hello", "Hallo")}
    assert encode_playbook(plain) == encode_playbook(read_playbook(write_files(tmp_path / "b", spaced)))
    assert encode_playbook(plain) != encode_playbook(
        read_playbook(write_files(tmp_path / "c", {**VALID_FILES, **other}))
    )


def test_empty_folder_is_an_empty_playbook(tmp_path: Path) -> None:
    assert read_playbook(tmp_path) == Playbook()


def test_missing_folder_is_reported(tmp_path: Path) -> None:
    with pytest.raises(PlaybookError, match="no such folder"):
        read_playbook(tmp_path / "nowhere")


def test_unrelated_files_are_ignored(tmp_path: Path) -> None:
    folder = write_files(
        tmp_path,
        {
            **VALID_FILES,
            "products.csv": "x",
            "segments/notes.txt": "?",
            "segments/.x.toml": "[",
            "scenarios/one.md": "# one",
        },
    )
    assert len(read_playbook(folder).segments) == 1


# -- the mistakes --------------------------------------------------------------------------------------------------

CAMPAIGN = VALID_FILES["campaigns/hello.toml"]
TOP = 'format = "bar"\n'
S, C, W = "segments/b.toml", "campaigns/c.toml", "[when]\n"


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        (
            "shop.toml",
            "currency = 'EUR'\nfrequency_caps = {\n",
            "shop.toml, line 2, frequency_caps: a table in braces must be on one",
        ),
        ("shop.toml", 'currency = "euro"', 'shop.toml, line 1, currency: should be an ISO 4217 code such as "EUR"'),
        ("shop.toml", 'timezone = "Europe/Roma"', 'shop.toml, line 1, timezone: there is no time zone "Europe/Roma"'),
        (
            "shop.toml",
            "exchange_rates = { usd = 0.9 }",
            "shop.toml, line 1, exchange_rates: each name in it should be an ISO 4217",
        ),
        (
            "shop.toml",
            "exchange_rates = { EUR = 1.0 }",
            "shop.toml, line 1, exchange_rates.EUR: is the shop's own currency",
        ),
        (
            "shop.toml",
            "[frequency_caps]\nper_sesion = 3",
            'frequency_caps.per_sesion: unknown field "per_sesion"; did you mean "per_session"?',
        ),
        (
            "shop.toml",
            '[frequency_caps]\ncooldown = "soon"',
            'frequency_caps.cooldown: should be a duration such as "30s"',
        ),
        ("shop.toml", 'url = "shop.example"', "url: should start with https:// or http://"),
        ("shop.toml", "[consent]\npurposes = { service = 'denied' }", "consent.purposes.service: never needs consent"),
        ("shop.toml", b"\xff\xfe", "shop.toml, line 1: should be UTF-8 text"),
        ("shop.toml", 'name = "a\x00b"', "shop.toml, line 1: should be text, but contains NUL characters"),
        ("shoptoml.toml", "", "shoptoml.toml, line 1: does not belong here"),
        ("workflows/w.toml", "", "workflows/w.toml, line 1, enter_on: is missing"),
        ("segments/Bad.toml", W + "cart = { empty = true }", "name: should be lower case letters, digits, - and _"),
        ("segments/likely_buyers.toml", W + "cart = { empty = true }", "name: is reserved for a learned segment"),
        (S, 'name = "c"\n[when]\ncart = { empty = true }', 'line 1, name: should be "b", like the file name'),
        (S, 'description = "x"', "segments/b.toml, line 1, when: is empty"),
        (S, "[when]", "segments/b.toml, line 1, when: is empty"),
        (S, W + "session = {}", "line 2, when.session: is empty"),
        (
            S,
            W + "sesion = { pages_at_least = 3 }",
            'line 2, when.sesion: unknown field "sesion"; did you mean "session"?',
        ),
        (
            S,
            "[when.session]\npages_at_least = 3\nfirst_session = 'yes'",
            'segments/b.toml, line 3, when.session.first_session: should be true or false, is "yes"; write '
            "first_session = true",
        ),
        (S, W + "session = { pages_at_least = 0 }", "should be a whole number of at least 1, is 0"),
        (
            S,
            W + "did = { event = 'Product Aded' }",
            'line 2, when.did.event: there is no event "Product Aded"; did you mean "Product Added"?',
        ),
        (S, W + "did = { event = 'Quiz Finished' }", 'name it in shop.toml: custom_events = ["Quiz Finished"]'),
        (
            S,
            W + "did = { event = 'Page Viewed', at_least = 300, within = '7d' }",
            "when.did.at_least: only the newest 100 times are stored",
        ),
        (
            S,
            W + "was_shown = { campaign = 'c', at_least = 51, within = '7d' }",
            "segments/b.toml, line 2, when.was_shown.at_least: only the newest 50 times are stored",
        ),
        (S, W + "cart = { older_than = '999999w' }", "when.cart.older_than: should be at most ten years"),
        (S, W + "has = { country = 'Canada' }", 'should be a two-letter code such as "CA"'),
        (S, W + "has = { device = 'phone' }", 'should be one of "desktop", "mobile", "tablet", is "phone"'),
        (S, W + "in_segment = 'engagd'", 'there is no segment "engagd"; did you mean "engaged"?'),
        (S, W + "in_segment = 'b'", "circular segment references: b -> b"),
        (S, W + "cart = { empty = true, items_at_least = 1 }", "when.cart.empty: can never be true"),
        (S, W + "cart = { value_at_least = 50, value_below = 20 }", "when.cart.value_below: can never be true"),
        (S, W + "orders = { count_at_least = 3, count_is = 1 }", "when.orders.count_is: can never be true"),
        (S, W + "score = { at_least = 1.5 }", "should be a number of at most 1, is 1.5"),
        (S, W + "" + "not = { " * 12 + "cart = { empty = true }" + " }" * 12, "conditions can be nested at most 8"),
        (S, W + "any = [" + "{ cart = { empty = true } }," * 300 + "]", "a condition can have at most 200 parts"),
        (S, "x = " + "[" * 5000 + "]" * 5000, "is nested too deeply"),
        (C, CAMPAIGN.replace('"bar"', '"pop-up"'), 'is "pop-up"; did you mean "popup"'),
        (C, TOP + "[content.default]\ntitle = 'x'", "campaigns/c.toml, line 1, trigger: is missing"),
        (
            C,
            TOP + "trigger = {}\n[content.default]\ntitle = 'x'",
            "line 2, trigger: should be exactly one of event, segment, exited_segment, exit_intent, "
            "seconds_on_site, workflow",
        ),
        (
            C,
            TOP + "[trigger]\nexit_intent = true\nsegment = 'engaged'\n[content.default]\ntitle = 'x'",
            "line 2, trigger: should be exactly one of",
        ),
        (C, CAMPAIGN.replace("engaged", "bored"), 'line 4, trigger.segment: there is no segment "bored"'),
        (C, CAMPAIGN.replace("[trigger]", "[trigger]\nproperties = { a = 1 }"), "is allowed only with `event`"),
        (C, 'purpose = "marketin"\n' + CAMPAIGN, 'there is no purpose "marketin"; did you mean "marketing"?'),
        (C, 'cancel_on = ["Order Complete"]\n' + CAMPAIGN, 'there is no event "Order Complete"; did you mean'),
        (C, 'valid_for = "0s"\n' + CAMPAIGN, "valid_for: should be at least 1s"),
        (C, CAMPAIGN.replace("title", "titel"), 'content.default.titel: unknown field "titel"; did you mean "title"?'),
        (C, CAMPAIGN.replace("Hello", ""), "content.default: is empty"),
        (C, CAMPAIGN + 'template = "x.liquid"', 'template: there is no "x.liquid" in templates/'),
        (C, CAMPAIGN + 'button = "Go"', "content.default.button: needs a url"),
        (C, CAMPAIGN + 'url = "javascript:alert(1)"', "url: should be a path, or start with https://"),
        (
            C,
            CAMPAIGN.replace("Hello", "{{ frist_name }}"),
            'there is no variable "frist_name"; did you mean "first_name"?',
        ),
        (C, CAMPAIGN.replace("Hello", "{{ product.nmae }}"), '"product" has no field "nmae"; did you mean "name"'),
        (C, CAMPAIGN.replace("Hello", "{{ 'now' | date: '%Y' }}"), 'there is no filter "date"'),
        (C, CAMPAIGN.replace("Hello", "{{ now }}"), 'there is no variable "now"'),
        (C, CAMPAIGN.replace("Hello", "{% if first_name %}x"), "content.default.title: "),
        (C, CAMPAIGN + "body = '<script>x</script>'", "content.default.body: <script> is not allowed"),
        (C, CAMPAIGN + "body = '<p onclick=\"x\">x</p>'", '<p onclick="…"> is not allowed'),
        (C, CAMPAIGN + "body = '<a href=\"javascript:x\">x</a>'", "should be a path, or start with https://"),
        (
            "templates/x.liquid",
            "{% include 'y' %}",
            'templates/x.liquid, line 1, include: the tag "include" is not allowed here',
        ),
        (
            "templates/x.liquid",
            "<p>\n{{ prodct.name }}",
            'x.liquid, line 2, prodct: there is no variable "prodct"; did you mean "product"?',
        ),
    ],
)
def test_each_error_has_file_field_and_suggestion(file: str, text: str | bytes, said: str) -> None:
    found = errors_of({file: text})
    assert any(said in problem and problem.startswith(file.split("/")[0]) for problem in found), found


def test_all_errors_are_reported_at_once() -> None:
    found = errors_of(
        {
            "shop.toml": 'currency = "euro"\ntimezone = 3',
            "segments/b.toml": "[when]\nsesion = { }\nhas = { contry = 'CA' }\ncart = { empty = 'no' }",
            "campaigns/hello.toml": CAMPAIGN.replace("engaged", "bored"),
        }
    )
    assert len(found) == 6, found


def test_reference_to_a_broken_segment_is_no_second_error() -> None:
    found = errors_of({"segments/engaged.toml": "[when]\nsesion = {}"})
    assert len(found) == 1, found


def test_segment_cycle_is_shown_as_a_path() -> None:
    found = errors_of({f"segments/{one}.toml": f"[when]\nin_segment = '{other}'" for one, other in ("ab", "bc", "ca")})
    assert any("a -> b -> c -> a" in problem for problem in found), found


def test_oversized_file_is_rejected_unread(tmp_path: Path) -> None:
    write_files(tmp_path, {"segments/a.toml": "#" * 300_000})
    with pytest.raises(PlaybookError, match="larger than 256 kB"):
        read_playbook(tmp_path)


# -- hot swap ------------------------------------------------------------------------------------------------------


@pytest.fixture
def watched_folder(tmp_path: Path) -> tuple[Path, PlaybookWatcher, Callable[[], Playbook | None]]:
    folder, clock = write_files(tmp_path / "shop", VALID_FILES), [0.0]
    watcher = PlaybookWatcher(folder)
    watcher.load_first()

    def look() -> Playbook | None:
        for _ in range(3):
            clock[0] += 10.0
            if (found := watcher.poll(clock[0])) is not None:
                return found
        return None

    return folder, watcher, look


def rewrite_file(path: Path, text: str) -> None:
    """Write as editors do, and make sure that the file system's clock has moved."""
    before = path.stat().st_mtime_ns if path.exists() else 0
    path.write_text(text)
    os.utime(path, ns=(before + 1_000_000, before + 1_000_000))


def test_only_a_real_change_goes_live(watched_folder: Any) -> None:
    folder, _, look = watched_folder
    assert look() is None
    rewrite_file(folder / "campaigns/hello.toml", CAMPAIGN.replace("Hello", "Hallo"))
    changed = look()
    assert changed is not None
    assert changed.campaigns[0].content.default.title == "Hallo"
    assert look() is None


def test_touching_a_file_reloads_nothing(watched_folder: Any) -> None:
    folder, _, look = watched_folder
    rewrite_file(folder / "campaigns/hello.toml", "# only a comment\n" + CAMPAIGN)
    assert look() is None


def test_broken_folder_keeps_the_last_valid_playbook(watched_folder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[Any] = []
    monkeypatch.setattr("connectors.playbook.folder.logger.warning", lambda *_, **words: said.append(words))
    folder, watcher, look = watched_folder
    rewrite_file(folder / "campaigns/hello.toml", "format = ")
    assert look() is None
    assert look() is None
    assert len(said) == 1
    assert "campaigns/hello.toml, line 1" in str(watcher.diagnostics[0])
    rewrite_file(folder / "campaigns/hello.toml", CAMPAIGN)
    assert look() is None, "it is what was live all the time"
    assert watcher.diagnostics == ()


def test_added_and_removed_files_reload_the_playbook(watched_folder: Any) -> None:
    folder, _, look = watched_folder
    (folder / "segments/more.toml").write_text("[when]\ncart = { empty = true }")
    changed = look()
    assert changed is not None
    assert [one.name for one in changed.segments] == ["engaged", "more"]
    (folder / "segments/more.toml").unlink()
    changed = look()
    assert changed is not None
    assert [one.name for one in changed.segments] == ["engaged"]


def test_deleted_folder_keeps_the_last_valid_playbook(watched_folder: Any) -> None:
    folder, watcher, look = watched_folder
    shutil.rmtree(folder)
    assert look() is None
    assert "no such folder" in str(watcher.diagnostics[0])


def make_unreadable(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Permissions do not hold for everybody who runs tests: the system says no to whoever looks into this folder."""
    scandir, listdir = os.scandir, os.listdir

    def refuse(look: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def looked(place: Any = ".") -> Any:
            if Path(place) == folder:
                raise PermissionError(13, "Permission denied", str(place))
            return look(place)

        return looked

    monkeypatch.setattr("os.scandir", refuse(scandir))
    monkeypatch.setattr("os.listdir", refuse(listdir))


def test_unreadable_folder_keeps_the_last_valid_playbook(watched_folder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[Any] = []
    monkeypatch.setattr("connectors.playbook.folder.logger.warning", lambda *_, **words: said.append(words))
    folder, watcher, look = watched_folder
    with monkeypatch.context() as patch:
        make_unreadable(folder / "campaigns", patch)
        assert look() is None
        assert [str(one) for one in watcher.diagnostics] == ["campaigns: cannot be read: permission denied"]
        assert len(said) == 1
        with pytest.raises(PlaybookError, match="campaigns: cannot be read: permission denied"):
            PlaybookWatcher(folder).load_first()
    assert look() is None, "it is what was live all the time"
    assert watcher.diagnostics == ()


@pytest.mark.parametrize("part", ["", "segments", "scenarios"])
def test_check_names_the_unreadable_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    folder = write_files(tmp_path / "shop", VALID_FILES | {"scenarios/x.md": "# X"})
    make_unreadable(folder / part, monkeypatch)
    result = CliRunner().invoke(cli, ["check", str(folder)])
    assert result.exit_code == 2
    assert f"{part or folder}: cannot be read: permission denied" in result.output


def test_folder_is_not_read_while_it_changes(tmp_path: Path) -> None:
    folder = write_files(tmp_path, VALID_FILES)
    watcher = PlaybookWatcher(folder)
    watcher.load_first()
    for n in range(5):
        rewrite_file(folder / "campaigns/hello.toml", CAMPAIGN.replace("Hello", f"Hello {n}"))
        assert watcher.poll(n * 10.0 + 10.0) is None, "it was different at every look"
    changed = watcher.poll(100.0)
    assert changed is not None
    assert changed.campaigns[0].content.default.title == "Hello 4"


def test_polling_interval_is_respected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watcher = PlaybookWatcher(write_files(tmp_path, VALID_FILES), interval=0.5)
    watcher.load_first()
    looks: list[Path] = []

    def look(folder: Path) -> tuple[()]:
        looks.append(folder)
        return ()

    monkeypatch.setattr("connectors.playbook.folder.signature", look)
    watcher.poll(10.0)
    watcher.poll(10.4)
    assert len(looks) == 1
