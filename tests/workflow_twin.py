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
LATELY = {"did": {"event": "Product Viewed", "within": "40s"}}

Said = list[tuple[int, str]]


class Twin:
    """One person in a shop with one workflow. A send goes through by the number of events so far; of two runs that ask
    for the same in one go, the first asks for both, and the other one is held.
    """

    def __init__(self, workflow: dict[str, Any], swap: tuple[int, dict[str, Any]] | None = None) -> None:
        self.workflow, self.swap = workflow, swap
        self.events: list[tuple[int, str, str]] = []
        self.traits: dict[str, Any] = {}
        self.tags: set[str] = set()
        self.ways: dict[str, str] = {}
        self.runs: list[dict[str, Any]] = []
        self.all: list[Said] = []
        self.left_at: int | None = None
        self.asked = False
        self.now = 0

    def live(self, history: list[tuple[int, str, str]]) -> list[Said]:
        for self.now in range(HORIZON):
            self.settle()
            if self.swap is not None and self.swap[0] == self.now:
                self.swapped(self.swap[1])
                self.settle()
            for at, name, kind in history:
                if at == self.now:
                    self.events.append((at, name, kind))
                    self.look((name, kind))
                    self.enter(name, kind)
                    self.settle()
        return self.all

    # -- conditions --------------------------------------------------------------------------------------------

    def holds(self, when: dict[str, Any]) -> bool:
        return all(self.part(word, what) for word, what in when.items())

    def part(self, word: str, what: Any) -> bool:
        if word == "not":
            return not self.holds(what)
        if word == "in_segment":
            return self.holds(LATELY) if what == "lately" else what in self.tags
        if word == "has":
            return all(self.traits.get(name) == value for name, value in what["trait"].items())
        assert word == "did"
        times = [at for at, name, _ in self.events if name == what["event"]]
        if "within" in what:
            return any(self.now - at < int(what["within"][:-1]) for at in times)
        return len(times) >= int(what.get("at_least", 1))

    # -- one instant -------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Look until nothing moves any more."""
        before = None
        while before != (state := repr((self.runs, self.all, self.tags, self.traits))):
            before = state
            self.look(None)

    def look(self, event: tuple[str, str] | None) -> None:
        self.asked = False
        for run in self.oldest():
            flow = run["flow"]
            if event is not None and event[0] in flow.get("leaves_on", ()):
                self.out(run, f'left {run["at"]} event "{event[0]}"')
            elif self.must_leave(flow):
                self.out(run, f'left {run["at"]} leaves')
            elif (go := self.over(run, event)) is not None:
                self.follow(run, go)

    def oldest(self) -> list[dict[str, Any]]:
        """All runs, the one that began first first; of those that began at one instant by name."""
        return sorted(self.runs, key=lambda run: (run["began"], run["name"]))

    def must_leave(self, flow: dict[str, Any]) -> bool:
        return "leaves" in flow and self.holds(flow["leaves"])

    def over(self, run: dict[str, Any], event: tuple[str, str] | None) -> str | None:
        step, onward = self.step(run)
        up = run["until"] is not None and self.now >= run["until"]
        if "wait" in step or "wait_until" in step:
            return onward if up else None
        if "send" in step:
            if run["went"] is None and not up:
                self.ask(run, step)
                return None
            return onward if run["went"] else str(step.get("otherwise", onward))
        what = step["wait_for"]
        if "event" in what and event is not None and event[0] == what["event"] and (
                what.get("where", {}).get("kind") in (None, event[1])):
            return str(what.get("then", onward))
        if "when" in what and self.holds(what["when"]):
            return str(what.get("then", onward))
        return str(what.get("otherwise", onward)) if up else None

    def ask(self, run: dict[str, Any], step: dict[str, Any]) -> None:
        """What becomes of it moves them on in the next go, at the same instant."""
        ok, self.asked = not self.asked and len(self.events) % 3 == 0, True
        run["went"] = True if ok else None if "patience" in step else False

    def step(self, run: dict[str, Any]) -> tuple[dict[str, Any], str]:
        steps = run["flow"]["steps"]
        n = next(n for n, step in enumerate(steps) if step["id"] == run["at"])
        return steps[n], str(steps[n].get("go", steps[n + 1]["id"] if n + 1 < len(steps) else ""))

    def follow(self, run: dict[str, Any], go: str | None) -> None:
        while go is not None:
            if not go:
                self.out(run, f'finished {run["at"]}')
                return
            run["at"], run["since"], run["until"], run["went"] = go, self.now, None, None
            if self.must_leave(run["flow"]):
                self.out(run, f"left {go} leaves")
                return
            go = self.arrive(run)
        run["said"].append((self.now, f'step {run["at"]}'))

    def arrive(self, run: dict[str, Any]) -> str | None:
        step, onward = self.step(run)
        if "exit" in step:
            return ""
        if "wait" in step or "wait_until" in step or "wait_for" in step or "send" in step:
            self.stand(run)
            if "send" not in step:
                return self.over(run, None)
            self.ask(run, step)
            return None
        for way in step.get("branch", ()):
            if self.holds(way["when"]):
                return str(way["go"])
        if "split" in step:
            return self.way(step)
        if "tag" in step:
            self.tags.add(step["tag"])
        if "untag" in step:
            self.tags.discard(step["untag"])
        self.traits.update(step.get("set", {}))
        if "goal" in step:
            run["said"].append((self.now, f'goal {step["goal"]}'))
        return onward

    def stand(self, run: dict[str, Any]) -> None:
        step, _ = self.step(run)
        since = run["since"]
        if "wait_until" in step:
            since += -(T0 + since) % 60  # the clocks of Rome show whole minutes when everybody's do
            while f'{datetime.fromtimestamp(T0 + since, ZoneInfo("Europe/Rome")):%H:%M}' != step["wait_until"]["time"]:
                since += 60
            run["until"] = since
            return
        span = step.get("wait") or step.get("patience") or step.get("wait_for", {}).get("within")
        run["until"] = since + int(span[:-1]) if span else None

    def way(self, step: dict[str, Any]) -> str:
        name = step["id"]
        if self.ways.get(name) not in step["split"]:
            seed = f"w/{name}\0attimo\0a:x".encode()
            where = int.from_bytes(blake2b(seed, digest_size=8).digest(), "big") / 2**64 * sum(step["split"].values())
            for way in sorted(step["split"]):
                self.ways[name] = way
                where -= step["split"][way]
                if where < 0:
                    break
        return self.ways[name]

    def out(self, run: dict[str, Any], how: str) -> None:
        self.runs.remove(run)
        run["said"].append((self.now, how))
        self.left_at = self.now

    def enter(self, name: str, kind: str) -> None:
        flow = self.workflow
        again = flow.get("again", "never")
        if name != "Cart Viewed" or len(self.runs) >= flow.get("at_once", 1) or self.must_leave(flow):
            return
        if self.left_at is not None and (
                again == "never" or (again == "after" and self.now - self.left_at < int(flow["again_after"][:-1]))):
            return
        named = blake2b(f"clicks-0-{len(self.events)}".encode(), digest_size=6).hexdigest()
        run: dict[str, Any] = {"flow": flow, "at": "", "since": self.now, "until": None, "began": self.now,
                               "name": named, "went": None, "said": [(self.now, "entered")]}
        self.all.append(run["said"])
        self.runs.append(run)
        self.follow(run, flow["steps"][0]["id"])

    def swapped(self, new: dict[str, Any]) -> None:
        old, self.workflow = self.workflow, new
        lived = ("steps", "leaves", "leaves_on")
        if all(old.get(part) == new.get(part) for part in lived):
            return
        for run in self.oldest():
            policy = new.get("when_changed", "finish")
            if policy == "leave":
                self.out(run, f'left {run["at"]} changed')
            elif policy == "move":
                self.move(run, new)

    def move(self, run: dict[str, Any], new: dict[str, Any]) -> None:
        if run["at"] not in [step["id"] for step in new["steps"]]:
            self.out(run, f'left {run["at"]} no step')
            return
        was_send = "send" in self.step(run)[0]
        run["flow"] = new
        run["said"].append((self.now, f'step {run["at"]}'))
        step, _ = self.step(run)
        if "wait" in step or "wait_until" in step or "wait_for" in step or ("send" in step and was_send):
            self.stand(run)
        elif self.must_leave(new):
            self.out(run, f'left {run["at"]} leaves')
        else:
            self.follow(run, run["at"])


