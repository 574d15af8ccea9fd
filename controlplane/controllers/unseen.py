"""A controller's own recent writes that its cache does not show yet, so that no decision is made twice.

client-go calls the idea expectations and counts; here the objects themselves are remembered, so that a decision need not wait.
"""

from mesh.api.meta import ObjectView
from mesh.clock import Clock

_FORGET_AFTER_S = 30.0
"""A write the cache never shows (made and removed between two looks) is forgotten after this long."""


class UnseenWrites:
    """Creations and deletions per owner key, until the cache has them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._created: dict[str, dict[str, float]] = {}
        self._deleted: dict[str, dict[str, float]] = {}

    def created(self, owner: str, uid: str) -> None:
        """`owner` made the object `uid`, which the cache does not hold."""
        self._created.setdefault(owner, {})[uid] = self._clock.now() + _FORGET_AFTER_S

    def deleted(self, owner: str, uid: str) -> None:
        """`owner` asked for the deletion of `uid`, which the cache still shows as active."""
        self._deleted.setdefault(owner, {})[uid] = self._clock.now() + _FORGET_AFTER_S

    def take_back_deletion(self, owner: str, uid: str) -> None:
        """The deletion failed."""
        self._deleted.get(owner, {}).pop(uid, None)

    def observe(self, owner: str, view: ObjectView, *, is_gone: bool) -> None:
        """The cache changed: `view` is there, or gone."""
        uid = view.metadata.uid
        if created := self._created.get(owner):
            created.pop(uid, None)
        if (deleted := self._deleted.get(owner)) and (is_gone or view.metadata.is_terminating):
            deleted.pop(uid, None)

    def pending_creations(self, owner: str) -> int:
        """Objects made and not yet shown."""
        return len(self._live(self._created, owner))

    def is_deleted(self, owner: str, uid: str) -> bool:
        """Deletion was asked for, though the cache may not show it."""
        return uid in self._live(self._deleted, owner)

    def next_expiry_s(self, owner: str) -> float | None:
        """Seconds until the oldest unseen write of `owner` is forgotten; look again then. None when there is none."""
        due = [*self._live(self._created, owner).values(), *self._live(self._deleted, owner).values()]
        return max(0.0, min(due) - self._clock.now()) if due else None

    def forget(self, owner: str) -> None:
        """The owner is gone."""
        self._created.pop(owner, None)
        self._deleted.pop(owner, None)

    def _live(self, writes: dict[str, dict[str, float]], owner: str) -> dict[str, float]:
        entries = writes.get(owner)
        if not entries:
            return {}
        now = self._clock.now()
        for uid in [uid for uid, due in entries.items() if due <= now]:
            del entries[uid]
        if not entries:
            del writes[owner]
        return entries
