"""Configs: what overrides read and refuse, round trips, fingerprints, and experiment files."""

import dataclasses
import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sora_jax import config as configs
from sora_jax.config import ConfigError, override


@dataclass(frozen=True)
class Steps:
    count: int


@dataclass(frozen=True)
class Samples:
    count: int


@dataclass(frozen=True)
class Bucket:
    frames: int
    height: int = 32
    weight: float = 1.0


@dataclass(frozen=True)
class Transformer:
    depth: int = 4
    width: int = 96
    heads: int = 3
    patch: tuple[int, int, int] = (1, 2, 2)
    remat: Literal["none", "full", "dots"] = "none"
    dropout: float | None = None
    checked: bool = True

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ConfigError(f"width {self.width} is not divisible by {self.heads} heads")


@dataclass(frozen=True)
class Data:
    directory: str | None = None
    buckets: tuple[Bucket, ...] = (Bucket(9), Bucket(1))
    colours: tuple[str, ...] = ("red", "blue")


@dataclass(frozen=True)
class Root:
    name: str = "demo"
    dit: Transformer = field(default_factory=Transformer)
    data: Data = field(default_factory=Data)
    duration: Steps | Samples = Steps(100)


DEFAULT = Root()

whole = st.integers(-(2**40), 2**40)
number = st.floats(allow_nan=False, allow_infinity=False)
buckets = st.builds(Bucket, frames=whole, height=whole, weight=number)
roots = st.builds(
    Root,
    name=st.text(),
    dit=st.builds(
        Transformer,
        depth=whole,
        patch=st.tuples(whole, whole, whole),
        remat=st.sampled_from(["none", "full", "dots"]),
        dropout=st.none() | number,
        checked=st.booleans(),
    ),
    data=st.builds(
        Data,
        directory=st.none() | st.text(),
        buckets=st.tuples(buckets, buckets),
        colours=st.lists(st.text(), max_size=3).map(tuple),
    ),
    duration=st.builds(Steps, whole) | st.builds(Samples, whole),
)


def at(config: Any, name: str) -> Any:
    """Return the value at a dotted name."""
    for part in name.split("."):
        config = config[int(part)] if part.isdigit() else getattr(config, part)
    return config


@pytest.mark.parametrize(
    ("assignment", "value"),
    [
        ("name=12", "12"),
        ("name='quoted = text'", "quoted = text"),
        ("name=a/path with spaces", "a/path with spaces"),
        ("name=none", "none"),
        ("name=f(x)", "f(x)"),
        ("dit.depth=12", 12),
        (" dit.depth = 1_000 ", 1000),
        ("dit.patch=1,4,4", (1, 4, 4)),
        ("dit.patch=[2, 4, 4]", (2, 4, 4)),
        ("dit.remat=full", "full"),
        ("dit.remat='dots'", "dots"),
        ("dit.dropout=1", 1.0),
        ("dit.dropout=-1e-4", -1e-4),
        ("dit.dropout=None", None),
        ("dit.checked=false", False),
        ("dit.checked=True", True),
        ("data.directory=none", None),
        ("data.directory=runs/set", "runs/set"),
        ("data.directory=7", "7"),
        ("data.buckets.1.weight=2", 2.0),
        ("data.buckets=(Bucket(frames=5),)", (Bucket(5),)),
        ("data.buckets.0=Bucket(frames=5, weight=3)", Bucket(5, weight=3.0)),
        ("data.colours=green, 'dark red'", ("green", "dark red")),
        ("data.colours=()", ()),
        ("duration=Samples(count=7)", Samples(7)),
        ("duration.count=7", 7),
    ],
)
def test_override_reads_value_by_annotation(assignment: str, value: object) -> None:
    name = assignment.partition("=")[0].strip()
    changed = override(DEFAULT, assignment)
    assert at(changed, name) == value
    assert type(at(changed, name)) is type(value)
    # Nothing but the named field differs.
    before, after = (configs.to_text(config).splitlines() for config in (DEFAULT, changed))
    line_start = "duration" if name.startswith("duration") else name
    rest = [line for line in before if not line.startswith(line_start)]
    assert rest == [line for line in after if not line.startswith(line_start)]


