"""Markers of recorded days: how far each stream has been written, or that they ended (`attimo ingest --history`)."""

import msgspec

START = b'{"type":"history"'


class _Marker(msgspec.Struct):
    reached: int = 0
    ended: bool = False


_decode = msgspec.json.Decoder(_Marker).decode


def note(history: dict[str, int], stream: str, value: bytes) -> None:
    """Note in `history` how far this stream was reached (ms). msgspec.DecodeError when it is no marker.

    >>> reached: dict[str, int] = {}
    >>> note(reached, "clicks", b'{"type":"history","reached":5}')
    >>> reached
    {'clicks': 5}
    """
    marker = _decode(value)
    if marker.ended:
        history.pop(stream, None)
    else:
        history[stream] = marker.reached
