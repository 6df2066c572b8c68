"""Files of codes: `codes/NAME.txt` beside `coupons/NAME.toml`, one code a line; `#` begins a comment.

New codes go to the end: those at the front may have been given out already, in the order in which they stand.
"""

import re

from domain.coupon import MOST_CODES
from domain.problem import Problem

LARGEST_FILE = 8 * 1024 * 1024
"""Bytes of a file of codes: a hundred thousand of the longest ones, and comments."""

MOST_PROBLEMS = 20
"""Lines that are named; who mixed up the file sees it from these."""

_CODE = re.compile(r"[!-~]{1,64}")
_COMMENT = re.compile(r"(^|\s)#.*")


def read_codes(path: str, text: str) -> tuple[tuple[str, ...], list[Problem]]:
    r"""The codes of a file in their order, and what is wrong with it.

    >>> read_codes("codes/a.txt", "# spring\nAB-1\n\nAB-2  # for Ann\n")
    (('AB-1', 'AB-2'), [])
    >>> [str(problem) for problem in read_codes("codes/a.txt", "AB-1\nab-1\n")[1]]
    ['codes/a.txt, line 2: "ab-1" stands in line 1 already (capitals make no difference)']
    """
    lines: dict[str, int] = {}
    codes: list[str] = []
    problems: list[Problem] = []
    for number, line in enumerate(text.splitlines(), 1):
        code = _COMMENT.sub("", line).strip()
        if not code:
            continue
        known = lines.setdefault(code.upper(), number)
        if _CODE.fullmatch(code) is None:
            problems.append(Problem(path, number, "", "should be one code: 1 to 64 letters, digits and signs, without "
                                                      f'blanks or accents; is "{code[:70]}"'))
        elif known != number:
            problems.append(Problem(
                path, number, "", f'"{code}" stands in line {known} already (capitals make no difference)'))
        else:
            codes.append(code)
    if len(codes) > MOST_CODES:
        problems.append(Problem(path, 1, "", f"has {len(codes):,} codes; at most {MOST_CODES:,} are read"))
    if not lines:
        problems.append(Problem(path, 1, "", "has no code in it"))
    left_out = len(problems) - MOST_PROBLEMS
    if left_out > 0:
        first = problems[MOST_PROBLEMS].line
        problems[MOST_PROBLEMS:] = [Problem(path, first, "", f"… and {left_out} more like these")]
    return tuple(codes), problems
