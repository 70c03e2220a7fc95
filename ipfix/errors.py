"""Everything this library raises, and nothing else comes out of it on bad data.

    IpfixError
    ├── DefinitionError               an element or a template that IPFIX cannot express
    │   ├── ElementError
    │   │   └── UnknownElementError   no element of that name
    │   └── TemplateError
    ├── EncodingError                 what was handed over cannot be sent as asked
    │   ├── ColumnError               a column is missing, surplus, or of the wrong kind or length
    │   ├── ValueRangeError           a value does not fit into its field
    │   ├── TooLongError              a record or template that no message can hold
    │   ├── UnannouncedTemplateError  data for a template this session has not sent
    │   └── TemplateRedefinedError    one template id, two layouts, in one session
    └── DecodingError                 what was received is not what RFC 7011 allows
        ├── HeaderError               not an IPFIX message at all: version, or too short for a header
        ├── TruncatedError            ends before the length it announces
        ├── TrailingOctetsError       goes on after the length it announces
        ├── SetError                  a set whose id or length is wrong
        ├── TemplateRecordError       a template record that is malformed
        ├── DataRecordError           an element longer than its set, a set without a record
        ├── PaddingError              octets left over in a set that are not padding
        ├── TooManyTemplatesError     a session that wants more templates than the cap
        └── NotFixedError             rows or columns asked of records of variable length

The text of an error says where: offsets are octets from the start of the message (in files: of the file).
"""

from __future__ import annotations


class IpfixError(Exception):
    """The root: `except IpfixError` is enough to survive any input."""


class DefinitionError(IpfixError, ValueError):
    pass


class ElementError(DefinitionError):
    pass


class UnknownElementError(ElementError):
    pass


class TemplateError(DefinitionError):
    pass


class EncodingError(IpfixError, ValueError):
    pass


class ColumnError(EncodingError):
    pass


class ValueRangeError(EncodingError):
    pass


class TooLongError(EncodingError):
    pass


class UnannouncedTemplateError(EncodingError):
    pass


class TemplateRedefinedError(EncodingError):
    pass


class DecodingError(IpfixError, ValueError):
    """Malformed input. The attributes repeat what the text says; None is what was not known at that point."""

    def __init__(
        self,
        reason: str,
        *,
        offset: int | None = None,
        set_id: int | None = None,
        template_id: int | None = None,
        domain: int | None = None,
    ) -> None:
        self.reason = reason
        self.offset = offset
        self.set_id = set_id
        self.template_id = template_id
        self.domain = domain
        known = (("offset", offset), ("set", set_id), ("template", template_id), ("domain", domain))
        where = ", ".join(f"{name} {value}" for name, value in known if value is not None)
        super().__init__(f"{reason} ({where})" if where else reason)


class HeaderError(DecodingError):
    pass


class TruncatedError(DecodingError):
    pass


class TrailingOctetsError(DecodingError):
    pass


class SetError(DecodingError):
    pass


class TemplateRecordError(DecodingError):
    pass


class DataRecordError(DecodingError):
    pass


class PaddingError(DecodingError):
    pass


class TooManyTemplatesError(DecodingError):
    pass


class NotFixedError(DecodingError):
    pass
