"""The engine: a constant batch of slots, through which a queue of images passes.

An image that succeeds, or runs out of iterations, leaves its slot and the next of the queue takes
it. Per iteration the engine does one forward pass, one backward pass to the input (none to the
weights), and one small transfer to the host. The slots are in :mod:`tkmia_utils.engine.slots`.
"""

import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import torch
from tqdm.auto import tqdm

from tkmia_utils.attacks import Attack, AttackSpec, backward_passes, build
from tkmia_utils.condition import Stop, as_stop
from tkmia_utils.engine.advice import AttackWarning, advice
from tkmia_utils.engine.arguments import check_trace, enqueue, known_logits
from tkmia_utils.engine.checkpoint import Checkpoint, described
from tkmia_utils.engine.folding import Layout
from tkmia_utils.engine.forward import Forward, arithmetic
from tkmia_utils.engine.images import Images, Reader, positions
from tkmia_utils.engine.ledger import Ledger
from tkmia_utils.engine.result import AttackResult
from tkmia_utils.engine.rows import hardest_first, take, values
from tkmia_utils.engine.runtime import Runtime, split_settings
from tkmia_utils.engine.slots import Slots
from tkmia_utils.engine.trial import Trial, choose
from tkmia_utils.hashing import text_hash
from tkmia_utils.validation import K, check_one_of

DEFAULT_SLOTS = {"cpu": 16, "cuda": 64}
# settings of the runtime that decide a result's bits, or which of them are there
DECIDING = ("precision", "compile", "keep_images", "files")


