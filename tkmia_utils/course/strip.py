"""Students' notebooks from the solution: one source, and what is an answer in it is cut.

Three things are answers. A cell with the tag ``solution`` goes as a whole. In a code cell, the
lines from ``# begin solution`` to ``# end solution`` go, and one that says so stays in their place:
``raise NotImplementedError`` in a function and ``...`` outside of one, or what the mark itself
names after a colon (``# begin solution: threshold = ...``). In a markdown cell, ``<details>`` goes,
except a hint that the students shall have (``<details class="hint">``). Outputs show answers as
well: all go.
"""

import ast
import copy
import re
from functools import partial
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from tkmia_utils.files import write_atomically

TAG = "solution"
_MARK = re.compile(r"^(?P<indent>\s*)#+ ?(?P<word>begin|end) solution *(?P<leave>:.*)?$", re.I)
_LIKE_A_MARK = re.compile(
    r"#.*\b(begin|start|end|stop)\W*solution|#.*\bsolution\W*(begins?|ends?)\b", re.I
)
_DETAILS = re.compile(r"<(?P<close>/?)details\b(?P<rest>[^>]*)>", re.I)
_HINT = re.compile(r"class\s*=\s*[\"']?hint\b", re.I)
_CODE = re.compile(r"(?ms)^ *(```|~~~).*?^ *\1|`[^`\n]+`")


def strip(notebook: NotebookNode, *, name: str = "notebook") -> NotebookNode:
    """The student's copy of a solution notebook; of a student's copy, the same again.

    Parameters
    ----------
    notebook : NotebookNode
        nbformat 4; it is not changed.
    name : str
        What messages call it.

    Returns
    -------
    NotebookNode
        Without answers and outputs; ids and tags of what stays are as they were.

    Raises
    ------
    ValueError
        A mark without its partner, one in the other, one that is misspelt, or a cell that would no
        longer be Python: the message names notebook and cell. Nothing is guessed, since a wrong
        guess would hand out the answer.
    """
    student = copy.deepcopy(notebook)
    student.metadata.pop("widgets", None)  # saved outputs
    student.cells = []
    for number, cell in enumerate(notebook.cells, start=1):
        place = f"{name}: cell {number} (id {cell.get('id', 'none')})"
        tags = [str(tag) for tag in cell.metadata.get("tags", [])]
        for tag in tags:
            if tag != TAG and tag.strip().lower().rstrip("s") == TAG:
                raise ValueError(f"{place}: expected the tag {TAG!r}, got {tag!r}")
        if TAG in tags:
            continue
        cell = copy.deepcopy(cell)
        if cell.cell_type == "code":
            cell.source = _cut_lines(cell.source, place)
            cell.outputs, cell.execution_count = [], None
            cell.metadata.pop("execution", None)  # times of the solution's run
        elif cell.cell_type == "markdown":
            text = _cut_details(cell.source, place)
            if text != cell.source and not text.strip():
                continue
            cell.source = text
        student.cells.append(cell)
    return student


def make_student(source: str | Path, out: str | Path) -> list[Path]:
    """Write the student's copy of a notebook, or of each notebook of a folder.

    Parameters
    ----------
    source : str or Path
        A solution, ``.ipynb``, or a folder of such.
    out : str or Path
        A file for a file (or a folder, then under the same name), a folder for a folder.

    Returns
    -------
    list of Path
        What was written. All sources are read before anything is.

    Raises
    ------
    ValueError
        No notebook there, `out` would overwrite a source, or marks that :func:`strip` refuses.
    """
    source, out = Path(source), Path(out)
    sources = sorted(source.glob("*.ipynb")) if source.is_dir() else [source]
    if not sources:
        raise ValueError(f"source: expected notebooks in {source}, got none")
    into = source.is_dir() or out.is_dir() or out.suffix != ".ipynb"
    if source.is_dir() and out.suffix == ".ipynb":
        raise ValueError(f"out: expected a folder for a folder, got {out}")
    targets = [out / path.name if into else out for path in sources]
    if {path.resolve() for path in sources} & {path.resolve() for path in targets}:
        raise ValueError(f"out: expected another place than the solution's, got {out}")
    students = [strip(_read(path), name=str(path)) for path in sources]
    for student, target in zip(students, targets, strict=True):
        write_atomically(target, partial(nbformat.write, student))
    return targets


def _read(path: Path) -> NotebookNode:
    try:
        notebook: NotebookNode = nbformat.read(path, as_version=4)
    except Exception as error:  # nbformat lets through what json and jsonschema raise
        raise ValueError(
            f"source: expected a notebook, got {path} ({type(error).__name__})"
        ) from error
    return notebook


def _cut_lines(text: str, place: str) -> str:
    """Code without the lines between marks; the marks go as well."""
    kept: list[str] = []
    functions = _function_lines(text)
    begun = 0
    lines = text.split("\n")
    for number, line in enumerate(lines, start=1):
        mark = _MARK.match(line)
        if mark is None:
            if _LIKE_A_MARK.search(line):
                raise ValueError(
                    f"{place}: line {number}: expected '# begin solution' or '# end solution' on a "
                    f"line of its own, got {line.strip()!r}"
                )
            if not begun:
                kept.append(line)
            continue
        if (mark["word"].lower() == "begin") == bool(begun):
            why = f"the one of line {begun} has not ended" if begun else "none has begun"
            raise ValueError(f"{place}: line {number}: {line.strip()!r}, but {why}")
        if begun:
            begun = 0
            continue
        begun = number
        inside = bool(mark["indent"]) if functions is None else number in functions
        leave = (mark["leave"] or "")[1:].strip()
        if "#" in leave:
            raise ValueError(
                f"{place}: line {number}: expected no comment after ':', got {leave!r}"
            )
        kept.append(mark["indent"] + (leave or ("raise NotImplementedError" if inside else "...")))
    if begun:
        raise ValueError(f"{place}: line {begun}: '# begin solution' has no '# end solution'")
    cut = "\n".join(kept)
    if functions is not None and _function_lines(cut) is None:
        raise ValueError(f"{place}: without its solution the cell is no longer Python")
    return cut


def _function_lines(text: str) -> set[int] | None:
    """Numbers of the lines inside of functions; None where it is no plain Python (a magic, say)."""
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return None
    found: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found |= set(range(node.lineno + 1, (node.end_lineno or node.lineno) + 1))
            # A closing mark may be the last line, a comment that the tree does not know.
    return found


def _cut_details(text: str, place: str) -> str:
    """Markdown without its folded answers; hints stay. Code in it is text and no tag."""
    seen = _CODE.sub(lambda match: " " * len(match[0]), text)
    kept, end = "", 0
    opened: list[re.Match[str]] = []
    for tag in _DETAILS.finditer(seen):
        if not tag["close"]:
            opened.append(tag)
            continue
        if not opened:
            raise ValueError(f"{place}: </details> without <details>")
        begin = opened.pop()
        hints = all(_HINT.search(outer["rest"]) for outer in opened)
        if hints and not _HINT.search(begin["rest"]):
            kept += text[end : begin.start()].rstrip()
            end = tag.end()
    if opened:
        raise ValueError(f"{place}: <details> without </details>")
    return (kept + text[end:]).strip() if end else text
