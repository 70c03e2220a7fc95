"""A YAML file as plain data, with the place of every key and value.

In: text, and the environment for `${NAME}`. Out: nested dicts and lists whose leaves are the text as written (or None
where nothing is written), and the faults that YAML itself would let pass. Never: a guess at the type of a value. YAML
1.1 reads `no` as false, `012345670123` as octal and `2026-01-01` as a date; here only the settings know their types.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import yaml

from edfn_agent.config.faults import ConfigError, Fault, key_path

Path = tuple[str | int, ...]
Data = dict[str, "Data"] | list["Data"] | str | None

_VARIABLE = re.compile(r"\$(\$\{)|\$\{([^}]*)(\}?)")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NULL = "tag:yaml.org,2002:null"
_STANDARD_TAG = "tag:yaml.org,2002:"


@dataclass
class Document:
    file: str
    environ: Mapping[str, str]
    # AWS writes its flow-log formats as ${version} ${account-id}: where this says so, `${` is no variable.
    verbatim: Callable[[Path], bool] = lambda path: False
    data: Data = None
    faults: list[Fault] = field(default_factory=list)
    _keys: dict[Path, yaml.Mark] = field(default_factory=dict)
    _values: dict[Path, yaml.Mark] = field(default_factory=dict)
    _written: dict[Path, str] = field(default_factory=dict)

    @classmethod
    def read(
        cls, text: str, file: str, environ: Mapping[str, str], verbatim: Callable[[Path], bool] = lambda path: False
    ) -> Document:
        """Raises ConfigError where the text is no YAML: what follows a syntax error cannot be judged."""
        document = cls(file, environ, verbatim)
        try:
            root = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            raise ConfigError([document._syntax_fault(error, mark)]) from None
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            column = error.position - text.rfind("\n", 0, error.position)
            message = f"not YAML: the character #x{error.character:04x} is not allowed"
            raise ConfigError([Fault(file, line, column, "", message)]) from None
        if root is not None:
            document.data = document._convert(root, (), [])
        return document

    def fault(self, path: Path, message: str, *, at_key: bool = False, key: str | None = None) -> Fault:
        """A fault at `path`, or at the nearest thing above it that is written in the file."""
        name = key_path(path) if key is None else key
        known = path
        while True:
            mark = None if at_key else self._values.get(known)
            mark = mark or self._keys.get(known)
            if mark is not None:
                return Fault(self.file, mark.line + 1, mark.column + 1, name, message)
            if not known:
                return Fault(self.file, None, None, name, message)
            known = known[:-1]

    def written(self, path: Path) -> str | None:
        """A scalar as it stands in the file, variables not filled in; None for what is no scalar or is not there."""
        return self._written.get(path)

    def trim(self, path: Path) -> Path:
        """`path` without the steps that are not in the file (pydantic names branches of a union, too)."""
        kept: list[str | int] = []
        here: Data = self.data
        for step in path:
            if isinstance(here, dict) and isinstance(step, str):
                found = step in here
                here = here[step] if found else here
            elif isinstance(here, list) and isinstance(step, int):
                found = step < len(here)
                here = here[step] if found else here
            else:
                found = False
            if found:
                kept.append(step)
        return tuple(kept)

    def _convert(self, node: yaml.Node, path: Path, inside: list[yaml.Node]) -> Data:
        if any(node is outer for outer in inside):
            self._complain(node, path, "this alias contains itself")
            return None
        if not node.tag.startswith(_STANDARD_TAG):
            self._complain(node, path, "a tag (!...) means nothing here")
        inside = [*inside, node]
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, inside)
        if isinstance(node, yaml.SequenceNode):
            items = []
            for index, item in enumerate(node.value):
                self._keys[*path, index] = item.start_mark
                items.append(self._convert(item, (*path, index), inside))
            return items
        assert isinstance(node, yaml.ScalarNode)
        if node.tag == _NULL and node.style is None:
            return None
        self._values[path] = node.start_mark
        self._written[path] = node.value
        return node.value if self.verbatim(path) else self._fill_in(node, path)

    def _mapping(self, node: yaml.MappingNode, path: Path, inside: list[yaml.Node]) -> dict[str, Data]:
        items: dict[str, Data] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._complain(key_node, path, "a key must be plain text")
                continue
            key = key_node.value
            here = (*path, key)
            if key in items:
                # YAML forbids it, PyYAML lets the last one win without a word.
                first = self._keys[here].line + 1
                self._complain(key_node, here, f"given twice; the first one is in line {first}")
                continue
            if key == "<<":
                self._complain(key_node, here, "merge keys are not supported: write the keys out")
                continue
            self._keys[here] = key_node.start_mark
            items[key] = self._convert(value_node, here, inside)
        return items

    def _fill_in(self, node: yaml.ScalarNode, path: Path) -> str:
        def value_of(match: re.Match[str]) -> str:
            escaped, name, closed = match.groups()
            if escaped:
                return "${"
            if not closed or not _NAME.fullmatch(name):
                problem = f"${{{name}{closed}" + " names no environment variable; write $${ for the two characters ${"
            elif name not in self.environ:
                problem = f"the environment variable {name} is not set"
            else:
                return self.environ[name]
            self._complain(node, path, problem)
            return ""

        return _VARIABLE.sub(value_of, node.value)

    def _complain(self, node: yaml.Node, path: Path, message: str) -> None:
        mark = node.start_mark
        self.faults.append(Fault(self.file, mark.line + 1, mark.column + 1, key_path(path), message))

    def _syntax_fault(self, error: yaml.MarkedYAMLError, mark: yaml.Mark | None) -> Fault:
        # Only the parser's own words: str(error) would quote the lines around, secrets included.
        words = "; ".join(part for part in (error.context, error.problem) if part)
        words = re.sub(r"(alias|anchor) '[^']*'", r"\1", words)
        line, column = (None, None) if mark is None else (mark.line + 1, mark.column + 1)
        return Fault(self.file, line, column, "", f"not YAML: {words}")
