"""The settings in words: the commented example, the reference page, the JSON Schema.

In: the models in `settings`, nothing else. Out: text, the same each time, so that a test can keep the files in the
repository equal to it. Never: a setting that is described here and not there.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator
from typing import Any

from pydantic.fields import FieldInfo

from edfn_agent.config.fields import expected, extra, is_duration, is_list, section_of
from edfn_agent.config.section import Section
from edfn_agent.config.settings import Config

_WIDTH = 118
_NO_BREAK = "\N{NO-BREAK SPACE}"
# Read unless taken out: the two sources that need nothing but AWS. Kinesis needs Java, Firehose an open port.
_READ_IN_EXAMPLE = ("s3", "cloudwatch_logs")

_EXAMPLE_HEAD = """\
# Configuration of edfn-agent. Check it with: edfn-agent validate -c FILE
#
# A setting behind a `#` shows its default, or an example where there is none: take the `#` away to change it.
# Durations: 500ms, 30s, 5m, 1h, 1d, or plain seconds. Relative paths start at the folder of this file.
# ${NAME} takes an environment variable; write $${ for the two characters themselves.
"""


def example_text() -> str:
    """The example configuration: every setting, with its default, range, unit and reason. It is valid as it stands."""
    lines = [_EXAMPLE_HEAD.rstrip("\n")]
    for name, field in Config.model_fields.items():
        lines += ["", *_entry(name, field, "", live=name == "collectors")]
    return "\n".join(lines) + "\n"


def _entry(name: str, field: FieldInfo, margin: str, *, live: bool, blocks_live: bool = True) -> Iterator[str]:
    """One setting or section. `margin` is what stands before each line: spaces, and a `#` inside a commented block."""
    below = section_of(field)
    yield from _comment(_reason(field), margin)
    if below is None:
        yield f"{margin}{'' if live else '#'}{name}: {_example_value(field)}"
    elif not is_list(field):
        open_ = blocks_live and (field.annotation is below or name in _READ_IN_EXAMPLE)
        inner = f"{margin}  " if open_ else f"{margin}#  "
        yield f"{margin}{'' if open_ else '#'}{name}:"
        for sub_name, sub_field in below.model_fields.items():
            # In a block that is commented out, one `#` is enough for what has a default.
            sub_live = not open_ and not sub_field.examples and not _is_empty(sub_field)
            yield from _entry(sub_name, sub_field, inner, live=sub_live, blocks_live=open_)
    elif name == "collectors":
        yield f"{margin}{name}:"
        yield f"{margin}  - udp://192.0.2.10:4739"
        yield from _item(below, f"{margin}  #")
    else:
        yield f"{margin}#{name}:"
        yield from _item(below, f"{margin}#  ")


def _item(section: type[Section], margin: str) -> Iterator[str]:
    """One item of a list of sections, all of it shown, with its reasons."""
    bullet = "- "
    for name, field in section.model_fields.items():
        # A comment in front of the bullet needs no second `#` where the margin ends with one.
        yield from _comment(_reason(field), f"{margin}  " if bullet == "  " else margin.removesuffix("#"))
        yield f"{margin}{bullet}{name}: {_example_value(field)}"
        bullet = "  "


def _reason(field: FieldInfo) -> str:
    """Why, then the range and the unit in brackets, where the line below does not show all there is to know."""
    reason = field.description or _doc(section_of(field))
    if section_of(field) is not None:
        return reason
    words = [expected(field)] if expected(field) not in ("true or false", "text") else []
    if not field.is_required() and field.examples:
        words.append("no default" if _is_empty(field) else f"default: {_default_text(field)}")
    if not words:
        return reason
    # A bracket that falls apart over two lines is hard to find with the eye.
    return f"{reason} " + f"[{'; '.join(words)}]".replace(" ", _NO_BREAK)


def _doc(section: type[Section] | None) -> str:
    return " ".join((section.__doc__ or "").split()) if section is not None else ""


def _comment(text: str, margin: str) -> list[str]:
    head = f"{margin}# "
    lines = textwrap.wrap(text, _WIDTH, initial_indent=head, subsequent_indent=head, break_on_hyphens=False)
    return [line.replace(_NO_BREAK, " ") for line in lines]


def _is_empty(field: FieldInfo) -> bool:
    return field.default in (None, (), {}, "")


def _default_text(field: FieldInfo) -> str:
    if field.is_required() or _is_empty(field):
        return ""
    return extra(field, "default") if is_duration(field) else _yaml(field.default)


def _example_value(field: FieldInfo) -> str:
    if field.examples:
        return _yaml(field.examples[0])
    return _default_text(field) or _yaml(field.default)


_PLAIN = re.compile(r"[\w/.~$-][\w/.:{}$+@~,-]*(?<!:)")


def _yaml(value: object, *, inside: bool = False) -> str:
    """A value on one line, quoted only where a reader or an editor would stumble."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: ""}[value]
    if isinstance(value, dict):
        pairs = (f"{_yaml(key, inside=True)}: {_yaml(item, inside=True)}" for key, item in value.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, tuple) and value and str(value[0]).startswith("-"):
        return json.dumps(" ".join(map(str, value)))  # command-line words
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_yaml(item, inside=True) for item in value) + "]"
    text = str(value)
    plain = _PLAIN.fullmatch(text) and not (inside and re.search(r"[{},]", text)) and text != "off"
    return text if plain else json.dumps(text)


