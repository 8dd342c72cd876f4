"""Reads a YAML file as plain values that know the line they stand on.

In: a UTF-8 file of at most 1 MiB. Out: key -> `Given`. Stricter than YAML 1.1: no anchors, tags or duplicate keys.
"""

import errno
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from synclones.base.errors import InputError
from synclones.base.json_file import read_regular

MAX_YAML_BYTES = 2**20
MAX_YAML_DEPTH = 20


@dataclass(frozen=True)
class Given:
    """A value that a user wrote: a scalar, a list or a dict of `Given`, and where it stands (``file.yaml:7``)."""

    value: Any
    where: str

    def plain(self) -> Any:
        """Return the value without its lines."""
        if isinstance(self.value, dict):
            return {key: item.plain() for key, item in self.value.items()}
        return [item.plain() for item in self.value] if isinstance(self.value, list) else self.value

    def shown(self) -> str:
        """Return the value as a message shows it."""
        kinds = {dict: "a mapping", list: "a list", type(None): "null"}
        if type(self.value) in kinds:
            return kinds[type(self.value)]
        text = repr(self.value) if isinstance(self.value, str) else json.dumps(self.value)
        return text if len(text) <= 80 else f"{text[:77]}..."


class _Loader(yaml.SafeLoader):
    """Of YAML 1.1's surprises only the booleans stay: ``1e-4`` is a number; ``12:30``, ``010``, a date are text."""

    yaml_implicit_resolvers: dict[Any, Any] = {}


class Dumper(yaml.SafeDumper):
    """Quotes text that either YAML 1.1 or `_Loader` would take for something else."""


_FLOAT = re.compile(r"[-+]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][-+]?\d+)?$|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"[-+]?(0|[1-9][0-9_]*)$"), list("-+0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"(~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_BOOL = re.compile(r"(yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF)$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", _BOOL, list("yYnNtTfFoO"))
Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


def read_yaml(path: Path) -> dict[str, Given]:
    """Read a YAML mapping without anchors, tags or duplicate keys.

    Raises:
        InputError: with file and line, when it is anything else.
    """
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        text = read_regular(path, MAX_YAML_BYTES).decode()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError) as error:
        raise InputError(f"--config: cannot read {str(path)!r} ({error.strerror}); give a YAML file") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text; save it as UTF-8") from None
    except ValueError as error:  # a pipe, a device, too large
        raise InputError(f"{path}: {error}; is this the right file?") from None
    try:
        _refuse_extras(text, path)
        loader = _Loader(text)
        node = loader.get_single_node()
        given = _given(loader, node, path) if node is not None else Given({}, f"{path}:1")
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        reason = " ".join((getattr(error, "problem", None) or str(error)).split())
        raise InputError(f"{path}{f':{mark.line + 1}' if mark else ''}: not YAML ({reason}); mend this line") from None
    if not isinstance(given.value, dict | None):
        raise InputError(f"{given.where}: got {given.shown()}, expected lines of `key: value`")
    return given.value or {}


def _refuse_extras(text: str, path: Path) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        where = f"{path}:{event.start_mark.line + 1 if event.start_mark else 1}"
        if getattr(event, "anchor", None):
            raise InputError(f"{where}: anchors and aliases are not allowed; write the value out")
        if getattr(event, "tag", None):
            raise InputError(f"{where}: tags such as {event.tag!r} are not allowed; write plain values")  # type: ignore[attr-defined]
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_YAML_DEPTH:
            raise InputError(f"{where}: nested more than {MAX_YAML_DEPTH} deep; is this the right file?")


def _given(loader: yaml.SafeLoader, node: yaml.Node, path: Path) -> Given:
    where = f"{path}:{node.start_mark.line + 1}"
    if isinstance(node, yaml.SequenceNode):
        return Given([_given(loader, item, path) for item in node.value], where)
    if not isinstance(node, yaml.MappingNode):
        try:
            return Given(loader.construct_object(node), where)
        except ValueError as error:  # a number beyond Python's bounds
            raise InputError(f"{where}: not a value ({error}); write a smaller one") from None
    result: dict[str, Given] = {}
    for key_node, value_node in node.value:
        line = f"{path}:{key_node.start_mark.line + 1}"
        key = key_node.value
        if not isinstance(key, str):
            raise InputError(f"{line}: a key is a list or a mapping, expected a name; write `name: value`")
        if key in result:
            raise InputError(f"{line}: key {key!r} is given twice; keep one")
        result[key] = Given(_given(loader, value_node, path).value, line)
    return Given(result, where)
