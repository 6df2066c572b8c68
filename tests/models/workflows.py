"""Workflows read naively: second by second, every run and every condition asked anew, nothing remembered but the facts.

Times are whole seconds after the beginning. `Twin.live` plays a history and returns what each run said, run by run.
"""

from datetime import datetime
from hashlib import blake2b
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

T0 = 1_700_000_000
HORIZON = 420
EVENTS = ("Cart Viewed", "Exit Intent", "Product Viewed")
RECENTLY = {"did": {"event": "Product Viewed", "within": "40s"}}

RunLog = list[tuple[int, str]]


class WorkflowModel:
    """One person in a shop with one workflow. A send goes through by the number of events so far; of two runs that ask
    for the same in one go, the first asks for both, and the other one is held.
    """

    def __init__(self, workflow: dict[str, Any], change: tuple[int, dict[str, Any]] | None = None) -> None:
        self.workflow, self.change = workflow, change
        self.events: list[tuple[int, str, str]] = []
        self.traits: dict[str, Any] = {}
        self.tags: set[str] = set()
        self.split_branches: dict[str, str] = {}
        self.runs: list[dict[str, Any]] = []
        self.run_logs: list[RunLog] = []
        self.exited_at: int | None = None
        self.send_requested = False
        self.now = 0

    def run(self, history: list[tuple[int, str, str]]) -> list[RunLog]:
        for self.now in range(HORIZON):
            self.settle()
            if self.change is not None and self.change[0] == self.now:
                self.switch_version(self.change[1])
                self.settle()
            for at, name, kind in history:
                if at == self.now:
                    self.events.append((at, name, kind))
                    self.evaluate((name, kind))
                    self.enter(name, kind)
                    self.settle()
        return self.run_logs

    # -- conditions --------------------------------------------------------------------------------------------

    def is_true(self, condition: dict[str, Any]) -> bool:
        return all(self.predicate_value(word, what) for word, what in condition.items())

    def predicate_value(self, field: str, expected: Any) -> bool:
        if field == "not":
            return not self.is_true(expected)
        if field == "in_segment":
            return self.is_true(RECENTLY) if expected == "lately" else expected in self.tags
        if field == "has":
            return all(self.traits.get(name) == value for name, value in expected["trait"].items())
        assert field == "did"
        times = [at for at, name, _ in self.events if name == expected["event"]]
        if "within" in expected:
            return any(self.now - at < int(expected["within"][:-1]) for at in times)
        return len(times) >= int(expected.get("at_least", 1))

    # -- one instant -------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Look until nothing moves any more."""
        before = None
        while before != (state := repr((self.runs, self.run_logs, self.tags, self.traits))):
            before = state
            self.evaluate(None)

    def evaluate(self, event: tuple[str, str] | None) -> None:
        self.send_requested = False
        for run in self.runs_by_age():
            flow = run["flow"]
            if event is not None and event[0] in flow.get("exit_on", ()):
                self.exit(run, f'exited {run["at"]} event "{event[0]}"')
            elif self.must_exit(flow):
                self.exit(run, f"exited {run['at']} exit_when")
            elif (go := self.next_step(run, event)) is not None:
                self.go_to(run, go)

    def runs_by_age(self) -> list[dict[str, Any]]:
        """All runs, the one that began first first; of those that began at one instant by name."""
        return sorted(self.runs, key=lambda run: (run["began"], run["name"]))

    def must_exit(self, flow: dict[str, Any]) -> bool:
        return "exit_when" in flow and self.is_true(flow["exit_when"])

    def next_step(self, run: dict[str, Any], event: tuple[str, str] | None) -> str | None:
        step, onward = self.current_step(run)
        up = run["until"] is not None and self.now >= run["until"]
        if "wait" in step or "wait_until" in step:
            return onward if up else None
        if "send" in step:
            if run["went"] is None and not up:
                self.request_send(run, step)
                return None
            return onward if run["went"] else str(step.get("else", onward))
        what = step["wait_for"]
        if (
            "event" in what
            and event is not None
            and event[0] == what["event"]
            and (what.get("where", {}).get("kind") in (None, event[1]))
        ):
            return str(what.get("then", onward))
        if "when" in what and self.is_true(what["when"]):
            return str(what.get("then", onward))
        return str(what.get("else", onward)) if up else None

    def request_send(self, run: dict[str, Any], step: dict[str, Any]) -> None:
        """What becomes of it moves them on in the next go, at the same instant."""
        ok, self.send_requested = not self.send_requested and len(self.events) % 3 == 0, True
        run["went"] = True if ok else None if "timeout" in step else False

    def current_step(self, run: dict[str, Any]) -> tuple[dict[str, Any], str]:
        steps = run["flow"]["steps"]
        n = next(n for n, step in enumerate(steps) if step["id"] == run["at"])
        return steps[n], str(steps[n].get("goto", steps[n + 1]["id"] if n + 1 < len(steps) else ""))

    def go_to(self, run: dict[str, Any], step_id: str | None) -> None:
        while step_id is not None:
            if not step_id:
                self.exit(run, f"finished {run['at']}")
                return
            run["at"], run["since"], run["until"], run["went"] = step_id, self.now, None, None
            if self.must_exit(run["flow"]):
                self.exit(run, f"exited {step_id} exit_when")
                return
            step_id = self.enter_step(run)
        run["said"].append((self.now, f"step {run['at']}"))

    def enter_step(self, run: dict[str, Any]) -> str | None:
        step, onward = self.current_step(run)
        if "exit" in step:
            return ""
        if "wait" in step or "wait_until" in step or "wait_for" in step or "send" in step:
            self.start_wait(run)
            if "send" not in step:
                return self.next_step(run, None)
            self.request_send(run, step)
            return None
        for way in step.get("branch", ()):
            if self.is_true(way["when"]):
                return str(way["goto"])
        if "split" in step:
            return self.split_branch(step)
        if "add_to_segment" in step:
            self.tags.add(step["add_to_segment"])
        if "remove_from_segment" in step:
            self.tags.discard(step["remove_from_segment"])
        self.traits.update(step.get("set_traits", {}))
        if "goal" in step:
            run["said"].append((self.now, f"goal {step['goal']}"))
        return onward

    def start_wait(self, run: dict[str, Any]) -> None:
        step, _ = self.current_step(run)
        since = run["since"]
        if "wait_until" in step:
            since += -(T0 + since) % 60  # the clocks of Rome show whole minutes when everybody's do
            while f"{datetime.fromtimestamp(T0 + since, ZoneInfo('Europe/Rome')):%H:%M}" != step["wait_until"]["time"]:
                since += 60
            run["until"] = since
            return
        span = step.get("wait") or step.get("timeout") or step.get("wait_for", {}).get("timeout")
        run["until"] = since + int(span[:-1]) if span else None

    def split_branch(self, step: dict[str, Any]) -> str:
        name = step["id"]
        if self.split_branches.get(name) not in step["split"]:
            seed = f"w/{name}\0attimo\0a:x".encode()
            where = int.from_bytes(blake2b(seed, digest_size=8).digest(), "big") / 2**64 * sum(step["split"].values())
            for way in sorted(step["split"]):
                self.split_branches[name] = way
                where -= step["split"][way]
                if where < 0:
                    break
        return self.split_branches[name]

    def exit(self, run: dict[str, Any], reason: str) -> None:
        self.runs.remove(run)
        run["said"].append((self.now, reason))
        self.exited_at = self.now

    def enter(self, name: str, kind: str) -> None:
        flow = self.workflow
        again = flow.get("reentry", "never")
        if name != "Cart Viewed" or len(self.runs) >= flow.get("max_concurrent_runs", 1) or self.must_exit(flow):
            return
        if self.exited_at is not None and (
            again == "never" or (again == "after" and self.now - self.exited_at < int(flow["reentry_after"][:-1]))
        ):
            return
        named = blake2b(f"clicks-0-{len(self.events)}".encode(), digest_size=6).hexdigest()
        run: dict[str, Any] = {
            "flow": flow,
            "at": "",
            "since": self.now,
            "until": None,
            "began": self.now,
            "name": named,
            "went": None,
            "said": [(self.now, "entered")],
        }
        self.run_logs.append(run["said"])
        self.runs.append(run)
        self.go_to(run, flow["steps"][0]["id"])

    def switch_version(self, new: dict[str, Any]) -> None:
        old, self.workflow = self.workflow, new
        lived = ("steps", "exit_when", "exit_on")
        if all(old.get(part) == new.get(part) for part in lived):
            return
        for run in self.runs_by_age():
            policy = new.get("on_change", "finish")
            if policy == "exit":
                self.exit(run, f"exited {run['at']} changed")
            elif policy == "move":
                self.move_run(run, new)

    def move_run(self, run: dict[str, Any], new: dict[str, Any]) -> None:
        if run["at"] not in [step["id"] for step in new["steps"]]:
            self.exit(run, f"exited {run['at']} no step")
            return
        was_send = "send" in self.current_step(run)[0]
        run["flow"] = new
        run["said"].append((self.now, f"step {run['at']}"))
        step, _ = self.current_step(run)
        if "wait" in step or "wait_until" in step or "wait_for" in step or ("send" in step and was_send):
            self.start_wait(run)
        elif self.must_exit(new):
            self.exit(run, f"exited {run['at']} exit_when")
        else:
            self.go_to(run, run["at"])


