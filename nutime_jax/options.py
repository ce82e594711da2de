"""Sections of a configuration: frozen dataclasses whose fields have a type, limits and one documented meaning.

A section subclasses `Section`; its fields are made by `option`, or are further sections. Values are checked when a
section is constructed. `config` has the sections of this library.
"""

import dataclasses
import difflib
import math
import numbers
import types
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from typing import Any, ClassVar, NamedTuple, get_args, get_origin

from nutime_jax.errors import InputError

NOUNS = {int: ("an integer", "integers"), float: ("a number", "numbers"), str: ("a text", "texts"), bool: ("true or false", "")}


class Limits(NamedTuple):
    """Bounds of a number, or of each number of a tuple: low and high are inclusive, above and below exclusive."""

    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None

    def allow(self, value: float) -> bool:
        """Whether a finite value lies within the bounds."""
        inclusive = (self.low is None or value >= self.low) and (self.high is None or value <= self.high)
        return inclusive and (self.above is None or value > self.above) and (self.below is None or value < self.below)

    def __str__(self) -> str:
        start = f"above {self.above:g}" if self.above is not None else "" if self.low is None else f"from {self.low:,}"
        if self.below is not None:
            return f"{start} to below {self.below:g}"
        if self.high is not None:
            return f"{start} to {self.high:,}"
        return f"of {self.low:,} or more" if self.low is not None else start


