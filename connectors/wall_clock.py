"""The clock on the wall of this machine, as a terminal shows it."""

from datetime import date, datetime


def on_the_wall(at: int, today: date | None = None) -> str:
    """When it was (ms), on this machine's clock; with the date unless it was today.

    >>> on_the_wall(86_400_000 * 365, date(2024, 2, 29))[:6] in ("1970-1", "1971-0")
    True
    """
    moment = datetime.fromtimestamp(at / 1000).astimezone()
    today = today or datetime.now().astimezone().date()
    return f"{moment:%H:%M:%S}" if moment.date() == today else f"{moment:%Y-%m-%d %H:%M}"
