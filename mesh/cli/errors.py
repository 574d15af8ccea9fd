"""What a command can fail with. The message is all a person sees: what, where, what to do."""

from mesh.errors import UserError


class CommandError(UserError):
    """The command can't do what was asked. `exit_code` is the process's."""

    def __init__(self, message: str, *, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code
