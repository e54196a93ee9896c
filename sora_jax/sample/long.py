"""A minute and more: a clip of any duration, made window by window, each from what came before.

A window is what the network makes at once. It begins with given frames, the last `context` of what
was made, and its others are made. Frames that come out are decoded as one clip, with the state of
the autoencoder handed on: there are no seams. What is given is encoded anew as a clip of its own,
for only the first latent of a clip is that of a single frame, and the network knows no clip that
begins otherwise. It gets a little noise, of which the network is told, as in training: what went a
little wrong is then not taken for the truth, which is how such clips drift (arXiv:2407.01392).

With `levels` = m above 1 the frames of a window roll (arXiv:2402.09470): they are m parts at noise
levels that increase,

    part i goes from L(i + 1) to L(i), i = 0 ... m - 1,  L(i) = the sampler's i-th of m levels   (1)

until part 0 is data and comes out; then all move one place up, and pure noise goes in at the end.
Parts that are on their way stay as they are: the causal latents of frames after the context, which
has become longer by what came out, and is cut to its length. The first window brings all parts from
noise to their places. With m = 1 there is one part, and (1) is a clip from noise to data.
"""

import copy
import dataclasses
import itertools
import math
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, UInt8

from sora_jax.diffusion.times import sampling_times
from sora_jax.models.latents import grid_of
from sora_jax.models.patches import Grid, unpatchify
from sora_jax.models.vae import State
from sora_jax.processes import to_host
from sora_jax.sample.generate import Sampler, batch_rows, latent_frames
from sora_jax.sample.requests import MAX_PARTS, Request, RequestError, Video
from sora_jax.sample.sizes import divisible
from sora_jax.sample.stream import decode_chunk, whole
from sora_jax.sharding.mesh import picture_mesh
from sora_jax.sharding.rules import clips_sharding, replicated


@dataclasses.dataclass(frozen=True)
class LongRequest:
    """A clip of any number of `frames`. Its noise follows from the seed of `first` alone.

    `first` is the request for its first window: the size of all windows, the prompt, and what the
    clip begins with, if anything. `story` are prompts that take over, each from a second on: from
    the first window whose new frames begin then or later.
    """

    first: Request
    frames: int
    context: int  # frames given to each further window, 1 + temporal * k
    levels: int = 1  # noise levels at which the frames of a window stand; above 1 they roll
    history_level: float = 0.0  # noise on the context
    story: tuple[tuple[float, str], ...] = ()


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Made:
    """All that the next window needs of those before it."""

    decoder: State
    context: UInt8[Array, "t h w 3"]
    begun: Float[Array, "n p"] | None  # tokens of the next window; None where nothing rolls


class Windows:
    """Makes the windows of one clip, in order: what one has `Made` is given to the next, which uses
    it up, for its arrays are donated. A size that the networks do not divide is made larger, and
    what comes out is cut.

    Two programs sample and at most four decode, whatever the duration.
    """

    def __init__(self, sampler: Sampler, asked: LongRequest) -> None:
        """Raises RequestError where it cannot be made."""
        vae = sampler.models.vae
        _check(asked)
        first = divisible(asked.first, vae.config.temporal, sampler.models.cell)
        first = dataclasses.replace(first, frames=asked.first.frames)
        sampler.size_of(first)
        self.asked, self.first, self._sampler, self._vae = asked, first, sampler, vae
        self._patch = sampler.models.patch
        self._grid = grid_of(vae, first.frames, first.height, first.width, self._patch)
        temporal, self._given = vae.config.temporal, latent_frames(vae, asked.context)
        self._new = _latent_frames_of_part(asked, self._grid.frames, self._given, temporal)
        self.first_frames = 1 + temporal * (self._given + self._new - 1)  # that come out
        self.frames = temporal * self._new  # that come out of each further window
        self.count = 1 + max(0, math.ceil((asked.frames - self.first_frames) / self.frames))
        inner = sampling_times(sampler.times, asked.levels, self._grid.tokens)[1:-1]
        self.levels = (0.0, *map(float, np.asarray(inner)[::-1]), 1.0)
        self._further = _further(sampler, asked.levels, self._grid)
        cells = (self._grid.height * self._patch, self._grid.width * self._patch)
        self._pictures = picture_mesh(sampler.mesh, 1, *cells)
        self._networks = whole(vae, sampler.models.statistics, self._pictures)

    def before(self, number: int) -> int:
        """Frames of the clip before those of a window."""
        made = self.first_frames + self.frames * (number - 1) if number else 0
        return min(made, self.asked.frames)

    def request(self, number: int, made: Made | None = None) -> Request:
        """What window `number` is asked for; `made` of the one before, which the first has not."""
        asked, inner, rolls = self.asked, self.levels[1:-1], self.asked.levels > 1
        # What is given has parts too, for parts are counted from the first latent frame on.
        given = self._given // self._new if rolls else 0
        if made is None:
            return dataclasses.replace(
                self.first,
                start_levels=(1.0,) * (given + asked.levels),
                end_levels=(0.0,) * (given + 1) + inner,
            )
        return dataclasses.replace(
            self.first,
            kept=None,
            prompt=self._prompt(self.before(number) / asked.first.fps),
            seed=window_seed(asked.first.seed, number),
            given=to_host(made.context),
            given_level=asked.history_level,
            start_levels=(1.0,) * given + self.levels[1:],
            end_levels=(0.0,) * given + self.levels[:-1],
            begun=None if made.begun is None else to_host(made.begun),
        )

    def __call__(self, number: int, made: Made | None) -> tuple[Video, Made]:
        """Frames that come out of a window, and what is left for the next one."""
        sampler = self._sampler if made is None else self._further
        request = self.request(number, made)
        rows = batch_rows(1, 1, sampler.mesh)
        tokens = to_host(sampler.tokens([request] * rows))[0, : self._grid.tokens]
        start = self._given if made else 0
        video, state = self._decoded(tokens, start, None if made is None else made.decoder)
        past = video if made is None else np.concatenate([to_host(made.context), video])
        first, frames = self.asked.first, self.before(number + 1) - self.before(number)
        left = self._left(state, past[-self.asked.context :], tokens)
        return video[:frames, : first.height, : first.width], left

    def begin(self) -> Made:
        """What is left by a window, without its content: a state to go on from has its shapes."""
        first = self.first
        tokens = np.zeros((self._grid.tokens, self._patch**2 * self._vae.config.channels), "f4")
        _, state = self._decode(self._latents(tokens, 0, 1), None)
        shape = (self.asked.context, first.height, first.width, 3)
        return self._left(state, np.zeros(shape, np.uint8), tokens)

    def _left(self, state: State, context: Video, tokens: Float[np.ndarray, "n p"]) -> Made:
        """Tokens move up by a part; what the first one leaves at the end is taken for noise."""
        moved = np.roll(tokens, -self._new * self._grid.height * self._grid.width, 0)
        begun = None if self.asked.levels == 1 else moved
        everywhere = replicated(self._pictures)
        placed: Any = jax.device_put((context, begun), everywhere)
        return Made(state, *placed)

    def _decoded(
        self, tokens: Float[np.ndarray, "n p"], start: int, state: State
    ) -> tuple[Video, State]:
        """Frames of the latent frames from `start` to those that stay on their way."""
        end = self._given + self._new
        videos = []
        while start < end:
            length = min(end - start, self._sampler.config.chunk) if state is not None else 1
            video, state = self._decode(self._latents(tokens, start, length), state)
            videos.append(to_host(video)[0])
            start += length
        return np.concatenate(videos), state

    def _decode(self, latents: Float[np.ndarray, "1 s g v c"], state: State) -> tuple[Any, State]:
        with jax.set_mesh(self._pictures):
            placed = jax.device_put(latents, clips_sharding(self._pictures))
            return decode_chunk(*self._networks, placed, state)

    def _latents(
        self, tokens: Float[np.ndarray, "n p"], start: int, length: int
    ) -> Float[np.ndarray, "1 s g v c"]:
        part = dataclasses.replace(self._grid, frames=length)
        first = start * part.height * part.width
        chosen: Any = tokens[None, first : first + part.tokens]
        latents: Any = unpatchify(chosen, part, self._patch)
        return np.ascontiguousarray(latents)

    def _prompt(self, seconds: float) -> str:
        told = [prompt for start, prompt in self.asked.story if start <= seconds]
        return told[-1] if told else self.asked.first.prompt


