"""Check of coupons: discounts, duplicate codes, and coupons that are never issued."""

from collections.abc import Iterable, Iterator

from domain.money import to_minor
from domain.playbook.campaign import Campaign
from domain.playbook.condition import HoldsCoupon
from domain.playbook.coupon import DEFAULT_POOL_SIZE, CouponPool
from domain.playbook.playbook import Playbook
from domain.validation.conditions import all_nodes, check_duration, required
from domain.validation.names import Finding, Findings, PlaybookNames, as_tuple


def check_pool(pool: CouponPool, symbols: PlaybookNames) -> Findings:
    """Yield all errors of a coupon pool."""
    worth = [name for name in ("percent", "amount", "free_shipping") if getattr(pool, name)]
    if len(worth) != 1:
        yield (
            (worth[-1] if worth else "percent",),
            "should have exactly one of percent, amount, free_shipping"
            + (f", has {' and '.join(worth)}" if worth else ""),
        )
    if pool.amount and not _minor_units(pool.amount, symbols.shop.currency):
        yield ("amount",), f"is less than the smallest unit of {symbols.shop.currency}"
    yield from check_duration(("valid_for",), pool.valid_for, 60_000)
    if pool.codes and pool.prefix:
        yield ("prefix",), "is allowed only with generated codes, but codes/ lists the codes"
    if pool.codes and pool.size != DEFAULT_POOL_SIZE:
        yield ("size",), "is allowed only with generated codes, but codes/ lists the codes"
    for other in pool.not_combinable_with:
        yield from symbols.check_pool_name(("not_combinable_with",), other)
        if other == pool.name:
            yield ("not_combinable_with",), "names its own pool; use once_per_person to limit a person to one coupon"


def _minor_units(amount: float, currency: str) -> int:
    try:
        return to_minor(amount, currency)
    except ValueError:  # reported as an error of shop.toml
        return 1


def duplicate_codes(pools: Iterable[CouponPool]) -> Iterator[Finding]:
    """Yield codes that are in two pools, or can be: two people could get the same code."""
    seen: dict[str, str] = {}
    begun: dict[str, str] = {}
    for pool in pools:
        if not pool.codes and (other := begun.setdefault(pool.prefix, pool.name)) != pool.name:
            yield Finding(
                "coupons",
                pool.name,
                ("prefix",),
                (
                    f'is the same as in coupons/{other}.toml ("{pool.prefix}")'
                    if pool.prefix
                    else f"is missing, as in coupons/{other}.toml"
                )
                + ": both pools could generate the same code; give each its own prefix",
            )
        twice: dict[str, str] = {}
        for code in pool.codes:
            other = seen.setdefault(code.upper(), pool.name)
            if other != pool.name:
                twice.setdefault(other, code)
        if len({code.upper() for code in pool.codes}) < len(pool.codes):
            yield Finding("coupons", pool.name, ("codes",), "lists a code twice (codes are not case-sensitive)")
        for other, code in twice.items():
            yield Finding(
                "coupons", pool.name, ("codes",), f'contains a code that is also in coupons/{other}: "{code}"'
            )


# -- issued pools ------------------------------------------------------------------------------------------


def issued_pools(playbook: Playbook) -> set[str]:
    """Return the pools from which people without a coupon can get one."""
    found = {step.coupon for flow in playbook.workflows for step in flow.steps if step.coupon is not None}
    return found | {one.coupon for one in playbook.campaigns if one.coupon is not None and not _requires_coupon(one)}


def _requires_coupon(campaign: Campaign) -> bool:
    """Return whether a campaign is only for people who hold such a coupon."""
    return any(
        when.holds_coupon is not None and as_tuple(when.holds_coupon.pool) == (campaign.coupon,)
        for _, when in required(campaign.when)
    )


def never_issued(playbook: Playbook, symbols: PlaybookNames) -> Iterator[Finding]:
    """Yield conditions on coupons that are never issued."""
    if symbols.unreadable.get("campaigns") or symbols.unreadable.get("workflows"):
        return
    handed = issued_pools(playbook)
    for part, name, path, struct in all_nodes(playbook):
        if (
            isinstance(struct, HoldsCoupon)
            and (pools := as_tuple(struct.pool))
            and all(one in symbols.pool_names and one not in handed for one in pools)
        ):
            yield Finding(
                part,
                name,
                (*path, "pool"),
                (
                    f'can never be true: no campaign (coupon = "{pools[0]}") and no workflow step hands out such a '
                    f"coupon"
                ),
            )
