"""Builds the documents as a site.

`make docs` writes it to build/docs. The site is README.md as its home, the other documents of the
root, and docs/: their text as it is, with links between the two places made to fit. A warning of
MkDocs, such as a link or an anchor that leads nowhere, ends the build.
"""

from __future__ import annotations

import argparse
import logging
import re
import shutil
import sys
import tempfile
from pathlib import Path

from shortlist.infra.tools.docs import ROOT

CONFIG = Path(__file__).with_name("mkdocs.yml")
AT_THE_ROOT = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
HOME = "index.md"

_LINK = re.compile(r"(?<=\]\()(?:docs/|\.\./)?([\w./-]+)(?=[)#])")


def gather(root: Path, source: Path) -> None:
    """Copies the documents of a repository into a directory, as pages of one place."""
    shutil.copytree(root / "docs", source)
    for page in [root / name for name in AT_THE_ROOT] + sorted(source.glob("*.md")):
        target = source / (HOME if page.name == "README.md" else page.name)
        target.write_text(_LINK.sub(_within, page.read_text()))


def build(root: Path, site: Path) -> None:
    """Builds the site of a repository's documents into a directory.

    Raises:
        mkdocs.exceptions.Abort: MkDocs warned of something; its log says of what.
    """
    from mkdocs.commands.build import build as mkdocs_build
    from mkdocs.config import load_config

    with tempfile.TemporaryDirectory() as directory:
        source = Path(directory) / "source"
        gather(root, source)
        mkdocs_build(load_config(str(CONFIG), docs_dir=str(source), site_dir=str(site.resolve())))


def main(arguments: list[str]) -> None:
    """Builds the site of `--root` where `--out` says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=ROOT)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "docs")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    build(given.root, given.out)
    sys.stdout.write(f"{given.out / 'index.html'}\n")


def _within(match: re.Match[str]) -> str:
    return HOME if match[1] == "README.md" else match[1]


if __name__ == "__main__":
    main(sys.argv[1:])
