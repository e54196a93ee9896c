"""Each check of a manifest refuses what it is for."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from launch import names, schema
from launch.jobset import Run, jobset
from sora_jax.pod.accelerators import accelerator

SCHEMA = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": {"type": "string", "minLength": 2, "maxLength": 4, "pattern": "^[a-z]+$"},
        "kind": {"type": "string", "enum": ["a", "b"]},
        "count": {"type": "integer", "minimum": 1},
        "share": {"type": "number"},
        "on": {"type": "boolean"},
        "port": {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}]},
        "list": {"type": "array", "maxItems": 2, "items": {"type": "integer"}},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "inner": {"type": "object", "properties": {"deep": {"type": "integer"}}},
        "metadata": {"type": "object"},
    },
}


def test_what_fits_is_let_through() -> None:
    value = {"name": "abc", "kind": "a", "count": 1, "share": 1, "on": True, "port": "http"}
    more = {"list": [1, 2], "labels": {"x": "y"}, "inner": {"deep": 0}, "metadata": {"any": 1}}
    assert schema.complaints(value | more, SCHEMA) == []


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"other": 1}, "other: there is no such field"),
        ({"inner": {"deep": 1, "depth": 1}}, "inner.depth: there is no such field"),
        ({"inner": {"deep": "1"}}, "inner.deep: '1' is no integer"),
        ({"name": 1}, "name: 1 is no string"),
        ({"name": "a"}, "name: 1 characters are less than 2"),
        ({"name": "abcde"}, "name: 5 characters are more than 4"),
        ({"name": "aB"}, "name: 'aB' does not match ^[a-z]+$"),
        ({"kind": "c"}, "kind: 'c' is none of a, b"),
        ({"count": 0}, "count: 0 is less than 1"),
        ({"count": True}, "count: True is no integer"),
        ({"share": "1"}, "share: '1' is no number"),
        ({"on": 1}, "on: 1 is no boolean"),
        ({"port": True}, "port: True is neither a number nor text"),
        ({"list": [1, 2, 3]}, "list: 3 items are more than 2"),
        ({"list": [1, "2"]}, "list[1]: '2' is no integer"),
        ({"labels": {"x": 1}}, "labels.x: 1 is no string"),
        ({"metadata": []}, "metadata: [] is no object"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], complaint: str) -> None:
    assert schema.complaints({"name": "abc"} | change, SCHEMA) == [complaint]


def test_what_is_required_is_missed() -> None:
    assert schema.complaints({}, SCHEMA) == ["the manifest: lacks name"]


def test_a_definition_has_one_schema_a_version(tmp_path: Path) -> None:
    path = tmp_path / "definition.yaml"
    version = {"name": "v1", "schema": {"openAPIV3Schema": SCHEMA}}
    path.write_text(yaml.safe_dump({"spec": {"versions": [version]}}))
    assert schema.load_schema(str(path), "v1") == SCHEMA


LONG = "x" * 200
POD = "spec.replicatedJobs.0.template.spec.template.spec"


@pytest.mark.parametrize(
    ("place", "value", "complaint"),
    [
        ("metadata.name", "a.b", "'a.b' is no name of a JobSet"),
        ("metadata.name", "a" * 52, "is 6 characters too long"),
        ("metadata.namespace", LONG, "is no name of a namespace"),
        ("metadata.labels", {"a b": "c"}, "'a b' is no key of a label"),
        ("metadata.labels", {"a": LONG}, "is no value of the label a"),
        ("metadata.annotations", {"A_b/c": "d"}, "'A_b/c' is no key of an annotation"),
        ("spec.replicatedJobs.0.name", "Slice", "'Slice' is no name of a replicated job"),
        ("spec.replicatedJobs.0.replicas", 10**50, "characters too long"),
        (f"{POD}.serviceAccountName", "A", "'A' is no serviceAccountName"),
        (f"{POD}.containers.0.name", "a.b", "'a.b' is no name of a container"),
        (f"{POD}.containers.0.ports.0.name", "a" * 16, "is no name of a port"),
        (f"{POD}.containers.0.env.0.name", "A B", "'A B' is no name of an environment variable"),
        ("spec.failurePolicy.rules.0.name", "a-b", "'a-b' is no name of a rule"),
        ("spec.failurePolicy.rules.0.name", LONG, "is no name of a rule"),
        ("spec.failurePolicy.rules.0.name", "failed", "several rules .* are called 'failed'"),
        ("spec.failurePolicy.rules.0.onJobFailureReasons", ["Bored"], "never fails for 'Bored'"),
        ("spec.failurePolicy.rules.0.targetReplicatedJobs", ["a"], "replicated job 'a', which is"),
    ],
)
def test_a_name_that_kubernetes_refuses_is_refused(place: str, value: Any, complaint: str) -> None:
    environment = {"A": "b"}
    run = Run("clips", accelerator("v5p-256"), 2, "i:1", ("sora",), 1, environment)
    manifest: Any = jobset(run)
    assert names.complaints(manifest) == []
    *path, last = place.split(".")
    at = manifest
    for step in path:
        at = at[int(step)] if step.isdecimal() else at[step]
    at[last] = value
    [found] = names.complaints(manifest)
    assert re.search(complaint, found), found
