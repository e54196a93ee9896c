"""`sora sample`: flags to requests, given frames from files, and files out."""

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import sora_jax.generator
from sora_jax.cli import sample
from sora_jax.config import from_dict
from sora_jax.data.buckets import Bucket, DataConfig, ShapeClass
from sora_jax.diffusion.guidance import GuidanceConfig
from sora_jax.diffusion.patterns import FAR_SECONDS, ConditioningConfig
from sora_jax.diffusion.times import TimesConfig
from sora_jax.errors import UserError
from sora_jax.models.vae import VAEConfig
from sora_jax.sample.denoise import SamplingConfig
from sora_jax.sample.metadata import read_metadata
from sora_jax.sample.video_io import playable_mp4
from sora_jax.world.completion import complete
from sora_jax.world.scene import WorldConfig
from tests import tiny_models
from tests.tiny_models import tiny_sampler

DATA = DataConfig(
    buckets=(Bucket(1, 16, 16), Bucket(5, 16, 24), Bucket(5, 24, 16), Bucket(5, 8, 8)),
    shape_classes=(ShapeClass(8, 32),),
    fps=8.0,
)


@pytest.fixture
def sora_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    """Runs the command on tiny networks; returns the JSONs beside its samples, in order."""
    vae = VAEConfig(folds=((4, 4),), widths=(8,))
    diffusion = SimpleNamespace(conditioning=ConditioningConfig())
    experiment = SimpleNamespace(
        name="tiny",
        data=DATA,
        vae=vae,
        world=WorldConfig(),
        sampling=SamplingConfig(),
        dit_stage=SimpleNamespace(diffusion=diffusion),
    )
    run = SimpleNamespace(
        experiment=experiment,
        directory=tmp_path / "run",
        fingerprints={"dit": "abc@20"},
        step=20,
        parameters="ema",
    )
    monkeypatch.setattr(sample, "load_run", lambda directory, like, embed: run)
    monkeypatch.setattr(
        sora_jax.generator,
        "make_sampler",
        lambda run, **changes: tiny_sampler(
            ("a red circle",), SamplingConfig(**({"steps": 2} | changes)), TimesConfig()
        ),
    )

    def call(*arguments: str) -> list[Any]:
        sample.FLAGS.unparse_flags()
        for name in sample.FLAGS:
            sample.FLAGS[name].unparse()
        sample.FLAGS(["sora sample", "--run=run", *arguments])
        sample.main(["sora sample"])
        output = Path(sample.OUTPUT.value or run.directory / "samples")
        return [json.loads(path.read_text()) for path in sorted(output.glob("*.json"))]

    yield call
    sample.FLAGS.unparse_flags()
    for name in sample.FLAGS:
        sample.FLAGS[name].unparse()


def size(made: dict[str, Any]) -> tuple[int, int, int]:
    return made["frames"], made["height"], made["width"]


def test_prompts_of_flags_and_file_times_count(
    sora_sample: Callable[..., list[Any]], tmp_path: Path
) -> None:
    (tmp_path / "prompts.txt").write_text("\n a blue star \n\na cross\n", encoding="utf-8")
    made = sora_sample(
        "--prompt=a red circle", f"--prompts_file={tmp_path}/prompts.txt", "--count=2", "--seed=5"
    )
    prompts = ["a red circle"] * 2 + ["a blue star"] * 2 + ["a cross"] * 2
    assert [one["prompt"] for one in made] == prompts
    assert [one["seed"] for one in made] == [5, 6, 7, 8, 9, 10]
    assert {size(one) for one in made} == {(5, 16, 24)}
    checkpoint = made[0]["checkpoint"]
    assert re.fullmatch("[0-9a-f]{12}", checkpoint.pop("weights"))
    assert checkpoint == {
        "run": "run",
        "experiment": "tiny",
        "step": 20,
        "parameters": "ema",
        "fingerprints": {"dit": "abc@20"},
    }
    assert made[0]["sampling"] == dataclasses.asdict(SamplingConfig(steps=2))


