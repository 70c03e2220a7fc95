"""Java, and the jars of the Kinesis Client Library: where they are, which versions, what to do when they are not there.

In: the environment (JAVA_HOME, PATH) and the installed package amazon_kclpy. Out: `Installation`, or `Missing` whose
text tells what to install. Never: an import of amazon_kclpy (only its jars are used), a download.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

OLDEST_JAVA = 17
MULTILANG = "amazon-kinesis-client-multilang"

INSTALL_JAVA = (
    f"Install Java {OLDEST_JAVA} or newer, headless is enough "
    "(Debian 12 and Ubuntu: apt-get install openjdk-17-jre-headless; Debian 13: openjdk-21-jre-headless; "
    "Amazon Linux: dnf install java-17-amazon-corretto-headless; RHEL: dnf install java-17-openjdk-headless), "
    "or set JAVA_HOME to one"
)
INSTALL_JARS = (
    "Install them with: pip install -c constraints.txt 'edfn-agent[kinesis]' (docs/inputs-kinesis.md, Installing)"
)

_VERSION = re.compile(r'version "(\d+)(?:\.(\d+))?[^"]*"')


class Missing(Exception):
    """Kinesis cannot be read on this machine; the text says what to install."""


@dataclass(frozen=True, slots=True)
class Installation:
    java: Path
    java_version: str
    jars: Path

    @property
    def class_path(self) -> str:
        return f"{self.jars}/*"


def find(environment: Mapping[str, str] = os.environ) -> Installation:
    """Java and the jars. Raises Missing."""
    java, version = find_java(environment)
    return Installation(java, version, find_jars())


def find_java(environment: Mapping[str, str] = os.environ) -> tuple[Path, str]:
    tried = []
    for candidate in _candidates(environment):
        version, major = _ask(candidate)
        if major is not None and major >= OLDEST_JAVA:
            return candidate, version
        tried.append(f"{candidate} ({version})")
    if tried:
        raise Missing(f"Kinesis needs Java {OLDEST_JAVA} or newer; found {', '.join(tried)}. {INSTALL_JAVA}.")
    raise Missing(f"Kinesis needs Java, and there is none in JAVA_HOME or PATH. {INSTALL_JAVA}.")


def find_jars() -> Path:
    # find_spec runs nothing of a top-level package
    spec = importlib.util.find_spec("amazon_kclpy")
    for place in (spec.submodule_search_locations or []) if spec else []:
        jars = Path(place) / "jars"
        found = sorted(jars.glob(f"{MULTILANG}-*.jar"))
        if not found:
            raise Missing(f"amazon-kclpy is installed without its jars ({jars}). {INSTALL_JARS}.")
        empty = [jar.name for jar in jars.glob("*.jar") if jar.stat().st_size == 0]
        if empty:
            raise Missing(f"empty jars in {jars}: {', '.join(sorted(empty))}. {INSTALL_JARS}, with --force-reinstall.")
        return jars
    raise Missing(f"Kinesis needs amazon-kclpy, which is not installed. {INSTALL_JARS}.")


def versions(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """For `edfn-agent version --all`: what is there, or in a few words that it is not."""
    found = {}
    try:
        found["amazon-kclpy"] = metadata.version("amazon-kclpy")
    except metadata.PackageNotFoundError:
        found["amazon-kclpy"] = "not installed"
    try:
        (jar,) = find_jars().glob(f"{MULTILANG}-*.jar")
        found["Kinesis Client Library"] = jar.stem.removeprefix(f"{MULTILANG}-")
    except (Missing, ValueError):
        found["Kinesis Client Library"] = "not installed"
    try:
        java, version = find_java(environment)
        found["Java"] = f"{version} ({java})"
    except Missing as missing:
        found["Java"] = str(missing).split(". ")[0]
    return found


def _candidates(environment: Mapping[str, str]) -> list[Path]:
    found = []
    if home := environment.get("JAVA_HOME"):
        found.append(Path(home) / "bin" / "java")
    if on_path := shutil.which("java", path=environment.get("PATH")):
        found.append(Path(on_path))
    return [each for each in dict.fromkeys(found) if os.access(each, os.X_OK)]


def _ask(java: Path) -> tuple[str, int | None]:
    try:
        answer = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=30, check=False).stderr
    except (OSError, subprocess.SubprocessError) as error:
        return f"does not run: {error}", None
    match = _VERSION.search(answer)
    if match is None:
        return "does not say its version", None
    major = int(match[1])
    if major == 1 and match[2]:  # Java 8 says 1.8.0
        major = int(match[2])
    return match[0].split('"')[1], major
