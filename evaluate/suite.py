"""A suite: which image sets a model is evaluated on, in which roles, and where they lie below a folder of data.

In: ``evaluate/suites/NAME.yaml`` or a file of the user's. Out: `Suite`; `open_suite` opens its sets as `SuiteSet`s.
"""

import sys
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from synclones.base import machine
from synclones.base.errors import InputError, one_line
from synclones.base.resume import typed
from synclones.base.yaml_file import Given, read_yaml
from synclones.evaluate.answers.predictions import SuiteSet
from synclones.evaluate.layout import ROLES, Role, check_options, layouts

if TYPE_CHECKING:
    from synclones.evaluate.test_set import TestSet

SUITES = Path(__file__).resolve().parent / "suites"
IMAGENET = "imagenet-1k"
_TOP = {"title", "classes", "sets"}
_OF_SET = {"name", "layout", "path", "role", "images", "licence", "url"}


@dataclass(frozen=True, kw_only=True)
class Member:
    """One image set of a suite."""

    name: str
    role: Role
    layout: str
    path: str
    """Below the folder of data."""
    images: int | None = None
    """How many one part holds, where that is known."""
    licence: str = ""
    url: str = ""
    """Where it is from."""
    options: dict[str, Any] = field(default_factory=dict)
    """Of its layout."""


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Image sets in roles, one of which is the reference."""

    name: str
    """As ``--suite`` gave it: of a suite that is built in, or a path."""
    title: str
    class_ids: tuple[str, ...]
    """The classes that labels of the sets are looked up among, in the order of the model's outputs."""
    members: tuple[Member, ...]


def suite_names() -> list[str]:
    """Return the names of the suites that are built in."""
    return sorted(path.stem for path in SUITES.glob("*.yaml"))


