"""Scores and embeddings by a model, asked in batches over clips, and duplicates by embedding."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from PIL import Image

from data_pipelines import embeddings, model_scores, table
from data_pipelines.analyse import analyse
from data_pipelines.judge import judge
from data_pipelines.model_scores import PICTURES, SIDE, Judged, chosen
from data_pipelines.rules import RULES, Rule
from data_pipelines.shots import VideoPass, image_clip
from data_pipelines.table import TableError
from sora_jax.errors import ConfigError
from tests.data_pipelines.conftest import write_video

Rows = dict[str, dict[str, Any]]
HERE = "tests.data_pipelines.test_model_scores"
BATCH = 8
TAKES = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200)}
asked: list[tuple[int, ...]] = []
set_up: list[str] = []


@jax.jit
def mean_colour(pictures: jax.Array) -> jax.Array:
    return pictures.astype(jnp.float32).mean((1, 2)) / 255


class Colours:
    """Two numbers, and the mean colour as the embedding."""

    name, version, batch, numbers, embeds = "colours", 3, BATCH, ("redness", "greenness"), True

    def setup(self) -> None:
        set_up.append(self.name)

    def __call__(self, pictures: np.ndarray) -> Judged:
        asked.append(pictures.shape)
        colour = np.asarray(mean_colour(pictures))
        return Judged({"redness": colour[:, 0], "greenness": colour[:, 1]}, colour)


class Brightness(Colours):
    numbers = ("brightness",)


class Silent(Colours):
    """Promises what it does not give."""

    numbers = ("redness", "beauty")


def textured(colour: tuple[int, int, int], seed: int) -> np.ndarray:
    """A picture of a mean colour, of which no two are alike."""
    noise = np.random.default_rng(seed).integers(-35, 36, (12, 12, 1))
    image = Image.fromarray((noise + colour).astype(np.uint8))
    return np.asarray(image.resize((300, 260), Image.Resampling.BICUBIC))


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four takes of each colour, a film and a broken file."""
    folder = tmp_path_factory.mktemp("footage")
    for number in range(4):
        for name, colour in TAKES.items():
            image = textured(colour, 10 * number + len(name))
            Image.fromarray(image).save(folder / f"{name}{number}.png")
    frames = [textured((90, 90, 90), 99)[n : n + 128, :200] for n in range(50)]
    write_video(folder / "film.mp4", frames, 25)
    (folder / "broken.png").write_bytes(b"not a picture")
    for path in sorted(folder.iterdir()):
        path.with_suffix(".txt").write_text(path.stem)
    return folder


