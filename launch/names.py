"""What Kubernetes and JobSet refuse in a manifest for its names, and a schema does not say.

The rules of github.com/kubernetes-sigs/jobset/blob/main/pkg/webhooks/jobset_webhook.go and of
kubernetes.io/docs/concepts/overview/working-with-objects/names.
"""

import re
from collections.abc import Iterator
from typing import Any

LONGEST_LABEL = 63
DNS_1035 = r"[a-z]([-a-z0-9]*[a-z0-9])?"  # what a service, and so a JobSet, is called
DNS_1123 = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
SUBDOMAIN = rf"{DNS_1123}(\.{DNS_1123})*"
LONGEST_SUBDOMAIN = 253
LABEL = r"[A-Za-z0-9]([-_.A-Za-z0-9]*[A-Za-z0-9])?"
RULE = r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?"
LONGEST_RULE = 128
VARIABLE = r"[-._A-Za-z][-._A-Za-z0-9]*"
LONGEST_PORT = 15
FAILURE_REASONS = {
    "BackoffLimitExceeded",
    "DeadlineExceeded",
    "FailedIndexes",
    "MaxFailedIndexesExceeded",
    "PodFailurePolicy",
}
RANDOM_END = "-abcde"  # which Kubernetes adds to the name of a pod


def complaints(manifest: dict[str, Any]) -> list[str]:
    """A sentence for each name in a JobSet that would be refused."""
    metadata, spec = manifest["metadata"], manifest["spec"]
    found = [*_of_metadata(metadata)]
    for job in spec["replicatedJobs"]:
        found += _of_generated_names(metadata["name"], job)
        found += _of_pod(job["template"]["spec"]["template"]["spec"])
    found += _of_rules(
        spec["failurePolicy"]["rules"], {job["name"] for job in spec["replicatedJobs"]}
    )
    return found


def _of_metadata(metadata: dict[str, Any]) -> Iterator[str]:
    namespace = metadata.get("namespace")
    if namespace is not None and not _fits(namespace, DNS_1123, LONGEST_LABEL):
        yield f"'{namespace}' is no name of a namespace: {_letters()}"
    for key, value in metadata.get("labels", {}).items():
        if not _is_key(key):
            yield f"'{key}' is no key of a label"
        if not _fits(value, LABEL, LONGEST_LABEL):
            yield (
                f"'{value}' is no value of the label {key}: it may have {LONGEST_LABEL} letters, "
                "digits and -_. and begins and ends with a letter or digit"
            )
    for key in metadata.get("annotations", {}):
        if not _is_key(key):
            yield f"'{key}' is no key of an annotation"


def _of_generated_names(name: str, job: dict[str, Any]) -> Iterator[str]:
    """Of the JobSet, its Jobs and their pods; the highest numbers are the longest."""
    if re.fullmatch(DNS_1035, name) is None:
        yield f"'{name}' is no name of a JobSet: {_letters()}, and begins with a letter"
        return
    longest_job = f"{name}-{job['name']}-{job['replicas'] - 1}"
    pod = f"{longest_job}-{job['template']['spec']['completions'] - 1}{RANDOM_END}"
    if len(pod) > LONGEST_LABEL:
        yield (
            f"the name '{name}' is {len(pod) - LONGEST_LABEL} characters too long: a pod would be "
            f"called '{pod}', and Kubernetes allows {LONGEST_LABEL}"
        )
    elif re.fullmatch(DNS_1035, pod) is None:
        yield f"'{job['name']}' is no name of a replicated job: {_letters()}"


def _of_pod(pod: dict[str, Any]) -> Iterator[str]:
    for field in ("serviceAccountName", "priorityClassName"):
        if field in pod and not _fits(pod[field], SUBDOMAIN, LONGEST_SUBDOMAIN):
            yield f"'{pod[field]}' is no {field}: {_letters()}"
    for container in pod["containers"]:
        if not _fits(container["name"], DNS_1123, LONGEST_LABEL):
            yield f"'{container['name']}' is no name of a container: {_letters()}"
        for port in container["ports"]:
            if not _fits(port["name"], DNS_1123, LONGEST_PORT):
                yield f"'{port['name']}' is no name of a port of {LONGEST_PORT} characters"
        for variable in container["env"]:
            if re.fullmatch(VARIABLE, variable["name"]) is None:
                yield f"'{variable['name']}' is no name of an environment variable"


def _of_rules(rules: list[dict[str, Any]], jobs: set[str]) -> Iterator[str]:
    names = [rule["name"] for rule in rules]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"several rules of the failure policy are called '{name}'"
    for rule in rules:
        if not _fits(rule["name"], RULE, LONGEST_RULE):
            yield f"'{rule['name']}' is no name of a rule of the failure policy"
        for reason in rule.get("onJobFailureReasons", ()):
            if reason not in FAILURE_REASONS:
                yield f"a Job never fails for '{reason}', as the rule '{rule['name']}' has it"
        for job in rule.get("targetReplicatedJobs", ()):
            if job not in jobs:
                yield f"the rule '{rule['name']}' is about a replicated job '{job}', which is none"


def _fits(name: str, pattern: str, longest: int) -> bool:
    return len(name) <= longest and re.fullmatch(pattern, name) is not None


def _is_key(key: str) -> bool:
    prefix, slash, name = key.rpartition("/")
    return _fits(name, LABEL, LONGEST_LABEL) and (
        not slash or _fits(prefix, SUBDOMAIN, LONGEST_SUBDOMAIN)
    )


def _letters() -> str:
    return "it has lower-case letters, digits and -, and ends with a letter or digit"