# ---- the reference page ---------------------------------------------------------------------------------------------

_REFERENCE_HEAD = """\
# Configuration

<!-- Made from the models in edfn_agent/config; a test keeps it so. -->

One YAML file. `edfn-agent config example` prints it with every setting and its default, `edfn-agent validate -c FILE`
names every fault in it with its line, `edfn-agent config schema` prints a JSON Schema for editors. Only `collectors`
has to be there:

```yaml
collectors: [udp://192.0.2.10:4739]
inputs:
  s3:
```

* **Durations** are `500ms`, `30s`, `5m`, `1h`, `1d`, or plain seconds.
* **`${NAME}`** inside any text takes an environment variable; one that is not set is a fault. `$${` stands for the two
  characters `${`. In `log_format`, which AWS writes with `${...}`, nothing is replaced.
* **Text is taken as it is written.** `012345678901` is an account, not an octal number; `no` is a word where a word is
  expected; quotes are needed only where YAML itself needs them.
* **Nothing behind the colon** is the default; for a section, the defaults of all its settings. So `s3:` alone reads S3.
* **Paths**: `~` is the home of the user, and what is relative starts at the folder of the configuration file.
* **Unknown keys, keys given twice and merge keys (`<<`)** are faults. Anchors and aliases work.
* **Secrets** are best kept in the environment or in a file of their own: an external id as `${NAME}`, the access key of
  Firehose in `access_key_file`. They are not shown in a message, a table or a log.
* **Proxies** and an authority of your own for AWS come from `HTTPS_PROXY`, `NO_PROXY` and `AWS_CA_BUNDLE`.
"""


def reference_markdown() -> str:
    """docs/configuration.md: one table for each section."""
    top = {name: field for name, field in Config.model_fields.items() if section_of(field) is None}
    lines = [_REFERENCE_HEAD, *_table("The agent itself", "Settings at the top of the file.", top)]
    for name, field in Config.model_fields.items():
        lines += _sections(name, field)
    return "\n".join(lines).rstrip("\n") + "\n"


def _sections(path: str, field: FieldInfo) -> Iterator[str]:
    below = section_of(field)
    if below is None:
        return
    words = " ".join(filter(None, (field.description, _doc(below))))
    heading = f"`{path}`" + (", a list" if is_list(field) else "")
    settings = {name: sub for name, sub in below.model_fields.items() if section_of(sub) is None or is_list(sub)}
    yield from _table(heading, words, settings)
    for name, sub in below.model_fields.items():
        yield from _sections(f"{path}.{name}", sub)


def _table(heading: str, words: str, settings: dict[str, FieldInfo]) -> Iterator[str]:
    yield f"## {heading}\n\n{words}\n"
    if settings:
        yield "| setting | default | what to write | meaning |\n| --- | --- | --- | --- |"
        for name, field in settings.items():
            cells = (f"`{name}`", _default_cell(field), expected(field), field.description or "")
            yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
        yield ""


def _default_cell(field: FieldInfo) -> str:
    if field.is_required():
        return "*needed*"
    text = _default_text(field)
    return f"`{text}`" if text else ""


# ---- JSON Schema ----------------------------------------------------------------------------------------------------


def json_schema() -> dict[str, Any]:
    """The JSON Schema of the file, for editors. Looser than `validate` in one thing: a section may be left empty."""
    schema = Config.model_json_schema()
    for model in (schema, *schema["$defs"].values()):
        for name, prop in model.get("properties", {}).items():
            if "$ref" in prop:
                model["properties"][name] = {"anyOf": [{"$ref": prop.pop("$ref")}, {"type": "null"}], **prop}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
