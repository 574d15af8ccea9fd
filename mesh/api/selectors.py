"""Label and field selectors: parsed once, then matched against labels or objects.

Entry points: `parse_label_selector`, `label_selector_of`, `parse_field_selector`. Source: Kubernetes documentation, "Labels and
Selectors" and "Field Selectors".
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mesh.api.errors import SelectorError
from mesh.api.meta import LabelSelector

MAX_LENGTH = 16_384
"""A longer selector is refused. Characters."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on one label."""

    key: str
    operator: str
    """in, notin, exists, !, gt or lt. Equality is `in` with one value, inequality `notin` with one."""
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """notin and ! hold when the label is missing; gt and lt compare integers."""
        value = labels.get(self.key)
        match self.operator:
            case "in":
                return value is not None and value in self.values
            case "notin":
                return value is None or value not in self.values
            case "exists":
                return value is not None
            case "!":
                return value is None
            case _:
                return _compares(self.operator, value, self.values[0])

    def __str__(self) -> str:
        match self.operator:
            case "exists":
                return self.key
            case "!":
                return f"!{self.key}"
            case "gt":
                return f"{self.key}>{self.values[0]}"
            case "lt":
                return f"{self.key}<{self.values[0]}"
        if len(self.values) == 1:
            return f"{self.key}{'=' if self.operator == 'in' else '!='}{self.values[0]}"
        return f"{self.key} {self.operator} ({','.join(self.values)})"


def _compares(operator: str, value: str | None, bound: str) -> bool:
    try:
        number = int(value) if value is not None else None
    except ValueError:
        return False
    if number is None:
        return False
    return number > int(bound) if operator == "gt" else number < int(bound)


@dataclass(frozen=True, slots=True)
class Selector:
    """All requirements must hold; none means everything matches."""

    requirements: tuple[Requirement, ...] = ()
    is_nothing: bool = False
    """Matches no object at all (a null label selector)."""

    def matches(self, labels: Mapping[str, str]) -> bool:
        """True when every requirement holds for these labels."""
        return not self.is_nothing and all(r.matches(labels) for r in self.requirements)

    @property
    def is_empty(self) -> bool:
        """Matches everything."""
        return not self.requirements and not self.is_nothing

    def __str__(self) -> str:
        return ",".join(str(r) for r in self.requirements)


EVERYTHING = Selector()
NOTHING = Selector(is_nothing=True)

_KEY = r"(?:[A-Za-z0-9](?:[-A-Za-z0-9.]{0,251}[A-Za-z0-9])?/)?[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_VALUE = r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?"
_LABEL_KEY = re.compile(_KEY)
_LABEL_VALUE = re.compile(_VALUE)
_TERM = re.compile(
    rf"""\s*(?:
        (?P<absent>!)\s*(?P<absent_key>{_KEY})
      | (?P<set_key>{_KEY})\s+(?P<set>in|notin)\s*\((?P<values>[^()]*)\)
      | (?P<order_key>{_KEY})\s*(?P<order>[<>])\s*(?P<bound>-?[0-9]{{1,18}})
      | (?P<equal_key>{_KEY})\s*(?P<equal>==?|!=)\s*(?P<value>{_VALUE})
      | (?P<exists_key>{_KEY})
    )\s*(?P<end>,|$)""",
    re.VERBOSE,
)


def parse_label_selector(text: str) -> Selector:
    """Parse `app=web,tier in (a,b),!canary`. "" matches everything. Raises SelectorError with the offending place."""
    if len(text) > MAX_LENGTH:
        raise SelectorError(f"label selector of {len(text)} characters: at most {MAX_LENGTH} are taken")
    if not text.strip():
        return EVERYTHING
    requirements: list[Requirement] = []
    at = 0
    while True:
        match = _TERM.match(text, at)
        if match is None:
            raise SelectorError(
                f'label selector "{text}": cannot read it from character {at + 1} on ("{text[at : at + 40].strip()}"); '
                "write terms such as app=web, app!=web, app in (a,b), app notin (a,b), app, !app, joined by commas"
            )
        requirements.append(_requirement(match, text))
        at = match.end()
        if match["end"] != ",":
            return Selector(tuple(requirements))


