"""Collections: pages of a list, their continue tokens, and the bytes of the list object."""

import base64
import binascii
from collections.abc import Iterator
from dataclasses import dataclass

import orjson

from controlplane.apiserver import errors
from controlplane.apiserver.kinds import Kind
from controlplane.apiserver.objects import (
    LIST_TAIL,
    collection_prefix,
    joined,
    list_head,
    object_key,
    parse,
    prefix_end,
    to_served,
)
from controlplane.apiserver.request import ListOptions
from controlplane.apiserver.selection import Selection
from controlplane.store.protocol import KeyValue, Store

SCAN_PAGE = 500
"""Keys read at a time when a selector may leave most of them out."""
CHUNK_ITEMS = 100
"""Objects per chunk of a long list: keeps the loop free between writes (facts/control-plane.md)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One answer to a list request."""

    kvs: tuple[KeyValue, ...]
    revision: int
    """The list's resourceVersion; a watch goes on from here."""
    continue_token: str = ""
    remaining: int = 0
    """Objects after this page; 0 when unknown or none."""


def key_range(kind: Kind, namespace: str, selection: Selection) -> tuple[bytes, bytes]:
    """The keys a list or watch is about: one object's when the selector names it, else the collection's."""
    if selection.name and (namespace or not kind.resource.is_namespaced):
        key = object_key(kind.resource, namespace, selection.name)
        return key, key + b"\x00"
    prefix = collection_prefix(kind.resource, namespace)
    return prefix, prefix_end(prefix)


async def read_page(store: Store, kind: Kind, namespace: str, selection: Selection, options: ListOptions) -> Page:
    """Read one page. Raises ApiStatusError (400, 410 for an old token) and StoreError."""
    start, end = key_range(kind, namespace, selection)
    revision = 0
    if options.continue_token:
        revision, start = _decode_token(options.continue_token, start, end)
    elif options.resource_version_match == "Exact":
        revision = revision_of(options.resource_version)
    if selection.matches is None:
        return await _plain_page(store, start, end, options.limit, revision)
    return await _selected_page(store, kind, selection, (start, end), options.limit, revision)


async def _plain_page(store: Store, start: bytes, end: bytes, limit: int, revision: int) -> Page:
    result = await store.range(start, end, limit=limit, revision=revision)
    at = revision or result.revision
    if not result.has_more:
        return Page(kvs=result.kvs, revision=at)
    token = _encode_token(at, result.kvs[-1].key)
    return Page(kvs=result.kvs, revision=at, continue_token=token, remaining=result.count - len(result.kvs))


async def _selected_page(
    store: Store, kind: Kind, selection: Selection, keys: tuple[bytes, bytes], limit: int, revision: int
) -> Page:
    assert selection.matches is not None, "a page without a selector is read by _plain_page"
    start, end = keys
    found: list[KeyValue] = []
    while True:
        result = await store.range(start, end, limit=SCAN_PAGE, revision=revision)
        revision = revision or result.revision
        for kv in result.kvs:
            if not selection.matches(parse(kind.resource, kv)):
                continue
            if limit and len(found) == limit:
                return Page(kvs=tuple(found), revision=revision, continue_token=_encode_token(revision, found[-1].key))
            found.append(kv)
        if not result.has_more:
            return Page(kvs=tuple(found), revision=revision)
        start = result.kvs[-1].key + b"\x00"


def list_chunks(kind: Kind, page: Page) -> Iterator[bytes]:
    """The list object's bytes, made of the stored ones, in pieces of CHUNK_ITEMS objects."""
    head = list_head(kind.resource, page.revision, continue_token=page.continue_token, remaining=page.remaining)
    separator = head
    for at in range(0, len(page.kvs), CHUNK_ITEMS):
        some = page.kvs[at : at + CHUNK_ITEMS]
        yield separator + joined(to_served(kind.stored, kind.resource, kv) for kv in some)
        separator = b","
    yield LIST_TAIL if page.kvs else head + LIST_TAIL


def revision_of(text: str) -> int:
    """A resourceVersion from a query; "" and "0" are 0. Raises ApiStatusError (400)."""
    if not text:
        return 0
    if not (text.isascii() and text.isdigit()) or len(text) > 18:
        raise errors.bad_request(f"resourceVersion {text!r} is not one of this server's")
    return int(text)


def _encode_token(revision: int, last_key: bytes) -> str:
    return base64.urlsafe_b64encode(orjson.dumps([revision, last_key.decode()])).decode()


def _decode_token(token: str, start: bytes, end: bytes) -> tuple[int, bytes]:
    """Revision and first key of the next page; the key must lie in the range that is listed."""
    try:
        revision, last = orjson.loads(base64.b64decode(token.encode(), altchars=b"-_", validate=True))
        key = last.encode() + b"\x00"
    except (binascii.Error, ValueError, TypeError, AttributeError) as exc:
        raise errors.bad_request("the continue token is not one of this server's; start the list again") from exc
    if not isinstance(revision, int) or revision <= 0 or not start <= key < end:
        raise errors.bad_request("the continue token belongs to another list; start the list again")
    return revision, key
