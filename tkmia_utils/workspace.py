"""The folders of a run: per-image results, figures and tables, and what made each of them.

A figure or table lands in ``runs/<profile>/figures/`` and in that folder's ``manifest.json``, with
the notebook, its parameters, the commit, a caption, the file's SHA-256 and a hash of the sources
that made it. Nothing carries a timestamp, so that an identical rerun changes nothing. What is kept
in ``figures/<profile>/`` is a run's folder that was made the record; see
`tkmia_utils.pipeline.record`.
"""

import ast
import io
import json
import platform
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image

from tkmia_utils.files import write_atomically
from tkmia_utils.hashing import PACKAGE, file_hash, notebook_hash

MANIFEST = "manifest.json"
UNKNOWN = "unknown"
MOST_PIXELS = 1500  # width of a PNG
PACKAGES = (
    *("tkmia-lab", "torch", "torchvision", "numpy", "pandas", "pyarrow", "pillow"),
    *("scikit-image", "matplotlib", "papermill"),
)


def write_text(path: str | Path, text: str) -> Path:
    """Write `text` atomically as UTF-8 with Unix line ends; see :func:`write_atomically`."""
    return write_atomically(path, lambda temporary: temporary.write_bytes(text.encode()))


def write_json(path: str | Path, value: Any) -> Path:
    """Write `value` atomically as indented JSON; see :func:`write_atomically`."""
    return write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def commit(root: str | Path) -> str:
    """Git commit of the folder `root`, ``"unknown"`` outside git.

    A ``+`` is appended when a tracked file differs from the commit; ``figures/`` is left out of
    that, being what a run itself rewrites.
    """

    def git(*arguments: str) -> str:
        command = ("git", "-C", str(root), *arguments)
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        head = git("rev-parse", "HEAD")
        dirty = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)figures")
    except (OSError, subprocess.CalledProcessError):
        return UNKNOWN
    return head + ("+" if dirty else "")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a result (``"missing"`` if not there)."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "missing"
    return found


def declared(notebook: str | Path) -> dict[str, Any]:
    """Parameters of a notebook with their defaults, read from its cell tagged ``parameters``.

    Raises
    ------
    ValueError
        The cell holds anything but assignments of literals to plain names.
    """
    cells = nbformat.read(notebook, as_version=4).cells
    tagged = [c for c in cells if "parameters" in c.metadata.get("tags", ())]
    stem, found = Path(notebook).stem, {}
    try:
        nodes = ast.parse(tagged[0].source if tagged else "").body
    except SyntaxError as error:
        raise ValueError(f"{stem}: parameters: not Python: {error}") from None
    for node in nodes:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        try:
            (target,) = targets
            found[target.id] = ast.literal_eval(node.value)
        except (AttributeError, ValueError, TypeError):
            line = ast.unparse(node)
            message = f"{stem}: parameters: expected 'name = literal', got {line!r}"
            raise ValueError(message) from None
    return found


def source_hash(root: str | Path, notebook: str) -> str:
    """SHA-256 over what a notebook does: see :func:`tkmia_utils.hashing.notebook_hash`.

    Parameters
    ----------
    root : str or Path
        Folder that holds ``notebooks/``.
    notebook : str
        Name without the ending, e.g. ``"02_lemma"``.

    Raises
    ------
    ValueError
        There is no such notebook.
    """
    return notebook_hash(Path(root) / "notebooks" / f"{notebook}.ipynb", package=PACKAGE)


def stale(root: str | Path, profile: str) -> list[str]:
    """Files of ``figures/<profile>`` that no longer agree with their entry in the manifest.

    A file is stale when it is gone, when its bytes are not those listed, or when the notebook's
    code or that of a module it uses changed since it was made. Sorted; empty without a manifest.
    """
    folder = Path(root) / "figures" / profile
    hashes: dict[str, str] = {}
    found = []
    for file, entry in sorted(read_manifest(folder).items()):
        notebook = entry["notebook"]
        if notebook not in hashes:
            hashes[notebook] = _source_or_unknown(root, notebook)
        path = folder / file
        agrees = path.is_file() and file_hash(path) == entry["sha256"]
        if not agrees or hashes[notebook] != entry["source"] or entry["source"] == UNKNOWN:
            found.append(file)
    return found