def _requirement(match: re.Match[str], text: str) -> Requirement:
    if match["absent_key"]:
        return Requirement(match["absent_key"], "!")
    if match["set_key"]:
        values = tuple(dict.fromkeys(v.strip() for v in match["values"].split(",")))
        for value in values:
            _check_value(value, text)
        return Requirement(match["set_key"], match["set"], values)
    if match["order_key"]:
        return Requirement(match["order_key"], "gt" if match["order"] == ">" else "lt", (match["bound"],))
    if match["equal_key"]:
        return Requirement(match["equal_key"], "notin" if match["equal"] == "!=" else "in", (match["value"],))
    return Requirement(match["exists_key"], "exists")


def _check_value(value: str, text: str) -> None:
    if not _LABEL_VALUE.fullmatch(value):
        raise SelectorError(f'label selector "{text}": "{value}" is not a label value')


_OPERATORS = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "!"}


def label_selector_of(selector: LabelSelector | Mapping[str, Any] | None) -> Selector:
    """A selector from its structured form (a view, or JSON with matchLabels and matchExpressions). None matches nothing, an
    empty one everything. Raises SelectorError for an unknown operator or missing values."""
    if selector is None:
        return NOTHING
    view = selector if isinstance(selector, LabelSelector) else LabelSelector.of(dict(selector))
    requirements = [Requirement(k, "in", (v,)) for k, v in view.match_labels.items()]
    for expression in view.match_expressions:
        operator = _OPERATORS.get(expression.operator)
        if operator is None:
            raise SelectorError(
                f'label selector operator "{expression.operator}": use In, NotIn, Exists or DoesNotExist'
            )
        if operator in ("in", "notin") and not expression.values:
            raise SelectorError(f'label selector on "{expression.key}": {expression.operator} needs values')
        requirements.append(Requirement(expression.key, operator, expression.values))
    return Selector(tuple(requirements))


def label_map_selector(labels: Mapping[str, str] | None) -> Selector:
    """The selector of a Service or ReplicationController: equality with every pair. Empty or None matches nothing."""
    if not labels:
        return NOTHING
    return Selector(tuple(Requirement(k, "in", (v,)) for k, v in labels.items()))


@dataclass(frozen=True, slots=True)
class FieldRequirement:
    """One condition on one field."""

    path: str
    """Dotted, such as `spec.nodeName`."""
    is_equal: bool
    """False: the field must differ."""
    value: str


@dataclass(frozen=True, slots=True)
class FieldSelector:
    """All requirements must hold; none means everything matches. Which paths a kind offers is the server's to say."""

    requirements: tuple[FieldRequirement, ...] = ()

    def matches(self, read: Callable[[str], str]) -> bool:
        """True when every requirement holds; `read(path)` gives the object's field as text, "" when it is missing."""
        return all((read(r.path) == r.value) is r.is_equal for r in self.requirements)


def parse_field_selector(text: str) -> FieldSelector:
    r"""Parse `spec.nodeName=node-1,status.phase!=Failed`; `\,` `\=` and `\\` stand for themselves in values. Raises SelectorError."""
    if len(text) > MAX_LENGTH:
        raise SelectorError(f"field selector of {len(text)} characters: at most {MAX_LENGTH} are taken")
    return FieldSelector(tuple(_field_requirement(term, text) for term in _split_terms(text) if term.strip()))


def _split_terms(text: str) -> list[str]:
    return re.findall(r"(?:[^,\\]|\\.)+", text)


def _field_requirement(term: str, text: str) -> FieldRequirement:
    match = re.fullmatch(r"\s*([A-Za-z0-9_.\-/\[\]']+?)\s*(==|!=|=)((?:[^\\=]|\\.)*)", term, re.DOTALL)
    if match is None:
        raise SelectorError(f'field selector "{text}": cannot read "{term}"; write field=value or field!=value')
    return FieldRequirement(match[1], match[2] != "!=", re.sub(r"\\(.)", r"\1", match[3].strip()))


def is_label_key(text: str) -> bool:
    """A qualified name: optional DNS prefix and `/`, then at most 63 characters."""
    return _LABEL_KEY.fullmatch(text) is not None


def is_label_value(text: str) -> bool:
    """At most 63 letters, digits, `-`, `_`, `.`, starting and ending with a letter or digit; or empty."""
    return _LABEL_VALUE.fullmatch(text) is not None
