"""Kubernetes quantities: `500m`, `128Mi`, `1e3`. Source: k8s.io/apimachinery/pkg/api/resource, "Quantity"."""

import re
from decimal import ROUND_CEILING, Context, Decimal

from mesh.api.errors import QuantityError

_GRAMMAR = re.compile(r"([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))((?:[KMGTPE]i|[numkMGTPE]|)|[eE][+-]?[0-9]{1,3})")
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
_DECIMAL_SUFFIX = {power: suffix for suffix, power in _DECIMAL.items()}
_EXACT = Context(prec=120, rounding=ROUND_CEILING)
_NANO = Decimal("1e-9")
_LARGEST = Decimal(2**63 - 1)
MAX_LENGTH = 64
"""A longer text is no quantity. Characters."""


def _split(value: str | int | float) -> tuple[Decimal, str]:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise QuantityError(
            f"{value!r} is not a quantity: write a number with an optional suffix, such as 500m or 128Mi"
        )
    text = value if isinstance(value, str) else repr(value)
    match = _GRAMMAR.fullmatch(text) if len(text) <= MAX_LENGTH else None
    if match is None:
        shown = text if len(text) <= MAX_LENGTH else text[:MAX_LENGTH] + "..."
        raise QuantityError(
            f'"{shown}" is not a quantity: write a number with one of the suffixes n u m k M G T P E Ki Mi Gi Ti Pi Ei, '
            "such as 500m or 128Mi"
        )
    number, suffix = Decimal(match[1]), match[2]
    if suffix in _BINARY:
        number = _EXACT.multiply(number, Decimal(1024 ** _BINARY[suffix]))
    elif suffix in _DECIMAL:
        number = number.scaleb(_DECIMAL[suffix], _EXACT)
    else:
        number = number.scaleb(int(suffix[1:]), _EXACT)
    return number, suffix


def parse_quantity(value: str | int | float) -> Decimal:
    """The exact number. Raises QuantityError."""
    return _split(value)[0]


def to_units(value: str | int | float) -> int:
    """Whole units, rounded up: bytes of a memory quantity. Raises QuantityError."""
    return int(parse_quantity(value).to_integral_value(ROUND_CEILING))


def to_milli(value: str | int | float) -> int:
    """Thousandths, rounded up: millicores of a cpu quantity. Raises QuantityError."""
    return int(parse_quantity(value).scaleb(3, _EXACT).to_integral_value(ROUND_CEILING))


def canonical_quantity(value: str | int | float) -> str:
    """The text Kubernetes stores: no fraction, the largest suffix that keeps it exact, the family (binary, decimal,
    exponent) of the input. `0.5` -> `500m`, `1024Mi` -> `1Gi`, `1000m` -> `1`. Finer than 1n is rounded up; larger than
    2**63-1 becomes that. Raises QuantityError."""
    number, suffix = _split(value)
    if abs(number) > _LARGEST:
        number = _LARGEST.copy_sign(number)
    number = number.quantize(_NANO, ROUND_CEILING, _EXACT)
    if number == 0:
        return "0"
    if suffix in _BINARY and abs(number) >= 1024 and number == number.to_integral_value():
        return _binary_text(int(number))
    exponent = 0
    digits = int(number.scaleb(9, _EXACT))
    power = -9
    while digits % 1000 == 0 and power < 18:
        digits, power = digits // 1000, power + 3
    if suffix[:1] in ("e", "E") and suffix not in _DECIMAL and suffix not in _BINARY:
        exponent = power
        return f"{digits}e{exponent}" if exponent else str(digits)
    return f"{digits}{_DECIMAL_SUFFIX[power]}"


def _binary_text(number: int) -> str:
    suffix = ""
    for name in _BINARY:
        if number % 1024:
            break
        number, suffix = number // 1024, name
    return f"{number}{suffix}"
