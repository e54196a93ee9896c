"""Values of config fields by their annotations: to plain data, from plain data, from text, printed.

A field is int, float, bool, str, None, a `Literal` choice, a tuple of these, a dataclass of such
fields, or a union. One check, `from_plain`, serves saved files, overrides and experiment files.
"""

import ast
import dataclasses
import math
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sora_jax.errors import ConfigError, nearest

# Names the member of a union of dataclasses in plain data; a keyword, so no field can be called it.
# A class that says `is_implied` goes without: its field, now a choice, reads and prints as before.
CLASS_KEY, IMPLIED = "class", "is_implied"
# Metadata of a field that came after runs were saved: at its default it is left out of plain data,
# so that configs which never named it keep their fingerprint.
LATER = {"later": True}


class _Word(str):
    """A bare word of an override, which may mean true, false or none where the field takes one."""


def is_config(value: Any) -> bool:
    """Return whether `value` is a dataclass instance, and not a dataclass itself."""
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def annotations(cls: type) -> dict[str, Any]:
    """Return the annotation of each field that the constructor takes, in order."""
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls) if field.init}


def _members(annotation: Any) -> tuple[Any, ...]:
    """Return the alternatives of a union, None first; of anything else, itself alone."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return tuple(sorted(typing.get_args(annotation), key=lambda kind: kind is not type(None)))
    return (annotation,)


def _needs_name(value: Any, annotation: Any) -> bool:
    """Return whether its field does not say of which class a config is."""
    kinds = [kind for kind in _members(annotation) if dataclasses.is_dataclass(kind)]
    return type(value) is not _implied(kinds)


def _implied(configs: Sequence[Any]) -> Any:
    """Return the class of these that is meant where none is named: the only one, or one that says
    so; else None."""
    said = [kind for kind in configs if getattr(kind, IMPLIED, False)]
    (found,) = (configs if len(configs) == 1 else said) or (None,)
    return found


def item_annotation(annotation: Any, index: int) -> Any:
    """Return the annotation of item `index` of a tuple annotation, Any where it has none."""
    for kind in _members(annotation):
        if typing.get_origin(kind) is tuple:
            items = typing.get_args(kind)
            if items[-1] is Ellipsis:
                return items[0]
            return items[index] if index < len(items) else Any
    return Any


def join(where: str, name: str | int) -> str:
    """Return the dotted name of a field or item of `where`, which is "" for the root."""
    return f"{where}.{name}" if where else str(name)


def to_plain(value: Any, annotation: Any, where: str) -> Any:
    """Return `value` as JSON data; `from_plain` with the same annotation gives it back."""
    if is_config(value):
        if type(value) not in _members(annotation):
            raise ConfigError(
                f"{where or 'the config'} expects {_describe(annotation)}, got {show(value)}"
            )
        unsaid = {
            field.name
            for field in dataclasses.fields(value)
            if field.metadata == LATER and getattr(value, field.name) == field.default
        }
        plain = {
            name: to_plain(getattr(value, name), kind, join(where, name))
            for name, kind in annotations(type(value)).items()
            if name not in unsaid
        }
        named = {CLASS_KEY: type(value).__name__} if _needs_name(value, annotation) else {}
        return named | plain
    if isinstance(value, tuple):
        return [
            to_plain(item, item_annotation(annotation, index), join(where, index))
            for index, item in enumerate(value)
        ]
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{where} is {value}; a config holds finite numbers (None: no limit)")
    # An int in a float field is the same config as the float, so it has the same fingerprint.
    if type(value) is int and float in _members(annotation) and int not in _members(annotation):
        return float(value)
    return value


def from_plain(value: Any, annotation: Any, where: str) -> Any:
    """Check plain data against an annotation and build the value; `where` names it in errors."""
    members = _members(annotation)
    configs = [kind for kind in members if dataclasses.is_dataclass(kind)]
    if configs and isinstance(value, Mapping):
        return _build(value, configs, annotation, where)
    for kind in members:
        if typing.get_origin(kind) is tuple and isinstance(value, (list, tuple)):
            return _build_tuple(value, typing.get_args(kind), kind, where)
        found, result = _as_scalar(value, kind)
        if found:
            return result
    options = [option for kind in members for option in _literal_options(kind)]
    raise ConfigError(
        f"{where or 'the config'} expects {_describe(annotation)}, got {show(value)}"
        + nearest(str(value), [str(option) for option in options])
    )


def _build(data: Mapping[str, Any], configs: list[Any], annotation: Any, where: str) -> Any:
    fields = {name: value for name, value in data.items() if name != CLASS_KEY}
    named = data.get(CLASS_KEY, getattr(_implied(configs), "__name__", None))
    matching = [cls for cls in configs if cls.__name__ == named]
    if not matching:
        raise ConfigError(
            f"{where or 'the config'} expects {_describe(annotation)}, got {show(named)}"
        )
    (cls,) = matching
    kinds = annotations(cls)
    for name in fields:
        if name not in kinds:
            hint = nearest(name, kinds) or f"; {cls.__name__} has {', '.join(kinds)}"
            raise ConfigError(f"no field '{join(where, name)}'{hint}")
    for field in dataclasses.fields(cls):
        optional = (field.default, field.default_factory) != (dataclasses.MISSING,) * 2
        if field.init and field.name not in fields and not optional:
            raise ConfigError(f"{join(where, field.name)} is missing and has no default")
    return cls(**{n: from_plain(v, kinds[n], join(where, n)) for n, v in fields.items()})


def _build_tuple(value: Sequence[Any], items: tuple[Any, ...], kind: Any, where: str) -> Any:
    if items[-1] is Ellipsis:
        items = (items[0],) * len(value)
    if len(items) != len(value):
        raise ConfigError(f"{where} expects {_describe(kind)}, got {show(value)}")
    pairs = enumerate(zip(value, items, strict=True))
    return tuple(from_plain(item, kind, join(where, index)) for index, (item, kind) in pairs)


def _literal_options(kind: Any) -> tuple[Any, ...]:
    return typing.get_args(kind) if typing.get_origin(kind) is typing.Literal else ()


def _as_scalar(value: Any, kind: Any) -> tuple[bool, Any]:
    """Return whether `value` is of the scalar kind, and the value as that kind."""
    if isinstance(value, _Word) and kind in (bool, type(None)):
        meanings = {"true": True, "false": False} if kind is bool else {"none": None}
        return value in meanings, meanings.get(value)
    for option in _literal_options(kind):
        same_type = isinstance(value, type(option)) and type(value) is not bool
        # The types as well, since 1 == True and 1 == 1.0.
        if option == value and (same_type or type(value) is type(option)):
            return True, option
    if kind is str:
        return isinstance(value, str), str(value)
    if kind is float and type(value) in (int, float) and math.isfinite(value):
        return True, float(value)
    if kind in (int, bool, type(None)):
        return type(value) is kind, value
    return False, None


def _describe(annotation: Any) -> str:
    names = {int: "an integer", float: "a finite number", bool: "true or false", str: "text"}
    texts = []
    for kind in _members(annotation):
        if kind in names:
            texts.append(names[kind])
        elif dataclasses.is_dataclass(kind):
            fields = ", ".join(f"{name}=..." for name in annotations(typing.cast(type, kind)))
            texts.append(f"{typing.cast(type, kind).__name__}({fields})")
        elif typing.get_origin(kind) is typing.Literal:
            texts.append("one of " + ", ".join(repr(option) for option in _literal_options(kind)))
        elif typing.get_origin(kind) is tuple:
            texts.append(_describe_tuple(typing.get_args(kind)))
        elif kind is type(None):
            texts.append("none")
        else:
            raise TypeError(f"a config field cannot be annotated {kind}")
    return " or ".join(texts[1:] + texts[:1] if texts[0] == "none" else texts)


def _describe_tuple(items: tuple[Any, ...]) -> str:
    if items[-1] is Ellipsis:
        return f"a list with each item {_describe(items[0])}"
    return f"a list of {len(items)}: {', '.join(_describe(item) for item in items)}"


def show(value: Any) -> str:
    """Return the value as an error message quotes it."""
    return repr(str(value)) if isinstance(value, _Word) else repr(value)


def parse(text: str, annotation: Any, where: str) -> Any:
    """Read the text of an override by the annotation of its field."""
    try:
        return from_plain(_read(text), annotation, where)
    except ConfigError:
        if str in _members(annotation) or any(map(_literal_options, _members(annotation))):
            # Text need not be quoted, also where it looks like a number or an expression.
            found = [_as_scalar(text, kind) for kind in _members(annotation)]
            for is_kind, value in found:
                if is_kind:
                    return value
        raise


def _read(text: str) -> Any:
    try:
        return _read_node(ast.parse(text, mode="eval").body, text)
    except SyntaxError:
        # Names such as 9x32x32 are no expressions; a list of them needs no quotes either.
        if "," in text and not set(text) & set("()[]'\""):
            return [_read(word.strip()) for word in text.split(",") if word.strip()]
        return _Word(text)


def _read_node(node: ast.expr, text: str) -> Any:
    """Return the plain data an expression stands for; whatever has no meaning here is a word."""
    if isinstance(node, (ast.Tuple, ast.List)):
        return [_read_node(item, text) for item in node.elts]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.args:
        values = {word.arg: _read_node(word.value, text) for word in node.keywords if word.arg}
        return {CLASS_KEY: node.func.id} | values
    try:
        return ast.literal_eval(node)
    except ValueError:
        return _Word(ast.get_source_segment(text, node) or text)


def leaves(value: Any, annotation: Any, where: str) -> Iterator[tuple[str, str]]:
    """Yield the dotted name and the printed value of every leaf, in the order of the fields."""
    if is_config(value) and not _needs_name(value, annotation):
        for name, kind in annotations(type(value)).items():
            yield from leaves(getattr(value, name), kind, join(where, name))
    elif isinstance(value, tuple) and any(is_config(item) for item in value):
        for index, item in enumerate(value):
            yield from leaves(item, item_annotation(annotation, index), join(where, index))
    else:
        yield where, _print(value)


def _print(value: Any) -> str:
    if is_config(value):
        fields = (f"{name}={_print(getattr(value, name))}" for name in annotations(type(value)))
        return f"{type(value).__name__}({', '.join(fields)})"
    if isinstance(value, tuple):
        return f"({', '.join(_print(item) for item in value)}{',' * (len(value) == 1)})"
    return repr(value)