@dataclasses.dataclass(frozen=True)
class Option:
    """A field of a section, see `option`.

    name: dotted name in the configuration.
    kind: type: bool, int, float, str, one of these or None, a tuple of them, or a mapping.
    """

    name: str
    kind: Any
    default: Any
    meaning: str
    limits: Limits
    choices: tuple[str, ...]
    unique: bool
    nonempty: bool
    schema: type["Section"] | None
    resume: bool
    encoder: bool

    @property
    def accepted(self) -> str:
        """The accepted values, as a noun phrase."""
        return self._describe(self.kind)

    def check(self, value: Any) -> Any:
        """Return the value with its exact type, or raise InputError."""
        with self._reject(value):
            return self._convert(value, self.kind)

    def parse(self, text: str) -> Any:
        """Return the value of a text, or raise InputError."""
        with self._reject(text):
            return self.check(_parse(text, self.kind))

    @contextmanager
    def _reject(self, value: Any) -> Iterator[None]:
        try:
            yield
        except InputError:
            raise
        except (TypeError, ValueError, OverflowError) as error:
            raise InputError(f"{self.name} is {value!r}; choose {self.accepted}") from error

    def entry(self, name: str) -> "Option":
        """Return the option of an entry of a mapping."""
        return dataclasses.replace(self, name=f"{self.name}.{name}", kind=get_args(self.kind)[1])

    def _convert(self, value: Any, kind: Any) -> Any:
        if isinstance(kind, types.UnionType):
            return None if value is None else self._convert(value, get_args(kind)[0])
        if get_origin(kind) is tuple:
            return self._convert_tuple(value, get_args(kind))
        if get_origin(kind) is dict:
            return self._convert_mapping(value, get_args(kind)[1])
        value = _convert_scalar(value, kind)
        if self.choices and value not in self.choices:
            raise ValueError
        if kind in (int, float) and not self.limits.allow(value):
            raise ValueError
        return value

    def _convert_tuple(self, value: Any, kinds: tuple) -> tuple:
        if isinstance(value, str | bytes | Mapping | set) or not isinstance(value, Iterable):
            raise TypeError
        values = tuple(value)
        if kinds[-1] is not Ellipsis and len(values) != len(kinds):
            raise ValueError
        values = tuple(self._convert(entry, kinds[0]) for entry in values)
        if (self.unique and len(set(values)) < len(values)) or (self.nonempty and not values):
            raise ValueError
        return values

    def _convert_mapping(self, value: Any, inner: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise TypeError
        if inner is Any:
            return _check_changes(self.schema, value, prefix=f"{self.name}.")
        return {_convert_scalar(name, str): self.entry(name).check(entry) for name, entry in value.items()}

    def _describe(self, kind: Any) -> str:
        if isinstance(kind, types.UnionType):
            return f"{self._describe(get_args(kind)[0])}, or none"
        if get_origin(kind) is dict:
            names = get_origin(get_args(kind)[1]) is tuple
            return f"a mapping of {'names to tuples of texts' if names else 'fields to values'}"
        if get_origin(kind) is tuple:
            return self._describe_tuple(get_args(kind))
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        return f"{NOUNS[kind][0]} {self.limits}".strip()

    def _describe_tuple(self, kinds: tuple) -> str:
        entries = f"entries of {', '.join(self.choices)}"
        noun = entries if self.choices else f"{NOUNS[kinds[0]][1]} {self.limits}".strip()
        count = "" if kinds[-1] is Ellipsis else f"{len(kinds)} "
        least = "one or more " if self.nonempty else ""
        return f"{least}{count}{noun}, separated by commas{', each once' if self.unique else ''}"


def option(
    default: Any,
    meaning: str,
    *,
    choices: tuple[str, ...] = (),
    unique: bool = False,
    nonempty: bool = False,
    schema: type["Section"] | None = None,
    resume: bool | None = None,
    encoder: bool | None = None,
    **limits: float,
) -> Any:
    """Return a dataclass field.

    Args:
        default: the published value; a mapping is copied.
        meaning: noun phrase with unit, then the effect.
        choices: accepted texts; empty if a registry decides, so that entries from outside the package load.
        unique, nonempty: whether the entries of a tuple are distinct; whether it needs an entry.
        schema: configuration that a mapping changes: `dict[str, Any]` has changes of it, and
            `dict[str, dict[str, Any]]` has such changes by name.
        resume: whether the value may change when a run resumes. None: as its section.
        encoder: whether a saved encoder has the field. None: as its section.
        limits: low, high, above, below: bounds of a number, or of each number of a tuple; see `Limits`.
    """
    metadata = {"meaning": meaning, "limits": Limits(**limits), "choices": choices, "unique": unique}
    metadata |= {"nonempty": nonempty, "schema": schema, "resume": resume, "encoder": encoder}
    if isinstance(default, Mapping):
        return dataclasses.field(default_factory=partial(dict, default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


class Section:
    """Base of the frozen dataclasses of a configuration.

    Class arguments: `prefix` is the dotted name of the section; `resume` and `encoder` are defaults for its options.
    """

    _prefix: ClassVar[str] = ""
    _shared: ClassVar[Mapping[str, bool]] = {"resume": False, "encoder": False}

    def __init_subclass__(cls, *, prefix: str = "", resume: bool = False, encoder: bool = False):
        cls._prefix = f"{prefix}." if prefix else ""
        cls._shared = {"resume": resume, "encoder": encoder}

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not _is_section(field.type):
                value = options(type(self))[self._prefix + field.name].check(value)
            elif not isinstance(value, field.type):
                raise InputError(f"{field.name} is {value!r}; choose a {field.type.__name__}")
            object.__setattr__(self, field.name, value)
        self._check()

    def _check(self) -> None:
        """Raise InputError if fields that depend on each other do not fit."""


@cache
def options(schema: type[Section]) -> dict[str, Option]:
    """Return the options of a section and of its sections, by dotted name."""
    found = {}
    for field in dataclasses.fields(schema):
        if _is_section(field.type):
            found |= options(field.type)
        else:
            default = field.default_factory() if field.default is dataclasses.MISSING else field.default
            shared = {name: value for name, value in schema._shared.items() if field.metadata[name] is None}
            name = schema._prefix + field.name
            found[name] = Option(name, field.type, default, **{**field.metadata, **shared})
    return found


def values(config: Section) -> dict[str, Any]:
    """Return the values of all options, by dotted name."""
    found = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        found |= values(value) if isinstance(value, Section) else {config._prefix + field.name: value}
    return found


def format_value(value: Any) -> str:
    """Return the text that `override` reads as this value."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(map(format_value, value))
    return str(value)


def describe(config: Section | type[Section]) -> str:
    """Return a text of all options of a configuration, or of its class: name, value, accepted values, meaning."""
    config = config() if isinstance(config, type) else config
    fields, lines = options(type(config)), []
    for name, value in values(config).items():
        field = fields[name]
        text = "see the file of the configuration" if isinstance(value, dict) else format_value(value) or "empty"
        default = "" if value == field.default else f" (default {format_value(field.default) or 'empty'})"
        lines.append(f"{name} = {text}\n    {field.accepted}{default}\n    {field.meaning}")
    return "\n".join(lines)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ", did you mean …?" with the name of the same last part or the most similar spelling, or an empty text."""
    known = list(known)
    similar = [other for other in known if other.rpartition(".")[2] == name.rpartition(".")[2]][:1]
    similar = similar or difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f", did you mean {similar[0]!r}?" if similar else ""


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Section)


def _check_changes(schema: type[Section], changes: Mapping[str, Any], *, prefix: str) -> dict[str, Any]:
    """Return changes of a configuration with exact types, without the checks of fields that depend on each other."""
    known = options(schema)
    sections = {field.name: field.type for field in dataclasses.fields(schema) if _is_section(field.type)}
    checked = {}
    for name, value in changes.items():
        path = f"{schema._prefix}{name}"
        if name in sections and isinstance(value, Mapping):
            checked[name] = _check_changes(sections[name], value, prefix=prefix)
        elif path in known:
            checked[name] = dataclasses.replace(known[path], name=prefix + path).check(value)
        else:
            raise unknown_field(schema, prefix + path, prefix)
    return checked


def unknown_field(schema: type[Section], path: str, prefix: str = "") -> InputError:
    """Return the error of a field that the schema does not have, with the nearest name."""
    known = [prefix + name for name in options(schema)]
    return InputError(f"the configuration has no field {path!r}{nearest(path, known)}")


def _convert_scalar(value: Any, kind: type) -> Any:
    if isinstance(value, bool) or kind is bool:
        if kind is not bool or not isinstance(value, bool):
            raise TypeError
        return value
    accepted = {int: numbers.Integral, float: numbers.Real, str: str}[kind]
    if not isinstance(value, accepted) or (kind is float and not math.isfinite(value)):
        raise TypeError
    return kind(value)


def _parse(text: str, kind: Any) -> Any:
    if isinstance(kind, types.UnionType):
        return None if text.lower() == "none" else _parse(text, get_args(kind)[0])
    if kind is bool:
        return {"true": True, "false": False}.get(text.lower(), text)
    if get_origin(kind) is dict:
        raise ValueError
    if get_origin(kind) is tuple:
        inner = get_args(kind)[0]
        text = text if inner is str else text.strip("()[] ")
        return tuple(_parse(part.strip(), inner) for part in text.split(",") if part.strip())
    return kind(text)
