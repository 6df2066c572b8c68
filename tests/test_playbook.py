"""The playbook as a marketer meets it: read whole or not at all, every mistake named, swapped while the engine runs."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from attimo import cli
from connectors.playbook_folder import Watcher, parse, read
from domain.check import findings
from domain.playbook import Playbook, decode, encode, hash_of
from domain.problem import PlaybookError
from state.rules import compile_rules, rules_from

ROOT = Path(__file__).resolve().parent.parent
GOOD = {
    "shop.toml": 'currency = "EUR"\n',
    "segments/engaged.toml": '[when]\nsession = { pages_at_least = 3 }\n',
    "campaigns/hello.toml": 'format = "bar"\n\n[trigger]\nsegment = "engaged"\n\n[content.default]\ntitle = "Hello"\n',
}


def folder_of(place: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return place


def mistakes(files: dict[str, str | bytes]) -> list[str]:
    merged: dict[str, bytes] = {name: text.encode() for name, text in GOOD.items()}
    merged.update({name: text.encode() if isinstance(text, str) else text for name, text in files.items()})
    with pytest.raises(PlaybookError) as wrong:
        parse(merged)
    return [str(problem) for problem in wrong.value.problems]


# -- the good ------------------------------------------------------------------------------------------------------


def test_the_shipped_shop_is_a_good_playbook() -> None:
    playbook = read(ROOT / "shop")
    assert findings(playbook) == []
    assert {"welcome_canada", "exit_offer", "browse_help", "thank_you"} <= {one.name for one in playbook.campaigns}
    assert all(one.description for one in playbook.segments)
    assert all(one.description for one in playbook.campaigns)


def test_rules_come_back_from_their_bytes() -> None:
    rules = compile_rules(read(ROOT / "shop"))
    again = rules_from(rules.source)
    assert again.hash == rules.hash
    assert again.playbook == rules.playbook
    assert [one.name for one in again.ranked] == [one.name for one in rules.ranked]
    assert hash_of(encode(decode(rules.source))) == rules.hash


def test_the_hash_is_of_what_is_said_not_of_how_it_is_written(tmp_path: Path) -> None:
    plain = read(folder_of(tmp_path / "a", GOOD))
    spaced = {name: "# a word\n" + text.replace("\n\n", "\n\n\n") for name, text in GOOD.items()}
    other = {"campaigns/hello.toml": GOOD["campaigns/hello.toml"].replace("Hello", "Hallo")}
    assert encode(plain) == encode(read(folder_of(tmp_path / "b", spaced)))
    assert encode(plain) != encode(read(folder_of(tmp_path / "c", {**GOOD, **other})))


def test_an_empty_folder_is_a_playbook_that_says_nothing(tmp_path: Path) -> None:
    assert read(tmp_path) == Playbook()


def test_a_folder_that_is_not_there_is_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(PlaybookError, match="there is no such folder"):
        read(tmp_path / "nowhere")


def test_what_has_nothing_to_do_with_the_playbook_is_left_alone(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, {**GOOD, "products.csv": "x", "segments/notes.txt": "?", "segments/.x.toml": "[",
                                  "scenarios/one.md": "# one"})
    assert len(read(folder).segments) == 1


# -- the mistakes --------------------------------------------------------------------------------------------------

CAMPAIGN = GOOD["campaigns/hello.toml"]
TOP = 'format = "bar"\n'
S, C, W = "segments/b.toml", "campaigns/c.toml", "[when]\n"


@pytest.mark.parametrize(("file", "text", "said"), [
    ("shop.toml", "currency = 'EUR'\nlimits = {\n", "shop.toml, line 2, limits: a table in braces stands on one"),
    ("shop.toml", 'currency = "euro"', 'shop.toml, line 1, currency: should be an ISO 4217 code such as "EUR"'),
    ("shop.toml", 'timezone = "Europe/Roma"', 'shop.toml, line 1, timezone: there is no time zone "Europe/Roma"'),
    ("shop.toml", "rates = { usd = 0.9 }", "shop.toml, line 1, rates: the names in it should each be an ISO 4217"),
    ("shop.toml", "rates = { EUR = 1.0 }", "shop.toml, line 1, rates.EUR: is the shop's own currency"),
    ("shop.toml", "[limits]\nper_sesion = 3", 'limits.per_sesion: there is nothing called "per_sesion" here; did you'
                                              ' mean "per_session"?'),
    ("shop.toml", '[limits]\ncooldown = "soon"', 'limits.cooldown: should be a duration such as "30s"'),
    ("shop.toml", 'url = "shop.example"', "url: should begin with https:// or http://"),
    ("shop.toml", "[consent]\npurposes = { service = 'denied' }", "consent.purposes.service: never needs consent"),
    ("shop.toml", b"\xff\xfe", "shop.toml, line 1: should be UTF-8 text"),
    ("shop.toml", 'name = "a\x00b"', "shop.toml, line 1: should be text, has NUL characters"),
    ("shoptoml.toml", "", "shoptoml.toml, line 1: has no meaning here"),
    ("workflows/w.toml", "", "workflows/w.toml, line 1, enters: is missing"),
    ("segments/Bad.toml", W + "cart = { empty = true }", "name: should be lower case letters, digits, - and _"),
    ("segments/likely_buyers.toml", W + "cart = { empty = true }", "name: is the name of a learned segment"),
    (S, 'name = "c"\n[when]\ncart = { empty = true }', 'line 1, name: should be "b", as the file'),
    (S, 'description = "x"', "segments/b.toml, line 1, when: says nothing"),
    (S, "[when]", "segments/b.toml, line 1, when: says nothing"),
    (S, W + "session = {}", "line 2, when.session: says nothing"),
    (S, W + "sesion = { pages_at_least = 3 }", 'line 2, when.sesion: there is nothing called "sesion"'
                                                                    ' here; did you mean "session"?'),
    (S, "[when.session]\npages_at_least = 3\nfirst_visit = 'yes'",
     "segments/b.toml, line 3, when.session.first_visit: should be true or false, is \"yes\"; write "
     "first_visit = true"),
    (S, W + "session = { pages_at_least = 0 }", "should be a whole number of at least 1, is 0"),
    (S, W + "did = { event = 'Product Aded' }",
     'line 2, when.did.event: there is no event "Product Aded"; did you mean "Product Added"?'),
    (S, W + "did = { event = 'Quiz Finished' }", 'shop.toml names it: events = ["Quiz Finished"]'),
    (S, W + "did = { event = 'Page Viewed', at_least = 300, within = '7d' }",
     "when.did.at_least: the newest 100 times are remembered"),
    (S, W + "was_said = { campaign = 'c', at_least = 51, within = '7d' }",
     "segments/b.toml, line 2, when.was_said.at_least: the newest 50 times are remembered"),
    (S, W + "cart = { older_than = '999999w' }", "when.cart.older_than: should be at most ten years"),
    (S, W + "has = { country = 'Canada' }", 'should be a two-letter code such as "CA"'),
    (S, W + "has = { device = 'phone' }", 'should be one of "desktop", "mobile", "tablet", is "phone"'),
    (S, W + "in_segment = 'engagd'", 'there is no segment "engagd"; did you mean "engaged"?'),
    (S, W + "in_segment = 'b'", "refer to each other in a circle: b -> b"),
    (S, W + "cart = { empty = true, items_at_least = 1 }", "when.cart.empty: can never hold"),
    (S, W + "cart = { value_at_least = 50, value_below = 20 }", "when.cart.value_below: can never hold"),
    (S, W + "orders = { count_at_least = 3, count_is = 1 }", "when.orders.count_is: can never hold"),
    (S, W + "score = { at_least = 1.5 }", "should be a number of at most 1, is 1.5"),
    (S, W + "" + "not = { " * 12 + "cart = { empty = true }" + " }" * 12, "conditions nest at most 8"),
    (S, W + "any = [" + "{ cart = { empty = true } }," * 300 + "]", "a condition has at most 200 parts"),
    (S, "x = " + "[" * 5000 + "]" * 5000, "nests too deep"),
    (C, CAMPAIGN.replace('"bar"', '"pop-up"'), 'is "pop-up"; did you mean "popup"'),
    (C, TOP + "[content.default]\ntitle = 'x'", "campaigns/c.toml, line 1, trigger: is missing"),
    (C, TOP + "trigger = {}\n[content.default]\ntitle = 'x'",
     "line 2, trigger: should be exactly one of event, segment, left_segment, exit_intent, seconds_on_site, workflow"),
    (C, TOP + "[trigger]\nexit_intent = true\nsegment = 'engaged'\n[content.default]\ntitle = 'x'",
     "line 2, trigger: should be exactly one of"),
    (C, CAMPAIGN.replace("engaged", "bored"), 'line 4, trigger.segment: there is no segment "bored"'),
    (C, CAMPAIGN.replace("[trigger]", "[trigger]\nproperties = { a = 1 }"), "go only with `event`"),
    (C, 'purpose = "marketin"\n' + CAMPAIGN, 'there is no purpose "marketin"; did you mean "marketing"?'),
    (C, 'disarm_on = ["Order Complete"]\n' + CAMPAIGN, 'there is no event "Order Complete"; did you mean'),
    (C, 'valid_for = "0s"\n' + CAMPAIGN, "valid_for: should be at least 1s"),
    (C, CAMPAIGN.replace("title", "titel"), 'content.default.titel: there is nothing called "titel" here; '
                                                             'did you mean "title"?'),
    (C, CAMPAIGN.replace("Hello", ""), "content.default: shows nothing"),
    (C, CAMPAIGN + 'template = "x.liquid"', 'template: there is no "x.liquid" in templates/'),
    (C, CAMPAIGN + 'button = "Go"', "content.default.button: leads nowhere"),
    (C, CAMPAIGN + 'url = "javascript:alert(1)"', "url: should be a path, or begin with https://"),
    (C, CAMPAIGN.replace("Hello", "{{ frist_name }}"), 'there is no variable "frist_name"; did you mean'
                                                                        ' "first_name"?'),
    (C, CAMPAIGN.replace("Hello", "{{ product.nmae }}"), '"product" has no field "nmae"; did you mean "name"'),
    (C, CAMPAIGN.replace("Hello", "{{ 'now' | date: '%Y' }}"), 'there is no filter "date"'),
    (C, CAMPAIGN.replace("Hello", "{{ now }}"), 'there is no variable "now"'),
    (C, CAMPAIGN.replace("Hello", "{% if first_name %}x"), "content.default.title: "),
    (C, CAMPAIGN + "body = '<script>x</script>'", "content.default.body: <script> is not allowed"),
    (C, CAMPAIGN + "body = '<p onclick=\"x\">x</p>'", '<p onclick="…"> is not allowed'),
    (C, CAMPAIGN + "body = '<a href=\"javascript:x\">x</a>'", "should be a path, or begin with https://"),
    ("templates/x.liquid", "{% include 'y' %}",
     'templates/x.liquid, line 1, include: the tag "include" is not allowed here'),
    ("templates/x.liquid", "<p>\n{{ prodct.name }}",
     'x.liquid, line 2, prodct: there is no variable "prodct"; did you mean "product"?'),
])
def test_each_mistake_is_reported_with_file_field_and_what_was_meant(file: str, text: str | bytes, said: str) -> None:
    found = mistakes({file: text})
    assert any(said in problem and problem.startswith(file.split("/")[0]) for problem in found), found


def test_all_mistakes_are_reported_at_once() -> None:
    found = mistakes({
        "shop.toml": 'currency = "euro"\ntimezone = 3',
        "segments/b.toml": "[when]\nsesion = { }\nhas = { contry = 'CA' }\ncart = { empty = 'no' }",
        "campaigns/hello.toml": CAMPAIGN.replace("engaged", "bored"),
    })
    assert len(found) == 6, found


def test_who_refers_to_a_broken_segment_is_not_to_blame() -> None:
    found = mistakes({"segments/engaged.toml": "[when]\nsesion = {}"})
    assert len(found) == 1, found


def test_a_longer_circle_of_segments_is_shown_as_a_circle() -> None:
    found = mistakes({f"segments/{one}.toml": f"[when]\nin_segment = '{other}'" for one, other in ("ab", "bc", "ca")})
    assert any("a -> b -> c -> a" in problem for problem in found), found


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    folder_of(tmp_path, {"segments/a.toml": "#" * 300_000})
    with pytest.raises(PlaybookError, match="larger than 256 kB"):
        read(tmp_path)


# -- hot swap ------------------------------------------------------------------------------------------------------


@pytest.fixture
def watched(tmp_path: Path) -> tuple[Path, Watcher, Callable[[], Playbook | None]]:
    folder, clock = folder_of(tmp_path / "shop", GOOD), [0.0]
    watcher = Watcher(folder)
    watcher.first()

    def look() -> Playbook | None:
        for _ in range(3):
            clock[0] += 10.0
            if (found := watcher.poll(clock[0])) is not None:
                return found
        return None

    return folder, watcher, look


def rewrite(path: Path, text: str) -> None:
    """Write as editors do, and make sure that the file system's clock has moved."""
    before = path.stat().st_mtime_ns if path.exists() else 0
    path.write_text(text)
    os.utime(path, ns=(before + 1_000_000, before + 1_000_000))


