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
from connectors.metrics import Samples, scrape
from domain import action as actions
from domain import action as outcomes
from domain import model as models
from domain.action import effect_kind
from domain.model import Model
from domain.record import (
    ACTIONS,
    DEAD_LETTERS,
    MESSAGES,
    MODELS,
    OUTCOMES,
    PEOPLE,
    PUBLIC_STREAMS,
    SHARD_INPUT_STREAMS,
    SHARD_MESSAGES,
    NewRecord,
)
from domain.settings import Settings
from tests.harness import full_playbook
from tests.harness.instance import RunningInstance, running_instance
from tests.harness.pubsub import RedisSubscriber
from tests.harness.support import free_port
from tests.operators.test_learn import planted_outcomes
from tests.system.test_crash import LoadGenerator, check_instance, wait_until_settled

pytestmark = [pytest.mark.redis, pytest.mark.timeout(240)]
NAMES = ("outreach", "onsite", "learning", "edge")
ONCE = """
format = "banner"
valid_for = "10m"
trigger = { event = "Product Added" }
frequency_caps = { total = 1 }
content = { default = { title = "Only once" } }
"""
"""A campaign with a cap, so that something is suppressed."""


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[RunningInstance]:
    shop = full_playbook.write_playbook(tmp_path / "shop")
    (shop / "campaigns" / "once.toml").write_text(ONCE)
    ports = [metrics.metrics_port(Settings(metrics_port=1), name) - 1 for name in NAMES]
    with running_instance(tmp_path / "data", shop, partitions=8, metrics_port=free_port(ports)) as made:
        yield made


def test_metrics_match_the_log_and_stop_repeats_nothing(instance: RunningInstance, subscriber: RedisSubscriber) -> None:
    for name in NAMES:
        instance.start(name)
    crowd = LoadGenerator(instance, 7, subscriber)
    while not crowd.has_accepted(150):
        crowd.send(5)
    wait_until_settled(instance)
    instance.wait_until(lambda: counters_match_log(instance), "the counters match the log")
    with crowd:
        for how in (signal.SIGTERM, signal.SIGINT):
            instance.wait_until(partial(is_busy, instance), "onsite is busy")
            instance.processes["onsite"].send_signal(how)
            assert instance.wait_for_exit("onsite") == 0, instance.logs()
            instance.start("onsite")
        instance.wait_until(partial(is_busy, instance), "onsite continues")
    check_instance(instance, crowd)
    for stream in (ACTIONS, SHARD_MESSAGES, MESSAGES, OUTCOMES):
        ids = Counter(msgspec.json.decode(record.value)["id"] for record in instance.records(stream))
        assert max(ids.values()) == 1, f"{stream}: {ids.most_common(3)}"
    assert max(subscriber.publish_counts.values()) == 1, subscriber.publish_counts.most_common(3)
    check_dead_letters(instance)
    check_learner_metrics(instance)
    assert [instance.stop(name) for name in NAMES] == [0] * len(NAMES)


def is_busy(instance: RunningInstance) -> bool:
    """Whether this onsite process has applied and published something."""
    found = scrape(metrics.metrics_port(instance.settings, "onsite")) or {}
    return all(
        found.get((f"attimo_{name}_seconds_count", ""), 0) > 20 for name in ("commit_duration", "publish_latency")
    )


def by_label(samples: Samples, metric: str) -> dict[str, float]:
    """The nonzero values of a metric by label."""
    return {label: value for (name, label), value in samples.items() if name == metric and value}


