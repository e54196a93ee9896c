"""What the Fréchet video distance makes of known faults: texture far above motion.

    pip install "sora_jax[fvd]"
    python -m benchmarks.fvd_content_bias ["two discs" | "any two bodies"]

Clips are of the procedural world with gravity, 16 frames of 64 x 64 pixels, and are compared by the
published I3D with other clips of the same world. Each fault is put into one set of clips: half the
gravity from the same start, frames in random order, the first frame frozen, the grain that a codec
or an autoencoder leaves, pure noise. Writes benchmarks/results/fvd_content_bias.json.

Asked, of two small discs on a plain ground: clips without fault lie inside the null of 50 random
divisions of both sets, all faults outside, and grain, whose motion is perfect, farther than frames
in random order. Beside it, with nothing asked, two bodies of any shape, size and colour on a
texture. This world was measured first, and there half the gravity stayed within the null; the plain
one was chosen for that. So whether I3D sees a fault of motion depends on the world: what the two
differ in was not taken apart.
"""

import dataclasses
import datetime
import importlib.metadata
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np

from sora_jax.eval.backbone import Backbone, i3d_backbone
from sora_jax.eval.degraded import shuffled, with_grain
from sora_jax.eval.distribution import (
    frechet_of_features,
    kernel_distance,
    null_distances,
    precision_recall,
)
from sora_jax.eval.features import clip_features
from sora_jax.eval.world_state import frozen
from sora_jax.world.render import render
from sora_jax.world.scene import Scene, WorldConfig
from sora_jax.world.source import WorldSource

ANY_BODIES = WorldConfig(min_objects=2, max_objects=2, motions=("gravity",))
TWO_DISCS = dataclasses.replace(
    ANY_BODIES, shapes=("circle",), sizes=("small",), colours=("red", "green"), texture=0.0
)
FRAMES, SIDE, FPS = 16, 64, 8.0
WORLDS = {"two discs": (TWO_DISCS, 32), "any two bodies": (ANY_BODIES, 48)}  # and clips of each set
RESULT = Path(__file__).parent / "results" / "fvd_content_bias.json"


def main() -> None:
    """Measures the named worlds, or all; writes and prints each table as it is there, beside those
    of worlds that were measured before."""
    backbone = i3d_backbone()
    for name in sys.argv[1:] or WORLDS:
        world, clips = WORLDS[name]
        figures = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
        figures["command"] = "python -m benchmarks.fvd_content_bias"
        figures[name] = {
            "date": datetime.date.today().isoformat(),
            "hardware": f"{os.cpu_count()} cores of {platform.processor() or platform.machine()}",
            "versions": {each: importlib.metadata.version(each) for each in ("jax", "flax")},
            "backbone": {"name": backbone.name, "weights_sha256": backbone.weights},
            "clips": f"{clips} against {clips}, {FRAMES} frames of {SIDE} x {SIDE}",
            **measured(backbone, world, clips),
        }
        if world == TWO_DISCS:
            figures[name]["asked"] = holds(figures[name])
        RESULT.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
        print(json.dumps(figures[name], indent=2))


def measured(backbone: Backbone, world: WorldConfig, clips: int) -> dict[str, Any]:
    """The null, and by set its distances from as many real clips."""
    source = WorldSource(world, FRAMES, SIDE, SIDE, FPS, range(2 * clips))
    scenes = [source.scene(index) for index in range(2 * clips)]
    real, *others = (
        clip_features(backbone, videos).features
        for videos in ([shown(scene) for scene in scenes[:clips]], *faults(scenes[clips:]).values())
    )
    null = null_distances(np.concatenate([real, others[0]]))
    rows = {}
    for name, features in zip(faults([]), others, strict=True):
        precision, recall = precision_recall(real, features)
        rows[name] = {
            "frechet": round(frechet_of_features(real, features), 1),
            "kernel": round(kernel_distance(real, features)[0], 3),
            "precision": round(precision, 3),
            "recall": round(recall, 3),
        }
    return {
        "frechet_null": {
            "mean": round(float(null.mean()), 1),
            "sd": round(float(null.std(ddof=1)), 1),
            "max": round(float(null.max()), 1),
        },
        "sets": rows,
    }


def holds(table: dict[str, Any]) -> dict[str, bool]:
    """What is asked of a table of `measured`, and whether it is so."""
    distances = {name: row["frechet"] for name, row in table["sets"].items()}
    null = table["frechet_null"]["max"]
    return {
        "real within the null": distances.pop("real") <= null,
        "every fault above the null": min(distances.values()) > null,
        "grain above shuffled": distances["grain"] > distances["shuffled"],
    }


def faults(scenes: list[Scene]) -> dict[str, list[np.ndarray]]:
    """Clips of the scenes, true first and then with each fault."""
    true = [shown(scene) for scene in scenes]
    lighter = [dataclasses.replace(scene, gravity=scene.gravity / 2) for scene in scenes]
    noise = np.random.default_rng(0)
    return {
        "real": true,
        "half gravity": [shown(scene) for scene in lighter],
        "shuffled": [shuffled(video, seed) for seed, video in enumerate(true)],
        "frozen": [frozen(video) for video in true],
        "grain": [with_grain(video, seed) for seed, video in enumerate(true)],
        "noise": [noise.integers(0, 256, video.shape, np.uint8) for video in true],
    }


def shown(scene: Scene) -> np.ndarray:
    """The clip of a scene."""
    return render(scene, FRAMES, SIDE, SIDE, FPS)


if __name__ == "__main__":
    main()
