"""What a submission defines: its statements, and those that one function needs.

Grading goes by the names of functions and never by cells, so cells may be moved, copied or
deleted. Only those statements are run that give a value to a name which the function needs,
directly or by others: a cell that loops, fails or draws harms no exercise that does not use it.
Not seen is what a call does behind a name's back (``fill(table)``, ``globals()[...]``).
"""

import ast
import re
import symtable
import warnings
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat

LARGEST = 64 << 20  # bytes of a notebook
LONGEST = 200_000  # characters of a cell
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_CHANGES = ("append", "extend", "insert", "add", "update", "setdefault", "set_default_dtype")
_MAGIC = re.compile(r"^([ \t]*)([%!?].*|[\w.]+\?{1,2}[ \t]*)$", re.M)
_TIMED = re.compile(r"^\s*%%(time|timeit|capture)\b.*\n")


@dataclass(frozen=True)
class Statement:
    """One statement of a submission.

    Attributes
    ----------
    cell, line : int
        Number of the code cell, from 1, and the line in it where `text` begins.
    text : str
        The statement.
    binds, needs : frozenset of str
        The names that it gives a value to (``"*"``: any), and those of the module that it uses.
    defines : bool
        Is it the definition of a function or a class?
    """

    cell: int
    line: int
    text: str
    binds: frozenset[str]
    needs: frozenset[str]
    defines: bool = False


@dataclass(frozen=True)
class Submission:
    """A student's notebook, as far as it can be read.

    Attributes
    ----------
    name : str
        What the report calls it.
    statements : tuple of Statement
        In the order of the notebook.
    problems : tuple of str
        A line for each thing that could not be read.
    """

    name: str
    statements: tuple[Statement, ...] = ()
    problems: tuple[str, ...] = ()

    def cells_of(self, name: str) -> list[int]:
        """The code cells that define a function; without a definition, those that assign to it."""
        imports = ("import ", "from ")
        found = [s for s in self.statements if name in s.binds and not s.text.startswith(imports)]
        return [s.cell for s in found if s.defines] or [s.cell for s in found]

    def functions(self) -> list[str]:
        """Names of all functions and classes, each once, in order."""
        return list(dict.fromkeys(n for s in self.statements if s.defines for n in sorted(s.binds)))

    def needed(self, name: str) -> list[tuple[int, int, str]]:
        """What has to run before a function can be called: cell, line and text, in order.

        The last definition counts. A number that gets the function's name after it does not undo
        it; what wraps it (``f = cache(f)``) is kept.
        """
        statements = list(self.statements)
        last = max(
            (i for i, s in enumerate(statements) if s.defines and name in s.binds), default=-1
        )
        if last >= 0:
            later = statements[last + 1 :]
            statements[last + 1 :] = [s for s in later if name not in s.binds or name in s.needs]
        wanted = {name, "*"}
        while True:
            found = [s for s in statements if s.binds & wanted]
            more = wanted.union(*(s.needs for s in found))
            if more == wanted:
                return [(s.cell, s.line, s.text) for s in found]
            wanted = more


def collect(path: str | Path, *, name: str | None = None) -> Submission:
    """Read a submission; whatever is wrong with it is told and not raised.

    Parameters
    ----------
    path : str or Path
        A notebook, one hopes.
    name : str, optional
        What the report calls it; the file's name without it.

    Returns
    -------
    Submission
        Without statements if it is no notebook.
    """
    path = Path(path)
    name = path.name if name is None else name
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"more than {LARGEST >> 20} MB")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # missing ids and the like
            notebook = nbformat.read(path, as_version=4)
        cells = [str(cell.source) for cell in notebook.cells if cell.cell_type == "code"]
    except Exception as error:  # nbformat lets through what json and jsonschema raise
        why = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        return Submission(name, problems=(f"not a notebook: {why}",))
    statements: list[Statement] = []
    problems: list[str] = []
    for number, text in enumerate(cells, start=1):
        try:
            statements += list(_statements(number, text))
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
            why = getattr(error, "msg", None) or str(error) or type(error).__name__
            problems.append(f"code cell {number}{line} is no Python and was left out: {why}")
    if not cells:
        problems.append("no code cells")
    return Submission(name, tuple(statements), tuple(problems))


def repeated(submission: Submission, names: Collection[str]) -> dict[str, list[int]]:
    """Which of some functions are defined more than once, and in which code cells."""
    cells = {name: submission.cells_of(name) for name in names}
    return {name: where for name, where in cells.items() if len(where) > 1}


def _statements(cell: int, text: str) -> Iterator[Statement]:
    if len(text) > LONGEST:
        raise ValueError(f"{len(text)} characters")
    timed = _TIMED.match(text)
    if timed:
        text = "\n" + text[timed.end() :]
    if text.lstrip().startswith("%%"):
        return  # another language
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about a student's backslashes, say
        try:
            tree = ast.parse(text)
        except SyntaxError:
            text = _MAGIC.sub(r"\1pass", text)  # magics and shell commands, if it was these
            tree = ast.parse(text)
        for node in tree.body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                for alias in node.names:  # each its own: one that fails harms none of the others
                    yield _imported(cell, node, alias)
            else:
                statement = _statement(cell, node, text)
                if statement.binds:
                    yield statement


def _imported(cell: int, node: ast.Import | ast.ImportFrom, alias: ast.alias) -> Statement:
    if isinstance(node, ast.Import):
        one: ast.stmt = ast.Import([alias])
    else:
        one = ast.ImportFrom(node.module, [alias], node.level)
    bound = alias.asname or alias.name.split(".")[0]
    return Statement(cell, node.lineno, ast.unparse(one), frozenset([bound]), frozenset())


def _statement(cell: int, node: ast.stmt, text: str) -> Statement:
    decorators = getattr(node, "decorator_list", [])
    line = min([node.lineno, *(d.lineno for d in decorators)])
    if decorators:  # which the segment would not have
        source = "\n".join(text.split("\n")[line - 1 : node.end_lineno])
    else:
        source = ast.get_source_segment(text, node) or ""
    table = symtable.symtable(source, "", "exec")
    binds = {s.get_name() for s in table.get_symbols() if s.is_assigned()} | set(_changed(node))
    defines = isinstance(node, _DEFINITIONS)
    return Statement(cell, line, source, frozenset(binds), frozenset(_used(table)), defines)


def _used(table: symtable.SymbolTable, *, top: bool = True) -> Iterator[str]:
    """Names of the module that are used in a scope; parameters and locals are none."""
    for symbol in table.get_symbols():
        if symbol.is_referenced() and (top or symbol.is_global()):
            yield symbol.get_name()
    for inner in table.get_children():
        yield from _used(inner, top=False)


def _changed(node: ast.AST) -> Iterator[str]:
    """Names whose values a statement changes in place, as far as that can be seen."""
    if isinstance(node, (*_DEFINITIONS, ast.Lambda)):
        return
    base: ast.AST | None = None
    if isinstance(node, ast.Attribute | ast.Subscript) and isinstance(node.ctx, ast.Store):
        base = node.value
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        base = node.func.value if node.func.attr in _CHANGES else None
    while isinstance(base, ast.Attribute | ast.Subscript):
        base = base.value
    if isinstance(base, ast.Name):
        yield base.id
    for child in ast.iter_child_nodes(node):
        yield from _changed(child)
