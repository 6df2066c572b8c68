"""The next look: for what somebody will be looked at again, in plain words, from the name of a timer of theirs.

>>> person = Person(id="a:x", hopes=[Hope("exit_offer", "clicks-3-7", 5, 9)])
>>> in_words("hope:clicks-3-7", person), in_words("segment:asleep", person), in_words("untag:vip", person)
('the goal of exit_offer can be reached until then', 'time may change whether they are in asleep', 'vip ends')
"""

from collections.abc import Callable

from state.person import Hope, Person, Reserved

_WORDS: dict[str, Callable[[str, Person], str]] = {
    "again": lambda about, person: "something follows at once",
    "arm": lambda about, person: "time may change what the browser holds ready",
    "coupon": lambda about, person: f"the coupon {about} ends, if it is not used",
    "hope": lambda about, person: f"the goal of {_of(person.hopes, about)} can be reached until then",
    "later": lambda about, person: f"{about} is decided",
    "reserved": lambda about, person: f"{_of(person.reserved, about)} is given up, if it was not shown",
    "rfm": lambda about, person: "their class of recency changes",
    "seconds": lambda about, person: "something may be said because of the time spent here",
    "segment": lambda about, person: f"time may change whether they are in {about}",
    "session_end": lambda about, person: "their visit ends, if nothing more happens",
    "untag": lambda about, person: f"{about} ends",
    "workflow": lambda about, person: f"{_flow(about, person)} goes on",
}


def in_words(timer: str, person: Person) -> str:
    """What comes when this timer of the person is due; the timer itself when nothing is known of its kind."""
    kind, _, about = timer.partition(":")
    say = _WORDS.get(kind)
    return say(about, person) if say is not None else timer


def _of(some: list[Hope] | list[Reserved], action_id: str) -> str:
    return next((one.campaign for one in some if one.action_id == action_id), "something said")


def _flow(run: str, person: Person) -> str:
    found = person.runs.get(run)
    return f"the workflow {found.workflow}" if found is not None else "a workflow"