@pytest.mark.parametrize(
    ("assignment", "sentence"),
    [
        ("dit.depth=twelve", "dit.depth expects an integer, got 'twelve'"),
        ("dit.depth=12.0", "dit.depth expects an integer, got 12.0"),
        ("dit.depth=true", "dit.depth expects an integer, got 'true'"),
        ("dit.checked=1", "dit.checked expects true or false, got 1"),
        ("dit.dropout=1e999", "dit.dropout expects a finite number or none, got inf"),
        ("dit.patch=2", "dit.patch expects a list of 3: an integer, an integer, an integer, got 2"),
        ("dit.patch=1,2,x", "dit.patch.2 expects an integer, got 'x'"),
        (
            "dit.remat=ful",
            "dit.remat expects one of 'none', 'full', 'dots', got 'ful'; did you mean 'full'?",
        ),
        ("dit.dpeth=12", "no field 'dit.dpeth'; did you mean 'dit.depth'?"),
        ("dti.depth=12", "no field 'dti'; did you mean 'dit'?"),
        ("depth=12", "no field 'depth'; did you mean 'dit.depth'?"),
        ("zzz=1", "no field 'zzz'; the config has name, dit, data, duration"),
        ("duration.zzz=1", "no field 'duration.zzz'; 'duration' has count"),
        ("data.buckets.7.weight=2", "no item 'data.buckets.7'; data.buckets has 2, counted from 0"),
        ("data.directory.x=2", "no field 'data.directory.x'; data.directory is None"),
        (
            "data.buckets.0=Bucket(frame=1)",
            "no field 'data.buckets.0.frame'; did you mean 'frames'?",
        ),
        (
            "data.buckets.0=Bucket(height=1)",
            "data.buckets.0.frames is missing and has no default",
        ),
        (
            "duration=Tokens(count=1)",
            "duration expects Steps(count=...) or Samples(count=...), got 'Tokens'",
        ),
        ("dit.width=97", "width 97 is not divisible by 3 heads"),
        (
            "dit.depth",
            "'dit.depth' is not an override; write a dotted name, '=' and a value, "
            "for example dit.depth=12",
        ),
    ],
)
def test_override_refuses_with_one_sentence(assignment: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as error:
        override(DEFAULT, assignment)
    assert str(error.value) == sentence


def test_overrides_are_checked_together_and_the_last_wins() -> None:
    changed = override(DEFAULT, "dit.heads=4", "dit.width=100", "dit.heads=5")
    assert (changed.dit.heads, changed.dit.width) == (5, 100)
    assert DEFAULT.dit.heads == 3
    with pytest.raises(ConfigError, match="'data.buckets' is set together with one of its own"):
        override(DEFAULT, "data.buckets.0.weight=2", "data.buckets=()")
    with pytest.raises(ConfigError, match="set together with the whole of 'buckets'"):
        override(DEFAULT, "data.buckets=()", "data.buckets.0.weight=2")


@given(roots)
def test_plain_data_and_printed_lines_give_the_config_back(config: Root) -> None:
    plain = json.loads(json.dumps(configs.to_dict(config)))
    assert configs.from_dict(Root, plain) == config
    assert override(DEFAULT, *configs.to_text(config).splitlines()) == config


@given(roots, roots)
def test_fingerprints_are_equal_just_for_equal_configs(first: Root, second: Root) -> None:
    equal = configs.to_dict(first) == configs.to_dict(second)
    assert (configs.fingerprint(first) == configs.fingerprint(second)) == equal
    copy = configs.from_dict(Root, configs.to_dict(first))
    assert configs.fingerprint(copy) == configs.fingerprint(first)


def test_fingerprint_is_the_same_in_every_version_and_process() -> None:
    assert configs.fingerprint(DEFAULT) == "febb0bffe080"
    as_integer = override(DEFAULT, "dit.dropout=1")
    assert configs.fingerprint(as_integer) == configs.fingerprint(
        dataclasses.replace(DEFAULT, dit=Transformer(dropout=1))
    )


@dataclass(frozen=True)
class Renewed(Transformer):
    window: int | None = field(default=None, metadata=configs.LATER)


def test_a_later_field_at_its_default_changes_no_fingerprint() -> None:
    assert configs.to_dict(Renewed()) == configs.to_dict(Transformer())
    assert configs.fingerprint(Renewed(window=4)) != configs.fingerprint(Renewed())
    for config in (Renewed(), Renewed(window=4)):
        assert configs.from_dict(Renewed, configs.to_dict(config)) == config


def test_save_and_load(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    changed = override(DEFAULT, "dit.depth=12", "duration=Samples(count=3)")
    configs.save(changed, path)
    assert configs.load(Root, path) == changed
    assert [file.name for file in tmp_path.iterdir()] == ["config.json"]


def test_failed_save_leaves_the_old_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    configs.save(DEFAULT, path)
    before = path.read_bytes()
    broken = dataclasses.replace(DEFAULT, dit=Transformer(dropout=float("inf")))
    with pytest.raises(ConfigError, match=r"dit\.dropout is inf"):
        configs.save(broken, path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["config.json"]
    with pytest.raises(ConfigError, match="cannot write the config .*: No such file"):
        configs.save(DEFAULT, tmp_path / "absent" / "config.json")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "is not JSON"),
        ("[]", r"does not fit this version: the config expects Root\("),
        ('{"dit": {"dpeth": 3}}', r"no field 'dit\.dpeth'; did you mean 'depth'"),
        ('{"dit": {"depth": "3"}}', r"dit\.depth expects an integer, got '3'"),
        ('{"dit": {"checked": "true"}}', r"dit\.checked expects true or false, got 'true'"),
    ],
)
def test_load_names_what_is_wrong_with_the_file(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=sentence) as error:
        configs.load(Root, path)
    assert str(path) in str(error.value)


