"""Hashes of what decides a result: code by what it does, files by their bytes.

Code is hashed as its syntax tree without docstrings, so that comments, prose and formatting do not
count. A notebook or module counts together with the modules of this package that it imports, and
those that they import. Of a package's ``__init__`` the names that are asked for count: a name that
is only passed on leads to the module that defines it, any other brings in all of the ``__init__``.
"""

import ast
import hashlib
import json
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from tkmia_utils.files import write_atomically

PACKAGE = Path(__file__).parent
NAME = "tkmia_utils"
EVERYTHING = (NAME + ".*", None)
EXERCISE = "exercise"
"""Tag of cells that are the reader's to fill in: no result depends on them."""
SETTLED = 2_000_000_000
"""Nanoseconds: a younger file may still change without a change of its date."""

Import = tuple[str, str | None]  # a module, and which name of it; None: all of it
DEFINES = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_hashes(paths: Sequence[str | Path], *, known: str | Path | None = None) -> list[str]:
    """SHA-256 of the bytes of many files.

    Parameters
    ----------
    paths : sequence of str or Path
        The files.
    known : str or Path, optional
        A JSON file that remembers hashes. A file whose size and dates are those remembered is not
        read again. Several processes may use it at once: the worst is a hash made twice.

    Returns
    -------
    list of str
        In the order of `paths`; ``"missing"`` for a file that is not there.
    """
    known = None if known is None else Path(known)
    old, new, found = _remembered(known), {}, []
    for path in paths:
        place = str(Path(path).absolute())
        try:
            stat = Path(place).stat()
            # the second date also changes for a copy that keeps the first
            looks = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
            entry = old.get(place)
            if entry is None or entry[:-1] != looks:
                entry = [*looks, file_hash(place)]
                if time.time_ns() - max(looks[1:]) > SETTLED:
                    new[place] = entry
            found.append(entry[-1])
        except FileNotFoundError:
            found.append("missing")
    if new and known is not None:
        # read again: another process may have added to it
        text = json.dumps(_remembered(known) | new)
        write_atomically(known, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return found


def _remembered(path: Path | None) -> dict[str, list]:
    if path is not None:
        with suppress(OSError, ValueError):  # not there yet, or broken: made anew
            return dict(json.loads(path.read_text(encoding="utf-8")))
    return {}


def text_hash(*values: object) -> str:
    """SHA-256 over plain values, written as JSON."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def code_hash(
    modules: Iterable[str], *, alone: Iterable[str] = (), package: str | Path = PACKAGE
) -> str:
    """SHA-256 over what some modules do, and all they import from this package.

    Parameters
    ----------
    modules : iterable of str
        Full names, for instance ``"tkmia_utils.engine.loop"``.
    alone : iterable of str
        Modules of which only their own code counts.
    package : str or Path
        The package's folder.

    Raises
    ------
    ValueError
        There is no such module, or one of them imports what is not there.
    """
    alone = list(alone)
    found = closure(((name, None) for name in modules), package)
    found |= {name: _need(name, Path(package)) for name in alone}
    return _digest(found)


def notebook_hash(path: str | Path, *, package: str | Path = PACKAGE) -> str:
    """SHA-256 over what a notebook's code cells do, and all they import from this package.

    Cells tagged ``exercise`` are left out: they are the reader's, and make no figure.

    Parameters
    ----------
    path : str or Path
        The notebook.
    package : str or Path
        The package's folder.

    Raises
    ------
    ValueError
        There is no such notebook, or it imports a module of the package that is not there.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"notebook: there is no {path}")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    texts, imports = [], []
    for cell in cells:
        if cell["cell_type"] == "code" and EXERCISE not in cell["metadata"].get("tags", ()):
            text, asked = _cell("".join(cell["source"]))
            texts.append(text)
            imports += asked
    return text_hash([text for text in texts if text], _digest(closure(imports, package)))


def closure(imports: Iterable[Import], package: str | Path = PACKAGE) -> dict[str, Path]:
    """Modules that some imports bring in, directly or through others: full name to file.

    Parameters
    ----------
    imports : iterable of (str, str or None)
        A module, and which of its names; None: all of it.
    package : str or Path
        The package's folder.

    Raises
    ------
    ValueError
        A module of the package is not there.
    """
    package = Path(package)
    found: dict[str, Path] = {}
    todo, seen = list(imports), set()
    while todo:
        asked = todo.pop()
        if asked in seen:
            continue
        seen.add(asked)
        module, name = asked
        if asked == EVERYTHING:
            todo += [(_dotted(path, package), None) for path in package.rglob("*.py")]
            continue
        path = _need(module, package)
        if path.name == "__init__.py" and name is not None:
            passed_on = _code(path.read_text(encoding="utf-8"), module, True)[2]
            elsewhere = [passed_on[name]] if name in passed_on else []
            if _find(f"{module}.{name}", package):
                elsewhere.append((f"{module}.{name}", None))
            if elsewhere and elsewhere != [asked]:
                todo += [(m, n) for m, n in elsewhere if (m, n) != asked]
                continue
        if module not in found:
            found[module] = path
            todo += _code(path.read_text(encoding="utf-8"), module, path.name == "__init__.py")[1]
    return found


