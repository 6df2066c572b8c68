"""`attimo ingest`: a file (or standard input) into the log, with a progress bar on a terminal."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from connectors.ingest import LONGEST, Ingested, Line, ingest
from connectors.log import Log
from connectors.receipts import read_receipts


def ingest_file(log: Log, name: str, history: bool = False, receipts: bool = False,
                console: Console | None = None, secret: str = "") -> Ingested:
    """Append what is in the file `name` ("-": standard input). ValueError when it cannot be read.

    `secret` is the shop's: addresses and cards on receipts are hashed with it.
    """
    with ExitStack() as closing:
        if name == "-":
            file: IO[bytes] = sys.stdin.buffer
            total = None
        else:
            try:
                file = closing.enter_context(Path(name).open("rb"))
            except OSError as wrong:
                raise ValueError(f"{name}: {wrong.strerror}") from wrong
            total = os.fstat(file.fileno()).st_size or None
        bar = closing.enter_context(progress_bar(console or Console(stderr=True), known=total is not None))
        task = bar.add_task(Path(name).name if name != "-" else "standard input", total=total)
        advance = (lambda size: bar.advance(task, size)) if total else (lambda _: None)
        found: Iterable[bytes | Line] = lines(file, advance)
        if receipts:
            found = read_receipts(lines(file, advance), secret)
        count = (lambda _: None) if total else (lambda read: bar.update(task, completed=read))
        return ingest(log, found, history, progress=count)


def lines(file: IO[bytes], advance: Callable[[int], None] = lambda _: None) -> Iterator[bytes]:
    r"""The lines of a file, each cut at one byte more than is read of it, so that no line can fill the memory.

    >>> import io
    >>> [len(line) for line in lines(io.BytesIO(b"a" * (2 * LONGEST) + b"\nb\nc"))] == [LONGEST + 1, 2, 1]
    True
    """
    while line := file.readline(LONGEST + 1):
        advance(len(line))
        yield line
        while len(line) > LONGEST and not line.endswith(b"\n"):
            line = file.readline(LONGEST + 1)
            advance(len(line))
            if not line:
                return


def progress_bar(console: Console, known: bool) -> Progress:
    """A bar in bytes where the size is known, else a count of lines; nothing where there is no terminal."""
    columns = (BarColumn(), TextColumn("{task.percentage:>3.0f} %"), TimeRemainingColumn()) if known else (
        MofNCompleteColumn(), TextColumn("lines"))
    return Progress(TextColumn("{task.description}"), *columns, TimeElapsedColumn(), console=console,
                    disable=not console.is_terminal)


def summary(done: Ingested) -> str:
    """What became of the lines, in a few lines.

    >>> from collections import Counter
    >>> print(summary(Ingested(accepted=3, rejected=0, streams=Counter(clicks=2, carts=1))))
    3 events taken (carts 1, clicks 2), none rejected
    """
    streams = ", ".join(f"{name} {count}" for name, count in sorted(done.streams.items()))
    said = f"{done.accepted} events taken" + (f" ({streams})" if streams else "")
    said += f", {done.rejected or 'none'} rejected"
    for problem in done.problems:
        said += f"\n  line {problem.line}: {problem.because}"
    if done.rejected > len(done.problems):
        said += "\n  and more; the stream `rejects` has each one"
    return said