def test_settings_and_sizes_are_as_asked(sora_sample: Callable[..., list[Any]]) -> None:
    sizes = ("--frames=9", "--height=8", "--width=40", "--fps=4")
    made = sora_sample("--prompt=x", *sizes, "--steps=3", "--guidance=1.5", "--method=heun")[0]
    assert size(made) == (9, 8, 40)
    assert made["fps"] == 4.0
    assert made["sampling"]["method"] == "heun"
    assert (made["sampling"]["steps"], made["sampling"]["guidance"]) == (3, 1.5)


def test_guidance_is_as_asked(sora_sample: Callable[..., list[Any]], tmp_path: Path) -> None:
    Image.fromarray(np.zeros((16, 24, 3), np.uint8)).save(tmp_path / "start.png")
    made = sora_sample(
        *(f"--image={tmp_path}/start.png", "--negative_prompt=a cross", "--method=unipc"),
        *("--guidance=3", "--history_guidance=1.5", "--guidance_interval=0.2,0.9"),
        *("--guidance_rescale=0.5", "--projected"),
    )[0]
    asked = GuidanceConfig(3.0, 1.5, (0.2, 0.9), rescale=0.5, parallel=0.0)
    assert made["negative_prompt"] == "a cross"
    assert made["sampling"]["method"] == "unipc"
    assert from_dict(GuidanceConfig, made["sampling"]["guidance"]) == asked


def test_sizes_that_the_networks_do_not_divide_are_made_too(
    sora_sample: Callable[..., list[Any]], tmp_path: Path
) -> None:
    video = np.random.default_rng(0).integers(0, 256, (10, 128, 192, 3), np.uint8)
    (tmp_path / "clip.mp4").write_bytes(playable_mp4(video, 12.0))
    flags = ("--task=edit", f"--video={tmp_path}/clip.mp4", "--height=30", "--width=36")
    made = sora_sample("--prompt=x", *flags)[0]
    assert (size(made), made["made_at"]) == ((10, 30, 36), [13, 32, 40])


