"""CLIPScore beside `transformers` in float64 and torchvision, and folders that are no CLIP's.

Golden numbers were made by transformers 5.24.0, torch 2.13.0 and torchvision 0.29.1, in an
environment of their own with PYTHONPATH=., from the folder and the frames of tests/tiny_clip.py:

    model = CLIPModel.from_pretrained(write_folder(Path("tiny"), "old")).eval().double()
    model.visual_projection(model.vision_model(pixel_values=PIXELS).pooler_output)
    model.text_projection(model.text_model(input_ids=tensor([IDS])).pooler_output)
    model(pixel_values=PIXELS, input_ids=PADDED)   # image_embeds @ text_embeds.T: COSINES
    Compose([Resize(32, BICUBIC), CenterCrop(32), ToTensor(), Normalize(MEAN, DEVIATION)])(FRAME)

PIXELS are the frames / 255, normalised, [2, 3, 32, 32]; IDS those of a prompt of PROMPTS.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from sora_jax.errors import ConfigError, UserError
from sora_jax.eval import clip_alignment, readers
from sora_jax.eval.choice import chosen_suites
from sora_jax.eval.clip_alignment import clip_scores, frame_features, prepared, prompt_features
from sora_jax.eval.clip_model import CLIP, image_features, text_features
from sora_jax.eval.clip_weights import read_clip, read_config
from sora_jax.eval.evaluator import EvaluationConfig
from sora_jax.eval.examples import Example
from sora_jax.eval.material import Material, Networks
from sora_jax.eval.suite import metrics_of
from sora_jax.eval.tables import table_text
from sora_jax.sample.requests import Request, Sample
from tests import tiny_clip
from tests.tiny_clip import CONTEXT, END, FIRST, IDS, PROMPTS, SIDE, VARIANTS, write_folder

IMAGES = {
    "old": [
        [-2.2741978, -0.4684662, 0.4091791, -3.8862406, -1.2646274, 1.5254153],
        [-2.9407896, 0.3550262, 0.0213095, -0.1750905, 1.4787412, 1.1965749],
    ],
    "new": [
        [-2.2700561, -0.4818143, 0.3831484, -3.8899541, -1.2537901, 1.5213293],
        [-2.9237109, 0.3217372, 0.0577226, -0.1778446, 1.4977430, 1.2002944],
    ],
}
TEXTS = {
    "old": [
        [0.1461384, 0.3881537, -0.4737848, 1.2202756, -1.1684185, -0.6859295],
        [0.5182320, 0.3788625, -0.8713407, -1.0197462, -0.1394161, 0.8083733],
    ],
    "new": [
        [0.1425093, 0.3958055, -0.4687130, 1.2006281, -1.1774103, -0.6806306],
        [0.5221017, 0.3656632, -0.8720956, -1.0288703, -0.1424953, 0.8074340],
    ],
}
COSINES = {  # of frames with prompts
    "old": [[-0.5247048, 0.4346016], [-0.4506641, -0.0782506]],
    "new": [[-0.5174396, 0.4403127], [-0.4605007, -0.0869281]],
}
# By height and width, of noise: at four places and channels of the square, and its mean.
SQUARES = {
    (45, 73): ([-0.1280419, -0.7015533, 0.6527902, 0.9230448], 0.18222564),
    (73, 45): ([0.3975015, 1.1293944, 0.6670103, 0.9522417], 0.19511408),
    (20, 20): ([0.7040684, 2.0748837, -0.2288539, -0.4200104], 0.1459532),
    (33, 50): ([-0.7703726, 0.1238739, -0.9540772, 0.4704936], 0.17616968),
}


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model(variant: str, tmp_path_factory: pytest.TempPathFactory) -> CLIP:
    return read_clip(write_folder(tmp_path_factory.mktemp(variant), variant))


def noise(frames: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    shape = (frames, height, width, 3)
    return np.random.RandomState(seed).randint(0, 256, shape).astype(np.uint8)


def test_features_are_those_of_transformers(model: CLIP, variant: str) -> None:
    pixels = np.stack([prepared(frame, SIDE) for frame in tiny_clip.frames()])
    found = image_features(model.arrays, pixels, model.config)
    np.testing.assert_allclose(found, IMAGES[variant], atol=5e-6)
    for prompt, expected in zip(PROMPTS, TEXTS[variant], strict=True):
        ids = model.tokens(prompt)
        ends = np.array([len(ids) - 1])
        found = text_features(model.arrays, np.array([ids]), ends, model.config)
        np.testing.assert_allclose(found[0], expected, atol=5e-6)


def test_scores_are_two_and_a_half_times_the_mean_positive_cosine(
    model: CLIP, variant: str
) -> None:
    video, cosines = tiny_clip.frames(), np.array(COSINES[variant])
    found = frame_features(model, [video])[0] @ prompt_features(model, PROMPTS).T
    np.testing.assert_allclose(found, cosines, atol=2e-6)
    expected = 2.5 * np.maximum(cosines, 0).mean(0)
    found = clip_scores(model, [video, video], PROMPTS)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, atol=5e-6)
    assert expected[0] == 0 < expected[1]  # both sides of the maximum


@pytest.mark.parametrize("variant", ["new"], indirect=True)
def test_batches_change_nothing(model: CLIP, monkeypatch: pytest.MonkeyPatch) -> None:
    videos = [noise(t, h, w, t) for t, h, w in ((11, 32, 32), (1, 40, 33), (5, 20, 64))]
    whole = frame_features(model, videos)
    assert [len(found) for found in whole] == [11, 1, 5]
    sizes = []

    def counted(arrays: Any, pixels: Any, config: Any) -> Any:
        sizes.append(len(pixels))
        return image_features(arrays, pixels, config)

    monkeypatch.setattr(clip_alignment, "ROWS_PER_DEVICE", 1)  # on the eight devices of tests
    monkeypatch.setattr(clip_alignment, "image_features", counted)
    for small, large in zip(frame_features(model, videos), whole, strict=True):
        np.testing.assert_allclose(small, large, atol=1e-6)
    assert sizes == [8, 8, 8]  # for 17 frames
    for video, expected in zip(videos, whole, strict=True):
        np.testing.assert_allclose(frame_features(model, [video])[0], expected, atol=1e-6)
    assert min(np.ptp(np.concatenate(whole), axis=0)) > 1e-3  # far above what is let pass


@pytest.mark.parametrize("size", SQUARES)
def test_frames_are_prepared_as_torchvision_does(size: tuple[int, int]) -> None:
    found = prepared(noise(1, *size)[0], 32)
    assert found.shape == (32, 32, 3)
    assert found.dtype == np.float32
    values, mean = SQUARES[size]
    places = ([0, 0, 15, 31], [0, 31, 7, 31], [0, 1, 2, 0])
    np.testing.assert_allclose(found[places], values, atol=1e-6)
    assert found.mean() == pytest.approx(mean, abs=1e-6)


def test_a_frame_of_the_right_size_is_only_normalised() -> None:
    frame = noise(1, 32, 32)[0]
    mean, deviation = np.array(clip_alignment.MEAN), np.array(clip_alignment.DEVIATION)
    np.testing.assert_allclose(
        prepared(frame, 32) * deviation + mean, frame / 255, rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("variant", ["new"], indirect=True)
def test_texts_are_cut_with_the_end_token_kept(model: CLIP) -> None:
    assert model.tokens("A RED circle") == [
        IDS[token] for token in (FIRST, "a", "red", "circle", END)
    ]
    assert model.tokens("") == [IDS[FIRST], IDS[END]]
    words = "a blue square stays and a red circle moves left"
    assert len(model.tokens(words)) == CONTEXT
    longer = model.tokens(f"{words} and stays")
    assert longer == model.tokens(words)
    assert longer[-1] == IDS[END]
    # What would follow the end token changes nothing: the place of the first one counts.
    ended, cut = prompt_features(model, [f"a red {END} circle moves", "a red"])
    np.testing.assert_allclose(ended, cut, atol=1e-6)


def test_anything_but_frames_is_one_sentence(tmp_path: Path) -> None:
    model = read_clip(write_folder(tmp_path))
    for video in (noise(1, 32, 32)[0], noise(1, 32, 32) / 255, noise(0, 32, 32)):
        with pytest.raises(UserError, match=r"clip 1 is .*: CLIPScore is of frames, uint8"):
            clip_scores(model, [noise(1, 32, 32), video], PROMPTS)


def test_the_name_is_a_hash_of_the_three_files(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    names = ("config.json", "model.safetensors", "tokenizer.json")
    content = b"".join((folder / name).read_bytes() for name in names)
    assert read_clip(folder).name == f"clip-{hashlib.sha256(content).hexdigest()[:12]}"


def test_weights_of_half_precision_and_buffers_are_read(tmp_path: Path) -> None:
    arrays = tiny_clip.arrays()
    halves = {name: array.astype(np.float16) for name, array in arrays.items()}
    halves["text_model.embeddings.position_ids"] = np.arange(CONTEXT)[None]
    folder = write_folder(tmp_path)
    save_file(halves, folder / "model.safetensors")
    found = clip_scores(read_clip(folder), [tiny_clip.frames()], PROMPTS[1:])
    assert found[0] == pytest.approx(2.5 * 0.4403127 / 2, abs=5e-3)


def test_what_a_config_leaves_out_is_as_the_library_has_it(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_type": "clip", "vision_config": None}))
    config = read_config(path)
    assert (config.side, config.patch, config.projection) == (224, 32, 512)
    assert (config.vocabulary, config.context, config.end) == (49408, 77, 49407)
    assert (config.vision.width, config.vision.depth, config.vision.heads) == (768, 12, 12)
    assert (config.text.width, config.text.mlp_width, config.text.heads) == (512, 2048, 8)
    # Old files say some things twice; what is in ..._dict counts.
    sections = {
        "text_config": {"hidden_act": "quick_gelu"},
        "text_config_dict": {"hidden_act": "gelu"},
    }
    path.write_text(json.dumps({"model_type": "clip", **sections}))
    assert read_config(path).text.activation == "gelu"


def changed(section: str, **values: Any) -> str:
    config = tiny_clip.config("new")
    (config[section] if section else config).update(values)
    return json.dumps(config)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("not JSON", "config.json is no JSON"),
        (changed("", model_type="siglip"), "of a model of type 'siglip': CLIPScore needs one of"),
        ("[]", "of a model of type None"),
        (changed("text_config", hidden_act="relu"), "text_config.hidden_act is 'relu', and CLIP"),
        (
            changed("vision_config", hidden_size=25),
            "vision_config.hidden_size 25 is for no 3 heads",
        ),
        (changed("vision_config", image_size=33), "image_size 33 is no multiple of patch_size 8"),
        (changed("vision_config", image_size=[32, 32]), r"image_size is \[32, 32\], and should"),
        (changed("", projection_dim=8), r"text_projection.weight is \(6, 16\), for \(8, 16\)"),
        (
            changed("vision_config", num_hidden_layers=4),
            r"layers.3.layer_norm1.bias is missing, for \(24,\)",
        ),
        (
            changed("vision_config", num_hidden_layers=2),
            r"layers.2.layer_norm1.bias is \(24,\), for nothing",
        ),
        (
            changed("text_config", eos_token_id=9),
            "'a' is .*, and should end with the token 9 of 12",
        ),
    ],
)
def test_a_config_of_another_model_is_one_sentence(
    content: str, sentence: str, tmp_path: Path
) -> None:
    folder = write_folder(tmp_path)
    (folder / "config.json").write_text(content)
    with pytest.raises(UserError, match=sentence) as caught:
        read_clip(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_or_damaged_file_is_one_sentence(name: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    (folder / name).write_bytes((folder / name).read_bytes()[:100])
    with pytest.raises(UserError, match=rf"{name} is no (JSON|file of safetensors|tokenizer): "):
        read_clip(folder)
    (folder / name).unlink()
    with pytest.raises(UserError, match=f"cannot read .*{name}: No such file or directory; a fol"):
        read_clip(folder)


def test_a_tokenizer_that_does_not_fit_is_one_sentence(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    file = folder / "tokenizer.json"
    whole = json.loads(file.read_text())
    file.write_text(json.dumps(whole | {"post_processor": None}))
    with pytest.raises(UserError, match=r"'a' is \[0\], and should end with the token 11 of 12"):
        read_clip(folder)


class Inverting:
    """A sampler whose clips are negatives of the true ones."""

    def __init__(self, examples: Sequence[Example]):
        self.clips = {example.seed: 255 - example.video for example in examples}

    def generate(self, requests: Sequence[Request]) -> list[Sample]:
        return [Sample(request, self.clips[request.seed], False) for request in requests]


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    """The second and third have one caption. The first matches every frame, the others none."""
    captions = (PROMPTS[1], "a blue square", "a blue square", "stays and moves")
    videos = [np.roll(tiny_clip.frames(), 6 * n + 12, axis=2) for n in range(4)]
    return [Example(captions[n], videos[n], 8.0, n) for n in range(4)]


@pytest.mark.parametrize("variant", ["new"], indirect=True)
def test_made_clips_stand_between_true_ones_and_other_prompts(
    model: CLIP, examples: list[Example]
) -> None:
    made = [255 - example.video for example in examples]
    places = [3, 1, 2, 0]
    found = readers.clip(model, examples).read(places, [made[place] for place in places]).scores
    captions = [example.prompt for example in examples]
    others = [captions[1], captions[3], captions[3], captions[0]]
    truths = [example.video for example in examples]
    expected = {
        model.name: clip_scores(model, made, captions),
        f"ground_truth/{model.name}": clip_scores(model, truths, captions),
        f"floor_shuffled/{model.name}": clip_scores(model, made, others),
    }
    assert found.keys() == {f"clip_score/{name}" for name in expected}
    for name, values in expected.items():
        np.testing.assert_allclose(found[f"clip_score/{name}"].values, values[places], atol=1e-6)
    assert len({values.mean() for values in expected.values()}) == 3
    alone = readers.clip(model, examples[1:3]).read([0, 1], made[1:3]).scores
    assert not any("floor_shuffled" in name for name in alone)


def test_the_suite_is_chosen_and_shown(examples: list[Example], tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    name, sampler = read_clip(folder).name, Inverting(examples)
    material = Material(
        sampler, EvaluationConfig(), examples, [], False, networks=Networks(clip=str(folder))
    )
    [suite] = chosen_suites(("clip",), material)
    assert name in suite.settings
    metrics = metrics_of(suite, suite.find(range(4)))
    low, mean, high = (
        metrics[f"text_to_video/clip_score/{name}{end}"] for end in ("/low", "", "/high")
    )
    assert 0 <= low <= mean <= high <= 2.5
    shown = table_text(metrics)
    assert f"text to video, by {name}" in shown
    for column in ("", "ground_truth/", "floor_shuffled/"):
        assert f"{metrics[f'text_to_video/clip_score/{column}{name}']:.3f}" in shown
    with pytest.raises(ConfigError, match="suite clip needs --clip DIR, a folder of CLIP as"):
        chosen_suites(("clip",), Material(sampler, EvaluationConfig(), examples, [], False))
