"""What becomes of a queue message. One pure function decides it; everything else only carries it out.

In: what the message was, how its objects came out, how often it was received, the queue's rules. Out: a `Fate`.

  - Nothing is deleted before all of its objects are acknowledged, recognised as sent already, or in the quarantine.
  - A failure leaves the message to the queue: where it has a redrive policy, the dead-letter queue is who counts.
    Without one, after `max_receives` the failing objects are recorded in the quarantine and the message goes.
  - What is not the agent's stays (for whoever shares the queue), unless the setting says delete.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from edfn_agent.delivery import Outcome
from edfn_agent.inputs.notifications import Shape

FIRST_PAUSE = 30
LONGEST_PAUSE = 900
"""Seconds until a returned message is seen again: 30, 60, 120 ... 900. A fault that lasts minutes (a permission taken
away, S3 unwell) must not use up the few tries (often 3 to 5) after which a redrive policy takes the message away."""


class Action(Enum):
    DELETE = "delete"
    QUARANTINE = "quarantine"  # record what failed, then delete; if it cannot be recorded, return
    RETURN = "return"  # visible again after `pause`
    LEAVE = "leave"  # visible again when its time is up; not touched


@dataclass(frozen=True, slots=True)
class Rules:
    """What the queue and the settings say."""

    redrive: bool = False
    max_receives: int = 5
    delete_foreign: bool = False


@dataclass(frozen=True, slots=True)
class Fate:
    action: Action
    pause: int = 0
    reason: str = ""


def fate(
    shape: Shape,
    outcomes: Sequence[tuple[Outcome, str]],
    foreign: bool,
    receives: int,
    rules: Rules,
    stopping: bool = False,
) -> Fate:
    """`outcomes`: one entry per object that was tried; `foreign`: something in it is not the agent's."""
    failed = [reason for outcome, reason in outcomes if outcome is Outcome.RETURNED]
    bad = [reason for outcome, reason in outcomes if outcome is Outcome.QUARANTINED]
    if shape is Shape.UNREADABLE:
        return Fate(Action.QUARANTINE, return_pause(receives), "unreadable notification")
    if shape is Shape.TEST:
        return Fate(Action.DELETE, reason="test event")
    if failed and stopping:
        # Whoever else reads the queue may have it at once. A stop is nobody's fault: it never leads to the quarantine.
        return Fate(Action.RETURN, 0, failed[0])
    if failed and (rules.redrive or receives < rules.max_receives):
        return Fate(Action.RETURN, return_pause(receives), failed[0])
    if failed or bad:
        return Fate(Action.QUARANTINE, return_pause(receives), (failed or bad)[0])
    if foreign and not rules.delete_foreign:
        return Fate(Action.LEAVE, reason="not the agent's")
    return Fate(Action.DELETE)


def return_pause(receives: int) -> int:
    return int(min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(max(receives, 1) - 1, 10)))