# -- random workflows and histories --------------------------------------------------------------------------------

spans = st.sampled_from(["10s", "20s", "40s", "70s"])
conditions: st.SearchStrategy[dict[str, Any]] = st.sampled_from([
    {"did": {"event": "Exit Intent"}}, {"did": {"event": "Product Viewed", "within": "30s"}},
    {"not": {"did": {"event": "Product Viewed", "within": "20s"}}}, {"in_segment": "lately"}, {"in_segment": "t"},
    {"has": {"trait": {"plan": "gold"}}}, {"did": {"event": "Product Viewed", "at_least": 2}},
    {"not": {"in_segment": "lately"}, "did": {"event": "Cart Viewed", "within": "70s"}}])

awaited: st.SearchStrategy[dict[str, Any]] = st.sampled_from([
    {"event": "Exit Intent"}, {"event": "Product Viewed", "where": {"kind": "a"}}, {"event": "Cart Viewed"}])


@st.composite
def workflows(draw: st.DrawFn) -> dict[str, Any]:
    names = [f"s{n}" for n in range(draw(st.integers(2, 7)))]
    steps = [draw(step(n, names)) for n in range(len(names))]
    optional = draw(st.fixed_dictionaries({}, optional={
        "leaves": conditions, "leaves_on": st.sampled_from([["Exit Intent"], ["Product Viewed"]]),
        "again": st.sampled_from(["always", "never"]), "at_once": st.just(2),
        "when_changed": st.sampled_from(["finish", "move", "leave"])}))
    if optional.get("again") is None:
        optional.update(again="after", again_after=draw(spans))
    return {"name": "w", "enters": {"event": "Cart Viewed"}, "steps": steps, **optional}


