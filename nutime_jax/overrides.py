"""Values of configurations from nested mappings, texts and files."""

import dataclasses
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from nutime_jax.errors import InputError, extra
from nutime_jax.options import Option, Section, options, unknown_field, values

Config = TypeVar("Config", bound=Section)


def to_dict(config: Section, *, encoder: bool = False) -> dict[str, Any]:
    """Return the values of a configuration as nested dictionaries; with `encoder` only those of a saved encoder."""
    nested: dict[str, Any] = {}
    known = options(type(config))
    for name, value in values(config).items():
        if known[name].encoder or not encoder:
            nested = merge(nested, _nest(name.removeprefix(config._prefix).split("."), value))
    return nested


def from_dict(schema: type[Config], mapping: Mapping[str, Any]) -> Config:
    """Return a configuration with the values of nested mappings; absent fields have their defaults.

    Raises:
        InputError: a field is unknown, or a value is not accepted. So do `update` and `override`.
    """
    return update(schema(), mapping)


def read_file(base: Config, path: Path, *, example: Path) -> Config:
    """Return a configuration with the fields of a Python file, see `config.load_config`.

    Raises:
        InputError: the file has no get_config(), or a value is not accepted.
    """
    spec = importlib.util.spec_from_file_location(f"nutime_config_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    with extra("train", "ml_collections"):
        spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise InputError(f"{path} defines no get_config(); see {example} for an example")
    fields = module.get_config()
    try:
        return update(base, fields if isinstance(fields, dict) else fields.to_dict())
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def update(config: Config, changes: Mapping[str, Any], *, root: type[Section] | None = None) -> Config:
    """Return a configuration with new values of nested mappings; all are set before any is checked.

    Args:
        root: class whose field names messages suggest; None is that of the configuration.
    """
    root = root or type(config)
    if not isinstance(changes, Mapping):
        raise InputError(f"{config._prefix.rstrip('.')} is {changes!r}; choose a mapping of fields to values")
    fields = {field.name for field in dataclasses.fields(config)}
    new = {}
    for name, value in changes.items():
        if name not in fields:
            raise unknown_field(root, f"{config._prefix}{name}")
        current = getattr(config, name)
        nested = isinstance(current, Section) and not isinstance(value, Section)
        new[name] = update(current, value, root=root) if nested else value
    return dataclasses.replace(config, **new)


def override(config: Config, *texts: str) -> Config:
    """Return a configuration with the values of texts, "section.field=value" each, parsed by the type of the field."""
    changes: dict[str, Any] = {}
    for text in texts:
        changes = merge(changes, parse_override(type(config), text, current=merge(to_dict(config), changes)))
    return update(config, changes)


def parse_override(schema: type[Section], text: str, *, current: Mapping[str, Any] | None = None, prefix: str = "") -> dict[str, Any]:
    """Return the nested mapping of an override, "section.field=value". Mappings of `current` are extended."""
    path, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"override {prefix}{path!r} has no value; write --config.{prefix}{path}=value")
    names = path.split(".")
    for length in range(len(names), 0, -1):
        field, rest = options(schema).get(schema._prefix + ".".join(names[:length])), names[length:]
        if field and (not rest or get_origin(field.kind) is dict):
            section = current or {}
            for name in names[: length - 1]:
                section = section.get(name, {})
            named = dataclasses.replace(field, name=prefix + field.name)
            entry = _set_entry(named, section.get(names[length - 1], field.default), rest, value)
            return _nest(names[:length], entry)
    raise unknown_field(schema, prefix + path, prefix)


def merge(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested mappings; the second has precedence."""
    new = {name: merge(old.get(name, {}), value) if isinstance(value, dict) else value for name, value in new.items()}
    return {**old, **new}


def _set_entry(option: Option, current: Any, names: list[str], text: str) -> Any:
    """Return a value, or a mapping in which the entry at a path has the value, of a text."""
    if not names:
        return option.parse(text)
    if get_origin(option.kind) is not dict:
        raise InputError(f"{option.name} has no field {names[0]!r}; set {option.name}=value")
    if get_args(option.kind)[1] is Any:
        return merge(current, parse_override(option.schema, f"{'.'.join(names)}={text}", prefix=f"{option.name}."))
    entry = _set_entry(option.entry(names[0]), current.get(names[0], {}), names[1:], text)
    return {**current, names[0]: entry}


def _nest(names: list[str], value: Any) -> dict[str, Any]:
    return {names[0]: _nest(names[1:], value) if names[1:] else value}
