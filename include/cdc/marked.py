"""YAML as people write it by hand: plain values, the line of every key, and all that is wrong at once.

A pipeline file holds texts, booleans, lists and mappings. A scalar that YAML takes for something else (``2013``,
``2024-01-01``, ``1e3``) becomes :class:`Other`, so that no number or date is ever made of it. Anchors, aliases and tags
are refused: a few bytes of them can unfold to gigabytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import yaml

LONGEST = 256 * 1024
DEEPEST = 20
"""Bytes of a file, and brackets within brackets, that are read."""

Keys = tuple[str, ...]
"""Where a value stands: ``("tables", "public.orders", "columns", "0")``."""

_TRUE = ("yes", "true", "on")
_KINDS = {"int": "a number", "float": "a number", "timestamp": "a date", "merge": "a merge key", "value": "a special key"}


@dataclass(frozen=True)
class Other:
    """A scalar that is neither text nor boolean nor empty; ``kind`` says what YAML takes it for."""

    text: str
    kind: str


@dataclass(frozen=True)
class Problem:
    """``keys`` may be empty; ``line`` counts from 1."""

    line: int
    keys: Keys
    text: str


@dataclass
class Document:
    """``value`` is None where the text is no YAML; ``lines`` has the line of each key and list item."""

    value: Any = None
    lines: dict[Keys, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def line(self, keys: Keys) -> int:
        """The line of the value at ``keys``, or of the innermost one around it."""
        while keys and keys not in self.lines:
            keys = keys[:-1]
        return self.lines.get(keys, 1)


def read(data: bytes) -> Document:
    """Read one document. Never raises: what is wrong is in ``problems``."""
    document = Document()
    if len(data) > LONGEST:
        document.problems.append(Problem(1, (), f"has {len(data)} bytes; a pipeline file has at most {LONGEST}"))
        return document
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        document.problems.append(Problem(line, (), f"byte {data[error.start]:#04x} is not UTF-8; save the file as UTF-8"))
        return document
    try:
        if refused := _refused(text):
            document.problems.append(refused)
            return document
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        document.problems.append(Problem(line, (), f"not YAML: character {error.character:#06x} is not allowed; remove it"))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        document.problems.append(Problem(mark.line + 1 if mark else 1, (), f"not YAML: {_sentence(error)}"))
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # PyYAML's own limits, such as "\UFFFFFFFF"
        document.problems.append(Problem(1, (), f"not YAML: {error}"))
    else:
        document.value = _plain(node, (), document) if node else None
    return document


def _refused(text: str) -> Problem | None:
    """What must be known before the text is composed, which unfolds aliases and recurses."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            return Problem(line, (), "anchors (&) and aliases (*) are not used here; write the value out")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > DEEPEST:
            return Problem(line, (), f"more than {DEEPEST} lists or mappings within each other; a pipeline has 4")
    return None


def _plain(node: yaml.Node, keys: Keys, document: Document) -> Any:
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, keys, document)
    if isinstance(node, yaml.SequenceNode):
        document.lines |= {(*keys, str(number)): item.start_mark.line + 1 for number, item in enumerate(node.value)}
        return [_plain(item, (*keys, str(number)), document) for number, item in enumerate(node.value)]
    kind = node.tag.removeprefix("tag:yaml.org,2002:")
    if kind == "str":
        return node.value
    if kind == "null":
        return None
    if kind == "bool":
        return node.value.lower() in _TRUE
    return Other(node.value, _KINDS.get(kind, f"of the type {kind}"))


def _mapping(node: yaml.MappingNode, keys: Keys, document: Document) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            document.problems.append(Problem(line, keys, "a list or mapping stands where a key should; write a name"))
            continue
        here = (*keys, key.value)
        if key.value in found:
            first = document.lines[here]
            document.problems.append(Problem(line, here, f"is given twice, first in line {first}; remove one of them"))
            continue
        document.lines[here] = line
        found[key.value] = _plain(value, here, document)
    return found


def _sentence(error: yaml.MarkedYAMLError) -> str:
    """PyYAML's problem and what it was reading, with the commonest cause where it has one."""
    text = ", ".join(part for part in (error.problem, error.context) if part)
    return f"{text}; indent with blanks instead" if "'\\t'" in text else text
