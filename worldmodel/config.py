"""The base of every configuration: a frozen dataclass that refuses values of the wrong type.

YAML is the single home of values; a config class lists fields, explains them and derives numbers from them.
Hydra turns `_target_: package.module.SomeConfig` into such an object; it does not check types itself, so this does.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Sequence
from typing import Any, Literal, Union, cast, get_args, get_origin


class ConfigError(ValueError):
    """A configuration value that cannot be used: names the key, the value and what was expected."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Checks every field against its annotation; lists become tuples and ints become floats where declared.

    Supports `int`, `float`, `bool`, `str`, `None`, `Literal`, unions, `tuple[X, ...]`, `dict[str, X]` and classes.
    Where a config is declared, a dict changes single values of the field's default.

    Raises:
        ConfigError: when a value does not fit its declared type.
    """

    def __post_init__(self) -> None:
        """Check and convert every field, then let the subclass check ranges in `validate`."""
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            where = f"{type(self).__name__}.{field.name}"
            value = getattr(self, field.name)
            if isinstance(value, dict):
                value = _nested(where, cast("dict[str, Any]", value), field_default(field), hints[field.name])
            value = _convert(where, value, hints[field.name])
            object.__setattr__(self, field.name, value)
        self.validate()

    def validate(self) -> None:
        """Check ranges and combinations; raise `ConfigError`. Subclasses override this."""

    def require(self, condition: bool, name: str, expected: str) -> None:
        """Raise `ConfigError` that names field `name`, its value and `expected`, unless `condition` holds."""
        if not condition:
            raise ConfigError(f"{type(self).__name__}.{name} = {getattr(self, name)!r}: expected {expected}")


@dataclasses.dataclass(frozen=True)
class OptimConfig(Config):
    """How one trainable part of a world model is fitted."""

    learning_rate: float
    weight_decay: float
    """AdamW decay, on the weights of linear and convolution layers only."""
    grad_clip: float
    """Largest global gradient norm."""
    batch_size: int
    """Segments per update."""
    warmup_updates: int = 0
    """Updates over which the learning rate rises linearly from 0."""

    def validate(self) -> None:
        """Refuse rates and sizes that cannot train."""
        self.require(self.learning_rate > 0, "learning_rate", "a number above 0")
        self.require(self.weight_decay >= 0, "weight_decay", "a number of at least 0")
        self.require(self.grad_clip > 0, "grad_clip", "a number above 0")
        self.require(self.batch_size >= 1, "batch_size", "at least 1")
        self.require(self.warmup_updates >= 0, "warmup_updates", "at least 0")


def field_default(field: dataclasses.Field[Any]) -> Any:
    """The value that a field has by default; `dataclasses.MISSING` where it has none."""
    factory = field.default_factory
    return field.default if factory is dataclasses.MISSING else factory()


def _nested(where: str, values: dict[str, Any], default: Any, hint: Any) -> Any:
    """`default` with `values` in the place of its own, or a new config; `values` where none is declared."""
    kind = type(default) if isinstance(default, Config) else hint
    if not (isinstance(kind, type) and issubclass(kind, Config)):
        return values
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for name in values:
        if name not in fields:
            raise ConfigError(f"{where}: unknown key {name!r} (keys: {', '.join(fields)})")
    given = dict(values)
    if isinstance(default, Config):
        own = {name: getattr(default, name) for name in fields}
        for name, value in values.items():
            if isinstance(value, dict):
                given[name] = _nested(f"{where}.{name}", cast("dict[str, Any]", value), own[name], None)
        return dataclasses.replace(default, **given)
    needed = [name for name, field in fields.items() if field_default(field) is dataclasses.MISSING]
    lacking = [name for name in needed if name not in given]
    if lacking:
        raise ConfigError(f"{where}: {', '.join(lacking)} must be given too: they have no default")
    return kind(**given)


def _convert(where: str, value: Any, hint: Any) -> Any:
    origin = get_origin(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        return _convert_union(where, value, hint)
    if origin is tuple and isinstance(value, (list, tuple)):
        items, item_hint = cast("Sequence[Any]", value), get_args(hint)[0]
        return tuple(_convert(f"{where}[{i}]", item, item_hint) for i, item in enumerate(items))
    if (origin is dict or hint is dict) and isinstance(value, dict):
        entries, item_hint = cast("dict[str, Any]", value), get_args(hint)[1] if get_args(hint) else Any
        return {key: _convert(f"{where}.{key}", item, item_hint) for key, item in entries.items()}
    if _fits(value, hint):
        return float(value) if hint is float else value
    raise ConfigError(f"{where} = {value!r} ({type(value).__name__}): expected {_spell(hint)}")


def _fits(value: Any, hint: Any) -> bool:
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if hint is None:
        return value is None
    if hint in (int, float):
        return isinstance(value, (int, hint)) and not isinstance(value, bool)
    return isinstance(hint, type) and isinstance(value, hint)


def _convert_union(where: str, value: Any, hint: Any) -> Any:
    for option in get_args(hint):
        try:
            return _convert(where, value, option)
        except ConfigError:
            continue
    raise ConfigError(f"{where} = {value!r} ({type(value).__name__}): expected {_spell(hint)}")


def _spell(hint: Any) -> str:
    origin = get_origin(hint)
    if origin is Literal:
        return "one of " + ", ".join(map(str, get_args(hint)))
    if origin in (Union, types.UnionType):
        return " or ".join(_spell(option) for option in get_args(hint))
    if origin is tuple:
        return f"a list of {_spell(get_args(hint)[0])}"
    if hint is type(None):
        return "null"
    return getattr(hint, "__name__", str(hint))
