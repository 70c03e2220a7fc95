"""What becomes of a message: the whole table."""

from __future__ import annotations

import pytest

from edfn_agent.delivery import Outcome
from edfn_agent.inputs.fate import Action, Rules, fate, return_pause
from edfn_agent.inputs.notifications import Shape

ACK, DUP = (Outcome.ACKNOWLEDGED, ""), (Outcome.DUPLICATE, "announced again")
RET, BAD = (Outcome.RETURNED, "denied"), (Outcome.QUARANTINED, "no flow log")
PLAIN, DEAD_LETTERS = Rules(max_receives=3), Rules(redrive=True, max_receives=3)
O = Shape.OBJECTS


@pytest.mark.parametrize(
    ("shape", "outcomes", "foreign", "receives", "rules", "stopping", "action", "pause"),
    [
        # All objects out, or recognised as out: the message goes.
        (O, [ACK], False, 1, PLAIN, False, Action.DELETE, 0),
        (O, [ACK, DUP], False, 9, PLAIN, False, Action.DELETE, 0),
        (O, [], False, 1, PLAIN, False, Action.DELETE, 0),  # nothing but write tests in it
        (O, [ACK], False, 1, PLAIN, True, Action.DELETE, 0),
        # One that failed keeps it, with a pause.
        (O, [ACK, RET], False, 1, PLAIN, False, Action.RETURN, 30),
        (O, [RET, BAD], False, 2, PLAIN, False, Action.RETURN, 60),
        # Without a redrive policy the agent counts; with one the queue does.
        (O, [RET], False, 3, PLAIN, False, Action.QUARANTINE, 120),
        (O, [RET], False, 3, DEAD_LETTERS, False, Action.RETURN, 120),
        (O, [RET], False, 99, DEAD_LETTERS, False, Action.RETURN, 900),
        # What will never be readable is quarantined at once, wherever.
        (O, [ACK, BAD], False, 1, PLAIN, False, Action.QUARANTINE, 30),
        (O, [BAD], False, 1, DEAD_LETTERS, False, Action.QUARANTINE, 30),
        (Shape.UNREADABLE, [], False, 1, DEAD_LETTERS, False, Action.QUARANTINE, 30),
        # A stop is nobody's fault.
        (O, [RET], False, 3, PLAIN, True, Action.RETURN, 0),
        (O, [RET], False, 1, DEAD_LETTERS, True, Action.RETURN, 0),
        # What is not the agent's.
        (Shape.TEST, [], False, 1, PLAIN, False, Action.DELETE, 0),
        (Shape.FOREIGN, [], True, 1, PLAIN, False, Action.LEAVE, 0),
        (Shape.FOREIGN, [], True, 1, Rules(delete_foreign=True), False, Action.DELETE, 0),
        (O, [], True, 1, PLAIN, False, Action.LEAVE, 0),  # every key filtered out
        (O, [ACK], True, 1, PLAIN, False, Action.LEAVE, 0),
        (O, [RET], True, 1, Rules(delete_foreign=True), False, Action.RETURN, 30),
    ],
)
def test_fate(
    shape: Shape,
    outcomes: list[tuple[Outcome, str]],
    foreign: bool,
    receives: int,
    rules: Rules,
    stopping: bool,
    action: Action,
    pause: int,
) -> None:
    verdict = fate(shape, outcomes, foreign, receives, rules, stopping)
    assert (verdict.action, verdict.pause) == (action, pause)


def test_pauses_grow_to_a_quarter_of_an_hour() -> None:
    assert [return_pause(receives) for receives in (0, 1, 2, 3, 4, 5, 6, 7, 1000)] == [
        *(30, 30, 60, 120, 240, 480, 900, 900, 900)
    ]
