"""A world: what a grid's words stand for somewhere, in the lab, at CIFAR-10's size, or at that of ImageNet.

In: `ablate/worlds/NAME.yaml`, or a file of the user's. Out: a `World`: class lists and recipes, inputs from outside,
steps that make the rest, rates and prices with their sources.
"""

from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

from synclones.ablate.grid import StepTemplate, counts, file_of, mapping, read_steps, refuse_unknown, shipped, text
from synclones.base.errors import InputError
from synclones.base.files import sha256_bytes, sha256_file
from synclones.base.json_file import canonical_json
from synclones.base.manifest import MANIFEST_FILE, read_manifest
from synclones.base.mistakes import suggestion
from synclones.base.yaml_file import Given, read_yaml

FOLDER = Path(__file__).parent / "worlds"
_KEYS = ("title", "unit", "values", "inputs", "steps", "machine", "rates", "price", "grids")
_INPUT_KEYS = ("path", "get", "identity", "gb")
_RATE_KEYS = ("per_second", "seconds", "bytes", "source")
HASHED_BYTES = 2**28


@dataclass(frozen=True)
class Input:
    """A file or folder from outside.

    Attributes:
        where_it_lies: its path.
        get: how to get it.
        stated: what it is known by, of a published set; otherwise its content says.
        gigabytes: how large it is, about.
    """

    name: str
    where_it_lies: str
    get: str
    stated: str
    gigabytes: float

    @cached_property
    def identity(self) -> str:
        """What it is known by: stated, of its manifest, of its bytes, or of its files' names and sizes."""
        return f"input:{self.stated or _content(Path(self.where_it_lies))}"

    @property
    def is_missing(self) -> bool:
        """Whether nothing lies at its path."""
        return not Path(self.where_it_lies).exists()

    def path(self, out: Path) -> str:
        """Return its path."""
        return self.where_it_lies


@dataclass(frozen=True)
class Rate:
    """What a kind of step costs.

    Attributes:
        per_second: units of its amount that one process of this world does in a second; 0 where ``seconds`` says it.
        seconds: of one step, whatever its amount.
        bytes: of each unit of its amount on the disk.
        source: where the number is from.
    """

    per_second: float
    seconds: float
    bytes: float
    source: str

    def hours(self, amount: float) -> float:
        """Return the process hours of a step."""
        return (amount / self.per_second if self.per_second else self.seconds) / 3600


@dataclass(frozen=True)
class Defaults:
    """What a grid has in this world where no flag says otherwise."""

    scale: Fraction | None
    budget: dict[str, int]
    """Counts in place of the grid's, not scaled."""


@dataclass(frozen=True)
class World:
    """What references to the world find, and what steps cost here.

    Attributes:
        unit: what an hour of one process is called, such as GPU-hours.
        values: name -> scalar, list or mapping.
        machine: command -> flags that change how fast it is and nothing else; they are in no address.
        price: dollars of a process hour, and where that is from.
    """

    name: str
    path: Path
    title: str
    unit: str
    values: dict[str, Given]
    inputs: dict[str, Input]
    steps: dict[str, StepTemplate]
    machine: dict[str, dict[str, Any]]
    rates: dict[str, Rate]
    price: float
    price_source: str
    grids: dict[str, Defaults]

    def defaults(self, grid: str) -> Defaults:
        """Return what a grid has here."""
        return self.grids.get(grid, Defaults(None, {}))

    def names(self) -> list[str]:
        """Return everything that `{world.NAME}` may be."""
        return [*self.values, *self.inputs, *self.steps]

    def with_inputs(self, given: tuple[str, ...]) -> "World":
        """Return the world with inputs that lie elsewhere, of texts ``NAME=PATH``, and are known by their content.

        Raises:
            InputError: it has no such input.
        """
        inputs = dict(self.inputs)
        for item in given:
            name, equals, path = item.partition("=")
            if not equals or not path:
                raise InputError(f"--input: {item!r} is no NAME=PATH; write one, as in real=data/imagenet/train")
            if name not in inputs:
                known = suggestion(name, list(inputs)) if inputs else "; it has none"
                raise InputError(f"--input: the world {self.name} has no input {name!r}{known}")
            # What lies elsewhere may be another, whatever the world says of its own: it is known by its content.
            inputs[name] = replace(inputs[name], where_it_lies=path, stated="")
        return replace(self, inputs=inputs)


def world_names() -> list[str]:
    """Return the worlds that the package has."""
    return shipped(FOLDER)


