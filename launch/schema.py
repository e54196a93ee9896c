"""Holds a manifest against the structural schema of a custom resource, on this machine.

A schema: kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions.
Fields it does not name are refused, as `kubectl apply` does and the API server alone would not.
Rules in CEL (x-kubernetes-validations) are left to the server.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from sora_jax.errors import ConfigError

TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
}


def load_schema(path: str, version: str) -> dict[str, Any]:
    """One version's schema in a CustomResourceDefinition; `ConfigError` if it has none."""
    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # 10,000 lines: the fast one
        definition = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=loader)
        [schema] = [
            each["schema"]["openAPIV3Schema"]
            for each in definition["spec"]["versions"]
            if each["name"] == version
        ]
    except OSError as error:
        raise ConfigError(f"--schema {path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"--schema {path} is no CustomResourceDefinition with a version {version}"
        ) from error
    assert isinstance(schema, dict)
    return schema


def complaints(value: object, schema: Mapping[str, Any], where: str = "") -> list[str]:
    """All that is wrong with `value`, each as "PLACE: what"; nothing if it fits."""
    if schema.get("x-kubernetes-int-or-string"):
        fits = isinstance(value, (int, str)) and not isinstance(value, bool)
        return [] if fits else [f"{where}: {value!r} is neither a number nor text"]
    expected = TYPES[schema["type"]]
    if not isinstance(value, expected) or (isinstance(value, bool) and bool not in expected):
        return [f"{where}: {value!r} is no {schema['type']}"]
    found = [f"{where}: {wrong}" for wrong in _of_scalar(value, schema)]
    if isinstance(value, dict):
        found += _of_object(value, schema, where)
    if isinstance(value, list):
        for number, item in enumerate(value):
            found += complaints(item, schema["items"], f"{where}[{number}]")
    return found


def _of_scalar(value: object, schema: Mapping[str, Any]) -> Sequence[str]:
    length = len(value) if isinstance(value, (str, list)) else 0
    unit = "items" if isinstance(value, list) else "characters"
    longest = schema.get("maxItems" if isinstance(value, list) else "maxLength")
    found = []
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{value!r} is none of {', '.join(map(str, schema['enum']))}")
    if longest is not None and length > longest:
        found.append(f"{length} {unit} are more than {longest}")
    if length < schema.get("minLength", 0):
        found.append(f"{length} {unit} are less than {schema['minLength']}")
    if isinstance(value, str) and not re.search(schema.get("pattern", ""), value):
        found.append(f"{value!r} does not match {schema['pattern']}")
    if isinstance(value, (int, float)) and value < schema.get("minimum", value):
        found.append(f"{value} is less than {schema['minimum']}")
    return found


def _of_object(value: Mapping[str, Any], schema: Mapping[str, Any], where: str) -> list[str]:
    place = where or "the manifest"
    found = [f"{place}: lacks {name}" for name in schema.get("required", ()) if name not in value]
    properties = schema.get("properties", {})
    others = schema.get("additionalProperties")
    for name, item in value.items():
        place = f"{where}.{name}".lstrip(".")
        if name in properties:
            found += complaints(item, properties[name], place)
        elif isinstance(others, dict):
            found += complaints(item, others, place)
        elif properties:  # without any, as for `metadata`, the fields are the server's
            found.append(f"{place}: there is no such field")
    return found
