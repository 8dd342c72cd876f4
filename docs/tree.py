"""Writes what documents take from the code: tree, prompt recipes, metrics, deviations of the published evaluation.

In: the files git tracks, and what they say of themselves. Out: the blocks between the markers of four pages, renewed.

    python docs/tree.py
"""

import ast
import re
import subprocess
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
PAGE, PROMPTS_PAGE = ROOT / "docs" / "design.md", ROOT / "docs" / "reference" / "prompt_recipes.md"
DEVIATIONS_PAGE, METRICS_PAGE = ROOT / "docs" / "deviations.md", ROOT / "docs" / "evaluation.md"
BEGIN, END = "<!-- written by `make tree` -->\n", "<!-- end of what `make tree` writes -->\n"
ROOMS = {
    "base": "what every room stands on",
    "prompts": "what to draw",
    "generate": "draws it",
    "shards": "keeps images and hands them out",
    "models": "classifiers and their preprocessing",
    "train": "shards to a clone",
    "evaluate": "a clone to numbers with intervals",
    "lab": "a miniature world: real digits, a tiny Stable Diffusion",
    "ablate": "grids of all of the above",
    "serve": "shows sets, runs and results in a web browser",
}
# The order in which data passes through the files at a room's top; elsewhere a file stands above what it imports.
STORY = {
    "base": "errors files json_file yaml_file config mistakes stage output machine resume progress status draws "
    "weights differences manifest page",
    "prompts": "run settings build recipe places facts table schema characters overview clip_tokens show",
    "generate": "run job settings options plan target workers worker batch batch_size retry extend redraw remote "
    "publish finish progress",
    "shards": "run read shard verify sidecar index write journal tar lock schema mirror card",
    "train": "run settings job objective training_batch shares starting token_column caching launch loop validation "
    "progress dry_run replay",
    "evaluate": "run own_model settings suite inputs layout test_set foreign evaluation protocols predict axis measure "
    "compare finish explain",
    "serve": "run app folders dataset search prompt_texts",
}
INDENT, COLUMN = 2, 28


def package_files() -> list[str]:
    """Return the package's files: those of the rooms and the modules beside them."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    kept = (name for name in names if (ROOT / name).is_file())
    return sorted(name for name in kept if name.split("/")[0] in ROOMS or ("/" not in name and name.endswith(".py")))


def phrase(name: str) -> str:
    """Return the first sentence of a Python file's docstring, or the first comment of a YAML file."""
    text = (ROOT / name).read_text(encoding="utf-8")
    if name.endswith(".py"):
        lines = (ast.get_docstring(ast.parse(text)) or "").splitlines()
        return lines[0].rstrip(".") if lines else ""
    return re.split(r"(?<=[^ .]{3})\. ", text.splitlines()[0].removeprefix("# "))[0].rstrip(".:")


