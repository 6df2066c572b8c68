"""The dataflows as Bytewax sees them: their step ids are a storage format, and they open nothing before they run."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from bytewax.dataflow import Dataflow, Operator

from domain.settings import Settings
from flows import learning, onsite, outreach

GOLDEN = Path(__file__).parent / "golden"
FLOWS = pytest.mark.parametrize("flow", [onsite.flow, learning.flow, outreach.flow],
                                ids=["onsite", "learning", "outreach"])


def step_ids(flow: Dataflow) -> list[str]:
    """Every step id of a dataflow, nested ones too, in order."""

    def below(operators: Sequence[Operator]) -> list[str]:
        return [name for step in operators for name in [step.step_id, *below(step.substeps)]]

    return below(flow.substeps)


@FLOWS
def test_step_ids_are_the_golden_ones(flow: Callable[[Settings], Dataflow], tmp_path: Path) -> None:
    made = flow(Settings(data=str(tmp_path)))
    kept = (GOLDEN / f"{made.flow_id}.steps").read_text().split()
    assert step_ids(made) == kept, "a renamed step forgets its state: bless only with a migration"


@FLOWS
def test_a_flow_opens_nothing_until_it_runs(flow: Callable[[Settings], Dataflow], tmp_path: Path) -> None:
    flow(Settings(data=str(tmp_path / "data")))
    assert not (tmp_path / "data").exists()


def test_the_steps_are_in_the_order_of_the_design() -> None:
    names = [step.__module__.removeprefix("operators.") for step in onsite.STEPS]
    assert names == ["resolve_identity", "fold_profile", "score", "match_segments", "advance_workflows",
                     "choose_actions", "respect_limits"]
