import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.api.errors import SelectorError
from mesh.api.selectors import (
    NOTHING,
    label_map_selector,
    label_selector_of,
    parse_field_selector,
    parse_label_selector,
)

pytestmark = pytest.mark.unit
LABELS = {"app": "web", "tier": "front", "example.com/rank": "3"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", True),
        ("app=web", True),
        ("app==web", True),
        ("app=db", False),
        ("app!=db", True),
        ("missing!=db", True),
        ("missing=db", False),
        ("app in (web, db)", True),
        ("app in (db)", False),
        ("app notin (db),tier", True),
        ("missing notin (x)", True),
        ("app", True),
        ("!app", False),
        ("! missing", True),
        ("example.com/rank>2", True),
        ("example.com/rank<3", False),
        ("app>1", False),
        (" app = web , tier = front ", True),
        ("missing in ()", False),
    ],
)
def test_label_selector_matches(text: str, expected: bool) -> None:
    assert parse_label_selector(text).matches(LABELS) is expected


@pytest.mark.parametrize("text", ["app=", "!app", "in=in", "a.b/c"])
def test_odd_but_valid_label_selectors_are_read(text: str) -> None:
    assert len(parse_label_selector(text).requirements) == 1


@pytest.mark.parametrize(
    "text", ["=web", "app in web", "app=a b", "app in (a", "a,,b", "app=web,", "-a", "a=b=c", "a>x", "é=1"]
)
def test_malformed_label_selectors_name_the_place(text: str) -> None:
    with pytest.raises(SelectorError, match="from character"):
        parse_label_selector(text)


def test_oversized_selectors_are_refused() -> None:
    with pytest.raises(SelectorError, match="at most"):
        parse_label_selector("a" * 20_000)
    with pytest.raises(SelectorError, match="at most"):
        parse_field_selector("a" * 20_000)


KEYS = st.from_regex(r"[a-z]([-a-z0-9]{0,5}[a-z0-9])?", fullmatch=True).filter(lambda k: k not in ("in", "notin"))
TERMS = st.one_of(
    KEYS,
    KEYS.map("!{}".format),
    st.tuples(KEYS, st.sampled_from(["=", "!="]), KEYS).map("".join),
    st.tuples(KEYS, st.sampled_from(["in", "notin"]), st.lists(KEYS, min_size=2, max_size=3, unique=True)).map(
        lambda t: f"{t[0]} {t[1]} ({','.join(t[2])})"
    ),
)


@given(st.lists(TERMS, min_size=1, max_size=4))
def test_label_selector_text_reads_back_the_same(terms: list[str]) -> None:
    selector = parse_label_selector(",".join(terms))
    assert parse_label_selector(str(selector)) == selector


def test_structured_selectors() -> None:
    selector = {
        "matchLabels": {"app": "web"},
        "matchExpressions": [
            {"key": "tier", "operator": "In", "values": ["front", "back"]},
            {"key": "gone", "operator": "DoesNotExist"},
            {"key": "app", "operator": "Exists"},
            {"key": "app", "operator": "NotIn", "values": ["db"]},
        ],
    }
    assert label_selector_of(selector).matches(LABELS)
    assert not label_selector_of(selector).matches({**LABELS, "gone": ""})
    assert label_selector_of({}).matches({})
    assert not label_selector_of(None).matches(LABELS)
    with pytest.raises(SelectorError, match="use In, NotIn"):
        label_selector_of({"matchExpressions": [{"key": "a", "operator": "Near"}]})


def test_empty_map_selector_selects_nothing() -> None:
    assert label_map_selector({}) is NOTHING
    assert label_map_selector({"app": "web"}).matches(LABELS)


def test_field_selector_reads_fields_through_the_callers_reader() -> None:
    fields = {"spec.nodeName": "node-1", "status.phase": "Running"}
    selector = parse_field_selector(r"spec.nodeName=node-1,status.phase!=Failed,status.reason=")
    assert selector.matches(lambda path: fields.get(path, ""))
    assert not parse_field_selector("spec.nodeName==node-2").matches(lambda path: fields.get(path, ""))
    assert parse_field_selector(r"a=x\,y\=z").requirements[0].value == "x,y=z"
    for bad in ("=x", "a", "a=b=c"):
        with pytest.raises(SelectorError, match="cannot read"):
            parse_field_selector(bad)
