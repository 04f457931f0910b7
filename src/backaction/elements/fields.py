"""Fields of elements: a number with unit and bounds, a choice, a flag, a series, parts; declared once, checked always."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any, ClassVar, Self

import numpy as np

from backaction.errors import InputError, nearest
from backaction.units import number


def quantity(
    unit: str,
    default: Any = MISSING,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    root: bool = False,
    doc: str = "",
) -> Any:
    """A dataclass field that holds a number (or array) in `unit` within closed bounds, or strictly above `above`.

    `root` says that it enters the matrices through its square root, so that no derivative exists at exactly zero.
    """
    metadata = {"unit": unit, "minimum": minimum, "maximum": maximum, "above": above, "root": root, "doc": doc}
    return field(default=default, metadata=metadata) if default is not MISSING else field(metadata=metadata)


def choice(default: str, *allowed: str, doc: str = "") -> Any:
    """A dataclass field that holds one of a few words."""
    return field(default=default, metadata={"choices": allowed, "doc": doc})


def flag(doc: str = "") -> Any:
    """A dataclass field that is true or false (default)."""
    return field(default=False, metadata={"flag": True, "doc": doc})


def series(unit: str, doc: str = "", default: Any = ()) -> Any:
    """A dataclass field that holds a tuple of numbers in `unit`, or of words where `unit` is empty."""
    return field(default=default, metadata={"series": unit, "doc": doc})


def parts(kind: type[Part], doc: str = "") -> Any:
    """A dataclass field that holds a tuple of named parts (further mechanical modes, spectral lines)."""
    return field(default=(), metadata={"parts": kind, "doc": doc})


@dataclass(frozen=True, kw_only=True)
class Part:
    """A frozen set of fields with a name. Fields may be arrays, which broadcast; setting one of a group clears others."""

    name: str
    groups: ClassVar[tuple[tuple[str, ...], ...]] = ()

    def __post_init__(self) -> None:
        for f in fields(self):
            if "unit" in f.metadata or "choices" in f.metadata:
                _validate(self, f)
            if f.metadata.get("flag") and not isinstance(getattr(self, f.name), bool):
                raise InputError(f"{self.name}.{f.name} = {getattr(self, f.name)!r}: must be true or false")
        names = [p.name for p in self.all_parts()]
        for name in names:
            if not isinstance(name, str) or not name or "." in name:
                raise InputError(f"{self.name}: {name!r} is no name for a part: letters, digits and underscores")
            if names.count(name) > 1:
                raise InputError(f"{self.name}: two parts have the name '{name}'")
        for group in self.groups:
            given = [k for k in group if getattr(self, k) is not None]
            if len(given) > 1:
                raise InputError(f"{self.name}: give only one of {', '.join(given)}")

    @classmethod
    def keys(cls) -> list[str]:
        """The field names that a TOML table of this kind may hold."""
        return [f.name for f in fields(cls) if f.name != "name"]

    @classmethod
    def from_table(cls, name: str, table: Mapping[str, Any], where: str) -> Self:
        """Build from a TOML table; `where` (file) opens the error messages."""
        values: dict[str, Any] = {}
        for key, value in table.items():
            values[key] = cls._read(name, key, value, where)
        for f in fields(cls):
            if f.default is MISSING and f.default_factory is MISSING and f.name not in values and f.name != "name":
                raise InputError(f"{where}: {name} ({_kind(cls)}): missing '{f.name}' ({f.metadata.get('unit', '')})")
        try:
            return cls(name=name, **values)
        except InputError as error:
            raise type(error)(f"{where}: {error}") from None

    @classmethod
    def _read(cls, name: str, key: str, value: Any, where: str) -> Any:
        known = {f.name: f for f in fields(cls) if f.name != "name"}
        if key not in known:
            raise InputError(f"{where}: {name} ({_kind(cls)}): unknown key '{key}'{nearest(key, known)}")
        meta = known[key].metadata
        here = f"{where}: {name}.{key}"
        if "unit" in meta:
            return number(value, meta["unit"], here)
        if meta.get("parts"):
            part_type: type[Part] = meta["parts"]
            if not isinstance(value, list) or not all(isinstance(v, Mapping) for v in value):
                raise InputError(f"{here}: expected a list of tables, got {value!r}")
            out = []
            for i, item in enumerate(value, 1):
                rest = {k: v for k, v in item.items() if k != "name"}
                out.append(
                    part_type.from_table(str(item.get("name", f"{key.rstrip('s')}{i}")), rest, f"{where}: {name}")
                )
            return tuple(out)
        if meta.get("fractions"):
            if not isinstance(value, Mapping):
                raise InputError(f"{here}: expected a table of name = fraction, got {value!r}")
            return {str(k): number(v, "1", f"{here}.{k}") for k, v in value.items()}
        if meta.get("flag"):
            return {"true": True, "false": False}.get(value, value) if isinstance(value, str) else value
        if "series" in meta:
            items = value.split(",") if isinstance(value, str) else value
            if not isinstance(items, (list, tuple)):
                raise InputError(f"{here} = {value!r}: expected a list")
            if not meta["series"]:
                return tuple(str(v).strip() for v in items)
            return tuple(number(v, meta["series"], here) for v in items)
        if not isinstance(value, (str, int, float)) or isinstance(value, bool):
            raise InputError(f"{here} = {value!r}: expected a word")
        return value

    def all_parts(self) -> list[Part]:
        """The named parts of every kind."""
        return [p for f in fields(self) if f.metadata.get("parts") for p in getattr(self, f.name)]

    def dotted(self, path: str) -> str:
        """`red_coupling_hz` for `red.coupling_hz`: the name of a part may be joined to its field by an underscore."""
        own = self.keys()
        if "." in path or path in own:
            return path
        for part in self.all_parts():
            known, rest = part.keys(), path.removeprefix(f"{part.name}_")
            if rest != path and rest in known:
                return f"{part.name}.{rest}"
        return path

    def with_value(self, path: str, value: Any, where: str = "--set") -> Self:
        """A copy with one field changed; `path` is `field` or `part.field`. Others of its group are cleared."""
        return self.with_values({path: value}, where)

    def with_values(self, values: Mapping[str, Any], where: str = "--set") -> Self:
        """A copy with all of `values` by path, checked once they are all there; others of a field's group are cleared."""
        own: dict[str, Any] = {}
        inner: dict[str, dict[str, Any]] = {}
        for path, value in values.items():
            head, _, tail = self.dotted(path).partition(".")
            if tail:
                inner.setdefault(head, {})[tail] = value
            else:
                own[head] = self._readable(head, value, where)
        updates: dict[str, Any] = {}
        for group in self.groups:
            given = [k for k in group if own.get(k) is not None]
            if len(given) > 1:
                raise InputError(f"{where}: {self.name}: give only one of {', '.join(given)}")
            if given or not own.keys().isdisjoint(group):
                updates |= dict.fromkeys(group)
        updates |= own
        for f in fields(self):
            items = updates.get(f.name, getattr(self, f.name)) if f.metadata.get("parts") else ()
            if any(p.name in inner for p in items):
                here = f"{where}: {self.name}"
                changes = {p.name: inner.pop(p.name) for p in items if p.name in inner}
                updates[f.name] = tuple(p.with_values(changes.get(p.name, {}), here) for p in items)
        for head in inner:
            raise InputError(
                f"{where}: {self.name} has no part '{head}'{nearest(head, [p.name for p in self.all_parts()])}"
            )
        try:
            return replace(self, **updates)
        except InputError as error:
            raise type(error)(f"{where}: {error}") from None

    def _readable(self, key: str, value: Any, where: str) -> Any:
        """A value for the field `key`: words and numbers are read, what Python gave stays."""
        if key not in self.keys():
            joined = [f"{p.name}_{k}" for p in self.all_parts() for k in p.keys()]  # noqa: SIM118
            hint = nearest(key, [*self.keys(), *joined])
            raise InputError(f"{where}: {self.name} ({_kind(type(self))}): unknown key '{key}'{hint}")
        return self._read(self.name, key, value, where) if isinstance(value, (str, bool, int, float)) else value

    def value(self, path: str) -> Any:
        """The value of `field` or `part.field`."""
        head, _, tail = self.dotted(path).partition(".")
        if not tail:
            if head not in self.keys():
                raise InputError(f"{self.name}: unknown key '{head}'{nearest(head, self.keys())}")
            return getattr(self, head)
        for part in self.all_parts():
            if part.name == head:
                return part.value(tail)
        raise InputError(f"{self.name}: no part '{head}'")

    def to_table(self) -> dict[str, Any]:
        """The fields that are set, as plain Python values (for TOML, JSON and provenance)."""
        out: dict[str, Any] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            empty = not value if f.metadata.keys() & {"parts", "series"} else value is None or value is False
            if f.name == "name" or empty:
                continue
            if f.metadata.get("parts"):
                out[f.name] = [{"name": p.name} | p.to_table() for p in value]
            elif isinstance(value, Mapping):
                out[f.name] = {k: float(v) for k, v in value.items()}
            else:
                out[f.name] = value if isinstance(value, (str, bool)) else np.asarray(value).tolist()
        return out

    def numeric_fields(self) -> list[str]:
        """Paths of the fields that hold a number now."""
        out = [f.name for f in fields(self) if "unit" in f.metadata and getattr(self, f.name) is not None]
        return out + [f"{p.name}.{k}" for p in self.all_parts() for k in p.numeric_fields()]


