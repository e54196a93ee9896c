"""An inflated autoencoder codes a still clip as the image that it is, whatever was not trained."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sora_jax.models.inflation import inflate
from sora_jax.models.vae import VAE, VAEConfig
from tests.tiny import randomised


@pytest.mark.parametrize("shortcuts", [False, True])
def test_a_still_clip_is_coded_as_its_image(shortcuts: bool) -> None:
    config = VAEConfig(
        channels=3, widths=(8, 16), folds=((2, 2), (2, 2)), blocks=1, shortcuts=shortcuts
    )
    vae = randomised(lambda rngs: VAE(config, rngs=rngs), deviation=0.2)
    before = jax.tree.map(np.array, vae)
    inflated = inflate(vae)
    image = jax.random.uniform(jax.random.key(0), (1, 1, 8, 12, 3), minval=-1)
    still = jnp.repeat(image, 9, 1)
    of_image, of_still = vae.encode(image)[0], inflated.encode(still)[0]
    np.testing.assert_allclose(of_still, jnp.repeat(of_image, 3, 1), rtol=1e-5, atol=1e-6)
    shown = jnp.repeat(vae.decode(of_image), 9, 1)
    np.testing.assert_allclose(inflated.decode(of_still), shown, rtol=1e-5, atol=1e-6)
    # It is not so before, and what is inflated is a copy.
    assert float(jnp.abs(vae.decode(vae.encode(still)[0]) - shown).max()) > 0.01
    for kept, now in zip(jax.tree.leaves(before), jax.tree.leaves(vae), strict=True):
        np.testing.assert_array_equal(kept, now)
