"""Says how far a long run is: a bar on a terminal, plain lines otherwise."""

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class RunProgress:
    """Counts steps. Enter it around the run."""

    def __init__(self, steps: int) -> None:
        self._console = Console()
        self._steps = steps
        self._bar: Progress | None = None
        if self._console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
            self._bar = Progress(
                *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=self._console, refresh_per_second=2
            )
            self._task = self._bar.add_task("starting", total=steps)

    def __enter__(self) -> "RunProgress":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def doing(self, what: str) -> None:
        """Show what is being done; only a terminal sees it."""
        if self._bar is not None:
            self._bar.update(self._task, description=what)

    def done(self, said: str, steps: int = 1) -> None:
        """A step is over; `said` stays visible."""
        if self._bar is not None:
            self._bar.console.print(said, highlight=False, markup=False)
            self._bar.advance(self._task, steps)
        else:
            print(said, flush=True)
