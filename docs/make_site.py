"""Writes the site: ``make site``. Lessons with what a run has put out, the course, the references.

The pages are made from the notebooks as they are now; figures, tables and texts come from the
executed copies in the folder of a run, cell by cell. A cell that has changed since shows no output,
and is told.
"""

import argparse
import base64
import html
import json
import re
import shutil
import struct
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "docs" / "site"
SAVED = re.compile(r"save_figure\(\s*[\w.\[\]()]+,\s*f?\"([^\"]+)\"")
LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]*)\]\((?P<to>[^)#\s]+)(?P<at>#[^)\s]*)?\)")
WIDGET = "application/vnd.jupyter.widget-view+json"
LESSONS = """\
# Lessons

Read them in this order. Each can be downloaded from its page, and runs after `make setup`; what is
shown is the run of the profile `{profile}`.

```{{toctree}}
:maxdepth: 1

{pages}
```
"""
REFERENCE = """\
# Reference

```{{toctree}}
:maxdepth: 2

{pages}
```
"""
CONTENTS = """

```{toctree}
:hidden:

lessons
docs/course
docs/glossary
docs/api
reference
```
"""


def main(arguments: list[str] | None = None) -> int:
    """Build the site; 0 if Sphinx had nothing to complain of."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--root", type=Path, default=ROOT, help="the repository")
    parser.add_argument("--run", type=Path, default=ROOT / "runs" / "quick", help="a run's folder")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "site", help="where to")
    options = parser.parse_args(arguments)
    source = options.out.with_name(options.out.name + "-source")
    for folder in (source, options.out):
        shutil.rmtree(folder, ignore_errors=True)
    gather(options.root.resolve(), options.run.resolve(), source)
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"]
    done = subprocess.run([*command, str(source), str(options.out)], check=False)
    shutil.rmtree(source)
    if done.returncode == 0:
        print(f"open {options.out / 'index.html'}")
    return done.returncode


def gather(root: Path, run: Path, source: Path) -> None:
    """Fill the folder from which Sphinx builds.

    Parameters
    ----------
    root : Path
        The repository.
    run : Path
        Folder of a run, with the executed notebooks.
    source : Path
        The new folder.

    Raises
    ------
    ValueError
        No executed notebook in `run`.
    """
    notebooks = sorted((root / "notebooks").glob("*.ipynb"))
    if not any((run / path.name).is_file() for path in notebooks):
        raise ValueError(f"run: expected executed notebooks in {run}, got none: make reproduce")
    static = source / "_static"
    (static / "figures").mkdir(parents=True)
    (static / "downloads").mkdir()
    shutil.copy(SITE / "conf.py", source)
    shutil.copy(SITE / "site.css", static)
    pages = [root / "README.md", root / "CONTRIBUTING.md", root / "CHANGELOG.md"]
    pages += [*root.glob("docs/*.md"), *root.glob("data/**/README.md")]
    known = {path.resolve() for path in [*pages, *notebooks]}
    for path in pages:
        _copy_page(path, root, source, known)
    for path in notebooks:
        notebook = lesson(path, run / path.name, static)
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = relinked(cell.source, path, root, known)
        target = source / "notebooks" / path.name
        target.parent.mkdir(exist_ok=True)
        nbformat.write(notebook, target)
    index = (source / "README.md").rename(source / "index.md")
    index.write_text(index.read_text(encoding="utf-8") + CONTENTS, encoding="utf-8")
    names = "\n".join(f"notebooks/{path.stem}" for path in notebooks)
    (source / "lessons.md").write_text(LESSONS.format(profile=run.name, pages=names))
    rest = [path.relative_to(root).with_suffix("").as_posix() for path in pages[1:]]
    above = ("docs/course", "docs/glossary", "docs/api")
    names = "\n".join(name for name in rest if name not in above)
    (source / "reference.md").write_text(REFERENCE.format(pages=names))


def lesson(path: Path, executed: Path, static: Path) -> NotebookNode:
    """A notebook with the outputs of its executed copy, figures as files with their text.

    Parameters
    ----------
    path : Path
        The notebook.
    executed : Path
        Its executed copy; may be missing.
    static : Path
        Folder of the site's files: figures and downloads are added.
    """
    notebook = nbformat.read(path, as_version=4)
    shutil.copy(path, static / "downloads")
    outputs: dict[str, list[list[NotebookNode]]] = defaultdict(list)
    if executed.is_file():
        ran = nbformat.read(executed, as_version=4)
        for cell in ran.cells:
            if cell.cell_type == "code":
                outputs[cell.source].append(cell.outputs)
        shutil.copy(executed, static / "downloads" / f"{path.stem}-executed.ipynb")
    texts = captions(executed.parent / "figures" / "manifest.json", path.stem)
    changed = []
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type != "code":
            continue
        found = outputs[cell.source]
        if not found and cell.source.strip():
            changed.append(number)
        cell.outputs = shown(
            found.pop(0) if found else [],
            alternatives(cell, texts),
            name=f"{path.stem}-{number}",
            static=static,
        )
    if changed:
        print(f"{path.stem}: cells {changed} have changed since the run: no output is shown")
    notebook.metadata.pop("widgets", None)
    notebook.cells.insert(1, nbformat.v4.new_markdown_cell(_downloads(path.stem, bool(outputs))))
    explorer = executed.parent / "explorer.json"
    if path.stem.startswith("14_") and explorer.is_file():
        _explore(notebook, explorer)
    return notebook


def captions(manifest: Path, notebook: str) -> dict[str, str]:
    """Captions of a notebook's figures by name, from the list in the folder of the run."""
    if not manifest.is_file():
        return {}
    entries = json.loads(manifest.read_text(encoding="utf-8"))
    return {
        Path(file).stem: entry["caption"]
        for file, entry in entries.items()
        if entry["notebook"] == notebook and file.endswith((".png", ".svg"))
    }


def alternatives(cell: NotebookNode, texts: Mapping[str, str]) -> list[str]:
    """Texts of the figures that a cell shows, in their order.

    What the cell's metadata says (``alt``) goes first; else the captions under which it saves its
    figures. A name with a placeholder stands for all figures that it fits.
    """
    if "alt" in cell.metadata:
        alt = cell.metadata["alt"]
        return [alt] if isinstance(alt, str) else list(alt)
    patterns = [re.sub(r"\{[^}]*\}", "*", name) for name in SAVED.findall(cell.source)]
    return [text for p in patterns for name, text in texts.items() if fnmatch(name, p)]


def shown(
    outputs: list[NotebookNode], texts: list[str], *, name: str, static: Path
) -> list[NotebookNode]:
    """Outputs as the site shows them: no progress bar, no widget, figures as files with a text."""
    kept, figures = [], 0
    for output in outputs:
        if output.output_type == "stream" and output.name == "stderr":
            continue
        data = output.get("data", {})
        if WIDGET in data:
            continue
        if "image/png" in data:
            file = f"{name}-{figures}.png"
            image = base64.b64decode(data["image/png"])
            (static / "figures" / file).write_bytes(image)
            width, height = struct.unpack(">II", image[16:24])
            text = texts[min(figures, len(texts) - 1)] if texts else ""
            figures += 1
            if not text:
                raise ValueError(
                    f"{name}: a figure without a text: save it, or give the cell an alt"
                )
            tag = (
                f'<img class="figure" loading="lazy" src="../_static/figures/{file}" '
                f'width="{width}" height="{height}" alt="{html.escape(text)}">'
            )
            output = nbformat.v4.new_output("display_data", data={"text/html": tag})
        kept.append(output)
    return kept


def relinked(text: str, page: Path, root: Path, known: set[Path]) -> str:
    """Markdown whose links to files that are no pages of the site are words in code type."""

    def replaced(match: re.Match[str]) -> str:
        to = match["to"]
        if "://" in to or to.startswith("mailto:"):
            return match[0]
        target = (page.parent / to).resolve()
        if target in known or target.suffix in (".png", ".jpg"):
            return (
                match[0].replace("README.md", "index.md")
                if target == root / "README.md"
                else match[0]
            )
        return match["text"]

    return LINK.sub(replaced, text)


def _copy_page(path: Path, root: Path, source: Path, known: set[Path]) -> None:
    """A page and the pictures that it shows."""
    text = path.read_text(encoding="utf-8")
    target = source / path.relative_to(root)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(relinked(text, path, root, known), encoding="utf-8")
    for picture in _pictures(text):
        copy = target.parent / picture
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path.parent / picture, copy)


def _pictures(text: str) -> Iterator[str]:
    for to in re.findall(r"!\[[^\]]*\]\(([^)\s]+)\)", text):
        if "://" not in to:
            yield to


def _downloads(stem: str, ran: bool) -> str:
    executed = f', <a href="../_static/downloads/{stem}-executed.ipynb" download>as it was run</a>'
    return (
        f'<p class="downloads">Download: <a href="../_static/downloads/{stem}.ipynb" download>'
        f"the notebook</a>{executed if ran else ''}</p>"
    )


def _explore(notebook: NotebookNode, recordings: Path) -> None:
    """The explorer without a kernel, in the place of the cell that shows it."""
    from tkmia_utils.explorer.page import embed

    part: Any = embed(json.loads(recordings.read_text(encoding="utf-8")))
    for cell in notebook.cells:
        if cell.cell_type == "code" and "explorer" in cell.metadata.get("tags", ()):
            cell.outputs = [nbformat.v4.new_output("display_data", data={"text/html": part})]


if __name__ == "__main__":
    sys.exit(main())
