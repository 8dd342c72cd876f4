"""The lab's defaults for commands that were given no input: which file or folder, and how it is made when missing.

In: nothing. Out: paths. Only ``run.py`` files import this; nothing else knows that the lab exists.
"""

import sys
from pathlib import Path

import synclones
from synclones.prompts.build import build
from synclones.prompts.classes import load_classes

GENERATOR = Path(list(synclones.__path__)[0]) / "lab" / "generator"
PROMPTS = Path("data/prompts/lab-clip-templates.parquet")
NUM_PROMPTS = 1000


def ensure_prompts() -> Path:
    """The lab's prompt table, 1,000 rows of CLIP templates over ten digits; built in under a second when missing."""
    if not PROMPTS.exists():
        print(
            f"no --prompts given: building {PROMPTS} ({NUM_PROMPTS} prompts of the lab, about a second)",
            file=sys.stderr,
        )
        PROMPTS.parent.mkdir(parents=True, exist_ok=True)
        build("clip-templates", load_classes("lab-digits"), NUM_PROMPTS, 0, PROMPTS)
    return PROMPTS
