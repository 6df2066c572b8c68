"""The steps that every input of a person passes through, in order: event, timer or shard message."""

from collections.abc import Sequence

from operators import (
    advance_workflows,
    decide,
    match_segments,
    resolve_identity,
    score,
    select_campaigns,
    update_profile,
)
from state.context import StepFunction

STEPS: Sequence[StepFunction] = (
    resolve_identity.step,  # merge ids that belong to one person
    update_profile.step,  # update the profile, the session and the counters
    score.step,  # score the session with the model
    match_segments.step,  # enter and exit segments
    advance_workflows.step,  # start, advance and end workflow runs
    select_campaigns.step,  # select candidate campaigns
    decide.step,  # send, preload or suppress them
)
