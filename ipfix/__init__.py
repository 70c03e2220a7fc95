"""IPFIX (RFC 7011) without I/O: columns in, messages out, and back. No sockets, no clock, NumPy and nothing else.

Two flows become messages and records again:

>>> from ipfix import IANA, CollectingProcess, ExportingProcess, Template
>>> names = ["sourceIPv4Address", "destinationIPv4Address", "protocolIdentifier", "octetDeltaCount", "interfaceName"]
>>> flow = Template(256, [IANA.by_name(name) for name in names])
>>> columns = [["192.0.2.1", "192.0.2.2"], "198.51.100.7", [6, 17], [1500, 64], ["eth0", "eth1"]]
>>> records = flow.records(dict(zip(names, columns)))
>>> exporter, collector = ExportingProcess(), CollectingProcess()
>>> messages = [*exporter.announce(1, [flow], [], now=0, export_time=1735920000)]
>>> messages += exporter.data(1, [records], export_time=1735920000)
>>> for data in (data for octets in messages for data in collector.receive(octets).data):
...     for record in data:
...         print(*record.values())
192.0.2.1 198.51.100.7 6 1500 eth0
192.0.2.2 198.51.100.7 17 64 eth1

The modules, from the ground up: `elements` (what a field means), `templates` (how a record is laid out), `records`
(columns to data records), `messages` (records to messages under a size limit), `exporting` (what a session has sent and
must send), `values` (octets to Python values), `collecting` (messages to records, strictly), `type_records` (RFC 5610:
elements described on the wire), `files` (RFC 5655), `errors`. docs/library.md tells more.
"""

from .collecting import CollectingProcess, DataSet, Message, Record, Session, TemplateSet, UnknownSet, decode_message
from .elements import IANA, VARIABLE_LENGTH, ElementRegistry, InformationElement
from .errors import (
    ColumnError,
    DataRecordError,
    DecodingError,
    DefinitionError,
    ElementError,
    EncodingError,
    HeaderError,
    IpfixError,
    NotFixedError,
    PaddingError,
    SetError,
    TemplateError,
    TemplateRecordError,
    TemplateRedefinedError,
    TooLongError,
    TooManyTemplatesError,
    TrailingOctetsError,
    TruncatedError,
    UnannouncedTemplateError,
    UnknownElementError,
    ValueRangeError,
)
from .exporting import ExportingProcess
from .files import FileReader, FileWriter
from .messages import Messages, pack
from .records import Records, VariableColumn
from .templates import Field, OptionsTemplate, Template
from .type_records import type_records, type_template
from .values import Value

__all__ = [
    "InformationElement",
    "ElementRegistry",
    "IANA",
    "VARIABLE_LENGTH",
    "Field",
    "Template",
    "OptionsTemplate",
    "Records",
    "VariableColumn",
    "type_template",
    "type_records",
    "Messages",
    "pack",
    "ExportingProcess",
    "CollectingProcess",
    "Session",
    "decode_message",
    "Message",
    "TemplateSet",
    "DataSet",
    "UnknownSet",
    "Record",
    "Value",
    "FileWriter",
    "FileReader",
    "IpfixError",
    "DefinitionError",
    "ElementError",
    "UnknownElementError",
    "TemplateError",
    "EncodingError",
    "ColumnError",
    "ValueRangeError",
    "TooLongError",
    "UnannouncedTemplateError",
    "TemplateRedefinedError",
    "DecodingError",
    "HeaderError",
    "TruncatedError",
    "TrailingOctetsError",
    "SetError",
    "TemplateRecordError",
    "DataRecordError",
    "PaddingError",
    "TooManyTemplatesError",
    "NotFixedError",
]
