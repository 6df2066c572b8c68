"""The on-site dataflow as Bytewax sees it: its step ids are a storage format, and it wires nothing on import."""

from collections.abc import Sequence
from pathlib import Path

from bytewax.dataflow import Dataflow, Operator

from domain.settings import Settings
from flows import onsite

GOLDEN = Path(__file__).parent / "golden" / "onsite.steps"


def step_ids(flow: Dataflow) -> list[str]:
    """Every step id of a dataflow, nested ones too, in order."""

    def below(operators: Sequence[Operator]) -> list[str]:
        return [name for step in operators for name in [step.step_id, *below(step.substeps)]]

    return below(flow.substeps)


def test_step_ids_are_the_golden_ones(tmp_path: Path) -> None:
    found = step_ids(onsite.flow(Settings(data=str(tmp_path))))
    assert found == GOLDEN.read_text().split(), "a renamed step forgets its state: bless only with a migration"


def test_the_flow_opens_nothing_until_it_runs(tmp_path: Path) -> None:
    onsite.flow(Settings(data=str(tmp_path / "data")))
    assert not (tmp_path / "data").exists()


def test_the_steps_are_in_the_order_of_the_design() -> None:
    names = [step.__module__.removeprefix("operators.") for step in onsite.STEPS]
    assert names == ["resolve_identity", "fold_profile", "score", "match_segments", "advance_workflows",
                     "choose_actions", "respect_limits"]