def read_suite(given: str) -> Suite:
    """Read a suite by its name, or a file.

    Raises:
        InputError: no such suite, or a file that is none; names line and key.
    """
    path = SUITES / f"{given}.yaml"
    if given not in suite_names():
        path = Path(given)
        if not path.is_file():
            near = get_close_matches(given, suite_names(), 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise InputError(f"--suite {given}: expected one of {', '.join(suite_names())}, or a YAML file{hint}")
    top = read_yaml(path)
    for key in top:
        if key not in _TOP:
            raise InputError(f"{top[key].where}: {key}: a suite has no such key; expected {', '.join(sorted(_TOP))}")
    if "sets" not in top or not isinstance(top["sets"].value, list):
        raise InputError(f"{path}: sets: expected a list of image sets")
    members = tuple(_member(item) for item in top["sets"].value)
    class_ids = _class_ids(top.get("classes"))
    _check_members(members, str(path))
    title = _text(top["title"], "title") if "title" in top else path.stem
    return Suite(name=given, title=title, class_ids=class_ids, members=members)


def _class_ids(given: Given | None) -> tuple[str, ...]:
    if given is None or given.value == IMAGENET:
        from synclones.models.imagenet import imagenet_ids  # loads timm

        ids = imagenet_ids()
        assert ids is not None
        return ids
    if not isinstance(given.value, list) or not given.value:
        raise InputError(f"{given.where}: classes: expected {IMAGENET}, or a list of class ids")
    return tuple(_text(item, "classes") for item in given.value)


def _member(item: Given) -> Member:
    """Return one set of the file.

    Raises:
        InputError: naming the line.
    """
    if not isinstance(item.value, dict):
        raise InputError(f"{item.where}: sets: {item.shown()}: expected a mapping with name, layout and path")
    values: dict[str, Given] = item.value
    for key in ("name", "layout", "path"):
        if key not in values:
            raise InputError(f"{item.where}: sets: {key} is missing; a set has name, layout and path")
    layout_name = _text(values["layout"], "layout")
    if layout_name not in layouts():
        raise InputError(f"{values['layout'].where}: layout: {layout_name!r}: expected one of {', '.join(layouts())}")
    layout = layouts()[layout_name]
    options = {key: value for key, value in values.items() if key not in _OF_SET}
    for key, value in options.items():
        try:
            check_options(layout, {key: value.plain()})
        except InputError as error:
            raise InputError(f"{value.where}: {error}") from None
    role = _text(values["role"], "role") if "role" in values else layout.role
    if role not in ROLES:
        raise InputError(f"{values['role'].where}: role: {role!r}: expected one of {', '.join(ROLES)}")
    images = values["images"].value if "images" in values else None
    if images is not None and (type(images) is not int or images < 1):
        raise InputError(f"{values['images'].where}: images: {values['images'].shown()}: expected how many")
    return Member(
        name=_text(values["name"], "name"),
        role=cast(Role, role),
        layout=layout_name,
        path=_text(values["path"], "path"),
        images=images,
        licence=_text(values["licence"], "licence") if "licence" in values else "",
        url=_text(values["url"], "url") if "url" in values else "",
        options={key: value.plain() for key, value in options.items()},
    )


def _text(given: Given, key: str) -> str:
    if not isinstance(given.value, str) or not given.value:
        raise InputError(f"{given.where}: {key}: {given.shown()}: expected text")
    return given.value


def _check_members(members: tuple[Member, ...], path: str) -> None:
    names = [member.name for member in members]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{path}: two sets are called {name!r}; give each its own name")
    references = [member.name for member in members if member.role == "reference"]
    if len(references) != 1:
        has = f"has {len(references)}" if references else "has none"
        raise InputError(f"{path}: {has} with role reference, expected one: the set that others are compared with")


def only(suite: Suite, names: tuple[str, ...]) -> Suite:
    """Return a suite with some of its sets, by name or role; the reference is always one of them.

    Raises:
        InputError: none is called so.
    """
    if not names:
        return suite
    known = {member.name for member in suite.members} | {member.role for member in suite.members}
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise InputError(f"--sets {name}: expected some of {', '.join(sorted(known))}{hint}")
    kept = [m for m in suite.members if m.name in names or m.role in names or m.role == "reference"]
    return replace(suite, members=tuple(kept))


def open_suite(suite: Suite, data_root: Path) -> list[SuiteSet]:
    """Open all sets, the reference first.

    Raises:
        InputError: sets are missing; all of them are named. One lacks classes that it has to have, or images of the
            reference pass for outliers.
    """
    if not data_root.is_dir():
        raise InputError(f"--data-root {data_root}: no such folder; give the one below which the sets lie")
    ordered = sorted(suite.members, key=lambda member: member.role != "reference")
    missing = [member for member in ordered if not (data_root / member.path).exists()]
    looking = ["evaluate", "doctor", "--suite", suite.name, "--data-root", str(data_root)]
    look = f"look with `{typed(looking)}`"
    if missing:
        lines = ", ".join(f"{member.name} ({data_root / member.path})" for member in missing)
        raise InputError(f"--data-root {data_root}: lacks {lines}; {look}, or give those that are there by --sets")
    sets = [opened for member in ordered for opened in _open_member(member, data_root, suite.class_ids, look)]
    for of in sets:
        if of.role == "outliers" and of.test_set.source_hash == sets[0].test_set.source_hash:
            raise InputError(f"{of.name}: is the reference itself, whose images show the classes; correct its path")
    return sets


def _open_member(member: Member, data_root: Path, class_ids: tuple[str, ...], look: str) -> list[SuiteSet]:
    parts = layouts()[member.layout].open_parts(data_root / member.path, member.options, class_ids)
    sets = [
        SuiteSet(role=member.role, name=member.name, part=part.name, settings=part.settings, test_set=part.test_set)
        for part in parts
    ]
    _check_whole(member, sets, class_ids, look)
    return sets


def _check_whole(member: Member, sets: list[SuiteSet], class_ids: tuple[str, ...], look: str) -> None:
    """Refuse a set that lacks classes, and say where it has another number of images than the suite states.

    Of a set that is half unpacked answers would be sought among the classes that are there, which is easier.

    Raises:
        InputError: naming the part.
    """
    # A copy of the reference under corruptions has its classes; which others have is for the suite to say.
    copies = member.role == "corrupted" and all(of.test_set.decision == "classes" for of in sets)
    classes = member.options.get("num_classes", len(class_ids) if copies else None)
    for of in sets:
        known = len(of.test_set.class_ids)
        if classes is not None and of.test_set.decision == "classes" and known != classes:
            raise InputError(
                f"{of.title}: holds images of {known:,} classes, expected {classes:,}, and answers would be sought "
                f"among those alone; unpack the rest, or state num_classes in a suite of your own; {look}"
            )
    others = [of for of in sets if member.images is not None and len(of.test_set) != member.images]
    if others and machine.rank() == 0:
        more = f", and {len(others) - 1} more parts" if len(others) > 1 else ""
        line = f"{others[0].title}: {len(others[0].test_set):,} images, the suite states {member.images:,}{more}"
        print(one_line(f"{line}; numbers are of these; {look}"), file=sys.stderr, flush=True)


def suite_of_folders(test_set: "TestSet", outliers: dict[str, "TestSet"]) -> list[SuiteSet]:
    """Return one labelled folder as the reference, and further folders of outliers by name."""
    return [
        SuiteSet(role="reference", name=test_set.name, test_set=test_set),
        *(SuiteSet(role="outliers", name=name, test_set=others) for name, others in outliers.items()),
    ]
