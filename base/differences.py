"""Says how two sets of settings differ: the sentence of every refusal to go on with another's plan.

In: the settings that a folder has, and those asked for. Out: ``steps 20 there, 25 asked, ...``; empty when they agree.
"""

from collections.abc import Mapping
from typing import Any

MAX_CHARS = 60


Settings = Mapping[str, Any]


def differences(stored: Settings, asked: Settings, words: tuple[str, str] = ("there", "asked")) -> str:
    """Return ``key STORED there, ASKED asked`` of every setting that differs, one level into nested ones."""
    old, new = _flat(stored), _flat(asked)
    changed = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return ", ".join(f"{key} {_short(old.get(key))} {words[0]}, {_short(new.get(key))} {words[1]}" for key in changed)


def _flat(values: Settings) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= {f"{key}.{inner}": inner_value for inner, inner_value in value.items()}
        else:
            flat[key] = value
    return flat


def _short(value: object) -> str:
    """Return a value as one reads it: a hash by its first digits, a long text by its beginning."""
    text = str(value)
    if len(text) == 64 and text.isalnum():
        return f"{text[:12]}…"
    shown = repr(value)
    return shown if len(shown) <= MAX_CHARS else f"{shown[: MAX_CHARS - 3]}..."
