"""The command line: what it refuses, it refuses in one line, and it never shows a secret."""

import io
import tomllib
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from attimo import cli, share_of
from connectors.ingest import LONGEST
from connectors.ingest_file import lines
from connectors.open_log import open_log
from domain import message as messages
from domain.action import Because, Hold, encode
from domain.message import Message
from domain.partition import partition_of
from domain.record import Outgoing
from domain.settings import Settings
from state import codec
from state.person import Cart, CartItem, Decision, Facts, Person, routing_key
from state.store import Batch
from state.store_sqlite import SqliteStore
from tests.support import ROOT


def said(*words: str, **environment: str) -> Result:
    return CliRunner().invoke(cli, words, env=environment, prog_name="attimo")


def test_settings_in_force_and_where_they_came_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "attimo.toml").write_text('shop = "moda"\nport = 1\n')
    result = said("settings", "--port", "9000", "--set", "origins=https://a.example,https://b.example",
                  "--redis", "redis://ann:hidden@cache.example/0", ATTIMO_PLAYBOOK="mine", ATTIMO_SECRET="hidden")
    rows = {line.split()[0]: line.split()[1:] for line in result.stdout.splitlines()}
    assert result.exit_code == 0
    assert rows["shop"] == ["moda", "attimo.toml"]
    assert rows["port"] == ["9000", "option"]
    assert rows["origins"] == ["https://a.example,https://b.example", "option"]
    assert rows["playbook"] == ["mine", "ATTIMO_PLAYBOOK"]
    assert rows["secret"] == ["(set)", "ATTIMO_SECRET"]
    assert rows["partitions"] == ["64", "default"]
    assert "hidden" not in result.stdout


