"""Assets: the text files of `web/` (scripts, styles, pictures, pages), compressed once and kept in memory.

A file is read again when its size or time changes. Each form of it, plain and gzipped, has an ETag of its own: a cache
that holds one must not be told that the other is unchanged. What runs in every visitor's browser goes out `lean`.
"""

import gzip
import hashlib
import re
from email.utils import formatdate, parsedate_to_datetime
from pathlib import Path
from typing import Final, NamedTuple

from starlette.datastructures import Headers
from starlette.responses import Response

KINDS: Final = {
    ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml",
    ".html": "text/html; charset=utf-8",
}
_SPOKEN: Final = re.compile(
    r"""("(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`"""  # words
    r"""|/(?![/*])(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\n\[])+/)"""  # patterns; or what is divided twice in a line
    r"""|[ ]*//[^\n]*|(?<=\n)[ ]+""", re.DOTALL)
_REFUSED: Final = re.compile(r"\s*q\s*=\s*0(\.0*)?\s*")


class Asset(NamedTuple):
    """A file as it was when it had this stamp (time in ns, size); `packed` is empty where gzip makes it no smaller."""

    stamp: tuple[int, int]
    plain: bytes
    packed: bytes
    tag: str
    modified: str


_kept: dict[tuple[Path, bool], Asset] = {}


def lean(script: str) -> str:
    r"""A script as visitors get it: without what only its readers need, comments (`//`) and indentation.

    Strings, templates, patterns and line breaks stay, so an error's line is that of the file.

    >>> lean('  a("//", /[/]\\//); // why\n\n  // how\n  b(`\n  //`)')
    'a("//", /[/]\\//);\n\n\nb(`\n  //`)'
    """
    return _SPOKEN.sub(lambda found: found[1] or "", "\n" + script)[1:]


def load(path: Path, spare: bool = False) -> Asset:
    """A file, from memory when it has not changed; `spare`: a script, `lean`. OSError when it cannot be read."""
    stat = path.stat()
    stamp = (stat.st_mtime_ns, stat.st_size)
    found = _kept.get((path, spare))
    if found is None or found.stamp != stamp:
        plain = lean(path.read_text("utf-8")).encode() if spare and path.suffix == ".js" else path.read_bytes()
        packed = gzip.compress(plain, 9, mtime=0)
        tag = hashlib.blake2b(plain, digest_size=8).hexdigest()
        found = _kept[path, spare] = Asset(
            stamp, plain, packed if len(packed) < len(plain) else b"", tag, formatdate(stat.st_mtime, usegmt=True))
    return found


def answer(path: Path, asked: Headers, headers: dict[str, str], spare: bool = False) -> Response:
    """The answer to a GET for a file of `KINDS`: whole (see `load`), gzipped when the client takes that, or 304."""
    asset = load(path, spare)
    zipped = bool(asset.packed) and takes_gzip(asked.get("accept-encoding", ""))
    tag = f'"{asset.tag}-gzip"' if zipped else f'"{asset.tag}"'
    sent = {**headers, "etag": tag, "last-modified": asset.modified, "vary": "accept-encoding"}
    if unchanged(asked, tag, asset.modified):
        return Response(status_code=304, headers=sent)
    if zipped:
        sent["content-encoding"] = "gzip"
    return Response(asset.packed if zipped else asset.plain, headers=sent, media_type=KINDS[path.suffix])


def takes_gzip(accepted: str) -> bool:
    """Whether an Accept-Encoding header allows gzip.

    >>> [takes_gzip(one) for one in ("gzip, deflate, br", "br, GZIP;q=0.5", "*", "*;q=0, gzip")]
    [True, True, True, True]
    >>> [takes_gzip(one) for one in ("", "br", "identity", "gzip;q=0", "*, gzip; q=0.0", "*;q=0")]
    [False, False, False, False, False, False]
    """
    found: dict[str, bool] = {}
    for part in accepted.lower().split(","):
        name, _, weight = part.partition(";")
        found[name.strip()] = _REFUSED.fullmatch(weight) is None
    return found.get("gzip", found.get("*", False))


def unchanged(asked: Headers, tag: str, modified: str) -> bool:
    """Whether the caller has just this already. An If-None-Match goes before an If-Modified-Since.

    >>> at = "Tue, 01 Oct 2019 00:00:00 GMT"
    >>> def asks(tags="", since=""):
    ...     return unchanged(Headers({"if-none-match": tags, "if-modified-since": since}), '"a"', at)
    >>> asks('"b", W/"a"'), asks("*"), asks(since=at)
    (True, True, True)
    >>> asks(), asks('"b"', since=at), asks(since="yesterday"), asks(since="Mon, 30 Sep 2019 23:59:59 GMT")
    (False, False, False, False)
    """
    if known := asked.get("if-none-match"):
        return any(one.strip().removeprefix("W/") in (tag, "*") for one in known.split(","))
    since = asked.get("if-modified-since")
    try:
        return since is not None and parsedate_to_datetime(since) >= parsedate_to_datetime(modified)
    except (ValueError, TypeError, OverflowError):  # no date, one without a time zone, one beyond all calendars
        return False
