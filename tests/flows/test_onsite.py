"""Tests of the dataflows: their step ids are a storage format, and building them opens nothing."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from bytewax.dataflow import Dataflow, Operator

from domain.settings import Settings
from flows import learning, onsite, outreach
from operators.steps import STEPS
from tests.harness.support import ROOT

GOLDEN = ROOT / "tests" / "golden"
FLOWS = pytest.mark.parametrize(
    "flow", [onsite.flow, learning.flow, outreach.flow], ids=["onsite", "learning", "outreach"]
)


def flow_step_ids(flow: Dataflow) -> list[str]:
    """All step ids of a dataflow in order, with nested ones."""

    def step_ids(operators: Sequence[Operator]) -> list[str]:
        return [name for step in operators for name in [step.step_id, *step_ids(step.substeps)]]

    return step_ids(flow.substeps)


@FLOWS
def test_step_ids_match_the_golden_files(flow: Callable[[Settings], Dataflow], tmp_path: Path) -> None:
    made = flow(Settings(data=str(tmp_path)))
    expected = (GOLDEN / f"{made.flow_id}.steps").read_text().split()
    assert flow_step_ids(made) == expected, "a renamed step loses its state: update the file only with a migration"


@FLOWS
def test_building_a_flow_opens_nothing(flow: Callable[[Settings], Dataflow], tmp_path: Path) -> None:
    flow(Settings(data=str(tmp_path / "data")))
    assert not (tmp_path / "data").exists()


def test_operators_are_in_design_order() -> None:
    names = [step.__module__.removeprefix("operators.") for step in STEPS]
    assert names == [
        "resolve_identity",
        "update_profile",
        "score",
        "match_segments",
        "advance_workflows",
        "select_campaigns",
        "decide",
    ]
