"""An exporting process: what one transport session has sent, domain by domain, and so what it may and must send.

In: templates, options records and runs of data records, with `now` and `export_time` as arguments. Out: `Messages`.
Kept: sequence numbers (RFC 7011 section 3.1), the templates sent in this session and when (section 8.4), the newest
options records. Never: sockets, the clock, a template withdrawal (many collectors misread one, and UDP forbids it,
section 8.1), data of a template the session has not sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .errors import EncodingError, TemplateRedefinedError, UnannouncedTemplateError
from .messages import Messages, pack
from .records import Records
from .templates import OptionsTemplate, Template


class ExportingProcess:
    """One transport session with one collector.

    `template_refresh` is in the unit of `now`, seconds as a rule; None says that the transport loses nothing (TCP,
    SCTP, a file), so templates are sent once a session.
    """

    def __init__(self, max_message_size: int = 1400, template_refresh: float | None = 60.0) -> None:
        self.max_message_size = max_message_size
        self.template_refresh = template_refresh
        self._domains: dict[int, _Domain] = {}

    @property
    def domains(self) -> tuple[int, ...]:
        """The observation domains announced so far."""
        return tuple(self._domains)

    def templates(self, domain: int) -> list[Template]:
        """All templates known of a domain, in the order they were first announced."""
        return list(self._domain(domain).known.values())

    def sequence(self, domain: int) -> int:
        """The sequence number the next message of this domain will carry."""
        return self._domain(domain).sequence

    def due(self, domain: int, templates: Iterable[Template], now: float) -> list[Template]:
        """Which of these must be announced now: never sent in this session, or last sent a refresh interval ago."""
        state = self._domain(domain)
        interval = float("inf") if self.template_refresh is None else self.template_refresh
        due = []
        for template in templates:
            sent = state.check(domain, template)
            if not sent or now - state.sent[template.id][1] >= interval:
                due.append(template)
        return due

    def announce(
        self,
        domain: int,
        templates: Sequence[Template],
        options: Sequence[Records],
        now: float,
        export_time: int,
    ) -> Messages:
        """Messages with these templates, then these options records; both are remembered for `refresh`.

        The options records of a template are one table: what is given here takes the place of what was there.
        """
        state = self._domain(domain)
        announced: dict[int, Template] = {}
        for template in templates:
            state.check(domain, template)
            if announced.setdefault(template.id, template) != template:
                raise TemplateRedefinedError(f"template {template.id} of domain {domain} is announced with two layouts")
        for records in options:
            _must_be_options(records)
            if announced.get(records.template.id) != records.template and not state.check(domain, records.template):
                raise _unannounced(domain, records.template)
        messages = self._pack(state, domain, [*(t.set_octets() for t in announced.values()), *options], export_time)
        for template in announced.values():
            if state.known.get(template.id) != template:  # options of what the id meant in an earlier session
                state.options.pop(template.id, None)
        state.known.update(announced)
        state.sent.update((template.id, (template, now)) for template in announced.values())
        state.set_options(options)
        return messages

    def set_options(self, domain: int, *options: Records) -> None:
        """Replaces the options records of their templates; the next `refresh` sends them. Nothing is sent now."""
        state = self._domain(domain)
        for records in options:
            _must_be_options(records)
            if state.known.get(records.template.id) != records.template:
                raise _unannounced(domain, records.template)
        state.set_options(options)

    def refresh(self, domain: int, now: float, export_time: int) -> Messages:
        """All templates and options records of a domain again: at every interval, and first after `restart`."""
        state = self._domain(domain)
        options = [records for table in state.options.values() for records in table]
        return self.announce(domain, list(state.known.values()), options, now, export_time)

    def data(self, domain: int, runs: Sequence[Records], export_time: int) -> Messages:
        """Messages with these data records, in this order. Options records may be among them."""
        state = self._domain(domain)
        for records in runs:
            if not state.check(domain, records.template):
                raise _unannounced(domain, records.template)
        return self._pack(state, domain, runs, export_time)

    def skip(self, domain: int, records: int) -> None:
        """Leave out so many data records that had to be given up: the next message shows the gap, so that the collector
        knows of the loss. Where templates are sent again at all they are due now: some collectors take a wide gap for
        a restart and forget them."""
        state = self._domain(domain)
        state.sequence = (state.sequence + records) & 0xFFFFFFFF
        if self.template_refresh is not None:
            state.sent = {id: (template, float("-inf")) for id, (template, _) in state.sent.items()}

    def restart(self) -> None:
        """A new transport session: sequence numbers begin at 0 and every template must be announced again."""
        for state in self._domains.values():
            state.sequence = 0
            state.sent.clear()

    def _pack(self, state: _Domain, domain: int, pieces: Sequence[Records | bytes], export_time: int) -> Messages:
        messages = pack(
            pieces,
            export_time=export_time,
            domain=domain,
            sequence=state.sequence,
            max_message_size=self.max_message_size,
        )
        state.sequence = (state.sequence + messages.records) & 0xFFFFFFFF
        return messages

    def _domain(self, domain: int) -> _Domain:
        state = self._domains.get(domain)
        if state is None:
            if not 0 <= domain <= 0xFFFFFFFF:
                raise EncodingError(f"observation domain {domain} is not in 0..4294967295")
            state = self._domains[domain] = _Domain()
        return state


class _Domain:
    """What is known of one observation domain; what was sent, and when, is of the present session only."""

    __slots__ = ("known", "options", "sent", "sequence")

    def __init__(self) -> None:
        self.sequence = 0
        self.known: dict[int, Template] = {}
        self.sent: dict[int, tuple[Template, float]] = {}
        self.options: dict[int, tuple[Records, ...]] = {}

    def check(self, domain: int, template: Template) -> bool:
        """Whether this session has sent this template. Another one under its id is an error: a collector may keep
        the first it saw, and misread all that follows."""
        if template.id not in self.sent:
            return False
        sent = self.sent[template.id][0]
        if sent is not template and sent != template:
            raise TemplateRedefinedError(
                f"template {template.id} of domain {domain} was sent with other fields in this session: {sent!r}"
            )
        return True

    def set_options(self, options: Iterable[Records]) -> None:
        tables: dict[int, list[Records]] = {}
        for records in options:
            tables.setdefault(records.template.id, []).append(records)
        self.options.update((id, tuple(table)) for id, table in tables.items())


def _must_be_options(records: Records) -> None:
    if not isinstance(records.template, OptionsTemplate):
        raise EncodingError(f"template {records.template.id} is no options template, so its records are no options")


def _unannounced(domain: int, template: Template) -> UnannouncedTemplateError:
    return UnannouncedTemplateError(f"template {template.id} was not announced in domain {domain} in this session")
