"""Local time, as terminals show it."""

from datetime import date, datetime


def format_local_time(at: int, today: date | None = None) -> str:
    """Format a time (epoch ms) in the local time zone; with the date unless it is today.

    >>> format_local_time(86_400_000 * 365, date(2024, 2, 29))[:6] in ("1970-1", "1971-0")
    True
    """
    moment = datetime.fromtimestamp(at / 1000).astimezone()
    today = today or datetime.now().astimezone().date()
    return f"{moment:%H:%M:%S}" if moment.date() == today else f"{moment:%Y-%m-%d %H:%M}"
