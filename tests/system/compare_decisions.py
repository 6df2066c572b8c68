"""Compare the decisions of two versions of attimo over the same recorded events, by content.

    python -m tests.system.compare_decisions OLD.jsonl NEW.jsonl

Both files hold one action per line, as the stream `actions` stores them. OLD may come from a version before the
standard vocabulary: its names are mapped first. Wording is not compared: of the conditions only their number, of the
content only which fields it has. Exit code 1 and the first differences if any decision differs.

>>> old = '{"type":"hold","id":"clicks-1-2-respect_limits-0","at":5,"because":{"held":["x"],"reason":"limit"}}'
>>> new = '{"type":"suppress","id":"clicks-1-2-decide-0","at":5,"because":{"passed":["y"],"reason":"campaign_cap"}}'
>>> normalize(old) == normalize(new)
True
"""

import json
import re
import sys
from itertools import zip_longest
from pathlib import Path
from typing import Any

TYPES = {
    "move": "segment_change",
    "arm": "preload",
    "disarm": "cancel",
    "hold": "suppress",
    "progress": "workflow_progress",
    "coupon": "coupon_event",
}
FIELDS = {"disarm_on": "cancel_on", "held": "passed"}
STEPS = {
    "fold_profile": "update_profile",
    "choose_actions": "select_campaigns",
    "respect_limits": "decide",
    "offers": "record_feedback",
    "hopes": "goals",
    "desk": "lease",
}
REASONS = {
    "limit": "campaign_cap",
    "group_limit": "group_cap",
    "shop_limit": "shop_cap",
    "pressure": "contact_pressure",
    "unreachable": "suppressed_address",
    "audience": "not_eligible",
    "coupon_once": "coupon_once_per_person",
    "coupon_first_order": "coupon_first_order_only",
    "coupon_not_with": "coupon_not_combinable",
    "recorded_days": "history_import",
    "coupon_products": "coupon_product_not_covered",
    "coupon_min_value": "coupon_below_min_value",
}
_STEP = re.compile("(?<=-)(" + "|".join(STEPS) + r")(?=-\d+$)")
_HAS_SENTENCE = re.compile(r"\s")


def normalize(line: str) -> dict[str, Any]:
    """One action in the new names, without wording and without the playbook's hash."""
    action = {FIELDS.get(name, name): value for name, value in json.loads(line).items()}
    action["type"] = TYPES.get(action["type"], action["type"])
    action["id"] = _STEP.sub(lambda found: STEPS[found[0]], action["id"]).replace("hope:", "goal:")
    because = {FIELDS.get(name, name): value for name, value in action.get("because", {}).items()}
    reason = REASONS.get(because.get("reason", ""), because.get("reason", ""))
    action["because"] = {
        "passed": len(because.get("passed", ())),
        "failed": len(because.get("failed", ())),
        "reason": "" if _HAS_SENTENCE.search(reason) else reason,
        **{name: because.get(name) for name in ("variant", "propensity", "workflow")},
    }
    if action["type"] == "workflow_progress":
        transition = action.pop("what", None) or action.get("transition")
        action["transition"] = "exited" if transition == "left" else transition
        action.pop("version", None)  # a hash over the declaration, which has renamed fields
    if action["type"] == "coupon_event":
        action["status"] = action.pop("what", None) or action.get("status")
    if "content" in action:
        action["content"] = sorted(action["content"])
    return action


def differences(old: list[str], new: list[str]) -> list[str]:
    """What differs, a line each. The order of decisions counts per person."""

    def by_person(lines: list[str]) -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = {}
        for line in lines:
            if line.startswith('{"type"') or '"type":' in line:
                action = normalize(line)
                found.setdefault(action.get("person", ""), []).append(action)
        return found

    olds, news = by_person(old), by_person(new)
    return [
        f"{person}: {one}\n  instead of {other}"
        for person in sorted(olds.keys() | news.keys())
        for other, one in zip_longest(olds.get(person, []), news.get(person, []))
        if one != other
    ]


def main(old: str, new: str) -> int:
    """Print the first differences; the exit code."""
    olds, news = (Path(path).read_text("utf-8").splitlines() for path in (old, new))
    found = differences(olds, news)
    for one in found[:20]:
        sys.stdout.write(f"{one}\n")
    sys.stdout.write(f"{len(olds)} and {len(news)} actions, {len(found)} differences\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
