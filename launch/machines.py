"""What Google calls a slice where it is asked for: in GKE's labels, and in the Cloud TPU API.

Names: docs.cloud.google.com/kubernetes-engine/docs/concepts/plan-tpus and
docs.cloud.google.com/tpu/docs/runtimes.
"""

import dataclasses

from sora_jax.errors import ConfigError
from sora_jax.pod.accelerators import Accelerator


@dataclasses.dataclass(frozen=True)
class Names:
    """Of one generation. node_label: of GKE's nodes; machine_family: of their machine types, which
    end with the chips of a host; api_prefix, runtime: of TPU VMs, "" where there are none."""

    node_label: str
    machine_family: str
    api_prefix: str
    runtime: str


NAMES = {
    "v5e": Names("tpu-v5-lite-podslice", "ct5lp-hightpu", "v5litepod", "v2-alpha-tpuv5-lite"),
    "v5p": Names("tpu-v5p-slice", "ct5p-hightpu", "v5p", "v2-alpha-tpuv5"),
    "v6e": Names("tpu-v6e-slice", "ct6e-standard", "v6e", "v2-alpha-tpuv6e"),
    # docs.cloud.google.com/tpu/docs/queued-resources: TPU7x is had through GKE only.
    "tpu7x": Names("tpu7x", "tpu7x-standard", "", ""),
}


def node_selector(accelerator: Accelerator) -> dict[str, str]:
    """The labels of the nodes of such a slice."""
    return {
        "cloud.google.com/gke-tpu-accelerator": NAMES[accelerator.chip.generation].node_label,
        "cloud.google.com/gke-tpu-topology": accelerator.topology,
    }


def machine_type(accelerator: Accelerator) -> str:
    """The virtual machine of one host, such as "ct5p-hightpu-4t"."""
    family = NAMES[accelerator.chip.generation].machine_family
    return f"{family}-{accelerator.chips_per_host}t"


def api_type(accelerator: Accelerator) -> str:
    """The accelerator type of TPU VMs, such as "v5litepod-16"."""
    prefix = NAMES[accelerator.chip.generation].api_prefix
    if not prefix:
        raise ConfigError(
            f"{accelerator.name} is not offered as TPU VMs, only on GKE: use python -m launch.gke"
        )
    return f"{prefix}-{accelerator.name.rpartition('-')[2]}"
