"""Files as deliveries: paths, folders walked in name order, and `-` for standard input.

In: what a person named on the command line. Out: one delivery per file, read in chunks. Never: writing, or following
what a file's name might say about its content.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from edfn_agent.delivery import Delivery, Origin, Outcome
from edfn_agent.formats.layout import Layout

CHUNK_OCTETS = 256 * 1024
ORIGIN = Origin(input="files", source="files")
STANDARD_INPUT = "-"


def walk(names: Sequence[str]) -> Iterator[str]:
    """The files behind the names, in the order given; what is in a folder in name order. Pipes, sockets and devices
    in a folder are no files: reading one may never end. A link that leads nowhere is a file that cannot be read."""
    for name in names:
        if name != STANDARD_INPUT and os.path.isdir(name):
            for folder, folders, files in os.walk(name):
                folders.sort()
                for path in (os.path.join(folder, file) for file in sorted(files)):
                    if os.path.isfile(path) or not os.path.exists(path):
                        yield path
        else:
            yield name


def delivery(name: str, settle: Callable[[Outcome, str], None], layout: Layout | None = None) -> Delivery:
    """One file. Opening it is part of the reading: `chunks()` raises OSError when it cannot be read."""
    shown = "standard input" if name == STANDARD_INPUT else name
    return Delivery(ORIGIN, shown, lambda: _chunks(name), settle, layout)


def _chunks(name: str) -> Iterable[bytes]:
    if name == STANDARD_INPUT:
        while chunk := os.read(sys.stdin.fileno(), CHUNK_OCTETS):
            yield chunk
        return
    with Path(name).open("rb", buffering=0) as file:
        while chunk := file.read(CHUNK_OCTETS):
            yield chunk
