"""What can be wrong with a resilience setting."""

from mesh.errors import UserError


class ResilienceConfigError(UserError):
    """A retry, outlier or limit setting is out of its bounds. Names the field and the bound."""