# -- random workflows and histories --------------------------------------------------------------------------------

durations = st.sampled_from(["10s", "20s", "40s", "70s"])
conditions: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [
        {"did": {"event": "Exit Intent"}},
        {"did": {"event": "Product Viewed", "within": "30s"}},
        {"not": {"did": {"event": "Product Viewed", "within": "20s"}}},
        {"in_segment": "lately"},
        {"in_segment": "t"},
        {"has": {"trait": {"plan": "gold"}}},
        {"did": {"event": "Product Viewed", "at_least": 2}},
        {"not": {"in_segment": "lately"}, "did": {"event": "Cart Viewed", "within": "70s"}},
    ]
)

awaited_events: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [{"event": "Exit Intent"}, {"event": "Product Viewed", "where": {"kind": "a"}}, {"event": "Cart Viewed"}]
)


@st.composite
def workflow_definitions(draw: st.DrawFn) -> dict[str, Any]:
    names = [f"s{n}" for n in range(draw(st.integers(2, 7)))]
    steps = [draw(step_definitions(n, names)) for n in range(len(names))]
    optional = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "exit_when": conditions,
                "exit_on": st.sampled_from([["Exit Intent"], ["Product Viewed"]]),
                "reentry": st.sampled_from(["always", "never"]),
                "max_concurrent_runs": st.just(2),
                "on_change": st.sampled_from(["finish", "move", "exit"]),
            },
        )
    )
    if optional.get("reentry") is None:
        optional.update(reentry="after", reentry_after=draw(durations))
    return {"name": "w", "enter_on": {"event": "Cart Viewed"}, "steps": steps, **optional}


