"""MkDocs hook: show links to files outside `docs/` as text, because the site does not contain these files."""

import re
from typing import Any

OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./[^)]+\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace a link such as `[flows/onsite.py](../flows/onsite.py)` by its text.

    >>> on_page_markdown("see [flows/onsite.py](../flows/onsite.py)")
    'see flows/onsite.py'
    """
    return OUTSIDE.sub(r"\1", markdown)