def _kind(cls: type) -> str:
    return getattr(cls, "kind", "") or cls.__name__


def _validate(part: Part, f: dataclasses.Field[Any]) -> None:
    value = getattr(part, f.name)
    if value is None:
        return
    meta = f.metadata
    if "choices" in meta:
        if value not in meta["choices"]:
            hint = nearest(str(value), meta["choices"])
            raise InputError(f"{part.name}.{f.name} = {value!r}: must be one of {', '.join(meta['choices'])}{hint}")
        return
    try:
        real = np.real(np.asarray(value, dtype=complex))
    except (TypeError, ValueError):
        raise InputError(f"{part.name}.{f.name} = {value!r}: expected a number in {meta['unit']}") from None
    low, high, above = meta["minimum"], meta["maximum"], meta["above"]
    bad = ~np.isfinite(real)
    if low is not None:
        bad |= real < low
    if high is not None:
        bad |= real > high
    if above is not None:
        bad |= real <= above
    if np.any(bad):
        shown = float(real[bad].ravel()[0]) if real.ndim else float(real)
        if above is not None:
            allowed = f"> {above:g}" if high is None else f"in ({above:g}, {high:g}]"
        elif high is not None:
            allowed = f"in [{low:g}, {high:g}]"
        elif low is not None:
            allowed = f">= {low:g}"
        else:
            allowed = "finite"
        unit = "" if meta["unit"] == "1" else f" {meta['unit']}"
        raise InputError(f"{part.name}.{f.name} = {shown:g}{unit}: must be {allowed}")