@pytest.fixture(scope="module")
def measured(footage: Path, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """`path` of the table, its `rows` by name, and how often the model was `asked` and `set_up`."""
    path = str(tmp_path_factory.mktemp("tables") / "measured")
    asked.clear()
    set_up.clear()
    model_scores._set_up.cache_clear()
    analyse([f"folder:{footage}"], path, models=(f"{HERE}:Colours",))
    rows = {row["name"]: row for row in table.rows(path)}
    return SimpleNamespace(path=path, rows=rows, asked=list(asked), set_up=list(set_up))


def test_a_row_has_what_the_model_says_of_its_own_pictures(
    measured: SimpleNamespace, footage: Path
) -> None:
    (film,) = VideoPass(footage / "film.mp4").clips()
    for name, row in measured.rows.items():
        if name == "broken.png":
            assert row["problem"] == "unreadable"
            assert row["score_redness"] is None
            assert row["embedding"] == b""
            continue
        pictures = chosen(film if name == "film.mp4" else image_clip(footage / name))
        assert pictures.shape == (PICTURES if name == "film.mp4" else 1, SIDE, SIDE, 3)
        colour = (pictures / 255).mean((0, 1, 2))
        assert row["score_redness"] == pytest.approx(colour[0], abs=1e-5)
        assert row["score_greenness"] == pytest.approx(colour[1], abs=1e-5)
        embedding = np.frombuffer(row["embedding"], "<f4")
        np.testing.assert_allclose(embedding, colour / np.linalg.norm(colour), atol=1e-5)


def test_clips_share_batches_of_one_shape_and_one_model(measured: SimpleNamespace) -> None:
    pictures = 4 * len(TAKES) + PICTURES
    assert set(measured.asked) == {(BATCH, SIDE, SIDE, 3)}
    assert len(measured.asked) < pictures / 2
    assert measured.set_up == ["colours"]
    assert table.about(measured.path)["scores"]["redness"] == Colours.version


def test_rules_bound_what_a_model_gives(measured: SimpleNamespace, tmp_path: Path) -> None:
    judge(measured.path, str(tmp_path / "out"), (Rule("red", "redness", most=0.7),))
    rules = {row["name"]: row["rule"] for row in table.rows(str(tmp_path / "out"))}
    assert {name for name, rule in rules.items() if rule == "red"} == {
        f"red{number}.png" for number in range(4)
    }


def test_near_embeddings_are_duplicates_only_if_that_is_wanted(
    measured: SimpleNamespace, tmp_path: Path
) -> None:
    kept = {}
    for cosine in (None, 0.99):
        judge(measured.path, str(tmp_path / str(cosine)), RULES, cosine=cosine)
        rows = list(table.rows(str(tmp_path / str(cosine))))
        kept[cosine] = sorted(row["name"].rstrip("0123.pngm4") for row in rows if row["keep"])
        names = {row["clip_id"]: row["name"] for row in rows}
        for row in rows:  # each for a take of its own colour
            assert names.get(row["duplicate_of"], row["name"])[:3] == row["name"][:3]
            if row["duplicate_of"]:
                assert row["rule"] == "duplicate by embedding"
    assert len(kept[None]) == 4 * len(TAKES) + 1
    assert len(kept[0.99]) == len(TAKES) + 1


def test_rows_do_not_depend_on_who_shares_a_batch(
    measured: SimpleNamespace, footage: Path, tmp_path: Path
) -> None:
    options = PipelineOptions(["--runner=BundleBasedDirectRunner"])
    analyse([f"folder:{footage}"], str(tmp_path / "out"), options, models=(f"{HERE}:Colours",))
    assert {row["name"]: row for row in table.rows(str(tmp_path / "out"))} == measured.rows


def test_near_embeddings_share_a_key_and_others_rarely() -> None:
    generator = np.random.default_rng(0)
    near = far = 0
    for _ in range(200):
        one, noise = generator.standard_normal((2, 256))
        one, noise = one / np.linalg.norm(one), noise - noise @ one * one / (one @ one)
        noise /= np.linalg.norm(noise)
        stored = [
            each.astype("<f4").tobytes() for each in (one, 0.95 * one + 0.05**0.5 * noise, noise)
        ]
        keys = [set(embeddings.keys(each)) for each in stored]
        near, far = near + bool(keys[0] & keys[1]), far + bool(keys[0] & keys[2])
    assert near == 200
    assert far < 10


@pytest.mark.parametrize(
    ("models", "sentence"),
    [
        (["no.such.module:f"], "--model 'no.such.module:f' cannot be made .*give MODULE:FUNCTION"),
        ([f"{HERE}:nothing"], "cannot be made"),
        (["colours"], "cannot be made"),
        ([f"{HERE}:Brightness"], "two scores are named brightness"),
        ([f"{HERE}:Colours", f"{HERE}:Colours"], "two scores are named redness"),
        ([f"{HERE}:Colours", f"{HERE}:Silent"], "two scores are named redness"),
    ],
)
def test_models_that_cannot_be_used_are_one_sentence(
    models: list[str], sentence: str, footage: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=sentence) as raised:
        analyse([f"folder:{footage}"], str(tmp_path / "out"), models=tuple(models))
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_a_model_that_breaks_its_promise_is_told() -> None:
    with pytest.raises(ValueError, match="not what its numbers and embeds promise"):
        model_scores.in_batches(Silent(), np.zeros((3, SIDE, SIDE, 3), np.uint8))


def test_cosine_needs_embeddings_and_a_sensible_bound(
    measured: SimpleNamespace, footage: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="--cosine 95.0: give a number between 0 and 1"):
        judge(measured.path, str(tmp_path / "judged"), cosine=95.0)
    analyse([f"folder:{footage}"], str(tmp_path / "plain"))
    with pytest.raises(TableError, match="no embeddings for --cosine: analyse with a --model"):
        judge(str(tmp_path / "plain"), str(tmp_path / "judged"), cosine=0.95)
