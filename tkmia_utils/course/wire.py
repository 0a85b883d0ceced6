"""How the grader and a student's process talk: calls of functions over two pipes.

A function stays where it is and its number is sent: either side can call what the other one gave
it, and gradients are asked for in the same way. Values go as plain data.
"""

import builtins
import json
import math
import os
import select
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
import torch.overrides
from torch.autograd.function import once_differentiable

from tkmia_utils.course.plain import Packed, differs, pack, replaced, state_of, unpack, write_back

GRAPHS = 64  # graphs kept for gradients; older ones are forgotten


class Lost(RuntimeError):
    """The other side is gone, out of time, or talks nonsense: no answer will come."""


class Raised(RuntimeError):
    """The other side raised something that is none of Python's own exceptions."""


class Remote:
    """A function of the other side."""

    def __init__(self, peer: "Peer", number: int) -> None:
        self._peer, self._number = peer, number

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._peer.call(self._number, args, kwargs)


class RemoteModule(torch.nn.Module):
    """A module of the other side: it has a gradient for its input, and no weights to look at."""

    def __init__(self, peer: "Peer", number: int) -> None:
        super().__init__()
        self._remote = (peer, number)
        self.training = False

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The other side's answer."""
        peer, number = self._remote
        return peer.call(number, args, kwargs)


class _Attach(torch.autograd.Function):
    """Ties outputs that came over the wire to the inputs that went."""

    @staticmethod
    def forward(ctx: Any, peer: "Peer", graph: int, count: int, *tensors: torch.Tensor) -> Any:
        ctx.peer, ctx.graph, ctx.count = peer, graph, count
        return tuple(output.clone() for output in tensors[:count])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        return (None, None, None, *[None] * ctx.count, *ctx.peer.gradients(ctx.graph, gradients))


class _Watch(torch.overrides.TorchFunctionMode):
    """Notes the names of torch's functions that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Let everything through."""
        self.names.add(str(getattr(func, "__name__", "")))
        return func(*args, **(kwargs or {}))


