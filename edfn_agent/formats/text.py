"""The scanner in plain Python: one line of text to one row of columns. `_scan.pyx` is the same, compiled.

This is the specification of what a line means, the oracle of the property tests, and what runs where the extension
could not be built. In come octets with whole lines in them; rows are appended to the arrays of a `Columns`, and what
is not a flow is counted. It never reads input, never keeps text, and never raises on any octets.

A line is what stands before a newline, without a carriage return just before it. Its words are separated by one or
more spaces, and by nothing else. An empty line is nothing at all.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from functools import lru_cache

from edfn_agent.formats.batch import Dictionary
from edfn_agent.formats.columns import (
    ADDRESS,
    DICTIONARY_ENTRIES,
    DICTIONARY_OCTETS,
    END,
    FULL,
    HEADER,
    HEADER_WORDS,
    MAX_LINE,
    MILLISECONDS_FROM,
    OTHER,
    SKIP,
    STRING,
    TIME,
    Columns,
    Word,
)

Buffer = bytes | bytearray

KEPT_BAD_LINES = 8  # per call of scan: the rest is only counted


class Malformed(Exception):
    """Why a line cannot be read; for people."""


class Scanner:
    """Appends the rows of successive stretches of text to the arrays of `columns`, until they are full.

    After `scan`: `rows` in the arrays, `position` of the first octet not consumed, `line` number of the last line
    consumed, what this call met beside flows (`nodata`, `skipdata`, `without_addresses`, `malformed`, and `apart`, the
    sum of the four), and `bad`, the first malformed lines as (line number, start, end).
    """

    def __init__(
        self,
        columns: Columns,
        timestamped: bool = False,
        dictionary_entries: int = DICTIONARY_ENTRIES,
        dictionary_octets: int = DICTIONARY_OCTETS,
    ) -> None:
        self.columns = columns
        self.timestamped = timestamped
        self.dictionaries: list[Dictionary | None] = [None] * len(columns.words)
        self.rows = self.position = self.line = 0
        self.nodata = self.skipdata = self.without_addresses = self.malformed = self.apart = 0
        self.bad: list[tuple[int, int, int]] = []
        self._limits = (dictionary_entries, dictionary_octets)
        self._codes: list[dict[bytes, int]] = [{} for _ in columns.words]
        self._octets = [0] * len(columns.words)
        self._crowded = False
        # a header line that repeats itself is seen even when its first name is not AWS's
        self._status = next((place for place, word in enumerate(columns.words) if word.status), -1)
        self._header_words = HEADER_WORDS | {columns.words[0].name.encode()}
        for place, word in enumerate(columns.words):
            if word.job == STRING:
                self._begin_dictionary(place)

    def _begin_dictionary(self, place: int) -> None:
        dictionary = Dictionary()
        self.dictionaries[place] = dictionary
        self._codes[place] = {value: code for code, value in enumerate(dictionary.values)}
        self._octets[place] = sum(map(len, dictionary.values))

    def sync(self) -> None:
        """Bring `dictionaries` up to what the rows refer to: the compiled one has tables of its own."""

    def renew(self) -> None:
        """The rows were taken: start again at row 0, with new dictionaries for those that became too large."""
        self.rows = 0
        if self._crowded:
            self._crowded = False
            for place, dictionary in enumerate(self.dictionaries):
                if dictionary is not None and self._too_large(place):
                    self._begin_dictionary(place)

    def _too_large(self, place: int) -> bool:
        return len(self._codes[place]) > self._limits[0] or self._octets[place] > self._limits[1]

    def scan(
        self, buffer: Buffer, start: int, stop: int, final: bool, data_first: bool = False, others: bytes | None = None
    ) -> int:
        """Read the whole lines in buffer[start:stop]; with `final`, what stands after the last newline is one too.

        `data_first`: the first line is data, whatever it looks like. `others`: a flag per number of words that a
        layout has which the caller would rather use (256 of them).
        """
        self.nodata = self.skipdata = self.without_addresses = self.malformed = 0
        self.bad = []
        self.position = start
        code = END
        if not self.columns.arrays:
            self.columns.open()
        while self.position < stop:
            begin = self.position
            newline = buffer.find(b"\n", begin, stop)
            if newline < 0 and not final:
                break
            end, following = (newline, newline + 1) if newline >= 0 else (stop, stop)
            if end - begin <= MAX_LINE:
                line = bytes(buffer[begin:end])
                found = split(line)
                if found:
                    if self.rows == self.columns.capacity or self._crowded:
                        code = FULL
                        break
                    if not data_first:
                        if not self.timestamped and found[0] in self._header_words:
                            code = HEADER
                            break
                        count = len(found) - self.timestamped
                        if others and 0 <= count < 256 and count != len(self.columns.words) and others[count]:
                            code = OTHER
                            break
                    data_first = False
                    self.line += 1
                    try:
                        self._row(found)
                    except Malformed:
                        self._bad(begin, end)
                else:
                    self.line += 1
            else:
                self.line += 1
                data_first = False
                self._bad(begin, end)
            self.position = following
        self.apart = self.nodata + self.skipdata + self.without_addresses + self.malformed
        return code

    def _bad(self, begin: int, end: int) -> None:
        self.malformed += 1
        if len(self.bad) < KEPT_BAD_LINES:
            self.bad.append((self.line, begin, end))

    def _row(self, found: list[bytes]) -> None:
        """Put one line's values in the next row, which counts only when it turns out to be a flow."""
        data = data_words(self.columns.words, found, self.timestamped)
        status = data[self._status] if self._status >= 0 else b""
        if status == b"NODATA":
            self.nodata += 1
            return
        if status == b"SKIPDATA":
            self.skipdata += 1
            return
        row = self.rows
        family = 0
        endpoint = False
        values = read_words(self.columns.words, data)
        for place, (word, value) in enumerate(zip(self.columns.words, values, strict=True)):
            arrays = self.columns.arrays[place]
            if isinstance(value, ipaddress.IPv4Address | ipaddress.IPv6Address):
                family = value.version
                endpoint = endpoint or word.endpoint
            if not word.kept:
                continue
            if word.job == STRING:
                assert isinstance(value, bytes)
                arrays[0][row] = self._code(place, value)
            elif word.job == ADDRESS:
                assert value is None or isinstance(value, ipaddress.IPv4Address | ipaddress.IPv6Address)
                arrays[0][row] = 0 if value is None else value.version
                arrays[1][row] = int(value) if value is not None and value.version == 4 else 0
                if value is not None and value.version == 6:
                    arrays[2][row] = list(value.packed)
            else:
                assert value is None or isinstance(value, int)
                arrays[0][row] = value or 0
                arrays[1][row] = value is None
        if not endpoint:
            self.without_addresses += 1
        else:
            self.columns.family[row] = family
            self.rows += 1

    def _code(self, place: int, value: bytes) -> int:
        codes = self._codes[place]
        code = codes.get(value)
        if code is None:
            dictionary = self.dictionaries[place]
            assert dictionary is not None
            code = codes[value] = len(dictionary.values)
            dictionary.values.append(value)
            self._octets[place] += len(value)
            if self._too_large(place):
                self._crowded = True
        return code