def frames_of(sampler: Sampler, asked: LongRequest) -> Iterator[Video]:
    """The clip as its windows come out; raises RequestError where it cannot be made."""
    windows, made = Windows(sampler, asked), None
    for number in range(windows.count):
        video, made = windows(number, made)
        yield video


def window_seed(seed: int, number: int) -> int:
    """Seed of a window of a clip: a number of both, and of the first the clip's own."""
    if not number:
        return seed
    return int(np.random.SeedSequence((seed, number)).generate_state(1)[0] >> 1)


def _further(sampler: Sampler, levels: int, grid: Grid) -> Sampler:
    """The sampler of all windows but the first: a frame takes its steps in as many windows as there
    are levels, and between two of these they are even, for the levels follow the shift."""
    if levels == 1:
        return sampler
    further = copy.copy(sampler)
    steps = math.ceil(sampler.config.steps / levels)
    further.config = dataclasses.replace(sampler.config, steps=steps)
    further.times = dataclasses.replace(sampler.times, base_tokens=grid.tokens)
    return further


def _check(asked: LongRequest) -> None:
    first = asked.first
    if first.beside or first.box is not None or first.start_levels != (1.0,):
        raise RequestError(
            f"a clip of several windows goes forward from a caption, an image or a video, and "
            f"cannot {first.task}: do that to a clip of one window, and extend it"
        )
    if asked.frames < 1:
        raise RequestError(f"a clip of {asked.frames} frames has none: ask for more")
    if not 0 <= asked.history_level < 1:
        raise RequestError(
            f"noise of level {asked.history_level} on what goes before: it must be at least 0, and "
            "below 1, where nothing is left of it"
        )
    times = [0.0, *(start for start, _ in asked.story)]
    if not all(one < other for one, other in itertools.pairwise(times)):
        raise RequestError(f"prompts take over at {times[1:]} s: give times that increase, above 0")


def _latent_frames_of_part(asked: LongRequest, window: int, given: int, temporal: int) -> int:
    """Latent frames that come out of each window but the first; `window` and `given` are in latent
    frames.

    Raises:
        RequestError: the context or the levels do not go into the window.
    """
    frames, context, levels = asked.first.frames, asked.context, asked.levels
    if not 1 <= context < frames or (context - 1) % temporal:
        raise RequestError(
            f"{context} frames cannot be given to each window of {frames}: 1 + {temporal}k, and "
            f"fewer than {frames}, can"
        )

    def fits(levels: int) -> bool:
        """Whether parts of one length divide what is given and what is not, and are not too many:
        then a part is where the one before was."""
        part, rest = divmod(window - given, levels)
        return levels == 1 or not (rest or part == 0 or given % part or window // part > MAX_PARTS)

    if levels < 1 or not fits(levels):
        works = ", ".join(str(other) for other in range(1, MAX_PARTS + 1) if fits(other))
        raise RequestError(
            f"{levels} noise levels do not divide a window of {frames} frames, {context} of them "
            f"given, into equal parts of latent frames, {MAX_PARTS} at most: {works} would"
        )
    return (window - given) // levels
