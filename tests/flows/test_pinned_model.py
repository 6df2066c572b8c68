"""A pinned model reports its quality; without a time of its own it reports no age."""

from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from connectors import metrics
from domain import model as models
from domain.model import Model, ModelQuality
from domain.settings import Settings
from flows.worker import Worker
from operators.steps import STEPS


@pytest.mark.parametrize(("at", "age"), [(0, 7.0), (40_000, 60.0)])
def test_pinned_model_reports_quality_and_no_age(tmp_path: Path, at: int, age: float) -> None:
    metrics.set_model_metrics(Model("propensity", 0, "", {}))
    metrics.MODEL_AGE.set(7)
    shop, pinned = tmp_path / "shop", tmp_path / "model.json"
    shop.mkdir()
    (shop / "shop.toml").write_text("")
    pinned.write_bytes(
        models.encode_model(Model("propensity", 4, "h", {}, at=at, quality=ModelQuality(40, 4, roc_auc=0.75)))
    )
    worker = Worker(
        Settings(data=str(tmp_path), playbook=str(shop), redis="unix:///nowhere", pinned_model=str(pinned)),
        STEPS,
        clock=lambda: 100_000,
    )
    worker.claim_partitions([0])
    reader = worker.reader([0])
    worker.read(reader, [0])
    try:
        shown = {
            name: REGISTRY.get_sample_value(f"attimo_model_{name}")
            for name in ("version", "examples", "roc_auc", "age_seconds")
        }
        assert shown == {"version": 4, "examples": 40, "roc_auc": 0.75, "age_seconds": age}
    finally:
        metrics.set_model_metrics(Model("propensity", 0, "", {}))
        reader.close()
        worker.store.close()
        worker.log.close()