@st.composite
def step_definitions(draw: st.DrawFn, n: int, names: list[str]) -> dict[str, Any]:
    later = names[n + 1 :]
    kinds = [
        "wait",
        "wait",
        "wait_until",
        "wait_for",
        "wait_for",
        "send",
        "add_to_segment",
        "remove_from_segment",
        "set_traits",
        "goal",
        "goal",
        "exit",
    ]
    kind = draw(st.sampled_from(kinds + (["branch", "split", "goto"] if later else [])))
    one: dict[str, Any] = {"id": names[n]}
    somewhere = st.sampled_from(later) if later else st.nothing()
    if kind == "wait":
        one["wait"] = draw(durations)
        if draw(st.integers(0, 3)) == 0:
            one["goto"] = draw(st.sampled_from(names))
        return one
    if kind == "wait_until":
        one[kind] = {"time": draw(st.sampled_from(["23:14", "23:15", "23:18"]))}
    elif kind == "wait_for":
        what = draw(awaited_events | conditions.map(lambda when: {"when": when}))
        one[kind] = {
            **what,
            "timeout": draw(durations),
            **draw(st.fixed_dictionaries({}, optional={"then": somewhere, "else": somewhere} if later else {})),
        }
    elif kind == "send":
        one["send"] = "offer"
        optional: dict[str, st.SearchStrategy[str]] = {"timeout": durations}
        if later:
            optional["else"] = somewhere
        one.update(draw(st.fixed_dictionaries({}, optional=optional)))
    elif kind == "branch":
        one[kind] = [{"when": draw(conditions), "goto": draw(somewhere)} for _ in range(draw(st.integers(1, 2)))]
    elif kind == "split":
        one[kind] = {
            name: draw(st.sampled_from([1.0, 3.0])) for name in draw(st.sets(somewhere, min_size=1, max_size=2))
        }
    elif kind == "goto":
        one[kind] = draw(somewhere)
    else:
        one[kind] = {
            "add_to_segment": "t",
            "remove_from_segment": "t",
            "set_traits": {"plan": draw(st.sampled_from(["gold", "no"]))},
            "goal": f"g{n}",
            "exit": True,
        }[kind]
    return one


histories = st.lists(
    st.tuples(st.integers(0, 30).map(lambda n: n * 10), st.sampled_from(EVENTS), st.sampled_from(["a", "b"])),
    min_size=1,
    max_size=12,
).map(lambda rows: sorted(rows, key=lambda row: row[0]))
