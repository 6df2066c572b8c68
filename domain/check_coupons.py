"""Check of coupons: pools that are worth nothing, codes that two people would be given, coupons nobody can hold."""

from collections.abc import Iterable, Iterator

from domain.campaign import Campaign
from domain.check_condition import duration, everything, must
from domain.condition import Holds
from domain.coupon import MADE_UP, Pool
from domain.known import Finding, Found, Known, several
from domain.money import to_minor
from domain.playbook import Playbook


def pool(one: Pool, known: Known) -> Found:
    """All mistakes of one pool."""
    worth = [name for name in ("percent", "amount", "free_shipping") if getattr(one, name)]
    if len(worth) != 1:
        yield (worth[-1] if worth else "percent",), "should be worth exactly one of percent, amount, free_shipping" + (
            f", is worth {' and '.join(worth)}" if worth else "")
    if one.amount and not _minor(one.amount, known.shop.currency):
        yield ("amount",), f"is less than the smallest amount of {known.shop.currency} that there is"
    yield from duration(("valid_for",), one.valid_for, 60_000)
    if one.codes and one.prefix:
        yield ("prefix",), "goes only with codes that are made up, and codes/ lists them"
    if one.codes and one.size != MADE_UP:
        yield ("size",), "goes only with codes that are made up, and codes/ lists them"
    for other in one.not_with:
        yield from known.pool_at(("not_with",), other)
        if other == one.name:
            yield ("not_with",), "names itself; `once` says that a person gets only one"


def _minor(amount: float, currency: str) -> int:
    try:
        return to_minor(amount, currency)
    except ValueError:  # said elsewhere
        return 1


def codes(pools: Iterable[Pool]) -> Iterator[Finding]:
    """Codes that stand in two places, or may: two people would be given the same one."""
    seen: dict[str, str] = {}
    begun: dict[str, str] = {}
    for pool in pools:
        if not pool.codes and (other := begun.setdefault(pool.prefix, pool.name)) != pool.name:
            yield Finding("coupons", pool.name, ("prefix",), (
                f'is that of coupons/{other}.toml too ("{pool.prefix}")' if pool.prefix else
                f"is missing, as in coupons/{other}.toml") + ": both could make up the same code; give each its own")
        twice: dict[str, str] = {}
        for code in pool.codes:
            other = seen.setdefault(code.upper(), pool.name)
            if other != pool.name:
                twice.setdefault(other, code)
        if len({code.upper() for code in pool.codes}) < len(pool.codes):
            yield Finding("coupons", pool.name, ("codes",), "lists a code twice (capitals make no difference)")
        for other, code in twice.items():
            yield Finding("coupons", pool.name, ("codes",), f'has a code that coupons/{other} has too: "{code}"')


# -- who hands them out ------------------------------------------------------------------------------------------


def handed_out(playbook: Playbook) -> set[str]:
    """The pools of which somebody who holds none may get a coupon."""
    found = {step.coupon for flow in playbook.workflows for step in flow.steps if step.coupon is not None}
    return found | {one.coupon for one in playbook.campaigns if one.coupon is not None and not _holders_only(one)}


def _holders_only(one: Campaign) -> bool:
    """Whether a campaign speaks only to people who hold such a coupon already."""
    return any(when.holds_coupon is not None and several(when.holds_coupon.pool) == (one.coupon,)
               for _, when in must(one.when))


def never_held(playbook: Playbook, known: Known) -> Iterator[Finding]:
    """Conditions that ask for a coupon which nobody hands out."""
    if known.broken.get("campaigns") or known.broken.get("workflows"):
        return
    handed = handed_out(playbook)
    for part, name, path, struct in everything(playbook):
        if isinstance(struct, Holds) and (pools := several(struct.pool)) and all(
                one in known.pools and one not in handed for one in pools):
            yield Finding(part, name, (*path, "pool"), (
                f"nobody ever holds one: no campaign (coupon = \"{pools[0]}\") and no step of a workflow hands it out "
                "to somebody who has none"))
