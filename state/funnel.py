"""The funnel: how far a person has come. Each stage of `shop.toml` is a segment of its own, `funnel_NAME`.

A person is in the furthest stage whose condition holds, and in no other: stage by stage from the last one, "its
condition holds, and they are in none of the later ones". So stages are dynamic segments like any other, exact in time
like any other, and whoever moves leaves one stage and enters the next in one happening.
"""

from domain.condition import Condition
from domain.playbook import Playbook
from domain.segment import Segment
from domain.shop import Stage
from state.person import Person

PREFIX = "funnel_"


def segments_of(playbook: Playbook) -> tuple[Segment, ...]:
    """All segments of a playbook, the stages of its funnel included.

    ValueError when a segment has the name that belongs to a stage.
    """
    stages = stages_of(playbook.shop.funnel)
    if not stages:
        return playbook.segments
    taken = {stage.name for stage in stages} & {segment.name for segment in playbook.segments}
    if taken:
        raise ValueError(f"a segment is called {min(taken)}: that is the name of a stage of the funnel")
    return (*playbook.segments, *stages)


def stages_of(funnel: tuple[Stage, ...]) -> tuple[Segment, ...]:
    """The stages as segments, the last one first.

    >>> first, last = Stage("looking", Condition()), Stage("buying", Condition())
    >>> [(one.name, one.when.not_ and one.when.not_.in_segment) for one in stages_of((first, last))]
    [('funnel_buying', None), ('funnel_looking', ('funnel_buying',))]
    """
    found: list[Segment] = []
    for stage in reversed(funnel):
        later = tuple(one.name for one in found)
        when = Condition(all=(stage.when,), not_=Condition(in_segment=later)) if later else stage.when
        found.append(Segment(PREFIX + stage.name, when, stage.description))
    return tuple(found)


def stage_of(person: Person) -> str:
    """The stage a person is at; empty for none.

    >>> stage_of(Person(id="u:ann", segments={"vip": 5, "funnel_buying": 5}))
    'buying'
    """
    return next((name[len(PREFIX):] for name in person.segments if name.startswith(PREFIX)), "")
