"""What can be wrong with an endpoint set."""

from mesh.errors import UserError


class BalanceConfigError(UserError):
    """An endpoint or policy is out of its bounds. Names the field and the bound."""