def _digest(found: dict[str, Path]) -> str:
    codes = {
        name: _code(path.read_text(encoding="utf-8"), name, path.name == "__init__.py")[0]
        for name, path in found.items()
    }
    return text_hash(codes)


def _find(module: str, package: Path) -> Path | None:
    base = package.joinpath(*module.split(".")[1:])
    files = (base.with_name(f"{base.name}.py"), base / "__init__.py")
    return next((path for path in files if path.is_file()), None)


def _need(module: str, package: Path) -> Path:
    path = _find(module, package) if module.split(".")[0] == NAME else None
    if path is None:
        raise ValueError(f"modules: there is no module {module!r} in {package}")
    return path


def _dotted(path: Path, package: Path) -> str:
    parts = path.relative_to(package).with_suffix("").parts
    return ".".join((NAME, *(part for part in parts if part != "__init__")))


@lru_cache(maxsize=1024)
def _code(
    text: str, module: str, is_package: bool
) -> tuple[str, tuple[Import, ...], dict[str, Import]]:
    """Hash of a module's code, what it imports, and the names it binds by importing them."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | DEFINES):
            node.body = [item for item in node.body if not _is_prose(item)]
    parent = module if is_package else module.rpartition(".")[0]
    bound = {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            names = [alias.asname or alias.name for alias in node.names]
            bound |= dict(zip(names, _from(node, parent), strict=True))
    return text_hash(_plain(tree)), tuple(_imports(tree, parent)), _ours(bound)


def _ours(bound: dict[str, Import]) -> dict[str, Import]:
    return {name: asked for name, asked in bound.items() if _is_ours(asked[0])}


def _cell(source: str) -> tuple[str, list[Import]]:
    """A cell's code as text, and what it imports; magics are kept as they are."""
    try:
        magics, tree = [], ast.parse(source)
    except SyntaxError:
        lines = source.splitlines()
        magics = [x for x in lines if x.lstrip().startswith(("%", "!", "?")) or x.endswith("?")]
        rest = "\n".join("" if line in magics else line for line in lines)
        try:
            tree = ast.parse(rest)
        except SyntaxError:  # what it uses is unknown
            return source, [EVERYTHING]
    for node in ast.walk(tree):
        if isinstance(node, DEFINES):
            node.body = [item for item in node.body if not _is_prose(item)]
    if not tree.body and not magics:
        return "", []
    # a last semicolon hides what the cell would show
    return json.dumps([magics, _plain(tree), source.rstrip().endswith(";")]), _imports(tree, "")


def _is_prose(node: ast.stmt) -> bool:
    value = node.value if isinstance(node, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def _plain(node: object) -> object:
    """A syntax tree as lists, alike in every version of Python: what is empty is left out."""
    if isinstance(node, ast.Constant):
        return ["Constant", repr(node.value)]
    if isinstance(node, ast.AST):
        fields = [(name, value) for name, value in ast.iter_fields(node) if value not in (None, [])]
        return [type(node).__name__, *([name, _plain(value)] for name, value in fields)]
    return [_plain(item) for item in node] if isinstance(node, list) else node


def _imports(tree: ast.AST, parent: str) -> list[Import]:
    """What the code imports from this package, anywhere in it."""
    found: list[Import] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += _from(node, parent)
        elif isinstance(node, ast.Call):
            called = node.func
            called = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            if called in ("import_module", "__import__"):
                first = node.args[0] if len(node.args) == 1 else None
                named = isinstance(first, ast.Constant) and isinstance(first.value, str)
                found.append((first.value, None) if named else EVERYTHING)
    return [asked for asked in found if _is_ours(asked[0])]


def _from(node: ast.ImportFrom, parent: str) -> list[Import]:
    module = node.module or ""
    if node.level:
        above = parent.split(".")[: len(parent.split(".")) - node.level + 1]
        module = ".".join([*above, *([module] if module else [])])
    return [(module, None if alias.name == "*" else alias.name) for alias in node.names]


def _is_ours(module: str) -> bool:
    return module.split(".")[0] == NAME
