"""Tests of the command line: errors take one line, and secrets are never printed."""

import io
import tomllib
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from attimo import cli, parse_worker
from connectors.ingest.command import read_lines
from connectors.ingest.jsonl import MAX_LINE_BYTES
from connectors.log.open import open_log
from domain import action as messages
from domain.action import Explanation, Message, Suppress, encode_action
from domain.record import NewRecord, partition_of
from domain.settings import Settings
from state.person import codec
from state.person.model import Cart, CartItem, Decision, Person, ProfileFragment, routing_key
from state.store.sqlite import SqliteStore
from state.store.store import WriteBatch
from tests.harness.support import ROOT


def run_command(*words: str, **environment: str) -> Result:
    return CliRunner().invoke(cli, words, env=environment, prog_name="attimo")


def test_settings_command_lists_values_and_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "attimo.toml").write_text('shop = "moda"\nport = 1\n')
    result = run_command(
        "settings",
        "--port",
        "9000",
        "--set",
        "allowed_origins=https://a.example,https://b.example",
        "--redis",
        "redis://ann:hidden@cache.example/0",
        ATTIMO_PLAYBOOK="mine",
        ATTIMO_SECRET="hidden",
    )
    rows = {line.split()[0]: line.split()[1:] for line in result.stdout.splitlines()}
    assert result.exit_code == 0
    assert rows["shop"] == ["moda", "attimo.toml"]
    assert rows["port"] == ["9000", "option"]
    assert rows["allowed_origins"] == ["https://a.example,https://b.example", "option"]
    assert rows["playbook"] == ["mine", "ATTIMO_PLAYBOOK"]
    assert rows["secret"] == ["(set)", "ATTIMO_SECRET"]
    assert rows["partitions"] == ["64", "default"]
    assert "hidden" not in result.stdout


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("settings", "--port", "many"), "attimo: option: Expected `int`, got `str` - at `$.port`"),
        (("settings", "--set", "prot=1"), "attimo: option: Object contains unknown field `prot`"),
        (
            ("settings", "--set", "secret=x"),
            "attimo: secret: a secret is read only from the environment (ATTIMO_SECRET)",
        ),
        (("run", "edge", "--set", "prot=1"), "attimo: option: Object contains unknown field `prot`"),
        (("topics", "create"), "attimo: log: sqlite needs no topics; this command is for --log kafka://host:9092"),
        (("top", "--data", "none"), "attimo: data: no log in none/; run `attimo up` first, or set --data"),
        (
            ("explain", "ann", "--data", "none"),
            "attimo: data: no people in none/ yet (none/store/store.db does not exist)",
        ),
    ],
)
def test_refused_commands_print_one_line(
    words: tuple[str, ...], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run_command(*words)
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [line]
    assert not list(tmp_path.iterdir()), "an error creates no files"


def test_explain_finds_a_person_and_prints_the_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = SqliteStore(tmp_path / "data" / "store" / "store.db", 64)
    store.claim(range(64), "test")
    ann = Person("u:ann", fragments={"u:ann": ProfileFragment(version=1, pages=3)})
    ann.decisions["exit_offer"] = Decision(at=1_600_000_000_000, kind="suppress", reason="campaign_cap")
    browser = Person("a:phone", merged_into="u:ann")
    batch = WriteBatch()
    for person in (ann, browser):
        batch.persons[partition_of(routing_key(person.id), 64), person.id] = codec.encode(person)
    store.commit(batch, [])
    store.close()
    for name in ("ann", "u:ann", "phone", "a:phone"):
        result = run_command("explain", name)
        assert result.exit_code == 0
        assert "u:ann" in result.stdout
        assert "exit_offer" in result.stdout
    page = run_command("explain", "ann", "exit_offer").stdout
    assert "exit_offer" in page
    assert len(page) < len(run_command("explain", "ann").stdout)
    unknown = run_command("explain", "bob")
    assert (unknown.exit_code, unknown.stderr) == (2, "attimo: bob: no person has this id\n")


@pytest.mark.parametrize(("currency", "amount"), [("EUR", "18.00 EUR"), ("JPY", "1800 JPY"), ("", "18.00")])
def test_explain_prints_amounts_in_the_shop_currency(
    currency: str, amount: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if currency:
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "shop.toml").write_text(f'currency = "{currency}"\n')
    store = SqliteStore(tmp_path / "data" / "store" / "store.db", 64)
    store.claim(range(64), "test")
    ann = Person("u:ann", fragments={"u:ann": ProfileFragment(version=1)}, cart=Cart(items={"mug": CartItem(1, 1800)}))
    batch = WriteBatch()
    batch.persons[partition_of(routing_key(ann.id), 64), ann.id] = codec.encode(ann)
    store.commit(batch, [])
    store.close()
    lines = run_command("explain", "ann", "--playbook", "mine").stdout.splitlines()
    assert f"  cart            1 product, {amount}" in lines


def test_explain_reads_variant_and_playbook_from_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = SqliteStore(tmp_path / "data" / "store" / "store.db", 64)
    store.claim(range(64), "test")
    ann = Person("u:ann", fragments={"u:ann": ProfileFragment(version=1)})
    ann.decisions["newsletter"] = Decision(at=5, kind="send", reason="workflow", action_id="m")
    ann.decisions["offer"] = Decision(at=7, kind="suppress", reason="campaign_cap")
    batch = WriteBatch()
    batch.persons[partition_of(routing_key(ann.id), 64), ann.id] = codec.encode(ann)
    store.commit(batch, [])
    store.close()
    assert "playbook" not in run_command("explain", "ann", "newsletter").stdout
    assert not (tmp_path / "data" / "log").exists(), "reading creates no log"
    because = Explanation(variant="short", propensity=0.45, playbook="5d2f9ac0")
    message = Message(
        id="m",
        at=5,
        person="u:ann",
        channel="email",
        campaign="newsletter",
        content_key="k",
        not_before=1,
        not_after=2,
        because=because,
    )
    suppress = Suppress(id="h", at=7, person="u:ann", campaign="offer", because=Explanation(playbook="77777777"))
    with open_log(Settings(data="data")) as log:
        log.append(
            [
                NewRecord("messages", b"ann", messages.encode_message(message)),
                NewRecord("actions", b"ann", encode_action(suppress)),
                NewRecord("actions", b"ann", b"of another version"),
            ]
        )
    page = run_command("explain", "ann", "newsletter").stdout
    assert "with variant short, assigned with probability 45.0%, playbook 5d2f9ac0" in page
    assert "with playbook 77777777" in run_command("explain", "ann").stdout


def test_check_lists_all_errors(tmp_path: Path) -> None:
    campaigns = tmp_path / "campaigns"
    campaigns.mkdir()
    (campaigns / "exit.toml").write_text('name = "other"\nfoo = 1\n')
    result = run_command("check", str(tmp_path))
    assert result.exit_code == 2
    assert "campaigns/exit.toml, line 1, name: " in result.stdout
    assert "campaigns/exit.toml, line 2, foo: " in result.stdout
    count = len(result.stdout.splitlines())
    assert result.stderr == f"attimo: {tmp_path}: {count} errors. The last valid playbook stays live.\n"


def test_check_accepts_the_example_shop() -> None:
    result = run_command("check", str(ROOT / "shop"))
    assert (result.exit_code, result.stderr) == (0, ""), result.stdout
    assert "no errors" in result.stdout


def test_broken_attimo_toml_is_named_in_the_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "attimo.toml").write_text("port =")
    result = run_command("settings")
    assert result.exit_code == 2
    assert result.stderr.startswith("attimo: attimo.toml: ")


