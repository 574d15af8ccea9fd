"""Forgetting old revisions, so that the store does not grow without bound."""

import asyncio
import logging

from controlplane.store.errors import CompactedError, StoreClosedError, StoreError
from controlplane.store.protocol import Store

logger = logging.getLogger(__name__)


async def compact_regularly(store: Store, interval_s: float) -> None:
    """Every `interval_s` seconds, compact up to where the store was one interval ago. Runs until cancelled or the store closes."""
    seen = store.revision
    while True:
        await asyncio.sleep(interval_s)
        seen, due = store.revision, seen
        if due <= store.compacted_revision:
            continue
        try:
            await store.compact(due)
        except CompactedError:
            continue  # Another server was first.
        except StoreClosedError:
            return
        except StoreError as exc:
            logger.warning("compaction failed", extra={"revision": due, "error": str(exc)})
