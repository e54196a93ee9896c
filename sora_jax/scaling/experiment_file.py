"""An experiment file that changes another: what a predicted run is handed over as."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sora_jax.config import to_text
from sora_jax.files import write_file
from sora_jax.scaling.plan import PlannedRun

FILE = '''"""{headline}

Run:      sora train --experiment {path} --data SET --stage dit --workdir RUN
          (SET: clips, or latents that `sora encode` made; RUN holds a trained autoencoder)
Hardware: {slice}; {hours:,.3g} hours and {cost:,.0f} dollars, as `sora sweep` assumes.
Expect:   {parameters:,} parameters, {tokens:.4g} tokens, {flops:.4g} training FLOPs.
"""

from sora_jax.config import load_experiment
from sora_jax.experiment import Experiment

CHANGES = (
{changes}
)


def experiment() -> Experiment:
    made: Experiment = load_experiment({base!r}, CHANGES)
    return made
'''


def changes(base: Any, changed: Any) -> list[str]:
    """The overrides that make `changed` of `base`, configs with the same fields."""
    before = set(to_text(base).splitlines())
    lines = [line for line in to_text(changed).splitlines() if line not in before]
    return ["=".join(line.split(" = ", 1)) for line in lines]


def write_experiment(
    path: Path, base_name: str, overrides: Sequence[str], run: PlannedRun, headline: str
) -> None:
    """Writes a Python file whose `experiment()` is a planned run's, whole or not at all.

    Args:
        base_name: of the experiment that it changes, as `config.load_experiment` takes it.
        overrides: as `changes` gives them.
        headline: its first line.

    Raises:
        UserError: it cannot be written.
    """
    text = FILE.format(
        headline=headline,
        path=path,
        base=base_name,
        changes="\n".join(f"    {line!r}," for line in overrides),
        slice=run.slice,
        hours=run.hours,
        cost=run.cost,
        parameters=run.parameters,
        tokens=float(run.tokens),
        flops=float(run.flops),
    )
    write_file(path, text.encode())
