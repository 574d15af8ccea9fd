import pytest

from controlplane.apiserver.body import parse_json
from controlplane.apiserver.errors import ApiStatusError

pytestmark = pytest.mark.unit


def test_deeply_nested_bodies_are_refused_before_anything_walks_them() -> None:
    with pytest.raises(ApiStatusError, match="nested deeper than 100 levels"):
        parse_json(b'{"a":' * 900 + b"1" + b"}" * 900)
    assert parse_json(b'{"text": "' + b"{[" * 200 + b'"}')["text"] == "{[" * 200