def split(line: bytes) -> list[bytes]:
    """The words of a line (without its newline)."""
    if line.endswith(b"\r"):
        line = line[:-1]
    return [word for word in line.split(b" ") if word]


Value = int | bytes | ipaddress.IPv4Address | ipaddress.IPv6Address | None


def data_words(words: Sequence[Word], found: list[bytes], timestamped: bool) -> list[bytes]:
    """The words of a line, one for each of the layout's. Raises Malformed when they are more or fewer."""
    if timestamped:
        if not is_timestamp(found[0]):
            raise Malformed(f"{printable(found[0])} is not a time in front of the line")
        found = found[1:]
    if len(found) != len(words):
        raise Malformed(f"{len(found)} word{'s' * (len(found) != 1)} where the layout has {len(words)}")
    return found


def read_words(words: Sequence[Word], found: list[bytes]) -> list[Value]:
    """The values of one line, `None` for what is absent or not wanted. Raises Malformed, for the first fault."""
    values: list[Value] = []
    versions = set()
    for word, text in zip(words, found, strict=True):
        if word.job == SKIP:
            values.append(None)
        elif word.job == STRING:
            values.append(text)
        elif text == b"-":
            values.append(None)
        elif word.job == ADDRESS:
            address = read_address(text)
            if address is None:
                raise Malformed(f"{word.name}: {printable(text)} is not an address")
            versions.add(address.version)
            values.append(address)
        else:
            values.append(read_integer(word, text))
    if len(versions) > 1:
        raise Malformed("IPv4 and IPv6 addresses in one line")
    return values


def read_integer(word: Word, text: bytes) -> int:
    """The value of a word that should be a number; a time comes out in milliseconds. Raises Malformed."""
    if not text.isdigit():  # of bytes: ASCII digits only
        raise Malformed(f"{word.name}: {printable(text)} is not a number")
    if len(text) > 19:
        raise Malformed(f"{word.name}: {printable(text)} has more than 19 digits")
    value = int(text)
    if value > word.maximum:
        raise Malformed(f"{word.name}: {value} is over {word.maximum}")
    if word.job == TIME and value < MILLISECONDS_FROM:
        return value * 1000
    return value


@lru_cache(maxsize=65536)
def read_address(text: bytes) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """An address as the ipaddress module reads it, without scope ids; None when it is none."""
    if b"%" in text or not text.isascii():
        return None
    try:
        return ipaddress.ip_address(text.decode("ascii"))
    except ValueError:
        return None


def is_timestamp(word: bytes) -> bool:
    """Whether a word is like `2024-12-14T16:37:04.000Z`, which export tasks of CloudWatch Logs put in front."""
    return 20 <= len(word) <= 35 and word[4] == word[7] == 0x2D and word[10] == 0x54


def printable(text: bytes) -> str:
    """Octets of an unknown origin, quoted so that a terminal or a log shows them and nothing else."""
    short = text if len(text) <= 48 else text[:45] + b"..."
    return "'" + short.decode("latin-1").encode("unicode_escape").decode("ascii") + "'"


def explain(words: Sequence[Word], line: bytes, timestamped: bool) -> str:
    """Why a line (without its newline) is malformed."""
    if len(line) > MAX_LINE:
        return f"longer than {MAX_LINE} octets"
    try:
        read_words(words, data_words(words, split(line), timestamped))
    except Malformed as fault:
        return str(fault)
    return "not read"