def attack(
    model: Callable[[torch.Tensor], torch.Tensor],
    images: Images,
    labels: torch.Tensor,
    specified: torch.Tensor,
    k: K,
    *,
    method: str | Attack = "tkmia",
    max_iter: int | torch.Tensor = 300,
    lr: float | torch.Tensor = 1e-3,
    alpha: float | torch.Tensor = 1e-4,
    momentum: float | torch.Tensor = 0.9,
    delta: int | torch.Tensor | None = None,
    stop: str | Stop = "excluded",
    bits: int | None = None,
    scores: str | None = None,
    index: torch.Tensor | None = None,
    clean_logits: torch.Tensor | None = None,
    record: bool = False,
    snapshots: Sequence[int] = (),
    runtime: Runtime = Runtime(),  # noqa: B008  (frozen, and so shared without harm)
    **options: object,
) -> AttackResult:
    """Perturb images until specified labels leave the top k (Algorithm 1, batched).

    An attack ends at its first success; "tkmia_min" goes on until the limit and gives back the
    success of least norm.

    Parameters
    ----------
    model : torch.nn.Module or callable
        Maps float32 images ``(N, 3, H, W)`` in [0, 1] to logits ``(N, C)``; normalisation is its
        own affair. In evaluation mode; it is neither moved nor changed.
    images : torch.Tensor or ImageSource
        float32 ``(N, 3, H, W)`` in [0, 1]; or anything with ``len()`` and ``.images(index)``, such
        as a :class:`~tkmia_utils.data.MultiLabelDataset`, which is read as slots fall free, on a
        background thread and at most `slots` images ahead.
    labels : torch.Tensor
        Bool ``(N, C)``: relevant labels Y_p.
    specified : torch.Tensor
        Bool ``(N, C)``: S, a non-empty part of Y_p that leaves at least one other relevant label.
    k : int or torch.Tensor
        1 <= k <= C - 1; like the following arguments one for all, or a tensor with one an image.
    method : str or Attack
        "tkmia", "tkml_ap_u", "ml_cw_u", "kfool", "gmla", "tkmia_min", "fgsm" or "pgd"
        (:mod:`tkmia_utils.attacks`).
    max_iter : int or torch.Tensor
        Most steps; no schedule depends on it.
    lr, alpha, momentum : float or torch.Tensor
        Step size, weight of ``1/2 ||eps||^2`` and momentum of SGD, in the paper's [-1, 1] pixels.
    delta : int or torch.Tensor, optional
        How many of S must be out of the top k for success, 1 <= delta <= |S|; default |S|.
    stop : {"excluded", "refilled", "imperceptible"} or Stop
        What a success is. "excluded", as in the paper: delta of S are out of the top k. "refilled":
        and P@k is not lower than on the clean image. "imperceptible": nor is any other measure. A
        :class:`~tkmia_utils.condition.Stop` names the measures; it may also ask that the labels are
        hidden from more than the top k, and for a share of the clean gap below it. See
        :func:`tkmia_utils.condition.condition`; beyond k = 12 the measures are asked for by a
        condition that is sufficient and not necessary.
    bits : int, optional
        8: the victim sees whole grey levels n/255 only, so that every success is one of the image
        that an 8-bit file gives back. Steps are taken before rounding, with the gradient after it.
    scores : {"logits", "sigmoid"}, optional
        What a loss of scores is taken of; default the method's own, which is logits for all but
        TkMIA as printed. kFool and GMLA know logits alone.
    index : torch.Tensor, optional
        int64 ``(N,)``: which of `images` each row of the queue is about, so that many rows may
        share one image; `labels`, `specified` and the settings then have N rows. Default: all
        images, in their order.
    clean_logits : torch.Tensor, optional
        ``(N, C)``, the victim's on the clean images where they are known. They are returned, and
        a method that looks back at the clean image uses them; images that look hard are attacked
        first, which saves time at the end (where the model's rows do not depend on their place, as
        `slots` of the runtime asks, no bit changes). Default: those at iteration 0.
    record : bool
        Keep the logits and norms of every iteration (for looking, not for speed).
    snapshots : sequence of int
        Iterations at which to note where the unfinished images stand, so that one long run
        answers for shorter limits too (:meth:`AttackResult.at`).
    runtime : Runtime
        How it is run: device, slots (the batch size), precision, checkpoint, progress. See
        :class:`Runtime`.
    **options
        Options of the method, for instance ``variant="paper"``.

    Returns
    -------
    AttackResult

    Warns
    -----
    AttackWarning
        Images that succeed unchanged, logits or gradients that are not finite, a gradient that is
        zero, or steps so small that nothing could succeed; the message says what to try.

    Raises
    ------
    ValueError
        An argument of the wrong type, shape, dtype or range, NaN, a model in training mode, S not
        inside Y_p, an empty Y_p∖S, a model that does not compile, a checkpoint that is broken or
        of another call: the message begins with the argument's name.
    """
    if not isinstance(runtime, Runtime):
        raise ValueError(f"runtime: expected a Runtime, got {type(runtime).__name__}")
    misplaced = sorted(split_settings(options)[0])
    if misplaced:
        name = misplaced[0]
        raise ValueError(f"{name}: is a setting of the runtime: say runtime=Runtime({name}=...)")
    place = _device(model, runtime)
    at = positions(images, index)
    queue = enqueue(
        len(at), labels, specified, k, max_iter=max_iter, lr=lr, alpha=alpha, momentum=momentum,
        delta=delta,
    )  # fmt: skip
    given = known_logits(clean_logits, queue)
    check_trace(record, snapshots, checkpoint=runtime.checkpoint)
    stop = as_stop(stop)
    check_one_of(bits, (None, 8), name="bits")
    chosen = build(method, scores=scores, **options)
    size = runtime.slots or min(len(at), DEFAULT_SLOTS.get(place.type, 16))
    n, classes = queue.labels.shape
    order = None if given is None else hardest_first(queue, given)
    with (
        Reader(images, at, ahead=size, order=order) as reader,
        arithmetic(runtime.precision, place),
    ):
        layout, trial = _layout(model, reader, queue, runtime, size=size, device=place, look=record)
        kept = reader.first.shape[1:] if runtime.keep_images else None
        steps = int(queue.max_iter.max()) if record else None
        ledger = Ledger(
            n, classes, image=kept, snapshots=snapshots, steps=steps, files=runtime.files
        )
        slots = partial(
            Slots, method=chosen, size=size, device=place, snapshots=snapshots, stop=stop,
            bits=bits, files=runtime.files,
        )  # fmt: skip
        forward = Forward(
            model, classes, device=place, precision=runtime.precision, compile=runtime.compile,
            layout=layout,
        )  # fmt: skip
        working = slots(forward, queue=queue, reader=reader, ledger=ledger, clean_logits=given)
        forward.prepare(working.clean)
        files = None
        if runtime.checkpoint is not None:
            arguments = _fingerprint(
                reader, queue, model=model, method=chosen, slots=size, device=place,
                clean_logits=given, snapshots=list(snapshots), stop=stop, bits=bits,
                fold=layout.fold, channels_last=layout.channels_last,
                **{name: getattr(runtime, name) for name in DECIDING},
            )  # fmt: skip
            files = Checkpoint(runtime.checkpoint, arguments)
        _work(working, ledger, runtime, files)
    if working.doubtful:  # the victim itself has the last word, and the whole attack
        again = torch.tensor(working.doubtful)
        part = take(queue, again, torch.device("cpu"))
        other = Ledger(len(again), classes, image=kept, snapshots=snapshots, files=runtime.files)
        with Reader(images, at[again], ahead=size) as reader, arithmetic("fp32", place):
            plain = Forward(model, classes, device=place)
            known = None if given is None else given[again]
            working = slots(plain, queue=part, reader=reader, ledger=other, clean_logits=known)
            _work(working, other, replace(runtime, progress=False), None)
        ledger.enter(again, other.columns)
    if files:
        files.remove()
    name = method if isinstance(method, str) else type(method).__name__
    result = ledger.result(
        queue, method=name, stop=stop, bits=bits,
        passes=backward_passes(chosen, queue.k_max), trial=trial,
    )  # fmt: skip
    for text in advice(result, uses_lr=getattr(chosen, "uses_lr", True)):
        warnings.warn(f"{name}: {text}", AttackWarning, stacklevel=2)
    return result


