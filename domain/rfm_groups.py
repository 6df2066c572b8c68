"""RFM groups: what each of the 125 cells of recency, frequency and money is called, as marketers know them.

A cell is three digits, each from 1 (worst) to 5 (best): "543" ordered lately (5), often (4), for middling sums (3).
What somebody is worth is the mean of frequency and money, half a class rounded up. Then it goes by recency:

    recency   worth 5 4                3                    2                1
    5 4       champions                loyal if often (F>2), else promising
    3         loyal                    needs_attention      needs_attention  hibernating
    2         at_risk                  at_risk              hibernating      hibernating
    1         at_risk                  lost                 lost             lost

and who ordered least often (F 1) and lately (R 4 or 5) is among the new customers, whatever they spent.

>>> group_of("555"), group_of("415"), group_of("155"), group_of("")
('champions', 'new_customers', 'at_risk', '')
"""

from domain.condition import RFM_GROUPS


def group_of(cell: str) -> str:
    """The group of a cell; empty for who has none."""
    return GROUPS.get(cell, "")


def _group(recency: int, frequency: int, money: int) -> str:
    worth = (frequency + money + 1) // 2
    if recency >= 4:
        if frequency == 1:
            return "new_customers"
        if worth >= 4:
            return "champions"
        return "loyal" if frequency >= 3 else "promising"
    if recency == 3:
        return "loyal" if worth >= 4 else "needs_attention" if worth >= 2 else "hibernating"
    if recency == 2:
        return "at_risk" if worth >= 3 else "hibernating"
    return "at_risk" if worth >= 4 else "lost"


GROUPS = {f"{r}{f}{m}": _group(r, f, m) for r in range(1, 6) for f in range(1, 6) for m in range(1, 6)}
"""The group of each cell."""

CELLS = {group: tuple(cell for cell in sorted(GROUPS) if GROUPS[cell] == group) for group in RFM_GROUPS}
"""The cells of each group."""
