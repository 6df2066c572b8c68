"""Derived state: values computed from a person, kept beside them while they are in memory.

`person.derived` is never stored. Every value can be computed again from the person, the playbook and the models, so a
reload, a merge or a rollback drops it without changing a result.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from domain.model import Model
    from state.decisions.eligibility import EligibilityCache
    from state.person.model import ProfileFragment

Failure = tuple[Any, str, str]
"""(what it was tried with, reason, detail). The reason is "" if it did not fail."""


class DerivedState:
    """The cached values of one person.

    - `profile`: the merged profile, valid for `profile_stamp` (`state/profile/profile.py`).
    - `observed`: what conditions last saw; None: nothing yet (`state/membership/changes.py`).
    - `quintiles`: the model by which the RFM cell was computed (`state/membership/rfm.py`).
    - `eligibility`: the campaigns whose condition is true (`state/decisions/eligibility.py`).
    - `failed_preloads`: by campaign, the failure for a content fingerprint (`operators/select_campaigns.py`).
    - `dry_runs`: by campaign, the result of rendering with a placeholder code (`operators/compose.py`).
    """

    __slots__ = ("dry_runs", "eligibility", "failed_preloads", "observed", "profile", "profile_stamp", "quintiles")

    def __init__(self) -> None:
        self.profile: ProfileFragment | None = None
        self.profile_stamp = -1
        self.observed: tuple[Any, ...] | None = None
        self.quintiles: Model | None = None
        self.eligibility: EligibilityCache | None = None
        self.failed_preloads: dict[str, Failure] = {}
        self.dry_runs: dict[str, Failure] = {}