@pytest.mark.parametrize(("words", "line"), [
    (("settings", "--port", "many"), "attimo: option: Expected `int`, got `str` - at `$.port`"),
    (("settings", "--set", "prot=1"), "attimo: option: Object contains unknown field `prot`"),
    (("settings", "--set", "secret=x"), "attimo: secret: a secret is read from the environment only (ATTIMO_SECRET)"),
    (("run", "edge", "--set", "prot=1"), "attimo: option: Object contains unknown field `prot`"),
    (("topics", "create"), "attimo: log: sqlite makes its streams by itself; topics are for --log kafka://host:9092"),
    (("top", "--data", "none"), "attimo: data: there is no log in none/; start with `attimo up`, or name its --data"),
    (("explain", "ann", "--data", "none"),
     "attimo: data: nobody is known in none/ yet (none/store/store.db is not there)"),
])
def test_what_cannot_be_done_is_said_in_one_line(
    words: tuple[str, ...], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    result = said(*words)
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [line]
    assert not list(tmp_path.iterdir()), "a refusal leaves nothing behind"


def test_explain_finds_who_is_meant_and_says_what_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = SqliteStore(tmp_path / "data" / "store" / "store.db", 64)
    store.claim(range(64), "test")
    ann = Person("u:ann", facets={"u:ann": Facts(version=1, pages=3)})
    ann.decisions["exit_offer"] = Decision(at=1_600_000_000_000, kind="hold", reason="limit")
    browser = Person("a:phone", alias_of="u:ann")
    batch = Batch()
    for person in (ann, browser):
        batch.persons[partition_of(routing_key(person.id), 64), person.id] = codec.encode(person)
    store.commit(batch, [])
    store.close()
    for name in ("ann", "u:ann", "phone", "a:phone"):
        result = said("explain", name)
        assert result.exit_code == 0
        assert "u:ann" in result.stdout
        assert "exit_offer" in result.stdout
    about = said("explain", "ann", "exit_offer").stdout
    assert "exit_offer" in about
    assert len(about) < len(said("explain", "ann").stdout)
    nobody = said("explain", "bob")
    assert (nobody.exit_code, nobody.stderr) == (2, "attimo: nobody is known as bob\n")


@pytest.mark.parametrize(("currency", "amount"), [("EUR", "18.00 EUR"), ("JPY", "1800 JPY"), ("", "18.00")])
def test_explain_says_amounts_in_the_shops_currency(
    currency: str, amount: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    if currency:
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "shop.toml").write_text(f'currency = "{currency}"\n')
    store = SqliteStore(tmp_path / "data" / "store" / "store.db", 64)
    store.claim(range(64), "test")
    ann = Person("u:ann", facets={"u:ann": Facts(version=1)}, cart=Cart(items={"mug": CartItem(1, 1800)}))
    batch = Batch()
    batch.persons[partition_of(routing_key(ann.id), 64), ann.id] = codec.encode(ann)
    store.commit(batch, [])
    store.close()
    lines = said("explain", "ann", "--playbook", "mine").stdout.splitlines()
    assert f"  cart            1 product, {amount}" in lines


def test_explain_takes_the_variant_and_the_playbook_from_the_log(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = SqliteStore(tmp_path / "data" / "store" / "store.db", 64)
    store.claim(range(64), "test")
    ann = Person("u:ann", facets={"u:ann": Facts(version=1)})
    ann.decisions["letter"] = Decision(at=5, kind="send", reason="workflow", action_id="m")
    ann.decisions["offer"] = Decision(at=7, kind="hold", reason="limit")
    batch = Batch()
    batch.persons[partition_of(routing_key(ann.id), 64), ann.id] = codec.encode(ann)
    store.commit(batch, [])
    store.close()
    assert "playbook" not in said("explain", "ann", "letter").stdout
    assert not (tmp_path / "data" / "log").exists(), "looking makes no log"
    because = Because(variant="short", propensity=0.45, playbook="5d2f9ac0")
    letter = Message(id="m", at=5, person="u:ann", channel="email", campaign="letter", content_key="k", not_before=1,
                     not_after=2, because=because)
    held = Hold(id="h", at=7, person="u:ann", campaign="offer", because=Because(playbook="77777777"))
    with open_log(Settings(data="data")) as log:
        log.append([Outgoing("messages", b"ann", messages.encode(letter)), Outgoing("actions", b"ann", encode(held)),
                    Outgoing("actions", b"ann", b"of another version")])
    assert "with variant short, a side that 45.0% get, playbook 5d2f9ac0" in said("explain", "ann", "letter").stdout
    assert "with playbook 77777777" in said("explain", "ann").stdout


def test_check_says_everything_that_is_wrong(tmp_path: Path) -> None:
    campaigns = tmp_path / "campaigns"
    campaigns.mkdir()
    (campaigns / "exit.toml").write_text('name = "other"\nfoo = 1\n')
    result = said("check", str(tmp_path))
    assert result.exit_code == 2
    assert "campaigns/exit.toml, line 1, name: " in result.stdout
    assert "campaigns/exit.toml, line 2, foo: " in result.stdout
    found = len(result.stdout.splitlines())
    assert result.stderr == f"attimo: {tmp_path}: {found} to put right; what is live stays live\n"


def test_check_finds_nothing_wrong_with_the_example_shop() -> None:
    result = said("check", str(ROOT / "shop"))
    assert (result.exit_code, result.stderr) == (0, ""), result.stdout
    assert "nothing is wrong" in result.stdout


def test_a_broken_attimo_toml_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "attimo.toml").write_text("port =")
    result = said("settings")
    assert result.exit_code == 2
    assert result.stderr.startswith("attimo: attimo.toml: ")


def test_shares_of_workers() -> None:
    assert share_of("0/1") == (0, 1)
    for wrong in ("1", "1/1", "-1/2", "a/b", "1/", "/1"):
        with pytest.raises(click.UsageError, match="I/N"):
            share_of(wrong)


def test_the_version_is_the_declared_one() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    assert said("--version").stdout == f"attimo {declared}\n"


def test_ingest_reads_a_file_and_standard_input_and_says_what_it_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    good = b'{"type":"track","event":"Product Added","anonymousId":"a"}\n'
    (tmp_path / "day.jsonl").write_bytes(good * 3)
    assert said("ingest", "day.jsonl").stdout == "3 events taken (carts 3), none rejected\n"
    result = CliRunner().invoke(cli, ["ingest", "-"], input=good + b"{broken\n")
    assert result.exit_code == 1
    assert result.stdout.startswith("1 events taken (carts 1), 1 rejected\n  line 2: ")
    with open_log(Settings(data="data")) as log:
        places = [("carts", partition) for partition in range(64)]
        assert len(log.reader(places, {}).poll(100, 0.0)) == 4


def test_ingest_reads_receipts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "till.csv").write_text("receipt,what\n1,tea\n")
    result = said("ingest", "till.csv", "--receipts")
    assert result.exit_code == 2
    assert "no column" in result.stderr


def test_a_line_without_an_end_does_not_fill_the_memory() -> None:
    endless = io.BytesIO(b"x" * (3 * LONGEST) + b"\nnext\n")
    assert [len(line) for line in lines(endless)] == [LONGEST + 1, 5]
