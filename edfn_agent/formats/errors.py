"""What can be wrong with a whole delivery. What is wrong with one line is counted instead (`batch.BadLine`)."""

from __future__ import annotations


class FormatError(Exception):
    """A delivery could not be read to its end. Everything before the fault has been taken in."""


class NotAFlowLog(FormatError):
    """No line of it could be read, and no header line says that it is a flow log."""


class OtherLogGroup(NotAFlowLog):
    """Log events in proper envelopes, of a log group that holds no flow logs: a mistake of routing, not of the data.
    They are counted, and nothing is to be kept for another try."""


class TruncatedInput(FormatError):
    """It ends in the middle: a gzip member or a JSON object that is not complete."""


class CorruptInput(FormatError):
    """It is damaged from some place on: a wrong checksum, octets that are no gzip member, a broken JSON object."""


class MissingExtra(FormatError):
    """It needs a library that an extra of the package brings."""