def test_worker_share_option() -> None:
    assert parse_worker("0/1") == (0, 1)
    for invalid in ("1", "1/1", "-1/2", "a/b", "1/", "/1"):
        with pytest.raises(click.UsageError, match="I/N"):
            parse_worker(invalid)


def test_version_matches_pyproject() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    assert run_command("--version").stdout == f"attimo {declared}\n"


def test_ingest_reads_files_and_stdin_and_lists_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    good = b'{"type":"track","event":"Product Added","anonymousId":"a"}\n'
    (tmp_path / "day.jsonl").write_bytes(good * 3)
    assert run_command("ingest", "day.jsonl").stdout == "3 events accepted (carts 3), 0 rejected\n"
    result = CliRunner().invoke(cli, ["ingest", "-"], input=good + b"{broken\n")
    assert result.exit_code == 1
    assert result.stdout.startswith("1 events accepted (carts 1), 1 rejected\n  line 2: ")
    with open_log(Settings(data="data")) as log:
        places = [("carts", partition) for partition in range(64)]
        assert len(log.reader(places, {}).poll(100, 0.0)) == 4


def test_ingest_reads_receipts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "till.csv").write_text("receipt,what\n1,tea\n")
    result = run_command("ingest", "till.csv", "--receipts")
    assert result.exit_code == 2
    assert "no column" in result.stderr


def test_endless_line_is_truncated() -> None:
    endless = io.BytesIO(b"x" * (3 * MAX_LINE_BYTES) + b"\nnext\n")
    assert [len(line) for line in read_lines(endless)] == [MAX_LINE_BYTES + 1, 5]