def test_a_change_goes_live_and_nothing_else_does(watched: Any) -> None:
    folder, _, look = watched
    assert look() is None
    rewrite(folder / "campaigns/hello.toml", CAMPAIGN.replace("Hello", "Hallo"))
    changed = look()
    assert changed is not None
    assert changed.campaigns[0].content.default.title == "Hallo"
    assert look() is None


def test_touching_a_file_swaps_nothing(watched: Any) -> None:
    folder, _, look = watched
    rewrite(folder / "campaigns/hello.toml", "# only a comment\n" + CAMPAIGN)
    assert look() is None


def test_a_broken_folder_keeps_the_last_good_playbook_and_says_so_once(
        watched: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[Any] = []
    monkeypatch.setattr("connectors.playbook_folder.logger.warning", lambda *_, **words: said.append(words))
    folder, watcher, look = watched
    rewrite(folder / "campaigns/hello.toml", "format = ")
    assert look() is None
    assert look() is None
    assert len(said) == 1
    assert "campaigns/hello.toml, line 1" in str(watcher.problems[0])
    rewrite(folder / "campaigns/hello.toml", CAMPAIGN)
    assert look() is None, "it is what was live all the time"
    assert watcher.problems == ()


def test_files_that_come_and_go_count(watched: Any) -> None:
    folder, _, look = watched
    (folder / "segments/more.toml").write_text("[when]\ncart = { empty = true }")
    changed = look()
    assert changed is not None
    assert [one.name for one in changed.segments] == ["engaged", "more"]
    (folder / "segments/more.toml").unlink()
    changed = look()
    assert changed is not None
    assert [one.name for one in changed.segments] == ["engaged"]


def test_a_folder_that_vanishes_keeps_the_last_good_playbook(watched: Any) -> None:
    folder, watcher, look = watched
    shutil.rmtree(folder)
    assert look() is None
    assert "there is no such folder" in str(watcher.problems[0])


def locked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_folder_that_may_not_be_read_keeps_the_last_good_playbook(
        watched: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[Any] = []
    monkeypatch.setattr("connectors.playbook_folder.logger.warning", lambda *_, **words: said.append(words))
    folder, watcher, look = watched
    with monkeypatch.context() as patch:
        locked(folder / "campaigns", patch)
        assert look() is None
        assert [str(one) for one in watcher.problems] == ["campaigns: cannot be read: permission denied"]
        assert len(said) == 1
        with pytest.raises(PlaybookError, match="campaigns: cannot be read: permission denied"):
            Watcher(folder).first()
    assert look() is None, "it is what was live all the time"
    assert watcher.problems == ()


@pytest.mark.parametrize("part", ["", "segments", "scenarios"])
def test_check_names_the_folder_that_may_not_be_read(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    folder = folder_of(tmp_path / "shop", GOOD | {"scenarios/x.md": "# X"})
    locked(folder / part, monkeypatch)
    result = CliRunner().invoke(cli, ["check", str(folder)])
    assert result.exit_code == 2
    assert f"{part or folder}: cannot be read: permission denied" in result.output


def test_nobody_takes_a_folder_in_the_middle_of_writing(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, GOOD)
    watcher = Watcher(folder)
    watcher.first()
    for n in range(5):
        rewrite(folder / "campaigns/hello.toml", CAMPAIGN.replace("Hello", f"Hello {n}"))
        assert watcher.poll(n * 10.0 + 10.0) is None, "it was different at every look"
    changed = watcher.poll(100.0)
    assert changed is not None
    assert changed.campaigns[0].content.default.title == "Hello 4"


def test_looking_is_not_done_more_often_than_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watcher = Watcher(folder_of(tmp_path, GOOD), every=0.5)
    watcher.first()
    looks: list[Path] = []

    def look(folder: Path) -> tuple[()]:
        looks.append(folder)
        return ()

    monkeypatch.setattr("connectors.playbook_folder.signature", look)
    watcher.poll(10.0)
    watcher.poll(10.4)
    assert len(looks) == 1
