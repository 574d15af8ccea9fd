from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.api.errors import QuantityError
from mesh.api.quantity import canonical_quantity, parse_quantity, to_milli, to_units

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("text", "canonical", "number"),
    [
        ("0", "0", "0"),
        ("1", "1", "1"),
        ("500m", "500m", "0.5"),
        ("0.5", "500m", "0.5"),
        (".5", "500m", "0.5"),
        ("1.5", "1500m", "1.5"),
        ("1000m", "1", "1"),
        ("100000", "100k", "100000"),
        ("1Gi", "1Gi", str(2**30)),
        ("1024Mi", "1Gi", str(2**30)),
        ("1.5Gi", "1536Mi", str(3 * 2**29)),
        ("0.5Ki", "512", "512"),
        ("1e3", "1e3", "1000"),
        ("12E6", "12e6", "12000000"),
        ("1E", "1E", "1e18"),
        ("-1", "-1", "-1"),
        ("+2k", "2k", "2000"),
        ("1n", "1n", "1e-9"),
        (2, "2", "2"),
        (0.1, "100m", "0.1"),
    ],
)
def test_quantities_are_read_exactly_and_written_canonically(text: str | float, canonical: str, number: str) -> None:
    assert parse_quantity(text) == Decimal(number)
    assert canonical_quantity(text) == canonical


@pytest.mark.parametrize(
    "text", ["", "1 Gi", "abc", "1mi", "1KI", "1e", "--1", "1.2.3", "Mi", "1e9999", "9" * 65, "NaN", "0x1"]
)
def test_other_texts_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(QuantityError, match="such as 500m or 128Mi"):
        parse_quantity(text)


def test_units_and_millis_round_up() -> None:
    assert (to_units("1500m"), to_units("1"), to_milli("1u"), to_milli("2")) == (2, 1, 1, 2000)


def test_amounts_beyond_int64_become_the_largest_and_tiny_ones_round_up() -> None:
    assert parse_quantity(canonical_quantity("999999E")) == 2**63 - 1
    assert canonical_quantity("0.1n") == "1n"


@given(st.decimals(min_value=0, max_value=10**15, places=6), st.sampled_from(["", "m", "k", "M", "Ki", "Mi", "e3"]))
def test_canonical_form_is_stable_and_never_smaller(number: Decimal, suffix: str) -> None:
    text = f"{number:f}{suffix}"
    canonical = canonical_quantity(text)
    assert canonical_quantity(canonical) == canonical
    assert parse_quantity(canonical) >= min(parse_quantity(text), Decimal(2**63 - 1))
