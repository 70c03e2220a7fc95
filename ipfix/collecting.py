"""A collecting process: messages in octets become templates and records, strictly by RFC 7011.

In: the octets of one message and the transport session it came by. Out: a `Message` with its sets, in order. A fault in
a set ends the message there: `message.error` says what is wrong, `message.sets` has what came before it. Only octets
that are no message at all raise. Kept: the templates and sequence numbers of each session, up to a cap. Never: a
socket, the clock, an exception other than a `DecodingError`, a record made of padding, work or memory out of proportion
to the input.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .elements import IANA, VARIABLE_LENGTH, ElementRegistry, InformationElement
from .errors import (
    DataRecordError,
    DecodingError,
    HeaderError,
    NotFixedError,
    PaddingError,
    SetError,
    TemplateRecordError,
    TooManyTemplatesError,
    TrailingOctetsError,
    TruncatedError,
)
from .messages import MESSAGE_HEADER, SET_HEADER, VERSION
from .templates import (
    FIRST_DATA_SET,
    OPTIONS_TEMPLATE_SET,
    TEMPLATE_SET,
    Field,
    OptionsTemplate,
    Template,
    is_length_of,
)
from .type_records import described_elements, describes_elements
from .values import Value, length_at, reader

Record: TypeAlias = dict[str, Value]


@dataclass(slots=True)
class TemplateSet:
    """What a template set (id 2) or options template set (id 3) said."""

    set_id: int
    templates: list[Template] = field(default_factory=list)
    redefined: list[int] = field(default_factory=list)  # ids that meant other fields before
    withdrawn: list[int] = field(default_factory=list)  # ids taken back; 2 and 3 stand for all (RFC 7011 section 8.1)


@dataclass(slots=True)
class UnknownSet:
    """A data set whose template this session has not been told: how many records it holds nobody can say."""

    set_id: int
    octets: bytes


class DataSet:
    """Data records of one template. Iterating gives a dict for each; `rows` and `columns` give NumPy arrays."""

    __slots__ = ("_ends", "_known", "octets")

    def __init__(self, known: _Known, octets: bytes, ends: list[int] | None) -> None:
        self._known = known
        self.octets = octets  # of the records, without header and padding
        self._ends = ends  # of each record, when the length varies

    @property
    def template(self) -> Template:
        return self._known.template

    @property
    def is_options(self) -> bool:
        return isinstance(self.template, OptionsTemplate)

    @property
    def set_id(self) -> int:
        return self.template.id

    def __len__(self) -> int:
        return len(self.octets) // self.template.min_record_length if self._ends is None else len(self._ends)

    def __iter__(self) -> Iterator[Record]:
        octets, readers, at = self.octets, self._known.readers, 0
        for _ in range(len(self)):
            record: Record = {}
            for name, length, read in readers:
                if length == VARIABLE_LENGTH:
                    at, length = length_at(octets, at)
                record[name] = read(octets[at : at + length])
                at += length
            yield record

    def rows(self) -> NDArray[Any]:
        """The records as one structured array with the dtype of the template: no copy, no Python for each record."""
        if self._ends is not None:
            raise NotFixedError("records of variable length have no rows", template_id=self.template.id)
        return np.frombuffer(self.octets, self.template.dtype)

    def columns(self) -> dict[str, NDArray[Any]]:
        """`rows` as one array a field. Integers of 3, 5, 6 or 7 octets, which NumPy has no type for, are widened."""
        rows = self.rows()
        return {
            name: _widened(f, rows[name]) for name, f in zip(self.template.names, self.template.fields, strict=True)
        }

    def __repr__(self) -> str:
        return f"<data set, {len(self)} records of template {self.template.id}>"


@dataclass(slots=True)
class Message:
    """One message as received. `error` is None when all of it was right."""

    length: int
    export_time: int
    sequence: int
    domain: int
    sets: list[TemplateSet | DataSet | UnknownSet] = field(default_factory=list)
    gap: int | None = None
    """Data records missing between the last message of this session and domain and this one. 0 is how it should be;
    less than 0 is a message that comes late, twice, or after a restart; None is nothing to compare with: the first
    message, or the one after a message whose records could not be counted."""
    error: DecodingError | None = None

    @property
    def data(self) -> list[DataSet]:
        return [s for s in self.sets if isinstance(s, DataSet)]

    @property
    def templates(self) -> list[Template]:
        return [template for s in self.sets if isinstance(s, TemplateSet) for template in s.templates]

    @property
    def unknown(self) -> list[UnknownSet]:
        return [s for s in self.sets if isinstance(s, UnknownSet)]

    @property
    def records(self) -> int:
        """How many data records were read, options records included."""
        return sum(len(s) for s in self.sets if isinstance(s, DataSet))


class Session:
    """What one transport session has taught: templates by domain and id, the sequence number expected next, and the
    enterprise elements that type records (RFC 5610) described.

    The caps bound what a hostile or broken sender can make us keep.
    """

    def __init__(
        self,
        registry: ElementRegistry = IANA,
        *,
        max_templates: int = 4096,
        max_fields: int = 1 << 17,
        max_domains: int = 1 << 16,
        max_elements: int = 4096,
    ) -> None:
        self.registry = registry
        self.max_templates, self.max_fields, self.max_domains = max_templates, max_fields, max_domains
        self.max_elements = max_elements
        self.template_count = self.field_count = 0
        self._domains: dict[int, _Domain] = {}
        self._described: dict[tuple[int, int], InformationElement] = {}

    def templates(self, domain: int) -> list[Template]:
        """The templates of a domain, options templates last."""
        state = self._domains.get(domain)
        return [known.template for kind in state.known.values() for known in kind.values()] if state else []

    def element(self, id: int, pen: int = 0) -> InformationElement:
        """The element of this number: as the registry has it, else as a type record described it."""
        return self.registry.defined(id, pen) or self._described.get((pen, id)) or self.registry.by_id(id, pen)

    def _describe(self, elements: Iterable[InformationElement]) -> None:
        """Take descriptions of elements that the registry has neither by number nor by name. The first one holds."""
        for element in elements:
            key = element.pen, element.id
            known = key in self._described or self.registry.defined(element.id, element.pen) is not None
            if not known and element.name not in self.registry and len(self._described) < self.max_elements:
                self._described[key] = element

    def _find(self, state: _Domain, id: int, octets: int) -> _Known | None:
        """A template, its fields named and typed by all that is known by now: it may have come before the type records.

        `octets` came for it. With less than a record nothing is done, so that the work is in proportion to the input.
        """
        known = state.find(id)
        if known is None or known.described == len(self._described) or octets < known.template.min_record_length:
            return known
        known.described = len(self._described)
        template = known.template
        fields = [_field(self, f.element.id, f.element.pen, f.length) for f in template.fields]
        if fields == list(template.fields):
            return known
        scope = template.scope_count if isinstance(template, OptionsTemplate) else 0
        retyped = _Known(_template(template.id, scope, fields), known.described)
        state.known[template.set_id][id] = retyped
        return retyped

    def _domain(self, domain: int) -> _Domain:
        state = self._domains.get(domain)
        if state is None:
            while len(self._domains) >= self.max_domains:
                first = next(iter(self._domains))
                self._withdraw(self._domains.pop(first), None)
            state = self._domains[domain] = _Domain()
        return state

    def _learn(self, state: _Domain, template: Template) -> bool:
        """Keeps a template; True when its id meant something else. The newest definition holds (section 8.4)."""
        old = self._find(state, template.id, template.min_record_length)
        if old is not None and old.template == template:
            return False
        freed = (1, len(old.template.fields)) if old else (0, 0)
        if (
            self.template_count - freed[0] >= self.max_templates
            or self.field_count - freed[1] + len(template.fields) > self.max_fields
        ):
            raise TooManyTemplatesError(
                f"the session holds {self.template_count} templates with {self.field_count} fields already"
                f" (it may hold {self.max_templates} and {self.max_fields})",
                template_id=template.id,
            )
        self._withdraw(state, template.id)
        state.known[template.set_id][template.id] = _Known(template, len(self._described))
        self.template_count += 1
        self.field_count += len(template.fields)
        return old is not None

    def _withdraw(self, state: _Domain, id: int | None) -> None:
        """Forgets one template, all of a kind (2 or 3, RFC 7011 section 8.1), or all."""
        gone: list[_Known] = []
        for kind, known in state.known.items():
            if id is None or id == kind:
                gone += known.values()
                known.clear()
            elif id in known:
                gone.append(known.pop(id))
        self.template_count -= len(gone)
        self.field_count -= sum(len(known.template.fields) for known in gone)


class CollectingProcess:
    """Sessions by a key of the caller's choice: the sender's address and port for UDP, the connection for TCP.

    Over UDP anybody can invent senders, so at most `max_sessions` are kept; the one heard least recently goes first.
    """

    def __init__(
        self,
        registry: ElementRegistry = IANA,
        *,
        max_sessions: int = 4096,
        max_templates: int = 4096,
        max_fields: int = 1 << 20,
    ) -> None:
        self.registry = registry
        self.max_sessions, self.max_templates = max_sessions, max_templates
        self.max_fields = max_fields  # of the templates of all sessions together
        self._sessions: dict[Hashable, Session] = {}
        self._fields = 0

    def receive(self, octets: bytes | bytearray | memoryview, session: Hashable = None) -> Message:
        """Decodes one message of a session. Raises a `HeaderError` or `TruncatedError` when it is no message."""
        state = self._sessions.get(session)
        before = state.field_count if state else 0
        if state is None:
            state = Session(self.registry, max_templates=self.max_templates, max_fields=self.max_fields // 8)
        message = decode_message(octets, state)  # before the session is kept: noise on a port makes no session
        self._sessions.pop(session, None)
        self._sessions[session] = state  # last in the order in which they are forgotten
        self._fields += state.field_count - before
        while len(self._sessions) > self.max_sessions or (self._fields > self.max_fields and len(self._sessions) > 1):
            self.forget(next(iter(self._sessions)))
        return message

    def forget(self, session: Hashable) -> None:
        """The session has ended (a connection was closed); its templates mean nothing any more."""
        state = self._sessions.pop(session, None)
        if state is not None:
            self._fields -= state.field_count

    @property
    def sessions(self) -> dict[Hashable, Session]:
        return dict(self._sessions)


def decode_message(octets: bytes | bytearray | memoryview, session: Session) -> Message:
    """One message (RFC 7011 section 3.1), with the templates the session knows; those it brings are learnt."""
    data = octets if isinstance(octets, bytes) else bytes(octets)
    if len(data) < MESSAGE_HEADER.size:
        raise TruncatedError(f"{len(data)} octets are too few for the {MESSAGE_HEADER.size} of a header", offset=0)
    version, length, export_time, sequence, domain = MESSAGE_HEADER.unpack_from(data)
    if version != VERSION:
        name = f" (NetFlow version {version})" if version in (1, 5, 7, 8, 9) else ""
        raise HeaderError(f"version {version}{name} is not 10, so this is not IPFIX", offset=0)
    if length < MESSAGE_HEADER.size:
        raise HeaderError(f"a message length of {length} is shorter than its header", offset=2, domain=domain)
    state = session._domain(domain)
    message = Message(length, export_time, sequence, domain, gap=_gap(state.expected, sequence))
    try:
        _decode_sets(data, length, message, session, state)
        if len(data) > length:
            raise TrailingOctetsError(f"{len(data) - length} octets behind the end of the message", offset=length)
    except DecodingError as error:
        message.error = type(error)(
            error.reason, offset=error.offset, set_id=error.set_id, template_id=error.template_id, domain=domain
        )
    countable = message.error is None and not message.unknown
    state.expected = (sequence + message.records) & 0xFFFFFFFF if countable else None
    return message


class _Known:
    """A template and how to read its records, worked out once."""

    def __init__(self, template: Template, described: int) -> None:
        self.template = template
        self.described = described  # how many elements had been described when its fields were named and typed

    @cached_property
    def has_type_records(self) -> bool:
        return describes_elements(self.template)

    @cached_property
    def readers(self) -> list[tuple[str, int, Any]]:
        template = self.template
        return [(name, f.length, reader(f)) for name, f in zip(template.names, template.fields, strict=True)]

    @cached_property
    def steps(self) -> list[int]:
        """Lengths to walk over a record: fixed fields in a row are one step, 0 is a value that says its own length."""
        steps: list[int] = []
        for f in self.template.fields:
            if f.is_variable:
                steps.append(0)
            elif steps and steps[-1]:
                steps[-1] += f.length
            else:
                steps.append(f.length)
        return steps


class _Domain:
    """Templates by set id (2 or 3) and template id, so that withdrawing all of a kind is one step."""

    __slots__ = ("expected", "known")

    def __init__(self) -> None:
        self.expected: int | None = None
        self.known: dict[int, dict[int, _Known]] = {TEMPLATE_SET: {}, OPTIONS_TEMPLATE_SET: {}}

    def find(self, template_id: int) -> _Known | None:
        return self.known[TEMPLATE_SET].get(template_id) or self.known[OPTIONS_TEMPLATE_SET].get(template_id)


def _gap(expected: int | None, sequence: int) -> int | None:
    """The distance on a circle of 2^32, the shorter way round."""
    return None if expected is None else (sequence - expected + (1 << 31)) % (1 << 32) - (1 << 31)


def _decode_sets(data: bytes, length: int, message: Message, session: Session, state: _Domain) -> None:
    """The sets of a message (RFC 7011 section 3.3), each advancing by at least a header, so this ends."""
    at = MESSAGE_HEADER.size
    while at < length:
        if at + SET_HEADER.size > min(length, len(data)):
            if length > len(data):
                raise TruncatedError(f"the message says {length} octets, but there are {len(data)}", offset=at)
            raise SetError(f"{length - at} octets left in the message are too few for a set header", offset=at)
        set_id, set_length = SET_HEADER.unpack_from(data, at)
        if set_length < SET_HEADER.size:
            raise SetError(f"a set length of {set_length} is shorter than its header", offset=at, set_id=set_id)
        if at + set_length > length:
            raise SetError(f"a set of {set_length} octets goes beyond its message", offset=at, set_id=set_id)
        if at + set_length > len(data):
            raise TruncatedError(f"the message says {length} octets, but there are {len(data)}", offset=at)
        body = data[at + SET_HEADER.size : at + set_length]
        offset = at + SET_HEADER.size
        if set_id >= FIRST_DATA_SET:
            known = session._find(state, set_id, len(body))
            if known is None:
                message.sets.append(UnknownSet(set_id, body))
            else:
                _decode_data(body, offset, known, message)
                if known.has_type_records:
                    session._describe(described_elements(message.data[-1]))
        elif set_id in (TEMPLATE_SET, OPTIONS_TEMPLATE_SET):
            _decode_templates(body, offset, set_id, message, session, state)
        else:
            raise SetError(f"set id {set_id} is reserved (RFC 7011 section 3.3.2)", offset=at, set_id=set_id)
        at += set_length


def _decode_data(body: bytes, offset: int, known: _Known, message: Message) -> None:
    template = known.template
    ends: list[int] | None = None
    try:
        if template.record_length is not None:
            end = len(body) - len(body) % template.record_length
        else:
            ends = []
            _walk(body, offset, known, ends)
            end = ends[-1] if ends else 0
    finally:  # what was whole before a fault is kept
        if ends:
            message.sets.append(DataSet(known, body[: ends[-1]], ends))
    if ends is None and end:
        message.sets.append(DataSet(known, body[:end], None))
    if any(body[end:]):  # padding is shorter than a record, and zeros (RFC 7011 section 3.3.1)
        raise PaddingError(
            f"{len(body) - end} octets behind the last record are neither a record nor zeros",
            offset=offset + end,
            set_id=template.id,
        )
    if not end:
        raise DataRecordError("the set has no record", offset=offset, set_id=template.id)


def _walk(body: bytes, offset: int, known: _Known, ends: list[int]) -> None:
    """Finds where each record of varying length ends. A record has at least an octet, so this ends."""
    shortest, steps, at = known.template.min_record_length, known.steps, 0
    while len(body) - at >= shortest:
        begin = at
        for step in steps:
            if not step:
                at, step = length_at(body, at)
            at += step
            if at > len(body):
                raise DataRecordError(
                    "an element is longer than what is left of its set", offset=offset + begin, set_id=known.template.id
                )
        ends.append(at)


def _decode_templates(
    body: bytes, offset: int, set_id: int, message: Message, session: Session, state: _Domain
) -> None:
    """Template records (RFC 7011 section 3.4) until fewer octets are left than the shortest, a withdrawal, has."""
    found = TemplateSet(set_id)
    message.sets.append(found)
    at = 0
    while len(body) - at >= 4:
        id, count = SET_HEADER.unpack_from(body, at)
        try:
            if count == 0 and (id >= FIRST_DATA_SET or id == set_id):
                session._withdraw(state, id)
                found.withdrawn.append(id)
                at += 4
                continue
            template, after = _decode_template(body, at, set_id, session)
            if session._learn(state, template):
                found.redefined.append(id)
        except DecodingError as error:
            raise type(error)(error.reason, offset=offset + at, set_id=set_id, template_id=id) from None
        found.templates.append(template)
        at = after
    if any(body[at:]):
        raise PaddingError("octets behind the last template are not zeros", offset=offset + at, set_id=set_id)
    if not found.templates and not found.withdrawn:
        raise TemplateRecordError("the set has no template", offset=offset, set_id=set_id)


def _decode_template(body: bytes, at: int, set_id: int, session: Session) -> tuple[Template, int]:
    id, count = SET_HEADER.unpack_from(body, at)
    if id < FIRST_DATA_SET:
        raise TemplateRecordError(f"template id {id} is less than 256")
    if not count:
        raise TemplateRecordError("a template without fields")
    at += 4
    scope = 0
    if set_id == OPTIONS_TEMPLATE_SET:
        if at + 2 > len(body):
            raise TemplateRecordError("the set ends within an options template")
        scope = body[at] << 8 | body[at + 1]
        at += 2
        if not 1 <= scope <= count:
            raise TemplateRecordError(f"an options template of {count} fields cannot have {scope} scope fields")
    if at + 4 * count > len(body):  # before anything is made of the count
        raise TemplateRecordError(f"the set ends within a template of {count} fields")
    fields = []
    for _ in range(count):
        if at + 4 > len(body):
            raise TemplateRecordError(f"the set ends within a template of {count} fields")
        number, length = SET_HEADER.unpack_from(body, at)
        at += 4
        pen = 0
        if number & 0x8000:
            if at + 4 > len(body):
                raise TemplateRecordError("the set ends within an enterprise number")
            pen = int.from_bytes(body[at : at + 4], "big")
            at += 4
        fields.append(_field(session, number & 0x7FFF, pen, length))
    return _template(id, scope, fields), at


def _template(id: int, scope: int, fields: list[Field]) -> Template:
    return OptionsTemplate(id, fields[:scope], fields[scope:]) if scope else Template(id, fields)


def _field(session: Session, id: int, pen: int, length: int) -> Field:
    """A field as announced. What is sent at a length its type cannot have is still shown for what it is: an integer
    that is too wide as a wider integer (forwardingStatus in 4 octets is common), anything else as octets."""
    if length == 0:
        raise TemplateRecordError(f"element {pen}/{id} has a length of 0")
    element = session.element(id, pen)
    if not is_length_of(element.data_type, length):
        widest = (
            {"u": "unsigned64", "s": "signed64"}.get(element.data_type[0]) if "signed" in element.data_type else None
        )
        element = replace(element, data_type=widest if widest and length <= 8 else "octetArray")
    return Field(element, length)


def _widened(f: Field, column: NDArray[Any]) -> NDArray[Any]:
    kind = f.element.data_type
    if "signed" not in kind or f.length not in (3, 5, 6, 7):
        return column
    wide = np.zeros((len(column), 8), np.uint8)
    if kind.startswith("signed"):
        wide[column[:, 0] >= 128] = 255
    wide[:, 8 - f.length :] = column
    return wide.view(">i8" if kind.startswith("signed") else ">u8")[:, 0]
