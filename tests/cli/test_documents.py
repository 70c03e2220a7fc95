"""What the pages promise is there: every link, and every command and option that they tell people to type."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from edfn_agent.cli import main

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")])


def prose(page: Path) -> str:
    return re.sub(r"^ *```.*?^ *```$", "", page.read_text(), flags=re.M | re.S)


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of the headings."""
    headings = re.findall(r"^#+ +(.+)$", prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"https?:", link):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_every_page_is_found_from_the_first_one():
    linked = set(re.findall(r"\]\(docs/([\w-]+\.md)", (ROOT / "README.md").read_text()))
    assert {page.name for page in (ROOT / "docs").glob("*.md")} - linked == set()


def typed(page: Path) -> Iterator[str]:
    """Calls of edfn-agent in code, blocks and spans, with lines that go on put together."""
    text = page.read_text()
    blocks = re.findall(r"^ *```\w*\n(.*?)^ *```$", text, re.M | re.S)
    for code in (*blocks, *re.findall(r"`([^`\n]+)`", prose(page))):
        for line in code.replace("\\\n", " ").splitlines():
            # as the word of a command, not as the name of a unit, a user or a file
            for before, call in re.findall(r"(.*?)(?:^|(?<=[\s/(]))edfn-agent +([^|;>&)#]+)", line):
                if re.fullmatch(r"\S*/|\s*|.*(sudo|&&|--|exec \S+|\$|\$\() ?", before):
                    yield call.strip()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_options_that_are_shown_exist(page):
    wrong = []
    for call in typed(page):
        command: click.Command = main
        known = {option for parameter in main.params for option in parameter.opts} | {"--help", "-h"}
        try:
            words = shlex.split(call)
        except ValueError:  # a quotation of something else
            continue
        for word in words:
            if word.startswith("-") and len(word) > 1:
                if word.split("=")[0] not in known:
                    wrong.append(f"edfn-agent {call}: {word}")
            elif isinstance(command, click.Group) and re.fullmatch(r"[a-z][a-z0-9-]*", word):
                found = command.get_command(click.Context(command), word)
                if found is None:
                    wrong.append(f"edfn-agent {call}: {word}")
                    break
                command = found
                for parameter in command.params:
                    known |= {*parameter.opts, *parameter.secondary_opts}
    assert wrong == []
