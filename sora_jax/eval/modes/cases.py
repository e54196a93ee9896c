"""What is asked of a run in each task, from simulated scenes, and what an ideal model makes of it.

All but `remember` and the sizes show a scene from its time 0, so that its caption is true and its
states are those of the simulator. Scenes have one or two moving bodies and a camera at rest.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from sora_jax.errors import ConfigError
from sora_jax.eval.examples import Example
from sora_jax.eval.modes.reading import Video
from sora_jax.sample import tasks
from sora_jax.sample.requests import Request
from sora_jax.world.caption import facts, sentence
from sora_jax.world.dynamics import simulate
from sora_jax.world.render import render
from sora_jax.world.scene import Body, Colour, Scene, WorldConfig, make_body, sample_scene

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
SAMPLES = 8  # of one clip that is extended backward
LARGEST_BOX = 0.75  # of the picture
LONGER = (1, 2, 4, 8)  # times as long as what is trained on, at which long clips are looked at
LOOKS = 10_000_000  # from the seed of a scene to that of the motion its body comes again with


@dataclasses.dataclass(frozen=True)
class View:
    """The world as a run sees it: size and rate of clips, pixel frames of a latent frame, and
    pixels of a token on each side."""

    world: WorldConfig
    frames: int
    height: int
    width: int
    fps: float
    temporal: int
    cell: int

    @property
    def context(self) -> int:
        """Frames that are given of a video: the fewest that show motion."""
        return 1 + self.temporal

    @property
    def times(self) -> Float[np.ndarray, " t"]:
        """Of the frames, in seconds."""
        return np.arange(self.frames) / self.fps

    def scene(self, seed: int) -> Scene:
        return sample_scene(seed, self.width / self.height, self.world)

    def render(self, scene: Scene) -> Video:
        return render(scene, self.frames, self.height, self.width, self.fps)

    def request(self, prompt: str, seed: int) -> Request:
        return Request(prompt, self.frames, self.height, self.width, self.fps, seed)


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """`requests` are asked of the sampler, and `truth` is what an ideal model makes of the first:
    a clip of `scene`. `given`: its frames that are given. `source`: the clip that is edited, of
    which `box` (top, bottom, left, right, in pixels) is made anew; `old`: the colour of its first
    body, where that is to change."""

    view: View
    scene: Scene
    requests: tuple[Request, ...]
    truth: Video
    given: tuple[int, ...] = ()
    source: Video | None = None
    box: tasks.Box | None = None
    old: Colour | None = None

    @property
    def reference(self) -> Video:
        """What must be kept, as far as the task keeps anything."""
        return self.truth if self.source is None else self.source

    @property
    def example(self) -> Example:
        request = self.requests[0]
        told = facts(self.scene, is_image=False)
        return Example(request.prompt, self.truth, request.fps, request.seed, told)


def moving(world: WorldConfig) -> WorldConfig:
    """The scenes of a world with one or two bodies, all in motion and none that swings, before a
    camera at rest.

    Raises:
        ConfigError: nothing moves there, or there is no colour left to change a body to.
    """
    motions = tuple(motion for motion in world.motions if motion != "still")
    most = min(world.max_objects, 2)
    if not motions or len(world.colours) <= most:
        raise ConfigError(
            "suite modes needs moving bodies, and a colour more than there are bodies: "
            f"world.motions is {world.motions} and world.colours {world.colours}"
        )
    least = min(world.min_objects, most)
    return dataclasses.replace(
        world, min_objects=least, max_objects=most, motions=motions, camera_pan=0.0, swing=0.0
    )


def caption_of(scene: Scene) -> str:
    return sentence(facts(scene, is_image=False), "dense", None)


def animate(view: View, seed: int) -> Case:
    scene, truth, request = _plain(view, seed)
    return Case(view, scene, (tasks.animate(request, truth[0]),), truth, (0,))


def extend(view: View, seed: int) -> Case:
    scene, truth, request = _plain(view, seed)
    made = tasks.extend(request, truth[: view.context], view.context)
    return Case(view, scene, (made,), truth, tuple(range(view.context)))


def extend_backward(view: View, seed: int) -> Case:
    scene, truth, request = _plain(view, seed)
    made = tasks.extend_backward(request, truth[-view.context :], view.context)
    return Case(view, scene, (made,), truth, _end(view))


def backward_samples(view: View, seed: int) -> Case:
    """From the last frame alone and no caption, so that where the bodies came from is open."""
    scene, truth, _ = _plain(view, seed)
    made = tuple(
        tasks.extend_backward(view.request("", SAMPLES * (seed % LOOKS) + n), truth[-1:], 1)
        for n in range(SAMPLES)
    )
    return Case(view, scene, made, truth, (view.frames - 1,))


def connect(view: View, seed: int) -> Case:
    scene, truth, request = _plain(view, seed)
    context = view.context
    made = tasks.connect(request, truth[:context], truth[-context:], context)
    return Case(view, scene, (made,), truth, (*range(context), *_end(view)))


def turn_into(view: View, seed: int) -> Case:
    """A body changes its colour on its way; the ideal does so at once, halfway."""
    before = _alone(view.scene(seed))
    after = _recoloured(before, view.world)
    one, other = view.render(before), view.render(after)
    half = view.frames // 2
    made = tasks.turn_into(
        view.request("", seed),
        one,
        other,
        strength=tasks.TURN_STRENGTH,
        latent_frames=1 + (view.frames - 1) // view.temporal,
    )
    truth = np.concatenate([one[:half], other[half:]])
    return Case(view, after, (made,), truth, old=before.bodies[0].colour)


def loop(view: View, seed: int) -> Case:
    """A body that swings, once in the time from the given start to the same at the end."""
    calm = dataclasses.replace(view.world, motions=("constant",))  # what falls does not swing
    scene, context = _alone(dataclasses.replace(view, world=calm).scene(seed)), view.context
    scene = dataclasses.replace(scene, period=(view.frames - context) / view.fps)
    truth = view.render(scene)
    made = tasks.loop(view.request(caption_of(scene), seed), truth[:context], context)
    return Case(view, scene, (made,), truth, (*range(context), *_end(view)))


def edit(view: View, seed: int) -> Case:
    return _edited(view, view.scene(seed), seed, (tasks.EDIT_STRENGTH,))


def strengths(view: View, seed: int) -> Case:
    """The same edit from weak to strong."""
    return _edited(view, view.scene(seed), seed, STRENGTHS)


def edit_box(view: View, seed: int) -> Case | None:
    """The box holds all that the body passes through; None where that is most of the picture."""
    scene = _alone(view.scene(seed))
    box = _passed(view, scene)
    top, bottom, left, right = box
    if (bottom - top) * (right - left) > LARGEST_BOX * view.height * view.width:
        return None
    after, source = _recoloured(scene, view.world), view.render(scene)
    made = tasks.edit_box(view.request(caption_of(after), seed), source, box)
    old = scene.bodies[0].colour
    return Case(view, after, (made,), view.render(after), source=source, box=box, old=old)


def interpolate(view: View, seed: int) -> Case:
    scene, truth, request = _plain(view, seed)
    keys = (0, view.frames // 2, view.frames - 1)
    made = tasks.interpolate(request, {key / view.fps: truth[key] for key in keys})
    return Case(view, scene, (made,), truth, keys)


def remember(view: View, seed: int) -> Case:
    """A body of another shot comes again, in a motion of its own; no caption says what it is."""
    shown, again = _alone(view.scene(seed)), _alone(view.scene(seed + LOOKS))
    looks, body = shown.bodies[0], again.bodies[0]
    same = make_body(looks.shape, looks.colour, looks.size, body.position, body.velocity)
    inside = np.clip(same.position, same.radius, np.array(again.box) - same.radius)
    scene = _moved(dataclasses.replace(again, bodies=(same,)), inside.tolist())
    shot = view.render(shown)
    made = tasks.remember(view.request("", seed), [shot[: view.context], shot[-1:]])
    return Case(view, scene, (made,), view.render(scene))


def goes_on(view: View, seed: int) -> Case:
    """From a first frame on for eight times as long as a clip; the request is of its start."""
    scene, truth, request = _plain(view, seed)
    longest = dataclasses.replace(view, frames=1 + LONGER[-1] * (view.frames - 1))
    made = tasks.animate(request, truth[0])
    return Case(longest, scene, (made,), longest.render(scene), (0,))


def generate(view: View, seed: int) -> Case:
    """From a caption alone."""
    scene, truth, request = _plain(view, seed)
    return Case(view, scene, (tasks.generate(request),), truth)


def sizes(trained: Sequence[tuple[int, int]], cell: int) -> tuple[tuple[int, int], ...]:
    """Sizes (height, width) beyond the trained ones: three other aspect ratios at about as many
    pixels as the first, none beyond 2, and the first half as large again, in whole tokens of `cell`
    pixels."""
    height, width = trained[0]
    area = height * width
    aspects = {h / w for h, w in trained}
    sides = range(cell, 2 * max(height, width) + 1, cell)
    others = [(h, w) for h in sides for w in sides if h / w not in aspects and 0.5 <= h / w <= 2]

    def order(size: tuple[int, int]) -> tuple[float, float, int]:
        off, aspect = np.log(size[0] * size[1] / area), np.log(size[0] / size[1])
        return round(abs(off), 6), round(abs(aspect), 6), size[0]

    chosen: dict[float, tuple[int, int]] = {}
    for size in sorted(others, key=order):
        chosen.setdefault(size[0] / size[1], size)
    larger = (cell * round(1.5 * height / cell), cell * round(1.5 * width / cell))
    return (*list(chosen.values())[:3], larger)


def _plain(view: View, seed: int) -> tuple[Scene, Video, Request]:
    scene = view.scene(seed)
    return scene, view.render(scene), view.request(caption_of(scene), seed)


def _end(view: View) -> tuple[int, ...]:
    return tuple(range(view.frames - view.context, view.frames))


def _alone(scene: Scene) -> Scene:
    return dataclasses.replace(scene, bodies=scene.bodies[:1])


def _moved(scene: Scene, position: Sequence[float]) -> Scene:
    """A scene whose only body stands elsewhere."""
    x, y = position
    body: Body = dataclasses.replace(scene.bodies[0], position=(x, y))
    return dataclasses.replace(scene, bodies=(body,))


def _recoloured(scene: Scene, world: WorldConfig) -> Scene:
    """The first body in a colour that the scene has not."""
    used = {body.colour for body in scene.bodies}
    unused = [colour for colour in world.colours if colour not in used]
    first = dataclasses.replace(scene.bodies[0], colour=unused[scene.seed % len(unused)])
    return dataclasses.replace(scene, bodies=(first, *scene.bodies[1:]))


def _edited(view: View, scene: Scene, seed: int, levels: tuple[float, ...]) -> Case:
    after, source = _recoloured(scene, view.world), view.render(scene)
    request = view.request(caption_of(after), seed)
    made = tuple(tasks.edit(request, source, strength) for strength in levels)
    old = scene.bodies[0].colour
    return Case(view, after, made, view.render(after), source=source, old=old)


def _passed(view: View, scene: Scene) -> tasks.Box:
    """The smallest box of whole tokens around all places of a scene's only body."""
    unit = np.sqrt(view.height * view.width)
    places, body = simulate(scene, view.times).positions[:, 0], scene.bodies[0]
    low = (places.min(0) - body.radius) * unit - 1
    high = (places.max(0) + body.radius) * unit + 1
    cell, sides = view.cell, np.array([view.width, view.height])
    left, top = np.maximum(np.floor(low / cell) * cell, 0).astype(int).tolist()
    right, bottom = np.minimum(np.ceil(high / cell) * cell, sides).astype(int).tolist()
    return top, bottom, left, right