@st.composite
def step(draw: st.DrawFn, n: int, names: list[str]) -> dict[str, Any]:
    later = names[n + 1:]
    kinds = ["wait", "wait", "wait_until", "wait_for", "wait_for", "send", "tag", "untag", "set", "goal", "goal",
             "exit"]
    kind = draw(st.sampled_from(kinds + (["branch", "split", "go"] if later else [])))
    one: dict[str, Any] = {"id": names[n]}
    somewhere = st.sampled_from(later) if later else st.nothing()
    if kind == "wait":
        one["wait"] = draw(spans)
        if draw(st.integers(0, 3)) == 0:
            one["go"] = draw(st.sampled_from(names))
        return one
    if kind == "wait_until":
        one[kind] = {"time": draw(st.sampled_from(["23:14", "23:15", "23:18"]))}
    elif kind == "wait_for":
        what = draw(awaited | conditions.map(lambda when: {"when": when}))
        one[kind] = {**what, "within": draw(spans), **draw(st.fixed_dictionaries(
            {}, optional={"then": somewhere, "otherwise": somewhere} if later else {}))}
    elif kind == "send":
        one["send"] = "offer"
        optional: dict[str, st.SearchStrategy[str]] = {"patience": spans}
        if later:
            optional["otherwise"] = somewhere
        one.update(draw(st.fixed_dictionaries({}, optional=optional)))
    elif kind == "branch":
        one[kind] = [{"when": draw(conditions), "go": draw(somewhere)} for _ in range(draw(st.integers(1, 2)))]
    elif kind == "split":
        one[kind] = {name: draw(st.sampled_from([1.0, 3.0]))
                     for name in draw(st.sets(somewhere, min_size=1, max_size=2))}
    elif kind == "go":
        one[kind] = draw(somewhere)
    else:
        one[kind] = {"tag": "t", "untag": "t", "set": {"plan": draw(st.sampled_from(["gold", "no"]))},
                     "goal": f"g{n}", "exit": True}[kind]
    return one


histories = st.lists(
    st.tuples(st.integers(0, 30).map(lambda n: n * 10), st.sampled_from(EVENTS), st.sampled_from(["a", "b"])),
    min_size=1, max_size=12).map(lambda rows: sorted(rows, key=lambda row: row[0]))
