"""The scores of a run as tables, each score beside what bounds it."""

import dataclasses
from collections.abc import Mapping

from sora_jax.eval import mode_tables as modes
from sora_jax.eval import world_tables as worlds
from sora_jax.page import Table

Metrics = Mapping[str, float]

SECTIONS = (
    {
        "text_to_video": (
            "Text to video",
            "From captions of unseen scenes; the true clip is one of many that fit.",
        ),
        "text_to_image": ("Text to image", "The same, of a single frame."),
        "animate": ("Animating an image", "The first frame and the caption are given."),
        "reconstruction": ("Autoencoder", "What the latents keep, beside a resize of equal size."),
    }
    | worlds.SECTIONS
    | modes.SECTIONS
)
COLUMNS = {
    "": "generated",
    "ceiling_vae/": "ceiling: true clips through the autoencoder",
    "ground_truth/": "true clips",
    "floor_shuffled/": "floor: captions shuffled",
    "static/": "first frame frozen",
}
QUESTIONS = {
    "colour_accuracy": "colour",
    "shape_accuracy": "shape",
    "size_accuracy": "size",
    "count_accuracy": "count",
    "movement_accuracy": "kind of motion",
    "direction_accuracy": "direction",
    "speed_accuracy": "speed",
    "coverage": "clips that can be read",
}
# Of scores that stand alone: a name, and the metric that belongs beside it with its name.
PAIRS = {
    "vae/psnr_db": ("autoencoder, PSNR", "vae/psnr_baseline_db", "bilinear, as many numbers"),
    "vae/ssim": ("autoencoder, SSIM", "vae/ssim_baseline", "bilinear, as many numbers"),
    "held_out/loss": (
        "loss on these clips, of velocities",
        "held_out/loss/standard_error",
        "standard error",
    ),
    "animate/first_frame_psnr_db": (
        "animation, PSNR of the first frame",
        "animate/first_frame_psnr_ceiling_db",
        "through the autoencoder",
    ),
    "animate/colour_jump": ("animation, colour jump after the first frame", "", "levels of 255"),
    "animate/still_fraction": (
        "animation, share of clips that stand still",
        "animate/ground_truth/still_fraction",
        "true clips",
    ),
    "nearest/accuracy": (
        "nearest true clip is the sample's own, share",
        "nearest/candidates",
        "clips to choose from",
    ),
    "nearest/psnr_db": ("PSNR to the nearest true clip", "", "frame 0 left out"),
}
DIMENSIONS = {
    "temporal_flickering": "temporal flickering",
    "motion_smoothness_dis": "motion smoothness, by DIS flow",
    "dynamic_degree_dis": "dynamic degree, by DIS flow",
    "subject_consistency_pixels": "subject consistency, of coarse pixels",
    "quality_4_of_7": "quality of these four of its seven",
}

DISTANCES = {
    "frechet": "Fréchet distance of generated clips",
    "frechet_infinity": "the same, of infinitely many",
    "frechet_infinity_error": "standard error of that",
    "frechet_null_mean": "between halves of the true clips, mean",
    "frechet_null_max": "between halves of the true clips, most",
    "frechet_shuffled": "true clips with shuffled frames",
    "frechet_grain": "true clips with a codec's grain",
    "kernel": "kernel distance of generated clips",
    "precision": "precision",
    "recall": "recall",
    "made_clips": "generated clips",
    "real_clips": "true clips",
    "half_clips": "clips of a half",
}


def tables(metrics: Metrics) -> list[Table]:
    """The scores in order, each beside what bounds it."""
    found = [_caption_table(metrics, name) for name in ("text_to_video", "text_to_image")]
    rows = []
    for name, (label, other, other_label) in PAIRS.items():
        if name in metrics:
            beside = f"{number(other, metrics[other])} " if other else ""
            rows.append((label, with_interval(metrics, name), f"{beside}{other_label}"))
    found += worlds.world_tables(metrics)
    found.append(modes.mode_table(metrics))
    found += _distribution_tables(metrics)
    found.append(_clip_table(metrics))
    found.append(_vbench_table(metrics))
    found.append(Table("Autoencoder, loss and animation", ("", "measured", "beside"), tuple(rows)))
    return [table for table in found if table.rows]


def _caption_table(metrics: Metrics, task: str) -> Table:
    columns = [c for c in COLUMNS if f"{task}/{c}colour_accuracy" in metrics]
    rows = []
    for question, label in QUESTIONS.items():
        if f"{task}/{question}" in metrics:
            cells = [number(question, metrics[f"{task}/{c}{question}"]) for c in columns]
            rows.append((label, with_interval(metrics, f"{task}/{question}"), *cells[1:]))
    header = ("", *(COLUMNS[column] for column in columns))
    return Table(SECTIONS[task][0], header, tuple(rows))


def _distribution_tables(metrics: Metrics) -> list[Table]:
    """Of each backbone: distances of made clips, and what known differences come to."""
    prefix = "text_to_video/frechet/"
    tables = []
    for backbone in (n.removeprefix(prefix) for n in metrics if n.startswith(prefix)):
        rows = tuple(
            (label, f"{metrics[f'text_to_video/{name}/{backbone}']:.4g}")
            for name, label in DISTANCES.items()
        )
        tables.append(Table(f"Distribution, by {backbone}", ("", "measured"), rows))
    return tables


def _clip_table(metrics: Metrics) -> Table:
    columns = ("", "ground_truth/", "floor_shuffled/")
    rows = []
    for task in ("text_to_video", "text_to_image"):
        start = f"{task}/clip_score/"
        own = (n.removeprefix(start) for n in metrics if n.startswith(f"{start}clip-"))
        for model in (name for name in own if "/" not in name):
            beside = (metrics.get(f"{start}{column}{model}") for column in columns[1:])
            cells = ("" if value is None else number("", value) for value in beside)
            label = f"{SECTIONS[task][0].lower()}, by {model}"
            rows.append((label, with_interval(metrics, f"{start}{model}"), *cells))
    return Table("CLIPScore", ("", *(COLUMNS[column] for column in columns)), tuple(rows))


def _vbench_table(metrics: Metrics) -> Table:
    rows = []
    for dimension, label in DIMENSIONS.items():
        name, frozen = (f"text_to_video/vbench/{part}{dimension}" for part in ("", "frozen/"))
        if name in metrics:
            rows.append((label, with_interval(metrics, name), number(frozen, metrics[frozen])))
    return Table("Dimensions of VBench", ("", "generated", "first frame frozen"), tuple(rows))


def with_interval(metrics: Metrics, name: str) -> str:
    """A score, and in parentheses the interval it has."""
    if f"{name}/low" not in metrics:
        return number(name, metrics[name])
    ends = " to ".join(number("", metrics[f"{name}/{end}"]) for end in ("low", "high"))
    return f"{number(name, metrics[name])} ({ends})"


def number(name: str, value: float) -> str:
    """As a table shows the metric of a name."""
    if name.endswith("_db"):
        return f"{value:.1f} dB"
    return f"{value:.0f}" if name.endswith("candidates") else f"{value:.3f}"


def table_text(metrics: Metrics) -> str:
    """All tables for a terminal."""
    texts = []
    for table in tables(metrics):
        short = tuple(cell.partition(":")[0] for cell in table.header)
        texts.append(f"\n{table.title}\n{dataclasses.replace(table, header=short).text()}")
    return "\n".join(texts)