def save_results(df: pd.DataFrame, path: str | Path) -> Path:
    """Write one row an image as parquet, atomically; returns `path`."""
    if not isinstance(df, pd.DataFrame):
        raise ValueError(f"df: expected a pandas.DataFrame, got {type(df).__name__}")
    return write_atomically(path, lambda temporary: df.to_parquet(temporary))


def load_results(path: str | Path, *, made_by: str | None = None) -> pd.DataFrame:
    """Read what :func:`save_results` wrote.

    Parameters
    ----------
    path : str or Path
        The parquet file.
    made_by : str, optional
        The notebook that makes it, named when the file is missing; default the file's own stem.

    Raises
    ------
    ValueError
        The file is missing; the message names the notebook to run first.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"path: there is no {path}; run the notebook {made_by or path.stem} first")
    return pd.read_parquet(path)


@dataclass(frozen=True)
class Workspace:
    """Where one notebook of one profile puts its work.

    Parameters
    ----------
    root : str or Path
        Folder that holds ``cache/``, ``runs/`` and ``figures/``; ``".."`` from a notebook.
    profile : str
        Names ``runs/<profile>``, where all is written, and the record ``figures/<profile>``.
    notebook : str
        The notebook's name without the ending, e.g. ``"02_lemma"``.
    parameters : mapping
        The parameters that shaped the results; plain JSON values, listed with each figure.

    Raises
    ------
    ValueError
        A name with other than letters, digits, ``_``, ``-``, ``.``, or parameters JSON cannot hold.
    """

    root: Path
    profile: str
    notebook: str
    parameters: Mapping[str, Any]

    def __post_init__(self) -> None:
        """Check the names and make `root` absolute, so that a later chdir moves nothing."""
        object.__setattr__(self, "root", Path(self.root).resolve())
        check_name(self.profile, name="profile")
        check_name(self.notebook, name="notebook")
        try:
            plain = json.loads(json.dumps(dict(self.parameters)))
        except (TypeError, ValueError) as error:
            raise ValueError(f"parameters: expected plain JSON values ({error})") from None
        object.__setattr__(self, "parameters", plain)

    @property
    def cache(self) -> Path:
        """``cache/``: data sets and victims, shared by all profiles; made on first use."""
        return _made(self.root / "cache")

    @property
    def runs(self) -> Path:
        """``runs/<profile>/``: executed notebooks and per-image results; made on first use."""
        return _made(self.root / "runs" / self.profile)

    @property
    def figures(self) -> Path:
        """``runs/<profile>/figures/``: figures, tables and manifest; made on first use."""
        return _made(self.runs / "figures")

    @property
    def record(self) -> Path:
        """``figures/<profile>/``: the record; only the pipeline's ``--update`` writes it."""
        return self.root / "figures" / self.profile

    def save_figure(self, fig: Figure, name: str, *, caption: str) -> None:
        """Write the figure in one format and list it in the manifest.

        ``<name>.svg`` where that holds no photograph and is the smaller file, else ``<name>.png``.
        """
        check_name(name, name="name")
        png, svg = _png(fig), _svg(fig)
        smaller = b"<image" not in svg and len(svg) < len(png)
        kind, other, content = ("svg", "png", svg) if smaller else ("png", "svg", png)
        path = self.figures / f"{name}.{kind}"
        write_atomically(path, lambda temporary: temporary.write_bytes(content))
        (self.figures / f"{name}.{other}").unlink(missing_ok=True)
        self._list([path], caption, gone=f"{name}.{other}")

    def save_table(
        self,
        df: pd.DataFrame,
        name: str,
        *,
        caption: str,
        digits: int = 4,
        names: Mapping[str, str] | None = None,
    ) -> None:
        """Write ``<name>.csv`` (exact) and ``<name>.md`` (rounded) and list both in the manifest.

        The index is written when it has names or is no plain count of the rows; the caption ends
        the Markdown file as a paragraph. There, and not in the CSV, identifiers that are keys of
        `names` are replaced by what a reader calls them.
        """
        check_name(name, name="name")
        counted = isinstance(df.index, pd.RangeIndex) and df.index.name is None
        flat = df if counted else df.reset_index()
        if isinstance(flat.columns, pd.MultiIndex):
            flat = flat.set_axis(
                [" ".join(filter(None, map(str, c))) for c in flat.columns], axis=1
            )
        csv = flat.to_csv(index=False, lineterminator="\n")
        read = flat.replace(dict(names)).rename(columns=names) if names else flat
        text = f"{_markdown(read, digits)}\n\n{caption}\n"
        paths = [self.figures / f"{name}.csv", self.figures / f"{name}.md"]
        for path, content in zip(paths, (csv, text), strict=True):
            write_text(path, content)
        self._list(paths, caption)

    def made_with(self, file: str) -> dict[str, Any]:
        """The parameters with which a figure or table of the profile was made.

        Raises
        ------
        ValueError
            The manifest does not list `file`.
        """
        listed = read_manifest(self.figures)
        if file not in listed:
            place = self.figures / MANIFEST
            raise ValueError(f"file: {place} lists no {file}; run the notebook that makes it first")
        return listed[file]["parameters"]

    def _list(self, paths: list[Path], caption: str, *, gone: str | None = None) -> None:
        entry = {
            "notebook": self.notebook,
            "parameters": self.parameters,
            "commit": commit(self.root),
            "caption": caption,
            "source": _source_or_unknown(self.root, self.notebook),
        }
        manifest = read_manifest(self.figures)
        manifest.pop(gone, None)
        for path in paths:
            new = {**entry, "sha256": file_hash(path)}
            manifest[path.name] = first_made(new, manifest.get(path.name, {}))
        write_json(self.figures / MANIFEST, dict(sorted(manifest.items())))


