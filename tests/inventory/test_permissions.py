"""Which calls are optional follows from the policy of the original product, and docs/permissions.md is complete."""

from __future__ import annotations

from pathlib import Path

from edfn_agent.inventory.calls import ALL
from edfn_agent.setup.agent_policy import LIKE_EDFN

DOCUMENT = Path(__file__).parents[2] / "docs" / "permissions.md"


def test_what_is_beyond_the_original_policy_is_optional_and_nothing_else() -> None:
    original = [action for statement in LIKE_EDFN for action in statement["Action"]]

    def has(action: str) -> bool:
        return any(action == each or (each.endswith("*") and action.startswith(each[:-1])) for each in original)

    assert {each.action for each in ALL if each.optional} == {each.action for each in ALL if not has(each.action)}


def test_the_document_names_every_call_and_what_is_missing_without_it() -> None:
    text = DOCUMENT.read_text()
    for call in ALL:
        assert f"| `{call.action}` |" in text, call.action
        assert call.without in text, call.action
