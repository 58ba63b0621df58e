"""A map that is never changed in place, and whose changed copy shares all but a small part with it. Pure."""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, Mapping, ValuesView
from itertools import chain
from typing import Any, Final, Self, TypeVar, get_args
from zlib import crc32

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

BUCKETS: Final = 256
"""A change copies this many references, and one bucket: 40 entries of 10,000."""

ValueT = TypeVar("ValueT")


class PersistentMap(Mapping[str, ValueT]):
    """Values by name. Its order follows from the names, and is the same in every process.

    In JSON, and for pydantic, it is an object of its entries.
    """

    __slots__ = ("_buckets", "_length")

    def __init__(self, entries: Mapping[str, ValueT] | Iterable[tuple[str, ValueT]] = ()) -> None:
        filled: dict[int, dict[str, ValueT]] = {}
        for name, value in entries.items() if isinstance(entries, Mapping) else entries:
            filled.setdefault(_bucket_of(name), {})[name] = value
        buckets: list[dict[str, ValueT]] = [_EMPTY] * BUCKETS  # most are, in a map of few entries
        for place, bucket in filled.items():
            buckets[place] = bucket
        self._buckets = tuple(buckets)
        self._length = sum(map(len, filled.values()))

    def with_value(self, name: str, value: ValueT) -> Self:
        """Returns a map with this value under ``name``."""
        return self._changed(name, lambda bucket: {**bucket, name: value})

    def without(self, name: str) -> Self:
        """Returns a map without ``name``; itself, if it does not have it."""
        if name not in self:
            return self
        return self._changed(name, lambda bucket: {key: one for key, one in bucket.items() if key != name})

    def _changed(self, name: str, change: Any) -> Self:
        place = _bucket_of(name)
        before = self._buckets[place]
        after = change(before)
        changed = object.__new__(type(self))
        changed._buckets = (*self._buckets[:place], after, *self._buckets[place + 1 :])
        changed._length = self._length + len(after) - len(before)
        return changed

    def __getitem__(self, name: str) -> ValueT:
        return self._buckets[_bucket_of(name)][name]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._buckets[_bucket_of(name)]

    def __iter__(self) -> Iterator[str]:
        return chain.from_iterable(self._buckets)

    def items(self) -> ItemsView[str, ValueT]:
        """See `Mapping.items`."""
        return _Items(self)

    def values(self) -> ValuesView[ValueT]:
        """See `Mapping.values`."""
        return _Values(self)

    def entries(self) -> Iterator[tuple[str, ValueT]]:
        """Yields names with values, without a search for each name."""
        return chain.from_iterable(map(dict.items, self._buckets))

    def __len__(self) -> int:
        return self._length

    def __eq__(self, other: object) -> bool:
        if isinstance(other, PersistentMap):  # buckets that both share are equal at once
            return self._length == other._length and self._buckets == other._buckets
        return super().__eq__(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"PersistentMap({dict(self)!r})"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        entries = handler.generate_schema(dict[str, get_args(source)[0]])  # type: ignore[misc]
        return core_schema.no_info_after_validator_function(
            cls,
            entries,
            serialization=core_schema.plain_serializer_function_ser_schema(dict, return_schema=entries),
        )


class _Items(ItemsView[str, ValueT]):
    _mapping: PersistentMap[ValueT]

    def __iter__(self) -> Iterator[tuple[str, ValueT]]:
        return self._mapping.entries()


class _Values(ValuesView[ValueT]):
    _mapping: PersistentMap[ValueT]

    def __iter__(self) -> Iterator[ValueT]:
        return (value for _, value in self._mapping.entries())


_EMPTY: Final[dict[str, Any]] = {}
"""Stands for all buckets without an entry; buckets are never changed in place."""


def _bucket_of(name: str) -> int:
    return crc32(name.encode()) % BUCKETS