class Peer:
    """One end of the two pipes.

    Parameters
    ----------
    read, write : int
        File descriptors; they are made non-blocking.
    deadline : callable
        When to give up, on the clock of ``time.monotonic``.
    largest : int
        Bytes that one message may have.
    aside : callable
        A text that goes with each answer (what was printed).
    catch : type
        What a called function may raise and this process goes on.
    """

    def __init__(
        self,
        read: int,
        write: int,
        *,
        deadline: Callable[[], float] = lambda: float("inf"),
        largest: int = 1 << 30,
        aside: Callable[[], str] = lambda: "",
        catch: type[BaseException] = Exception,
    ) -> None:
        self._read, self._write = read, write
        self._deadline, self._largest, self._aside = deadline, largest, aside
        self._catch = catch
        self._functions: list[Any] = []
        self._graphs: OrderedDict[int, tuple[list[Any], list[Any]]] = OrderedDict()
        self._calls = 0
        self.asides: list[str] = []
        self.changed = 0
        """How many arguments the other side has changed in place."""
        for file in (read, write):
            os.set_blocking(file, False)

    def export(self, function: Any) -> int:
        """A number by which the other side can call a function."""
        for number, known in enumerate(self._functions):
            if known is function:
                return number
        self._functions.append(function)
        return len(self._functions) - 1

    def forget(self, *, keep: int = 0) -> None:
        """Take back what was exported, except the first `keep` functions, and drop all graphs."""
        del self._functions[keep:]
        self._graphs.clear()

    def call(self, number: int, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Call a function of the other side; what it changed in place is changed here as well."""
        packed = pack([tuple(args), kwargs], self.export)
        tracked = torch.is_grad_enabled()
        modes = torch.overrides._get_current_function_mode_stack()
        message = {"op": "call", "number": number, "tracked": tracked, "watched": bool(modes)}
        reply, answer = self._ask(message, packed)
        for mode in modes:  # a check that watches for a sort, say, hears of the other side's
            for name in reply.get("used", ()):
                mode.__torch_function__(_named(str(name)), (), (), {})
        value, changes = unpack(answer, self._remote)
        for index, new in changes:
            self.changed += 1
            write_back(packed.sources[index], new)
        inputs = [s for s in packed.sources if isinstance(s, torch.Tensor) and s.requires_grad]
        if not (tracked and inputs and reply.get("graph")):
            return value
        outputs = [s for s in answer.sources if isinstance(s, torch.Tensor) and s.requires_grad]
        attached = _Attach.apply(
            self, int(reply["graph"]), len(outputs), *[o.detach() for o in outputs], *inputs
        )
        return replaced(value, {id(o): a for o, a in zip(outputs, attached, strict=True)})

    def gradients(self, graph: int, outer: Sequence[torch.Tensor]) -> list[Any]:
        """Gradients at the inputs of an earlier call, from those at its outputs."""
        message = {"op": "gradients", "graph": graph}
        _, answer = self._ask(message, pack(list(outer), self.export))
        return list(unpack(answer, self._remote))

    def serve(self) -> None:
        """Answer until the other side is gone."""
        while True:
            self._answer(*self._receive())

    def _remote(self, number: int, module: bool) -> Any:
        return RemoteModule(self, number) if module else Remote(self, number)

    def _ask(self, message: dict[str, Any], packed: Packed) -> tuple[dict[str, Any], Packed]:
        self._send(message, packed)
        while True:
            reply, answer = self._receive()
            if reply.get("aside") and len(self.asides) < GRAPHS:
                self.asides.append(str(reply["aside"])[:2000])
            if reply.get("op") == "result":
                return reply, answer
            if reply.get("op") == "error":
                raise _exception(str(reply.get("kind")), str(reply.get("text")))
            self._answer(reply, answer)

    def _answer(self, message: dict[str, Any], packed: Packed) -> None:
        header: dict[str, Any] = {"op": "result"}
        try:
            if message["op"] == "gradients":
                inputs, outputs = self._graphs[message["graph"]]
                outer = unpack(packed, self._remote)
                found = torch.autograd.grad(
                    outputs, inputs, outer, retain_graph=True, allow_unused=True
                )
                result = pack(list(found), self.export)
            else:
                result = self._called(message, packed, header)
        except Lost:
            raise
        except self._catch as error:
            text = f"{error}"[:1000] + where(error)
            header, result = {"op": "error", "kind": type(error).__name__, "text": text}, Packed()
        self._send(header | {"aside": self._aside()}, result)

    def _called(self, message: dict[str, Any], packed: Packed, header: dict[str, Any]) -> Packed:
        args, kwargs = unpack(packed, self._remote)
        sent = packed.sources
        before = [None if s is None else np.array(state_of(s)) for s in sent]
        watch = _Watch() if message["watched"] else nullcontext()
        with torch.set_grad_enabled(bool(message["tracked"])), watch:
            value = self._functions[message["number"]](*args, **kwargs)
        if isinstance(watch, _Watch):
            header["used"] = sorted(watch.names)
        changes = [
            (i, state_of(s))
            for i, (s, old) in enumerate(zip(sent, before, strict=True))
            if old is not None and differs(s, old)
        ]
        result = pack([value, changes], self.export)
        inputs = [s for s in sent if isinstance(s, torch.Tensor) and s.requires_grad]
        outputs = [s for s in result.sources if isinstance(s, torch.Tensor) and s.requires_grad]
        if inputs and outputs:
            self._calls += 1
            self._graphs[self._calls] = (inputs, outputs)
            header["graph"] = self._calls
            while len(self._graphs) > GRAPHS:
                self._graphs.popitem(last=False)
        return result

    def _send(self, message: dict[str, Any], packed: Packed) -> None:
        arrays = [np.asarray(array, order="C") for array in packed.arrays]
        head = message | {"tree": packed.tree, "arrays": [[a.dtype.str, a.shape] for a in arrays]}
        parts = [json.dumps(head).encode(), *[a.tobytes() for a in arrays]]
        sizes = [len(parts[0]), sum(map(len, parts[1:]))]
        data = memoryview(b"".join([*(n.to_bytes(8, "big") for n in sizes), *parts]))
        while data:
            self._wait(self._write, select.POLLOUT)
            try:
                data = data[os.write(self._write, data) :]
            except OSError:
                raise Lost("the process ended") from None

    def _receive(self) -> tuple[dict[str, Any], Packed]:
        lengths = self._bytes(16)
        head, body = (int.from_bytes(lengths[i : i + 8], "big") for i in (0, 8))
        if head + body > self._largest:
            raise Lost(f"a value of more than {self._largest >> 20} MB was returned")
        text, data, arrays, at = self._bytes(head), self._bytes(body), [], 0
        try:
            message = json.loads(text)
            for name, shape in message.pop("arrays"):
                dtype = np.dtype(str(name))
                if dtype.kind not in "biufc" or any(int(n) < 0 for n in shape):
                    raise ValueError("no such array")
                size = dtype.itemsize * math.prod(int(n) for n in shape)
                # A slice is a copy, so the array is nobody else's and can be written to.
                arrays.append(np.ndarray(tuple(shape), dtype, data[at : at + size]))
                at += size
            return message, Packed(message.pop("tree"), arrays)
        except (
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            OverflowError,
            RecursionError,
        ) as error:
            raise Lost("an answer that cannot be read") from error

    def _bytes(self, count: int) -> bytearray:
        data = bytearray()
        while len(data) < count:
            self._wait(self._read, select.POLLIN)
            part = os.read(self._read, min(count - len(data), 1 << 20))
            if not part:
                raise Lost("the process ended")
            data += part
        return data

    def _wait(self, file: int, event: int) -> None:
        poll = select.poll()
        poll.register(file, event)
        while True:
            left = self._deadline() - time.monotonic()
            if left <= 0:
                raise Lost("out of time")
            if poll.poll(1000 * min(left, 3600)):
                return


def where(error: BaseException) -> str:
    """Where in a student's notebook something was raised, as far as the traceback knows."""
    found, trace = "", error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename.startswith("<cell "):
            found = f" ({trace.tb_frame.f_code.co_filename[1:-1]}, line {trace.tb_lineno})"
        trace = trace.tb_next
    return found


def _named(name: str) -> Callable[..., None]:
    def function(*_: Any, **__: Any) -> None:
        return None

    function.__name__ = name
    return function


def _exception(kind: str, text: str) -> Exception:
    """Python's own exceptions come as such, since checks look for them; others by their name."""
    known = getattr(builtins, kind, None)
    if isinstance(known, type) and issubclass(known, Exception):
        try:
            return known(text)
        except TypeError:  # UnicodeDecodeError and the like want more than a text
            pass
    return Raised(f"{kind}: {text}")
