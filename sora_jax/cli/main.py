"""The `sora` command: chooses a command module, parses its flags, and words its errors.

A command is a module `sora_jax.cli.<command>` with

    FLAGS = flags.FlagValues()                   its own flags, so that help shows no others
    RUN = flags.DEFINE_string("run", None, "...", flag_values=FLAGS)
    def main(argv: Sequence[str]) -> None: ...   argv: the command's name, then what is no flag
    if __name__ == "__main__":
        run(sys.modules[__name__], sys.argv[1:])

A command may be several, one for each of its `VERBS`: `sora sweep fit` is `cli/sweep_fit.py`, with
flags of its own. Importing this file imports no command, so `sora --help` answers before jax has
loaded.
"""

import importlib
import os
import sys
import textwrap
import traceback
from collections.abc import Sequence
from types import ModuleType
from typing import NoReturn

from absl import app, flags, logging

from sora_jax import __version__
from sora_jax.errors import FAILED, UserError, nearest

COMMANDS = {
    "data": "build, verify and look into sets of captioned clips",
    "train": "train a stage of an experiment: the autoencoder, then the transformer",
    "import": "bring in another project's weights: text encoders T5 and umT5",
    "encode": "write the latents of a set, to train on in place of its clips",
    "compile": "compile an experiment's steps for a TPU pod, on a machine without one",
    "sample": "make videos and images from captions with a trained run",
    "vae": "put a video through the autoencoder of a run, and back; measure it",
    "evaluate": "score a trained run and write its report",
    "compare": "put checkpoints side by side on the same prompts and noise",
    "sweep": "fit scaling laws to runs of many sizes, and predict larger ones",
    "goodput": "say what the wall time of a run went into, across its restarts",
    "demo": "do all of it, small, on the procedural world or on a folder of clips",
}
HELP_WIDTH = 88


def main() -> NoReturn:
    """Run `sora <command> ...` from the command line; never returns."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("--help", "-h", "help"):
        print(_overview())
        sys.exit(0 if arguments else FAILED)
    command, *rest = arguments
    if command == "--version":
        print(f"sora_jax {__version__}")
        sys.exit(0)
    if command not in COMMANDS:
        hint = nearest(command, COMMANDS) or f"; there are: {', '.join(COMMANDS)}"
        _fail("sora", f"there is no command '{command}'{hint}")
    run(importlib.import_module(f"sora_jax.cli.{command}"), rest)


def run(module: ModuleType, arguments: Sequence[str]) -> NoReturn:
    """Run the command of a module with its command-line arguments; never returns.

    Exits with 0, or after one sentence on stderr with the code of a `UserError`, which is 1 for a
    wrong flag too; any other exception is a fault of the program and leaves as itself, with a
    traceback and 1.
    """
    # Under `python -m` the module is called __main__; its spec keeps the name it was found by.
    spec = module.__spec__
    path = spec.name if spec else module.__name__
    if arguments and arguments[0] in getattr(module, "VERBS", ()):
        run(importlib.import_module(f"{path}_{arguments[0]}"), arguments[1:])
    name = f"sora {path.rpartition('.')[2].replace('_', ' ')}"
    own_flags: flags.FlagValues = module.FLAGS
    # Flags may stand after words, as in `sora data build --input DIR`.
    own_flags.set_gnu_getopt(True)
    if any(word in ("--help", "-h", "--helpshort", "--helpfull") for word in arguments):
        print(_usage(name, module))
        sys.exit(0)

    def parse(argv: Sequence[str]) -> list[str]:
        # absl's own flags, and those that libraries define, keep their defaults.
        flags.FLAGS(argv[:1])
        try:
            return own_flags(argv)
        except flags.Error as error:
            _fail(name, f"{str(error).strip()} (see {name} --help)")

    def guarded(argv: Sequence[str]) -> None:
        try:
            module.main(argv)
        except UserError as error:
            _fail(name, str(error), error.exit_code, error.leaves_together)
        except Exception:
            if not _is_alone():
                traceback.print_exc()
                _leave(FAILED)
            raise

    logging.set_verbosity(logging.WARNING)  # libraries' notes would bury the command's own lines
    app.run(guarded, argv=[name, *arguments], flags_parser=parse)
    sys.exit(0)


def _fail(name: str, sentence: str, code: int = FAILED, together: bool = True) -> NoReturn:
    # In one piece: threads of libraries may be writing there too.
    sys.stderr.write(f"{name}: {sentence}\n")
    if not together and not _is_alone():
        _leave(code)
    sys.exit(code)


def _is_alone() -> bool:
    """Whether no other process is of this run (see processes.py, which would load jax)."""
    several_hosts = "," in os.environ.get("TPU_WORKER_HOSTNAMES", "")
    return os.environ.get("SORA_PROCESSES", "auto" if several_hosts else "1") == "1"


def _leave(code: int) -> NoReturn:
    """Ends this process of several at once. A clean end would wait for the others, who wait for
    this one's next step."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _overview() -> str:
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {command:{width}}  {line}" for command, line in COMMANDS.items())
    return (
        "Sora in JAX: text-to-video generation.\n\nusage: sora <command> [flags]\n\n"
        f"{commands}\n\n`sora <command> --help` shows the flags of a command."
    )


def _usage(name: str, module: ModuleType) -> str:
    """Return the module's docstring and one paragraph a flag, in the order of definition."""
    own_flags: flags.FlagValues = module.FLAGS
    paragraphs = [f"{name}: {(module.__doc__ or '').strip()}", "", "flags:"]
    for flag_name in own_flags:
        flag = own_flags[flag_name]
        if flag.name != flag_name:
            continue  # The short name of a flag that is listed under its own.
        default = "" if flag.default in (None, []) else f" (default: {flag.default})"
        paragraphs.append(f"  --{'[no]' if flag.boolean else ''}{flag_name}")
        paragraphs.append(
            textwrap.fill(
                f"{' '.join(flag.help.split())}{default}",
                HELP_WIDTH,
                initial_indent=" " * 6,
                subsequent_indent=" " * 6,
            )
        )
    return "\n".join(paragraphs)
