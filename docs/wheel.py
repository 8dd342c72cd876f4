"""Build the wheel that others install: like the checkout's, with a README whose pictures and links work on any page.

In: the checkout, and the address of its repository. Out: ``dist/synclones-VERSION-py3-none-any.whl``. It is built in a
copy, since a build writes into its source.

    python docs/wheel.py --repository https://github.com/OWNER/synclones       # make wheel REPOSITORY=...
"""

import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from synclones.base.config import load
from synclones.base.errors import InputError
from synclones.base.process import run_main

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"(!?)\[((?:[^\]\[]|\[[^\]]*\])*)\]\((?!https?://|#|mailto:)([^)\s]+)\)")
ADDRESS = re.compile(r"https://[\w.-]+/[\w./-]*[\w-]")


@dataclass(frozen=True, kw_only=True)
class WheelConfig:
    """Build the wheel that others install."""

    repository: str
    """Address of the repository, https://HOST/OWNER/NAME; pages are below its /blob and files below its /raw."""
    branch: str = "v{version}"
    """Branch or tag that links point to; by default the tag of the version."""
    out: Path = ROOT / "dist"
    """Folder of the wheel."""


def whole_links(text: str, repository: str, revision: str) -> str:
    """Return Markdown whose relative links lead to the repository: pictures to the file itself, others to its page.

    Raises:
        InputError: a link leads to no file of the checkout.
    """

    def whole(match: re.Match[str]) -> str:
        picture, shown, target = match.groups()
        if not (ROOT / target.partition("#")[0]).exists():
            raise InputError(f"README.md: links to {target}, which is no file; correct the link")
        return f"{picture}[{shown}]({repository}/{'raw' if picture else 'blob'}/{revision}/{target})"

    return LINK.sub(whole, text)


def main(argv: list[str]) -> None:
    """Build it."""
    config = load(WheelConfig, argv, "python docs/wheel.py")
    repository = config.repository.removesuffix(".git").rstrip("/")
    if not ADDRESS.fullmatch(repository):
        raise InputError(f"--repository: got {config.repository!r}, expected https://HOST/OWNER/NAME")
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    revision = config.branch.format(version=version)
    with TemporaryDirectory(prefix="synclones-") as temporary:
        copy = Path(temporary)
        _copy_checkout(copy)
        readme, project = copy / "README.md", copy / "pyproject.toml"
        text = readme.read_text(encoding="utf-8")
        readme.write_text(whole_links(text, repository, revision), encoding="utf-8")
        urls = {"Repository": repository, "Issues": f"{repository}/issues"}
        urls["Changelog"] = f"{repository}/blob/{revision}/CHANGELOG.md"
        lines = "".join(f'{name} = "{address}"\n' for name, address in urls.items())
        text = project.read_text(encoding="utf-8")
        project.write_text(text.replace("[project.urls]\n", f"[project.urls]\n{lines}", 1), encoding="utf-8")
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "."]
        done = subprocess.run([*command, "-w", str(config.out.absolute())], cwd=copy)
    if done.returncode:
        raise SystemExit(1)  # pip's own lines say why
    print(f"written: {config.out}; try it in a fresh environment: pip install {config.out}/synclones-{version}-*.whl")


def _copy_checkout(copy: Path) -> None:
    """Copy the tracked files, and new ones that git does not ignore."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    for name in (name for name in names if (ROOT / name).is_file()):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, copy / name)


if __name__ == "__main__":
    run_main(lambda: main(sys.argv[1:]))
