"""The JobSet of a run on GKE: one Job a slice, one pod a host, restarted as exit codes say.

    jobset.sigs.k8s.io/docs/reference/jobset.v1alpha2

How a pod ends decides what follows. Preempted or moved: all start again, as often as it takes.
Exit code 42 or a signal: all start again, `restarts` times. Any other exit code: the run has failed
for good. For the first and the last a Job fails by its podFailurePolicy, for the second by its
backoffLimit. JobSet tells the first from the last by the Job's message, which it can from 0.10.1 on
(github.com/kubernetes-sigs/jobset/pull/1033).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from launch.environment import COORDINATOR_PORT, environment
from launch.machines import node_selector
from sora_jax.errors import RESTARTABLE
from sora_jax.pod.accelerators import Accelerator

SLICE = "slice"  # pods are NAME-slice-0-0 and up
CONTAINER = "sora"
BUCKETS = "/gcs"
FIRST_SIGNAL = 128
LAST_CODE = 255
# After SIGTERM a run ends its step and saves: minutes where the state is large and the bucket slow.
# Longer would not do: when one host is lost the others hang in a collective, deaf to SIGTERM, and
# the restart waits for them.
GRACE_SECONDS = 300
# Between pods any port is open, unless a NetworkPolicy closes it; these are the ones to leave open.
PORTS = {
    "coordinator": COORDINATOR_PORT,
    "tpu": 8471,  # libtpu's, between the hosts of a slice
    "megascale": 8080,  # libtpu's, between slices
    "metrics": 8431,  # where libtpu is asked for the use of its chips
}


class Codes(list[int]):
    """Exit codes, which are written on few lines."""


@dataclasses.dataclass(frozen=True)
class Run:
    """What is to run where. command: as the image is to exec it; environment: beyond the usual."""

    name: str
    accelerator: Accelerator
    slices: int
    image: str
    command: tuple[str, ...]
    restarts: int
    environment: Mapping[str, str]
    namespace: str | None = None
    queue: str | None = None
    priority: str | None = None
    service_account: str | None = None
    bucket: str | None = None


def restartable_codes() -> list[int]:
    """Every exit code after which the same command goes on; see sora_jax/errors.py."""
    return [RESTARTABLE, *range(FIRST_SIGNAL, LAST_CODE + 1)]


def jobset(run: Run) -> dict[str, Any]:
    """The manifest of a run, in the order in which it is to be read."""
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": _metadata(run),
        "spec": {
            # The headless service by which hosts find each other, before they are ready too.
            "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True},
            "failurePolicy": _failure_policy(run),
            # One for all slices: Kueue admits at most eight kinds of pods together
            # (github.com/kubernetes-sigs/jobset/issues/597).
            "replicatedJobs": [
                {"name": SLICE, "replicas": run.slices, "template": {"spec": _job(run)}}
            ],
        },
    }


def _metadata(run: Run) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": run.name}
    if run.namespace is not None:
        metadata["namespace"] = run.namespace
    if run.queue is not None:
        metadata["labels"] = {"kueue.x-k8s.io/queue-name": run.queue}
    if run.accelerator.hosts > 1:
        # A node pool is a slice then, and no two Jobs may share one. Slices of one host share
        # pools, and a pod of theirs takes all chips of its node anyway.
        metadata["annotations"] = {
            "alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"
        }
    return metadata


def _failure_policy(run: Run) -> dict[str, Any]:
    by_policy = ["PodFailurePolicy"]
    return {
        "maxRestarts": run.restarts,
        # Pods of the attempt before hold the chips and answer to the same names: they go first.
        "restartStrategy": "BlockingRecreate",
        "rules": [  # the first that fits
            {
                "name": "disrupted",
                "action": "RestartJobSetAndIgnoreMaxRestarts",
                "onJobFailureReasons": by_policy,
                "onJobFailureMessagePatterns": ["has condition DisruptionTarget"],
            },
            {"name": "failed", "action": "FailJobSet", "onJobFailureReasons": list(by_policy)},
            {
                "name": "restartable",
                "action": "RestartJobSet",
                "onJobFailureReasons": ["BackoffLimitExceeded"],
            },
        ],
    }


def _job(run: Run) -> dict[str, Any]:
    return {
        "parallelism": run.accelerator.hosts,
        "completions": run.accelerator.hosts,
        "completionMode": "Indexed",
        "backoffLimit": 0,  # a pod alone cannot start again: the others wait in a collective
        "podFailurePolicy": {
            "rules": [  # the first that fits; of a pod that fits none, the backoffLimit
                {
                    "action": "FailJob",
                    "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
                },
                {
                    "action": "FailJob",
                    "onExitCodes": {
                        "containerName": CONTAINER,
                        "operator": "NotIn",
                        "values": Codes(restartable_codes()),
                    },
                },
            ]
        },
        "template": _with_bucket(run, {"spec": _pod(run)}),
    }


def _pod(run: Run) -> dict[str, Any]:
    told = environment(run.accelerator.chip.generation, run.slices, run.environment)
    # Not on the host's network: there GKE's workload identity, which opens gs://, may be missing.
    pod: dict[str, Any] = {"restartPolicy": "Never"}
    if run.priority is not None:
        pod["priorityClassName"] = run.priority
    if run.service_account is not None:
        pod["serviceAccountName"] = run.service_account
    return pod | {
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "nodeSelector": node_selector(run.accelerator),
        "tolerations": [
            {"key": "google.com/tpu", "operator": "Exists", "effect": "NoSchedule"},
        ],
        "containers": [
            {
                "name": CONTAINER,
                "image": run.image,
                # No shell: what is named here gets SIGTERM itself.
                "command": list(run.command),
                "env": [{"name": n, "value": v} for n, v in told.items()],
                "ports": [{"name": n, "containerPort": port} for n, port in PORTS.items()],
                "resources": {"limits": {"google.com/tpu": run.accelerator.chips_per_host}},
                "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}],
            }
        ],
        # Shared memory is 64 MiB by default; the loader's processes hand batches on in it.
        "volumes": [{"name": "shm", "emptyDir": {"medium": "Memory"}}],
    }


def _with_bucket(run: Run, template: dict[str, Any]) -> dict[str, Any]:
    """The pod with a bucket at /gcs/BUCKET, by the driver that GKE has for it:
    docs.cloud.google.com/kubernetes-engine/docs/how-to/cloud-storage-fuse-csi-driver-ephemeral."""
    if run.bucket is None:
        return template
    pod = template["spec"]
    mount = {"name": "bucket", "mountPath": f"{BUCKETS}/{run.bucket}"}
    pod["containers"][0]["volumeMounts"].append(mount)
    attributes = {"bucketName": run.bucket, "mountOptions": "implicit-dirs"}
    driver = {"driver": "gcsfuse.csi.storage.gke.io", "volumeAttributes": attributes}
    pod["volumes"].append({"name": "bucket", "csi": driver})
    return {"metadata": {"annotations": {"gke-gcsfuse/volumes": "true"}}, **template}
