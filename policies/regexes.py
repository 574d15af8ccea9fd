"""Regular expressions that mean the same to RE2 (Envoy) and to Python, and cannot run for ever in either."""

import re

MAX_REGEX_LENGTH = 1024
"""Characters. Source: ours; RE2 programs of that size stay far below Envoy's default limit."""

_PYTHON_ONLY = (
    ("(?=", "look-ahead"),
    ("(?!", "look-ahead"),
    ("(?<=", "look-behind"),
    ("(?<!", "look-behind"),
    ("(?P=", "back-reference"),
    ("(?(", "conditional"),
    ("(?>", "atomic group"),
    ("(?#", "comment"),
)
_UNBOUNDED = re.compile(r"[*+]|\{\d*,\}")
_REPEAT = re.compile(r"[*+?]|\{\d+(?:,\d*)?\}")


def regex_problem(pattern: str) -> str:
    """What is wrong with `pattern`, or "" when it may be used."""
    if len(pattern) > MAX_REGEX_LENGTH:
        return f"regex has {len(pattern)} characters, at most {MAX_REGEX_LENGTH} are allowed"
    try:
        re.compile(pattern)
    except (re.error, OverflowError) as exc:
        return f'"{pattern}" is not a regular expression ({exc}): use RE2 syntax'
    if outside := _outside_re2(pattern):
        return f'"{pattern}" uses {outside}, which RE2 does not have: rewrite it without'
    if _has_nested_repeat(pattern):
        return f'"{pattern}" repeats a group that itself repeats without bound, which can take exponential time: use one repeat'
    return ""


def _outside_re2(pattern: str) -> str:
    for position, text in _bare_tokens(pattern):
        for opening, name in _PYTHON_ONLY:
            if text == "(" and pattern.startswith(opening, position):
                return f"a {name} {opening}...)"
        if text.startswith("\\") and (text[1:].isdecimal() and text != "\\0"):
            return f"a back-reference {text}"
        if text == "\\Z":
            return "\\Z"
        repeat = _REPEAT.match(pattern, position)
        if repeat and text in "*+?{" and pattern.startswith("+", repeat.end()):
            return f"a possessive repeat {repeat[0]}+"
    return ""


def _bare_tokens(pattern: str) -> list[tuple[int, str]]:
    """(position, token) outside character classes; a token is one character or an escape of two."""
    tokens: list[tuple[int, str]] = []
    position, class_start = 0, -1
    while position < len(pattern):
        length = 2 if pattern[position] == "\\" else 1
        token = pattern[position : position + length]
        if class_start < 0:
            tokens.append((position, token))
            if token == "[":
                class_start = position + (2 if pattern.startswith("[^", position) else 1)
                position = class_start
                if pattern.startswith("]", position):
                    position += 1
                continue
        elif token == "]":
            class_start = -1
        position += length
    return tokens


def _has_nested_repeat(pattern: str) -> bool:
    """A group with an unbounded repeat inside is itself repeated without bound."""
    has_repeat_inside = [False]
    for position, text in _bare_tokens(pattern):
        if text == "(":
            has_repeat_inside.append(False)
        elif text == ")" and len(has_repeat_inside) > 1:
            inner = has_repeat_inside.pop()
            is_repeated = _UNBOUNDED.match(pattern, position + 1) is not None
            if inner and is_repeated:
                return True
            has_repeat_inside[-1] |= inner or is_repeated
        elif _UNBOUNDED.match(pattern, position) and text in "*+{":
            has_repeat_inside[-1] = True
    return False
