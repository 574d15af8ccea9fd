"""What can be wrong with a route table."""

from mesh.errors import UserError


class RouteTableError(UserError):
    """A route table cannot be used. Says which table, virtual host or route, and what to change."""