def _layout(
    model: Callable[[torch.Tensor], torch.Tensor],
    reader: Reader,
    queue: AttackSpec,
    runtime: Runtime,
    *,
    size: int,
    device: torch.device,
    look: bool,
) -> tuple[Layout, Trial | None]:
    """How the victim is run: as asked for, as the checkpoint was begun, or by a short trial."""
    fold, last = runtime.fold, runtime.channels_last
    if runtime.checkpoint is not None and None in (fold, last):
        begun = Checkpoint.begun_with(runtime.checkpoint)
        said = {"True": True, "False": False}
        fold = said.get(begun.get("fold", "")) if fold is None else fold
        last = said.get(begun.get("channels_last", "")) if last is None else last
    if look:  # for looking, not for speed
        fold, last = bool(fold), bool(last)
    passes = float((queue.max_iter + 1).sum()) / size
    batch = reader.first.to(device).expand(size, -1, -1, -1)
    return choose(model, batch, fold=fold, channels_last=last, rows=len(queue.k), passes=passes)


def _work(working: Slots, ledger: Ledger, runtime: Runtime, files: Checkpoint | None) -> None:
    """Take the whole queue through the slots, from the start or from where the files say."""
    step = 0 if files is None else _resume(files, working, ledger)
    if not step:
        working.fill()
    with _progress(working, len(working.reader), quiet=not runtime.progress) as show:
        while working.occupied:
            working.iterate()
            step += 1
            if step % runtime.check_every == 0:
                show(working.exchange())
            if not working.occupied:
                working.look_at_finished()
                working.fill()  # some may have to go on
            elif files and step % runtime.checkpoint_every == 0:
                working.look_at_finished()
                files.save({"step": torch.tensor(step), **working.tensors()}, ledger.drain())


def _resume(files: Checkpoint, working: Slots, ledger: Ledger) -> int:
    """Put slots and ledger where the files say, and return the iteration; 0 without files."""
    saved = files.load()
    if saved is None:
        return 0
    state, parts = saved
    working.restore(state)
    if sum(len(part["queue_index"]) for part in parts) != working.finished:
        raise ValueError(f"checkpoint: {files.path} and its parts do not belong together")
    for part in parts:
        ledger.enter(part["queue_index"], part)
    ledger.drain()  # they are on the disk already
    return int(state["step"])


def _fingerprint(reader: Reader, queue: AttackSpec, **arguments: object) -> dict[str, str]:
    """Every argument that decides a result, in short; `checkpoint` says which."""
    images = reader.images
    shown: object = images
    if not isinstance(images, torch.Tensor):
        kind, first = type(images).__qualname__, described(reader.first)
        # a data set tells by its images' hashes whether one was replaced
        hashes = text_hash(images.digests(reader.at)) if hasattr(images, "digests") else ""
        shown = f"{kind} {len(images)} {first} {hashes}"
    every = {**values(queue), "images": shown, "index": reader.at, "order": reader.order}
    every |= arguments
    return {name: described(value) for name, value in every.items()} | {"torch": torch.__version__}


@contextmanager
def _progress(working: Slots, n: int, *, quiet: bool) -> Iterator[Callable[[int], None]]:
    """A bar over the images of the queue; yields what is told how many have just left."""
    quiet = quiet or bool(os.environ.get("CI"))
    begun, before = time.perf_counter(), working.work
    bar = tqdm(
        total=n, initial=working.finished, disable=quiet, unit="image", leave=False,
        mininterval=0.5, miniters=0,
    )  # fmt: skip
    with bar:

        def show(left: int) -> None:
            if quiet:
                return
            rate = (working.work - before) / (time.perf_counter() - begun)
            won = working.successes / max(working.finished, 1)
            text = f"success={won:.0%}, {rate:.0f} image-iterations/s"
            bar.set_postfix_str(text, refresh=False)
            bar.update(left)

        yield show


def _device(model: object, runtime: Runtime) -> torch.device:
    """Where the model is; a model in training mode is refused."""
    if not callable(model):
        raise ValueError(f"model: expected a module or a function, got {type(model).__name__}")
    if isinstance(model, torch.nn.Module):
        training = [name or "the model itself" for name, m in model.named_modules() if m.training]
        if training:
            raise ValueError(f"model: expected evaluation mode, but {training[0]} is in training")
        home = next((p.device for p in model.parameters()), None)
    else:
        home = None
    wanted = runtime.wanted_device()
    if wanted and home and (wanted.type, wanted.index or 0) != (home.type, home.index or 0):
        raise ValueError(f"device: the model is on {home}, not on {wanted}; move it first")
    if wanted and not home:
        try:
            torch.empty(0, device=wanted)
        except (AssertionError, RuntimeError) as error:
            raise ValueError(f"device: {wanted} cannot be used here ({error})") from error
    return home or wanted or torch.device("cpu")
