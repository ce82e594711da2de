"""Configurations by name or path, and their overrides from the command line."""

import difflib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from nutime_jax.errors import InputError


def shipped_configs() -> dict[str, Path]:
    """Name -> file of every configuration that comes with the package."""
    package = Path(__file__).parents[1]
    # A wheel carries them inside the package; in a checkout (or an editable install of it) they lie beside it.
    folder = package / "configs" if (package / "configs").is_dir() else package.parent / "configs"
    return {path.stem: path for path in sorted(folder.glob("*.py")) if not path.stem.startswith("_")}


OPEN = ("model", "finetune", "pretrain", "variants", "domains")
"""Sections of which every field has a default elsewhere, or which name what they hold themselves."""

ELEMENTS = {"model.windows": int, "model.locations": float}
"""What lists hold that may be empty; others hold texts."""


def load_config(name: str, overrides: Sequence[str] = (), *, example: str = "quickstart") -> ConfigDict:
    """Runs `get_config` of a shipped configuration or of a Python file, and applies overrides.

    Args:
        name: name of a shipped configuration, or a path that ends in .py.
        overrides: "a.b=value" each; the field must exist, or be one of the encoder's that `model` leaves at its default, and the
            value be of its type.
        example: the shipped configuration whose fields it must have.

    Raises:
        InputError: no such configuration, field, or value.
    """
    shipped = shipped_configs()
    path = Path(name).expanduser() if name.endswith(".py") else shipped.get(name)
    if path is None or not path.is_file():
        names = ", ".join(shipped)
        raise InputError(f"there is no configuration {name!r}{_nearest(name, shipped)}; shipped are {names}, or give a path to a .py file")
    spec = importlib.util.spec_from_file_location(f"nutime_config_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise InputError(f"{path} defines no get_config(); see {shipped['quickstart']} for an example")
    config = module.get_config()
    if path != shipped[example]:
        _check_complete(config, load_config(example, example=example), path, shipped[example])
    config.lock()
    for override in overrides:
        _apply(config, override)
    return config


def _check_complete(config: ConfigDict, example: ConfigDict, path: Path, source: Path) -> None:
    """A configuration has the fields of its example, and the sections whose fields have defaults."""
    missing = [field for field in _fields(example) if field.split(".")[0] not in OPEN and field not in _fields(config)]
    missing += [section for section in OPEN if section in example and section not in config]
    if missing:
        raise InputError(f"{path} sets no field {missing[0]!r}; start from a copy of {source}")


def _apply(config: ConfigDict, override: str) -> None:
    path, equals, text = override.partition("=")
    if not equals:
        raise InputError(f"override {path!r} has no value; write --config.{path}=value")
    *sections, field = path.split(".")
    section: Any = config
    for name in sections:
        section = section.get(name) if isinstance(section, ConfigDict) else None
    if sections == ["model"] and section is not None and field not in section and field in _defaults(config):
        with section.unlocked():
            section[field] = _defaults(config)[field]
    if not isinstance(section, ConfigDict) or field not in section or isinstance(section[field], ConfigDict):
        known = [*_fields(config), *(f"model.{name}" for name in _defaults(config))]
        raise InputError(f"the configuration has no field {path!r}{_nearest(path, known)}")
    try:
        section[field] = _parse(text, section[field], section.get_type(field), inner=ELEMENTS.get(path, str))
    except ValueError as error:
        kind = section.get_type(field).__name__
        raise InputError(f"config.{path} is {section[field]!r}, of type {kind}; {text!r} is not ({error})") from error


def _defaults(config: ConfigDict) -> dict[str, Any]:
    """What a `model` section may leave out; nothing where there is no such section."""
    if "model" not in config:
        return {}
    from nutime_jax.models.configuration import released_fields  # Flax, which other overrides do without.

    return released_fields()


def _parse(text: str, current: Any, kind: type, *, inner: type = str) -> Any:
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError("write true or false")
        return text.lower() == "true"
    if kind is tuple:
        parts = [part.strip() for part in text.strip("()[] ").split(",") if part.strip()]
        inner = type(current[0]) if current else inner
        return tuple(_parse(part, None, inner) for part in parts)
    return None if text.lower() == "none" and current is None else kind(text)


def _fields(config: ConfigDict, prefix: str = "") -> list[str]:
    names = []
    for name, value in config.items():
        names += _fields(value, f"{prefix}{name}.") if isinstance(value, ConfigDict) else [prefix + name]
    return names


def _nearest(name: str, known) -> str:
    """ ", did you mean …?" where something has the same last part, or is near by its whole name."""
    near = [one for one in known if one.rpartition(".")[2] == name.rpartition(".")[2]][:1]
    near = near or difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f", did you mean {near[0]!r}?" if near else ""
