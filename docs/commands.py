"""Reference pages of the site that are written from the code: a page of flags per verb, and the named settings.

In: every stage's verbs, whose settings are dataclasses with a docstring under every field, and the headers of YAML
files. Out: Markdown by its path in the site, for `docs/hooks.py`; nothing is written to the disk.
"""

import re
from importlib import import_module
from itertools import groupby
from pathlib import Path

from cyclopts import Argument

from synclones.base.config import as_command, command_app
from synclones.base.mistakes import described, shown, words
from synclones.base.ray_workers import RayConfig
from synclones.base.stage import Verb
from synclones.cli import help_text, stages

ROOT = Path(__file__).resolve().parent.parent
MAX_WORDS = 1200
NAMED = {
    "generate": {"presets": "`synclones generate --preset NAME`"},
    "train": {"recipes": "`synclones train --recipe NAME`"},
    "evaluate": {"suites": "`synclones evaluate --suite NAME`"},
    "ablate": {
        "grids": "`synclones ablate plan NAME`",
        "worlds": "`synclones ablate plan GRID --world NAME`",
        "policies": "`synclones ablate practice --policy NAME`",
    },
}
KEYS = "In a file for `--config` a key is the flag without its dashes, `-` written as `_`: `{key}` for `{flag}`."


def num_words(text: str) -> int:
    """Return how many words of a Markdown text hold a letter or a digit."""
    return sum(bool(re.search(r"\w", word)) for word in text.split())


def command_pages() -> dict[str, dict[str, str]]:
    """Return stage -> path in the site -> Markdown, for named settings and verbs; long verbs have several pages."""
    pages: dict[str, dict[str, str]] = {}
    for stage in stages():
        verbs = import_module(f"synclones.{stage}.run").STAGE.verbs
        pages[stage] = {f"reference/{stage}-names.md": _named_settings(stage)} if stage in NAMED else {}
        for word, verb in verbs.items():
            pages[stage] |= _verb_pages(f"synclones {stage} {word}", f"reference/{stage}-{word}", verb)
    pages["ray"] = _verb_pages("synclones ray", "reference/ray", Verb(RayConfig, lambda config: None))
    return pages


def list_of_commands() -> str:
    """Return the page that lists all commands, with a phrase for each and a link to its flags."""
    lines = ["# All commands", "", "```", help_text(), "```", ""]
    for stage, pages in command_pages().items():
        lines += [f"## {stage}", ""]
        for path, text in pages.items():
            title, about = text.splitlines()[0].removeprefix("# "), text.splitlines()[2]
            lines += [f"- [{title}]({path.removeprefix('reference/')}): {re.split(r'[;:.,](?: |$)', about)[0]}"]
        lines += [""]
    return "\n".join(lines)


def _verb_pages(title: str, path: str, verb: Verb) -> dict[str, str]:
    """Return the pages of one verb: its flags under their headings, as many on a page as may stand there."""
    about = " ".join((verb.settings.__doc__ or "").split("\n\n")[0].split())
    app = command_app("x")
    app.default(as_command(verb.settings, lambda made: None))
    arguments = described(app)
    texts = {heading: _flags(heading, part) for heading, part in _by_heading(arguments).items()}

    # Headings stay whole: the next one begins another page when it does not fit.
    parts: list[dict[str, str]] = [{}]
    for heading, text in texts.items():
        if parts[-1] and num_words(" ".join([*parts[-1].values(), text])) > MAX_WORDS - 120:
            parts.append({})
        parts[-1][heading] = text
    names = [f"{path}.md", *(f"{path}-{_slug(next(iter(part)))}.md" for part in parts[1:])]
    pages = {}
    for number, (name, part) in enumerate(zip(names, parts, strict=True)):
        head = f"{title}: {', '.join(part)}" if number else title
        others = [f"[{', '.join(p)}]({Path(n).name})" for n, p in zip(names, parts, strict=True) if n != name]
        lines = [f"# {head}", "", about, "", *_note(arguments)]
        lines += [f"Further flags: {'; '.join(others)}.", ""] if others else []
        pages[name] = "\n".join([*lines, *part.values()])
    return pages


def _note(arguments: dict[str, Argument]) -> list[str]:
    """Return the sentence on YAML keys, with a flag of this verb as its example."""
    long = [name for name in arguments if "_" in name] or list(arguments)
    return [KEYS.format(key=long[0], flag=shown(arguments[long[0]])), ""] if long else ["It has no flags.", ""]


def _by_heading(arguments: dict[str, Argument]) -> dict[str, list[tuple[str, Argument]]]:
    """Return heading -> (YAML key, argument), in the order of `--help`."""

    def place(item: tuple[str, Argument]) -> tuple[int, str]:
        group = (item[1].parameter.group or ("",))[0]
        name = getattr(group, "name", group) or "Flags"
        order = getattr(group, "_sort_key", None)
        return (order[1] if isinstance(order, tuple) else -1, "Flags" if name in ("Parameters", "Arguments") else name)

    ordered = sorted(arguments.items(), key=place)
    return {heading: list(items) for (_, heading), items in groupby(ordered, key=place)}


def _flags(heading: str, arguments: list[tuple[str, Argument]]) -> str:
    lines = [f"## {heading}", ""]
    for key, argument in arguments:
        default = argument.field_info.default
        default = " ".join(map(str, default)) if isinstance(default, tuple) else default
        said = "required" if argument.required else f"default `{default}`"
        said = "" if said.endswith(("`None`", "`False`", "``")) else f"; {said}"
        text = " ".join((argument.parameter.help or "").split())
        kind = words(argument.field_info.annotation).removesuffix(" or null")
        lines += [f"### `{shown(argument)}` {{#{key.replace('_', '-')}}}", "", f"{kind}{said}", "", text, ""]
    return "\n".join(lines)


def _named_settings(stage: str) -> str:
    """Return the page of a stage's YAML files, each with the first line of its header."""
    about = "YAML files of the package, by name. Flags and `--config` files override what they say."
    lines = [f"# Named settings of {stage}", "", about, ""]
    for folder, use in NAMED[stage].items():
        lines += [f"## {use}", ""]
        for file in sorted((ROOT / stage / folder).glob("*.yaml")):
            header = file.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
            lines += [f"- **{file.stem}**: {header}"]
        lines += [""]
    return "\n".join(lines)


def _slug(heading: str) -> str:
    return re.sub(r"\W+", "-", heading.lower()).strip("-")