def imported(name: str, names: set[str]) -> set[str]:
    """Return which of ``names`` the Python file ``name`` imports."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / name).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            modules |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
    return {path for path in names if f"synclones.{path.removesuffix('.py').replace('/', '.')}" in modules}


def reading_order(names: list[str]) -> list[str]:
    """Return the Python files of one folder in the order of their story, else each above what it imports."""
    arrows = {name: imported(name, set(names)) - {name} for name in names}
    story = [f"{folder}/{word}.py" for folder, words in STORY.items() for word in words.split()]
    ordered = [name for name in story if name in names]
    while left := [name for name in names if name not in ordered]:
        free = [name for name in left if not any(name in arrows[other] for other in left)] or left
        ordered.append(min(free, key=lambda name: (not name.endswith("/run.py"), name)))
    return ordered


def folder_lines(folder: str, names: list[str], depth: int) -> list[str]:
    """Return the lines of one folder: its Python files, its YAML files, other files counted, then its sub-rooms."""
    pad, own = " " * INDENT * depth, [name for name in names if str(Path(name).parent) == (folder or ".")]
    listed = reading_order([name for name in own if name.endswith(".py")])
    listed += [name for name in own if name.endswith(".yaml")]
    lines = [f"{pad}{Path(name).name:<{COLUMN - len(pad) - 1}} {phrase(name)}" for name in listed]
    for suffix in sorted({Path(name).suffix for name in own} - {".py", ".yaml"}):
        data = [Path(name).name for name in own if name.endswith(suffix)]
        shown = data[0] if len(data) == 1 else f"*{suffix}"
        words = "data" if len(data) == 1 else f"{len(data)} files of data"
        lines.append(f"{pad}{shown:<{COLUMN - len(pad) - 1}} {words}")
    below = sorted({name.split("/")[depth] for name in names if folder and name.count("/") > depth})
    for part in below:
        path = f"{folder}/{part}"
        lines += [f"{pad}{part}/", *folder_lines(path, [n for n in names if n.startswith(f"{path}/")], depth + 1)]
    return lines


def tree() -> str:
    """Return the whole tree as the text of a code block."""
    names = package_files()
    lines = folder_lines("", [name for name in names if "/" not in name], 0)
    for room, words in ROOMS.items():
        lines += ["", f"{room + '/':<{COLUMN}}{words}"]
        lines += folder_lines(room, [name for name in names if name.startswith(f"{room}/")], 1)
    return "```\n" + "\n".join(line.rstrip() for line in lines) + "\n```\n"


def recipe_table() -> str:
    """Return the table of prompt recipes: text, example and source as each recipe's docstring states them."""
    lines = ["| recipe | what it says | text | example | after |", "|---|---|---|---|---|"]
    for name in (name for name in package_files() if name.startswith("prompts/recipes/") and name.endswith(".py")):
        docstring = ast.get_docstring(ast.parse((ROOT / name).read_text(encoding="utf-8"))) or ""
        facts = [re.search(rf"^{key}: *(.*)$", docstring, re.M) for key in ("Text", "Example", "Paper")]
        cells = [f"`{Path(name).stem.replace('_', '-')}`", phrase(name), *(fact[1] if fact else "" for fact in facts)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def deviation_table() -> str:
    """Return the table of deviations of the published evaluation, as its data file states them."""
    rows = yaml.safe_load((ROOT / "evaluate" / "published" / "deviations.yaml").read_text(encoding="utf-8"))
    lines = ["| | what the code does | effect | tables | right number | switch |", "|---|---|---|---|---|---|"]
    mends = {"logs": "from the logs", "run": "needs a run", "none": "is of another model"}
    for name, facts in rows.items():
        where = ", ".join(map(str, facts["tables"])) or "Figure 4"
        switch = "yes" if facts["switchable"] else "no"
        cells = [name, facts["code"], facts["effect"], where, mends[facts["mends"]], switch]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def metric_tables() -> str:
    """Return the table of all metrics, as their axes state them, and that of the deviations' titles."""
    from synclones.evaluate.axis import metrics
    from synclones.evaluate.published.deviations import deviations, of_metric

    lines = ["| name in results | unit | better | touched by |", "|---|---|---|---|"]
    alike: dict[tuple[str, ...], list[str]] = {}
    for metric in metrics().values():
        touched = " ".join(item.id for item in of_metric(metric.name))
        alike.setdefault((metric.unit, metric.better, touched), []).append(f"`{metric.name}`")
    lines += [f"| {' | '.join([', '.join(names), *facts])} |" for facts, names in alike.items()]
    lines += ["", "| | deviation of the papers' code | switch |", "|---|---|---|"]
    lines += [f"| {d.id} | {d.title} | {'yes' if d.switchable else 'no'} |" for d in deviations().values()]
    return "\n".join(lines) + "\n"


def renewed(page: str, block: str = "") -> str:
    """Return the page with its block renewed: the tree, or another one."""
    before, _, rest = page.partition(BEGIN)
    return before + BEGIN + (block or tree()) + END + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    PROMPTS_PAGE.write_text(renewed(PROMPTS_PAGE.read_text(encoding="utf-8"), recipe_table()), encoding="utf-8")
    DEVIATIONS_PAGE.write_text(
        renewed(DEVIATIONS_PAGE.read_text(encoding="utf-8"), deviation_table()), encoding="utf-8"
    )
    METRICS_PAGE.write_text(renewed(METRICS_PAGE.read_text(encoding="utf-8"), metric_tables()), encoding="utf-8")
