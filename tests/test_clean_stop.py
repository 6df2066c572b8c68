"""A clean stop under load: every effect is outside once, and there is no duplicate at all. What the processes of that
house say of themselves to Prometheus is what the log holds.
"""

import signal
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import msgspec
import pytest

from connectors import metrics
from connectors.scrape import Samples, scrape
from domain import action as actions
from domain import model as models
from domain import outcome as outcomes
from domain.effect import kind_of
from domain.model import Model
from domain.record import Outgoing
from domain.settings import Settings
from domain.streams import ACTIONS, LETTERS, MESSAGES, MODELS, OUTCOMES, PEOPLE, PUBLIC, REJECTS, SHARD_INPUT
from tests import whole_playbook
from tests.listening import Listener
from tests.support import free_port
from tests.system import House, house
from tests.test_crash import Crowd, check, settle
from tests.test_learning import planted

pytestmark = [pytest.mark.redis, pytest.mark.timeout(240)]
NAMES = ("outreach", "onsite", "learning", "edge")
ONCE = """
format = "banner"
valid_for = "10m"
trigger = { event = "Product Added" }
limits = { total = 1 }
content = { default = { title = "Only once" } }
"""
"""Beside the campaigns without limits one with: so that there is something to hold."""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[House]:
    shop = whole_playbook.write(tmp_path / "shop")
    (shop / "campaigns" / "once.toml").write_text(ONCE)
    ports = [metrics.port_of(Settings(metrics_port=1), name) - 1 for name in NAMES]
    with house(tmp_path / "data", shop, partitions=8, metrics_port=free_port(ports)) as made:
        yield made


def test_the_counters_are_what_the_log_holds_and_a_clean_stop_repeats_nothing(home: House, listener: Listener) -> None:
    for name in NAMES:
        home.start(name)
    crowd = Crowd(home, 7, listener)
    while not crowd.has(150):
        crowd.send(5)
    settle(home)
    home.wait(lambda: counted(home), "the counters are what the log holds")
    with crowd:
        for how in (signal.SIGTERM, signal.SIGINT):
            home.wait(partial(busy, home), "onsite is in the middle of it")
            home.running["onsite"].send_signal(how)
            assert home.died("onsite") == 0, home.logs()
            home.start("onsite")
        home.wait(partial(busy, home), "onsite goes on")
    check(home, crowd)
    for stream in (ACTIONS, LETTERS, MESSAGES, OUTCOMES):
        told = Counter(msgspec.json.decode(record.value)["id"] for record in home.records(stream))
        assert max(told.values()) == 1, f"{stream}: {told.most_common(3)}"
    assert max(listener.said.values()) == 1, listener.said.most_common(3)
    refused(home)
    learned(home)
    assert [home.stop(name) for name in NAMES] == [0] * len(NAMES)


def busy(home: House) -> bool:
    """Whether onsite has applied some of what this process of it found, and said something about it."""
    found = scrape(metrics.port_of(home.settings, "onsite")) or {}
    return all(found.get((f"attimo_{name}_seconds_count", ""), 0) > 20 for name in ("commit", "latency"))


def by_label(samples: Samples, metric: str) -> dict[str, float]:
    """A metric's values that are not zero, by its label."""
    return {label: value for (name, label), value in samples.items() if name == metric and value}


def counted(home: House) -> bool:
    """Whether onsite and edge have counted all that the log holds, since they began; they tell it twice a second."""
    onsite, edge = home.scraped("onsite"), home.scraped("edge")
    records = {stream: home.records(stream) for stream in (*SHARD_INPUT, ACTIONS, MESSAGES, OUTCOMES)}
    events = by_label(onsite, "attimo_events_total")
    if onsite["attimo_outbox", ""] or any(events.get(name, 0) != len(records[name]) for name in SHARD_INPUT):
        return False
    effects = Counter(kind_of(actions.decode(record.value)) for record in records[ACTIONS])
    kinds = Counter(kind for kind, _ in effects.elements())
    kinds |= {"letter": len(records[LETTERS]), "message": len(records[MESSAGES]), "outcome": len(records[OUTCOMES])}
    assert by_label(onsite, "attimo_effects_total") == kinds
    assert kinds.keys() >= {"send", "hold", "move", "progress", "letter", "message", "outcome"}
    assert by_label(onsite, "attimo_holds_total") == {why: n for (kind, why), n in effects.items() if kind == "hold"}
    assert onsite["attimo_latency_seconds_count", ""] == kinds["send"] + kinds["arm"] + kinds["disarm"]
    assert onsite["attimo_latency_seconds_sum", ""] > 0
    bounds = [float(label) for name, label in onsite if name == "attimo_latency_seconds_bucket"]
    assert (min(bounds), sorted(bounds)[-2:]) == (0.0005, [10.0, float("inf")])
    assert {label for name, label in onsite if name == "attimo_lag"} == {*SHARD_INPUT, MODELS}
    assert 0 < onsite["attimo_commit_seconds_count", ""] <= sum(events.values())
    accepted = by_label(edge, "attimo_edge_accepted_total")
    shops = [name for name in PUBLIC if name != PEOPLE]  # to `people` onsite and outreach write, too
    assert {name: accepted.get(name, 0) for name in shops} == {name: len(records[name]) for name in shops}
    assert by_label(edge, "attimo_edge_requests_total").keys() == {"ok"}
    assert 0 < edge["attimo_edge_append_seconds_count", ""] <= sum(accepted.values())
    return True


def refused(home: House) -> None:
    """What nobody can read is counted by its reason: by the edge that refuses it, and by onsite that sets it aside."""
    answer = home.post("/v1/batch", {"batch": [{"type": "page", "anonymousId": "a"}, {"type": "page"}]})
    assert answer["rejected"] == 1
    assert by_label(home.scraped("edge"), "attimo_edge_rejects_total") == {"no_person": 1}
    with home.log() as log:
        log.append([Outgoing("clicks", b"a", b"{broken"), Outgoing("clicks", b"a", b'{"type":"page"}')])
    home.wait(lambda: by_label(home.scraped("onsite"), "attimo_rejects_total") == {"unreadable": 1, "no_person": 1},
              "what cannot be read is counted", 10)
    assert len(home.records(REJECTS)) == 3


def learned(home: House) -> None:
    """The learner and who uses the model say how good it is, and how old."""
    known = len(home.records(OUTCOMES))
    with home.log() as log:
        log.append([Outgoing(OUTCOMES, b"x", outcomes.encode(one)) for one in planted(60, seed=5)])

    def latest() -> Model:
        return max((models.decode(record.value) for record in home.records(MODELS) if record.key == b"propensity"),
                   key=lambda model: model.version)

    home.wait(lambda: latest().quality.examples >= 60, f"60 outcomes are learned beside {known}")
    model = latest()
    expected = {"version": model.version, "examples": model.quality.examples, "positives": model.quality.positives,
                "roc_auc": model.quality.roc_auc, "log_loss": model.quality.log_loss,
                "base_log_loss": model.quality.base_log_loss, "drifts": model.quality.drifts}
    assert min(model.quality.positives, model.quality.log_loss, model.quality.base_log_loss) > 0
    for name in ("learning", "onsite"):
        def says(name: str = name) -> bool:
            found = home.scraped(name)
            shown = {what: found[f"attimo_model_{what}", ""] for what in expected}
            return shown == expected and 0 < found["attimo_model_age_seconds", ""] < 60

        home.wait(says, f"{name} shows the model", 10)
    assert home.scraped("learning")["attimo_lag", OUTCOMES] == 0