def _saved(fig: Figure, kind: str, **options: Any) -> bytes:
    # a fixed salt and no date: the same figure is the same bytes
    with io.BytesIO() as buffer, rc_context({"svg.fonttype": "none", "svg.hashsalt": "tkmia-lab"}):
        fig.savefig(buffer, format=kind, bbox_inches="tight", **options)
        return buffer.getvalue()


def _svg(fig: Figure) -> bytes:
    return _saved(fig, "svg", metadata={"Date": None})


def _png(fig: Figure) -> bytes:
    """Without what no eye sees: 256 colours for a drawing, 64 levels a channel for photographs.

    Wide figures get fewer dots an inch, because a notebook shows them about 900 pixels wide.
    """
    dpi = min(150, MOST_PIXELS / fig.get_figwidth())
    image = Image.open(io.BytesIO(_saved(fig, "png", dpi=dpi))).convert("RGB")
    few = image.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    error = np.asarray(few.convert("RGB"), np.float32) - np.asarray(image, np.float32)
    if np.sqrt(np.mean(error**2)) < 1:  # of 255 levels; with photographs it is several
        kept = few
    else:
        kept = image.point([round(round(v * 63 / 255) * 255 / 63) for v in range(256)] * 3)
    with io.BytesIO() as buffer:
        kept.save(buffer, format="png", optimize=True)
        return buffer.getvalue()


def first_made(new: dict[str, Any], old: dict[str, Any]) -> dict[str, Any]:
    """The entry of a file made anew: the old one if only the commit differs and that was clean."""
    clean = old.get("commit", UNKNOWN)
    same = {**new, "commit": clean} == old
    return old if same and clean != UNKNOWN and not clean.endswith("+") else new


def check_name(text: Any, *, name: str) -> None:
    """Refuse (``ValueError``) what cannot name a file or folder of a workspace."""
    if not isinstance(text, str) or not re.fullmatch(r"\w[\w.-]*", text):
        raise ValueError(f"{name}: expected letters, digits, '_', '-' or '.', got {text!r}")


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def read_manifest(folder: Path) -> dict[str, dict[str, Any]]:
    """What the manifest of a folder lists; empty without one."""
    path = folder / MANIFEST
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _source_or_unknown(root: str | Path, notebook: str) -> str:
    try:
        return source_hash(root, notebook)
    except ValueError:
        return UNKNOWN  # used from a script, or a workspace away from the notebooks


def _markdown(df: pd.DataFrame, digits: int) -> str:
    def cell(value: Any) -> str:
        text = f"{value:.{digits}f}" if isinstance(value, float) else str(value)
        # A bar would end the cell: |S| is written \|S\|.
        return text.replace("|", r"\|").replace("\n", " ")

    rows = [[cell(name) for name in df.columns]]
    rows.append(["---:" if pd.api.types.is_numeric_dtype(t) else ":---" for t in df.dtypes])
    # Column by column each keeps its own type; a row of iloc would turn counts into floats.
    columns = [[cell(value) for value in df.iloc[:, i]] for i in range(df.shape[1])]
    rows += zip(*columns, strict=True)
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
