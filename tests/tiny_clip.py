"""A folder of a CLIP of a few thousand parameters, made by a fixed rule, as Hugging Face lays it.

Needs neither JAX nor the package, so that other implementations can be given the same folder.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

WORDS = ("a", "red", "blue", "circle", "square", "moves", "left", "and", "stays", ",")
FIRST, END = "<|startoftext|>", "<|endoftext|>"  # the last two ids, as in CLIP
IDS = {word: number for number, word in enumerate((*WORDS, FIRST, END))}
CONTEXT = 12
SIDE, PATCH = 32, 8
PROJECTION = 6
TOWERS: dict[str, dict[str, Any]] = {
    "vision": {
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_attention_heads": 3,
        "num_hidden_layers": 3,
        "image_size": SIDE,
        "patch_size": PATCH,
    },
    "text": {
        "hidden_size": 16,
        "intermediate_size": 36,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "vocab_size": len(IDS),
        "max_position_embeddings": CONTEXT,
    },
}
# As OpenAI's CLIP is stored, with an end token that is none, and as OpenCLIP's.
VARIANTS = {"old": ("quick_gelu", 2), "new": ("gelu", IDS[END])}


def write_folder(folder: Path, variant: str = "new") -> Path:
    """Writes the three files of a variant; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config(variant)))
    save_file(arrays(), folder / "model.safetensors")
    tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def config(variant: str) -> dict[str, Any]:
    activation, end = VARIANTS[variant]
    parts = {
        f"{name}_config": {**tower, "hidden_act": activation} for name, tower in TOWERS.items()
    }
    parts["text_config"]["eos_token_id"] = end
    return {"model_type": "clip", "projection_dim": PROJECTION, **parts}


def arrays() -> dict[str, np.ndarray]:
    """Array number n by name is normal noise of NumPy's legacy generator seeded n, which is the
    same in all its versions; scales of normalisations are around 1."""
    found = {}
    for number, (name, shape) in enumerate(sorted(shapes().items())):
        noise = 0.4 * np.random.RandomState(number).standard_normal(shape)
        is_scale = "norm" in name and name.endswith("weight")
        found[name] = np.asarray(noise + is_scale, np.float32)
    return found


def shapes() -> dict[str, tuple[int, ...]]:
    """Written out from the published files, not from the code that is tested."""
    found: dict[str, tuple[int, ...]] = {
        "logit_scale": (),
        "text_model.embeddings.token_embedding.weight": (12, 16),
        "text_model.embeddings.position_embedding.weight": (12, 16),
        "text_projection.weight": (6, 16),
        "vision_model.embeddings.class_embedding": (24,),
        "vision_model.embeddings.patch_embedding.weight": (24, 3, 8, 8),
        "vision_model.embeddings.position_embedding.weight": (17, 24),
        "visual_projection.weight": (6, 24),
    }
    norms = {
        "text_model.final_layer_norm": 16,
        "vision_model.pre_layrnorm": 24,
        "vision_model.post_layernorm": 24,
    }
    linear = {}
    for tower, layers, width, middle in (("text_model", 2, 16, 36), ("vision_model", 3, 24, 40)):
        for prefix in (f"{tower}.encoder.layers.{layer}." for layer in range(layers)):
            norms |= {f"{prefix}layer_norm{number}": width for number in (1, 2)}
            for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
                linear[f"{prefix}self_attn.{part}"] = (width, width)
            linear |= {f"{prefix}mlp.fc1": (middle, width), f"{prefix}mlp.fc2": (width, middle)}
    for name, kernel in linear.items():
        found |= {f"{name}.weight": kernel, f"{name}.bias": kernel[:1]}
    for name, width in norms.items():
        found |= {f"{name}.{part}": (width,) for part in ("weight", "bias")}
    return found


def tokenizer() -> Tokenizer:
    """Whole words, between the first and the end token; others stand for the end token."""
    made = Tokenizer(models.WordLevel(IDS, unk_token=END))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.RobertaProcessing((END, IDS[END]), (FIRST, IDS[FIRST]))
    made.add_special_tokens([FIRST, END])
    return made


PROMPTS = ("a red circle moves left", "a blue square stays and a red square moves")


def frames() -> np.ndarray:
    """Two frames, uint8 [2, 32, 32, 3]: waves of three colours."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    waves = [np.sin(6 * (k + 1) * x + 4 * c * y + c) for k in range(2) for c in range(3)]
    return (
        np.round(127.5 + 120 * np.stack(waves, -1))
        .astype(np.uint8)
        .reshape(SIDE, SIDE, 2, 3)
        .transpose(2, 0, 1, 3)
    )
