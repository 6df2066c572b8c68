"""`attimo ingest`: appends a file or standard input to the log, with a progress bar on terminals."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from connectors.ingest.jsonl import MAX_LINE_BYTES, IngestResult, InputLine, ingest
from connectors.ingest.pos_receipts import read_receipts
from connectors.log.log import Log


def ingest_file(
    log: Log, name: str, history: bool = False, receipts: bool = False, console: Console | None = None, secret: str = ""
) -> IngestResult:
    """Append the file `name` ("-": standard input) to the log. Raise ValueError if it cannot be read.

    `secret` is the shop's secret; email addresses and cards on receipts are hashed with it.
    """
    with ExitStack() as closing:
        if name == "-":
            file: IO[bytes] = sys.stdin.buffer
            total = None
        else:
            try:
                file = closing.enter_context(Path(name).open("rb"))
            except OSError as error:
                raise ValueError(f"{name}: {error.strerror}") from error
            total = os.fstat(file.fileno()).st_size or None
        bar = closing.enter_context(progress_bar(console or Console(stderr=True), size_known=total is not None))
        task = bar.add_task(Path(name).name if name != "-" else "standard input", total=total)
        advance = (lambda size: bar.advance(task, size)) if total else (lambda _: None)
        found: Iterable[bytes | InputLine] = read_lines(file, advance)
        if receipts:
            found = read_receipts(read_lines(file, advance), secret)
        count = (lambda _: None) if total else (lambda read: bar.update(task, completed=read))
        return ingest(log, found, history, progress=count)


def read_lines(file: IO[bytes], advance: Callable[[int], None] = lambda _: None) -> Iterator[bytes]:
    r"""Yield the lines of a file, truncated to `MAX_LINE_BYTES` + 1 bytes to limit memory.

    >>> import io
    >>> file = io.BytesIO(b"a" * (2 * MAX_LINE_BYTES) + b"\nb\nc")
    >>> [len(line) for line in read_lines(file)] == [MAX_LINE_BYTES + 1, 2, 1]
    True
    """
    while line := file.readline(MAX_LINE_BYTES + 1):
        advance(len(line))
        yield line
        while len(line) > MAX_LINE_BYTES and not line.endswith(b"\n"):
            line = file.readline(MAX_LINE_BYTES + 1)
            advance(len(line))
            if not line:
                return


def progress_bar(console: Console, size_known: bool) -> Progress:
    """Return a progress bar in bytes if the size is known, else in lines; hidden without a terminal."""
    columns = (
        (BarColumn(), TextColumn("{task.percentage:>3.0f} %"), TimeRemainingColumn())
        if size_known
        else (MofNCompleteColumn(), TextColumn("lines"))
    )
    return Progress(
        TextColumn("{task.description}"),
        *columns,
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    )


def summary(result: IngestResult) -> str:
    """Summarize the result in a few lines.

    >>> from collections import Counter
    >>> print(summary(IngestResult(accepted=3, rejected=0, streams=Counter(clicks=2, carts=1))))
    3 events accepted (carts 1, clicks 2), 0 rejected
    """
    streams = ", ".join(f"{name} {count}" for name, count in sorted(result.streams.items()))
    text = f"{result.accepted} events accepted" + (f" ({streams})" if streams else "")
    text += f", {result.rejected} rejected"
    for error in result.errors:
        text += f"\n  line {error.line}: {error.message}"
    if result.rejected > len(result.errors):
        text += "\n  all errors are in the stream dead-letters"
    return text