def worlds_with(name: str) -> list[str]:
    """Return the worlds of the package that state a name."""
    return [world for world in world_names() if name in read_world(world).names()]


def read_world(name: str) -> World:
    """Read a world by name, or the file of one.

    Raises:
        InputError: no such world, or file and line of what is wrong in it.
    """
    path = file_of(name, FOLDER, "--world")
    given = read_yaml(path)
    refuse_unknown(given, _KEYS, "a world")
    part = {key: mapping(given[key], key) if key in given else {} for key in ("values", "inputs", "machine", "rates")}
    grids = mapping(given["grids"], "grids") if "grids" in given else {}
    price, price_source = _price(given.get("price"))
    return World(
        name=path.stem,
        path=path,
        title=text(given["title"], "title") if "title" in given else path.stem,
        unit=text(given["unit"], "unit") if "unit" in given else "process hours",
        values=part["values"],
        inputs={name: _input(name, item) for name, item in part["inputs"].items()},
        steps=read_steps(given["steps"]) if "steps" in given else {},
        machine={name: Given(mapping(item, name), item.where).plain() for name, item in part["machine"].items()},
        rates={name: _rate(name, item) for name, item in part["rates"].items()},
        price=price,
        price_source=price_source,
        grids={name: _defaults(name, item) for name, item in grids.items()},
    )


def _input(name: str, given: Given) -> Input:
    item = mapping(given, name)
    refuse_unknown(item, _INPUT_KEYS, "an input")
    path = text(item["path"], "path") if "path" in item else ""
    if not path or "get" not in item:
        raise InputError(f"{given.where}: {name}: an input needs `path:` and `get:`, how to get it")
    stated = text(item["identity"], "identity") if "identity" in item else ""
    size = _number(item["gb"], "gb") if "gb" in item else 0.0
    return Input(name, path, text(item["get"], "get"), stated, size)


def _rate(name: str, given: Given) -> Rate:
    item = mapping(given, name)
    refuse_unknown(item, _RATE_KEYS, "a rate")
    if "source" not in item or ("per_second" in item) == ("seconds" in item):
        raise InputError(f"{given.where}: {name}: a rate needs `source:`, and `per_second:` or `seconds:`")
    numbers = {key: _number(item[key], key) if key in item else 0.0 for key in ("per_second", "seconds", "bytes")}
    return Rate(**numbers, source=text(item["source"], "source"))


def _price(given: Given | None) -> tuple[float, str]:
    if given is None:
        return 0.0, ""
    item = mapping(given, "price")
    refuse_unknown(item, ("per_hour", "source"), "a price")
    if item.keys() != {"per_hour", "source"}:
        raise InputError(f"{given.where}: price: needs `per_hour:`, in dollars, and `source:`")
    return _number(item["per_hour"], "per_hour"), text(item["source"], "source")


def _defaults(name: str, given: Given) -> Defaults:
    item = mapping(given, name)
    refuse_unknown(item, ("scale", "budget"), "a grid in a world")
    scale = parse_scale(str(item["scale"].value), f"{item['scale'].where}: scale") if "scale" in item else None
    return Defaults(scale, counts(item.get("budget"), "budget"))


def parse_scale(value: str, what: str = "--scale") -> Fraction:
    """Return a scale: a share such as 1/4000 or 0.01, above 0 and at most 1.

    Raises:
        InputError: it is anything else.
    """
    try:
        scale = Fraction(value) if len(value) <= 40 else Fraction(0)
    except (ValueError, ZeroDivisionError):
        scale = Fraction(0)
    if not 0 < scale <= 1:
        raise InputError(f"{what}: {value[:40]!r} was given, expected a share such as 1/4000, above 0 and at most 1")
    return scale


def _number(given: Given, what: str) -> float:
    if isinstance(given.value, bool) or not isinstance(given.value, int | float) or not given.value >= 0:
        raise InputError(f"{given.where}: {what}: got {given.shown()}, expected a number of at least 0")
    return float(given.value)


def _content(path: Path) -> str:
    """Return what lies at a path as a text: by manifest, bytes, or the names and sizes of its files."""
    if not path.exists():
        return f"absent:{path.name}"
    if (path / MANIFEST_FILE).exists():
        return str(read_manifest(path).get("content_hash") or sha256_file(path / MANIFEST_FILE))
    if path.is_file() and path.stat().st_size <= HASHED_BYTES:
        return sha256_file(path)
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    return sha256_bytes(canonical_json([[str(file.relative_to(path)), file.stat().st_size] for file in files]))