def test_small_clips_are_made_first_and_compared(
    sora_sample: Callable[..., list[Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--prompt=x", "--height=32", "--width=48", "--preview=2", f"--output={tmp_path}/out")
    assert sora_sample(*flags, "--preview_only") == []
    [small] = (tmp_path / "out" / "previews").glob("*.json")
    said = json.loads(small.read_text())
    assert (size(said), said["field"]["noise_of"]) == ((5, 16, 24), [5, 32, 48])
    [made] = sora_sample(*flags)
    assert (size(made), made["field"]["noise_of"], made["made_at"]) == ((5, 32, 48), None, None)
    found = made["preview"]
    assert (found["height"], found["width"]) == (16, 24)
    assert set(found["unrelated"]) == {"psnr", "ssim"}
    line = f"psnr to previews {found['psnr']:.3f} dB, to those of other seeds"
    assert line in capsys.readouterr().out


def test_clips_are_shown_while_they_are_made(
    sora_sample: Callable[..., list[Any]], tmp_path: Path
) -> None:
    flags = ("--prompt=a red circle", f"--output={tmp_path}/out", "--steps=5", "--preview_every=2")
    sora_sample(*flags)
    views = sorted((tmp_path / "out").glob("0000-*.png"))
    names = [f"0000-a-red-circle-seed0-step-{step:03d}.png" for step in (2, 4)]
    assert [path.name for path in views] == names
    assert read_metadata(views[0]) == {"view_of": "0000-a-red-circle-seed0", "step": 2}


def test_seconds_make_a_clip_of_several_windows(
    sora_sample: Callable[..., list[Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--prompt=a red circle", "--seconds=2", "--window=13", "--count=2")
    how = ("--levels=2", "--given_frames=5", "--history_guidance=1.5", "--then=1:it stops")
    made = sora_sample(*flags, *how)
    assert [(one["task"], one["seed"], size(one)) for one in made] == [
        ("generate", seed, (16, 16, 24)) for seed in (0, 1)
    ]
    field = made[0]["field"]
    assert (field["window_frames"], field["context"], field["history_level"]) == (13, 5, 0.05)
    assert len(field["levels"]) == 3
    assert made[0]["story"] == [[1.0, "it stops"]]
    paths = sorted((tmp_path / "run" / "samples").glob("*.mp4"))
    assert [read_metadata(path) for path in paths] == made
    capsys.readouterr()
    assert sora_sample(*flags, *how) == made
    assert capsys.readouterr().out == "".join(f"{path}: is there already\n" for path in paths)


def test_a_clip_of_several_windows_goes_on_from_an_image_or_a_video(
    sora_sample: Callable[..., list[Any]], tmp_path: Path
) -> None:
    Image.fromarray(np.zeros((16, 24, 3), np.uint8)).save(tmp_path / "start.png")
    clip = np.random.default_rng(0).integers(0, 256, (11, 16, 24, 3), np.uint8)
    (tmp_path / "a.mp4").write_bytes(playable_mp4(clip, 12.0))
    image = sora_sample(f"--image={tmp_path}/start.png", "--frames=24", "--window=9")[0]
    assert (image["task"], image["field"]["given_frames"], image["frames"]) == ("animate", 1, 24)
    output = ("--seconds=1.5", "--window=9", f"--output={tmp_path}/out")
    video = sora_sample(f"--video={tmp_path}/a.mp4", *output)[0]
    assert (video["task"], video["field"]["given_frames"], video["frames"]) == ("extend", 5, 18)


def test_flags_of_several_windows_that_go_together_with_nothing_are_told(
    sora_sample: Callable[..., list[Any]],
) -> None:
    for flags, sentence in (
        (["--levels=2"], "--levels is of a clip of several windows: give --seconds"),
        (["--window=9"], "say how long a clip of several windows is by --seconds or --frames"),
        (["--seconds=2", "--frames=9"], "by --seconds or --frames"),
        (["--seconds=2", "--window=9", "--then=it stops"], "--then 'it stops' is not understood"),
        (["--seconds=2", "--window=9", "--vbench"], "are of clips of one window"),
    ):
        with pytest.raises(UserError, match=sentence):
            sora_sample("--prompt=x", *flags)


def test_one_frame_is_an_image(sora_sample: Callable[..., list[Any]], tmp_path: Path) -> None:
    made = sora_sample("--prompt=x", "--frames=1", f"--output={tmp_path}/out")
    assert size(made[0]) == (1, 16, 16)
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".png", ".json"}


def test_an_image_is_animated_at_the_trained_size_of_its_shape(
    sora_sample: Callable[..., list[Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (60, 30, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "tall.png")
    made = sora_sample(f"--image={tmp_path}/tall.png")[0]
    assert size(made) == (5, 24, 16)
    assert (made["prompt"], made["task"], made["given_files"]) == ("", "animate", ["tall.png"])
    assert (made["field"]["given_frames"], made["field"]["kept_frames"]) == (1, 1)
    assert "cropped 60x30 to 45x30" in capsys.readouterr().out


def test_a_video_is_continued_from_its_end_at_its_rate(
    sora_sample: Callable[..., list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = np.repeat(np.arange(11, dtype=np.uint8)[:, None, None, None] * 20, 3, -1)
    video = np.broadcast_to(frames, (11, 128, 192, 3))
    (tmp_path / "clip.mp4").write_bytes(playable_mp4(np.ascontiguousarray(video), 12.0))
    asked: list[Any] = []
    make = sample.make_requests
    monkeypatch.setattr(
        sample, "make_requests", lambda *given: asked.extend(make(*given)) or list(asked)
    )
    made = sora_sample(f"--video={tmp_path}/clip.mp4", "--prompt=x", "--frames=9")[0]
    assert size(made) == (9, 16, 24)
    assert (made["fps"], made["field"]["given_frames"]) == (12.0, 5)
    levels = asked[0].given.mean((1, 2, 3))
    np.testing.assert_allclose(levels, 20 * np.arange(6, 11), atol=3)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "nothing is asked for"),
        (("--prompt=x", "--count=0"), "--count 0 must be at least 1"),
        (("--image=a.png", "--video=b.mp4"), "give one of --image and --video"),
        (("--task=connect", "--video=b.mp4"), "--task connect takes 2 --video, and 1 are given"),
        (("--task=edit", "--prompt=x"), "--task edit takes 1 --video, and 0 are given"),
        (("--task=interpolate", "--prompt=x"), "takes at least one --image, and 0 are given"),
        (("--prompt=x", "--box=1,2"), "--box 1,2 is not 4 numbers"),
        (("--prompt=x", "--span=a,b"), "--span a,b is not 2 numbers"),
        (("--image=missing.png",), "missing.png: unreadable"),
        (("--prompts_file=missing.txt",), "cannot read the prompts in missing.txt"),
        (("--prompt=x", "--preview_only"), "--preview_only needs --preview"),
        (("--prompt=x", "--preview=0.5"), "a preview smaller by a factor of 0.5 of 16 x 24"),
        (("--prompt=x", "--preview_every=0"), "a preview every 0 steps: give 1 or more"),
        (("--prompt=x", "--preview=2", "--vbench"), "--vbench writes nothing beside"),
        (("--prompt=x", "--frames=0"), "1 or 5 frames would work"),
        (("--prompt=x", "--height=0"), "--height 0 and --width 24 must be positive"),
        (("--prompt=x", "--fps=0"), "fps 0.0 is not a frame rate"),
        (("--prompt=x", "--expand=online"), "'online' is neither offline nor an address"),
        (("--prompt=x", "--guidance=-1"), "scale=-1.0 and history=1.0 must be at least 0"),
        (("--prompt=x", "--guidance_interval=0.2"), "--guidance_interval 0.2 is not 2 numbers"),
        (("--prompt=x", "--guidance=1", "--negative_prompt=y"), "changes nothing at a guidance of"),
        (("--prompt=x", "--history_guidance=2"), "is of given frames: give --image or --video"),
    ],
)
def test_mistakes_are_told_in_a_sentence(
    sora_sample: Callable[..., list[Any]], arguments: tuple[str, ...], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        sora_sample(*arguments)


@pytest.mark.parametrize(
    ("task", "flags"),
    [
        ("extend", ()),
        ("extend_backward", ("--frames=9",)),
        ("connect", ("--video={}", "--frames=13")),
        ("turn_into", ("--video={}",)),
        ("loop", ("--frames=13",)),
        ("edit", ("--strength=0.4",)),
        ("edit_box", ("--box=0,8,0,8", "--outside")),
        ("edit_span", ("--span=0.625,1", "--fps=8")),
    ],
)
def test_every_task_takes_its_videos(
    sora_sample: Callable[..., list[Any]], tmp_path: Path, task: str, flags: tuple[str, ...]
) -> None:
    video = np.random.default_rng(0).integers(0, 256, (9, 128, 192, 3), np.uint8)
    (tmp_path / "clip.mp4").write_bytes(playable_mp4(video, 12.0))
    path = f"{tmp_path}/clip.mp4"
    frames = () if "edit" in task or any("frames" in flag for flag in flags) else ("--frames=9",)
    given = (f"--video={path}", *(flag.format(path) for flag in flags), *frames)
    [made] = sora_sample(f"--task={task}", "--prompt=x", *given)
    assert made["task"] == task
    assert set(made["given_files"]) == {"clip.mp4"}
    field = made["field"]
    assert field["given_frames"] or field["beside"]


def test_key_frames_are_given_at_their_times(
    sora_sample: Callable[..., list[Any]], tmp_path: Path
) -> None:
    Image.new("RGB", (24, 16), "red").save(tmp_path / "red.png")
    images = (f"--image={tmp_path}/red.png",) * 2
    [made] = sora_sample("--task=interpolate", *images, "--at=0,1", "--frames=9")
    assert made["field"]["kept_frames"] == 1
    assert [clip["seconds"] for clip in made["field"]["beside"]] == [1.0]
    with pytest.raises(UserError, match="2 images and 1 times"):
        sora_sample("--task=interpolate", *images, "--at=0", "--frames=9")
    [made] = sora_sample("--task=remember", *images, "--frames=9")
    assert [clip["seconds"] for clip in made["field"]["beside"]] == [-FAR_SECONDS] * 2


def test_prompts_are_expanded_and_kept_where_a_fact_would_be_lost(
    sora_sample: Callable[..., list[Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(tiny_models, "TEXT_LENGTH", 64)
    flags = ("--prompt=red circle moves left", "--prompt=a dog", "--expand=offline")
    circle, dog = sora_sample(*flags, "--seed=3", "--steps=1")
    world = WorldConfig()
    assert circle["prompt"] == complete("red circle moves left", 3, False, world)
    assert circle["prompt_before_expansion"] == "red circle moves left"
    assert circle["expansion"] == {"by": "offline"}
    assert (dog["prompt"], dog["prompt_before_expansion"]) == ("a dog", "a dog")
    assert "not expanded, for captions of the world have no 'dog': a dog" in capsys.readouterr().out
    monkeypatch.setattr(tiny_models, "TEXT_LENGTH", 10)
    sora_sample(*flags, "--vbench", f"--output={tmp_path}/videos")
    assert "the expansion is longer than the run reads: red circle" in capsys.readouterr().out
    videos = sorted((tmp_path / "videos").iterdir())
    assert [path.name for path in videos] == ["a dog-0.mp4", "red circle moves left-0.mp4"]
    assert read_metadata(videos[1])["expansion"]["by"] == "offline"


def test_what_a_file_says_makes_it_again_bit_by_bit(
    sora_sample: Callable[..., list[Any]], tmp_path: Path
) -> None:
    Image.new("RGB", (24, 16), "red").save(tmp_path / "red.png")
    first = tmp_path / "first"
    flags = (f"--image={tmp_path}/red.png", "--prompt=a red circle", "--steps=3", "--guidance=1.5")
    sora_sample(*flags, "--fps=4", "--seed=9", "--count=2", "--method=heun", f"--output={first}")
    for path in sorted(first.glob("*.mp4")):
        said = read_metadata(path)
        assert said == json.loads(path.with_suffix(".json").read_text())
        names = ("prompt", "seed", "frames", "height", "width", "fps")
        again = tmp_path / f"again-{said['seed']}"
        sora_sample(
            *(f"--{name}={said[name]}" for name in names),
            *(f"--{name}={said['sampling'][name]}" for name in ("steps", "guidance", "method")),
            f"--image={tmp_path}/{said['given_files'][0]}",
            f"--output={again}",
        )
        (made,) = again.glob("*.mp4")
        assert made.read_bytes() == path.read_bytes()


def test_videos_are_named_as_vbench_looks_for_them(
    sora_sample: Callable[..., list[Any]], tmp_path: Path
) -> None:
    folder = tmp_path / "videos"
    sora_sample(
        "--vbench", "--prompt=a red circle", "--prompt=b", "--count=2", f"--output={folder}"
    )
    names = [f"{prompt}-{number}.mp4" for prompt in ("a red circle", "b") for number in (0, 1)]
    assert sorted(path.name for path in folder.iterdir()) == names
    with pytest.raises(UserError, match="no file can be called 'a/c-0.mp4': leave slashes out"):
        sora_sample("--vbench", "--prompt=a/c", f"--output={tmp_path / 'none'}")
    assert not (tmp_path / "none").exists()


def test_prompts_that_take_over_are_expanded_too(
    sora_sample: Callable[..., list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny_models, "TEXT_LENGTH", 64)
    story = ("--then=1:red circle moves left", "--then=1.5:a dog")
    flags = ("--prompt=a red circle", "--seconds=2", "--window=13", "--steps=1", "--seed=3")
    [made] = sora_sample(*flags, *story, "--expand=offline")
    turn = complete("red circle moves left", 3, False, WorldConfig())
    assert made["story"] == [[1.0, turn], [1.5, "a dog"]]
    assert made["story_before_expansion"] == [[1.0, "red circle moves left"], [1.5, "a dog"]]