def counters_match_log(instance: RunningInstance) -> bool:
    """Whether the counters of onsite and edge match the log; they are updated twice a second."""
    onsite, edge = instance.scrape_metrics("onsite"), instance.scrape_metrics("edge")
    records = {stream: instance.records(stream) for stream in (*SHARD_INPUT_STREAMS, ACTIONS, MESSAGES, OUTCOMES)}
    events = by_label(onsite, "attimo_records_applied_total")
    if onsite["attimo_outbox_pending", ""] or any(
        events.get(name, 0) != len(records[name]) for name in SHARD_INPUT_STREAMS
    ):
        return False
    effects = Counter(effect_kind(actions.decode_action(record.value)) for record in records[ACTIONS])
    kinds = Counter(kind for kind, _ in effects.elements())
    kinds |= {
        "shard_message": len(records[SHARD_MESSAGES]),
        "message": len(records[MESSAGES]),
        "outcome": len(records[OUTCOMES]),
    }
    assert by_label(onsite, "attimo_effects_total") == kinds
    assert kinds.keys() >= {
        "send",
        "suppress",
        "segment_change",
        "workflow_progress",
        "shard_message",
        "message",
        "outcome",
    }
    assert by_label(onsite, "attimo_suppressed_total") == {
        reason: n for (kind, reason), n in effects.items() if kind == "suppress"
    }
    assert onsite["attimo_publish_latency_seconds_count", ""] == kinds["send"] + kinds["preload"] + kinds["cancel"]
    assert onsite["attimo_publish_latency_seconds_sum", ""] > 0
    bounds = [float(label) for name, label in onsite if name == "attimo_publish_latency_seconds_bucket"]
    assert (min(bounds), sorted(bounds)[-2:]) == (0.0005, [10.0, float("inf")])
    assert {label for name, label in onsite if name == "attimo_lag_records"} == {*SHARD_INPUT_STREAMS, MODELS}
    assert 0 < onsite["attimo_commit_duration_seconds_count", ""] <= sum(events.values())
    accepted = by_label(edge, "attimo_edge_events_accepted_total")
    shops = [name for name in PUBLIC_STREAMS if name != PEOPLE]  # onsite and outreach write to `people` too
    assert {name: accepted.get(name, 0) for name in shops} == {name: len(records[name]) for name in shops}
    assert by_label(edge, "attimo_edge_requests_total").keys() == {"ok"}
    assert 0 < edge["attimo_edge_append_duration_seconds_count", ""] <= sum(accepted.values())
    return True


def check_dead_letters(instance: RunningInstance) -> None:
    """Invalid events are counted by reason, by the edge and by onsite."""
    answer = instance.post("/v1/batch", {"batch": [{"type": "page", "anonymousId": "a"}, {"type": "page"}]})
    assert answer["rejected"] == 1
    assert by_label(instance.scrape_metrics("edge"), "attimo_edge_events_rejected_total") == {"missing_id": 1}
    with instance.open_log() as log:
        log.append([NewRecord("clicks", b"a", b"{broken"), NewRecord("clicks", b"a", b'{"type":"page"}')])
    instance.wait_until(
        lambda: (
            by_label(instance.scrape_metrics("onsite"), "attimo_dead_letters_total") == {"invalid": 1, "missing_id": 1}
        ),
        "the dead letters are counted",
        10,
    )
    assert len(instance.records(DEAD_LETTERS)) == 3


def check_learner_metrics(instance: RunningInstance) -> None:
    """Learning and onsite publish the quality and the age of the model."""
    known = len(instance.records(OUTCOMES))
    with instance.open_log() as log:
        log.append([NewRecord(OUTCOMES, b"x", outcomes.encode_outcome(one)) for one in planted_outcomes(60, seed=5)])

    def latest() -> Model:
        return max(
            (models.decode_model(record.value) for record in instance.records(MODELS) if record.key == b"propensity"),
            key=lambda model: model.version,
        )

    instance.wait_until(lambda: latest().quality.examples >= 60, f"60 outcomes are learned beside {known}")
    model = latest()
    expected = {
        "version": model.version,
        "examples": model.quality.examples,
        "positives": model.quality.positives,
        "roc_auc": model.quality.roc_auc,
        "log_loss": model.quality.log_loss,
        "base_log_loss": model.quality.base_log_loss,
        "drifts": model.quality.drifts,
    }
    assert min(model.quality.positives, model.quality.log_loss, model.quality.base_log_loss) > 0
    for name in ("learning", "onsite"):

        def shows_model(name: str = name) -> bool:
            found = instance.scrape_metrics(name)
            shown = {field: found[f"attimo_model_{field}", ""] for field in expected}
            return shown == expected and 0 < found["attimo_model_age_seconds", ""] < 60

        instance.wait_until(shows_model, f"{name} shows the model", 10)
    assert instance.scrape_metrics("learning")["attimo_lag_records", OUTCOMES] == 0