def test_a_field_that_a_saved_config_lacks_takes_its_default() -> None:
    data = configs.to_dict(DEFAULT)
    del data["dit"]["depth"]
    assert configs.from_dict(Root, data) == DEFAULT


EXPERIMENT = '''"""An experiment."""
from dataclasses import dataclass

@dataclass(frozen=True)
class Experiment:
    depth: "int" = {depth}
    width: int = 8

def experiment():
    return Experiment()
'''


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with two experiments, one built on the other."""
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "tiny_a.py").write_text(EXPERIMENT.format(depth=2))
    (tmp_path / "experiments" / "tiny_b.py").write_text(
        "import dataclasses\nfrom experiments import tiny_a\n"
        "def experiment():\n    return dataclasses.replace(tiny_a.experiment(), width=16)\n"
    )
    monkeypatch.chdir(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] == "experiments"]:
        monkeypatch.delitem(sys.modules, name)
    return tmp_path


def test_load_experiment_by_name_and_by_path(checkout: Path) -> None:
    by_name = configs.load_experiment("tiny_a", ["depth=3"])
    assert (by_name.depth, by_name.width) == (3, 8)
    by_path = configs.load_experiment(str(checkout / "experiments" / "tiny_b.py"))
    assert (by_path.depth, by_path.width) == (2, 16)


def test_load_experiment_says_what_there_is(checkout: Path) -> None:
    with pytest.raises(ConfigError, match=r"no experiment 'tinya'; did you mean 'tiny_a'\?"):
        configs.load_experiment("tinya")
    with pytest.raises(ConfigError, match=r"no experiment 'xyz'; there are: .*tiny_a, tiny_b"):
        configs.load_experiment("xyz")
    with pytest.raises(ConfigError, match=r"there is no experiment file none/here\.py"):
        configs.load_experiment("none/here.py")


def test_load_experiment_checks_what_the_file_returns(checkout: Path) -> None:
    (checkout / "experiments" / "wrong.py").write_text(EXPERIMENT.format(depth="'two'"))
    with pytest.raises(ConfigError, match="^depth expects an integer, got 'two'$"):
        configs.load_experiment("wrong")
    (checkout / "experiments" / "empty.py").write_text("")
    with pytest.raises(ConfigError, match=r"empty\.py has no function experiment\(\)"):
        configs.load_experiment("empty")
    (checkout / "experiments" / "nothing.py").write_text("def experiment(): pass\n")
    with pytest.raises(ConfigError, match="returned None, not a dataclass"):
        configs.load_experiment("nothing")


def test_importing_config_imports_no_jax() -> None:
    script = (
        "import sys, sora_jax.config; sys.exit(any(m in sys.modules for m in ('jax', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
