"""Deformable attention: the native CPU kernel against PyTorch, the GridSample body and its own gather bound.

python benchmarks/msda.py [--quick] [--json]

One thread is measured in CPU time of the calling thread, which neighbours on the machine disturb least; two threads by
the clock. Contenders take turns in one process; medians.
"""

from __future__ import annotations

import ctypes
import dataclasses
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import numpy as np
import onnx_ir as ir
import onnxruntime
import torch
from harness import Row, command_line, faster, figure, paired_medians, report

from devil.config import PRESETS, DetectorConfig, SwinConfig, level_shapes
from devil.contract import contract
from devil.export.detector import BackboneGraph, GrounderGraph
from devil.export.msda import DOMAIN, INPUTS, OP_TYPE, AttachDeformableAttention
from devil.export.trace import trace
from devil.model.detector import Detector
from devil.model.detector.attention import deformable_attention
from devil.plugins import library
from devil.plugins.native import ISAS, instruction_sets, invoke, prepare_call

FRAME = (360, 640)
DECODER_QUERIES = 900
LANGUAGE_HIDDEN = PRESETS["tiny"].language.hidden
MILLI = 1e3

# Least speed-up by case, batch and contender; None where no goal was set.
TORCH_GOALS = {("encoder", "avx512"): 35, ("encoder", "avx2"): 25}
BODY_GOALS = {("encoder", "avx512"): 30, ("encoder", "avx2"): 20}
DECODER_GOALS = {1: 12, 4: 25}
BOUND_GOAL = 1.25

SWIN_T = DetectorConfig(backbone=SwinConfig(embed=96, depths=(2, 2, 6, 2), heads=(3, 6, 12, 24), window=7))


@dataclass(frozen=True)
class Options:
    """Measures the operator and, with it, a whole Swin-T detector at 640x360."""

    quick: bool = False
    """Fewer rounds, no whole detector."""
    json: bool = False
    """End with one JSON document."""


def main(options: Options) -> None:
    if library() is None:
        raise SystemExit("the native library is not built: install the package with a C++ compiler")
    torch.set_num_threads(1)
    rounds = 3 if options.quick else 9
    rows = []
    with torch.no_grad():
        for name, batch in (("encoder", 1), ("encoder", 4), ("decoder", 1), ("decoder", 4)):
            case = sampling_case(name, batch)
            rows += operator_rows(name, batch, case, rounds)
        if not options.quick:
            rows += detector_rows()
    report("msda", rows, options.json)


def sampling_case(name: str, batch: int) -> tuple[np.ndarray, ...]:
    """Inputs of the detector's sizes. As the model is initialised, point p of head h lies p + 1 pixels away from its
    query in direction h, on every level; here with normal noise of one pixel."""
    random = np.random.default_rng(0)
    shapes = np.array(level_shapes(*FRAME), np.int64)
    tokens = int(shapes.prod(1).sum())
    if name == "encoder":
        centres = [
            np.stack(np.meshgrid((np.arange(w) + 0.5) / w, (np.arange(h) + 0.5) / h), -1).reshape(-1, 2)
            for h, w in shapes
        ]
        centres = np.broadcast_to(np.concatenate(centres), (batch, tokens, 2))
    else:
        centres = random.uniform(size=(batch, DECODER_QUERIES, 2))
    size = (batch, centres.shape[1], 8, len(shapes), 4)
    angles = np.arange(8) * (2 * np.pi / 8)
    directions = np.stack((np.cos(angles), np.sin(angles)), -1)
    steps = directions[:, None, None] * np.arange(1, 5)[:, None]  # [heads, 1, points, 2]
    offsets = (steps + random.normal(size=(*size, 2))) / shapes[:, None, ::-1]
    weights = random.uniform(size=size)
    return (
        aligned(random.normal(size=(batch, tokens, 8, 32)).astype(np.float32)),
        shapes,
        (centres[:, :, None, None, None] + offsets).astype(np.float32),
        (weights / weights.sum((3, 4), keepdims=True)).astype(np.float32),
    )


def aligned(array: np.ndarray) -> np.ndarray:
    """A copy that begins on a cache line, as every tensor inside a graph does; numpy's own do not, and rows of a whole
    line that straddle two cost twice the loads."""
    line = 64
    room = np.empty(array.nbytes + line, np.uint8)
    start = -room.ctypes.data % line
    copy = room[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[:] = array
    return copy


def operator_rows(name: str, batch: int, case: tuple[np.ndarray, ...], rounds: int) -> list[Row]:
    """One thread: every instruction set against both contenders and the bound. Two threads: ONNX Runtime's pool."""
    tensors = [torch.from_numpy(array) for array in case]
    label = f"{name} N={batch}"
    isas = [isa for isa in instruction_sets() if isa != "generic"] or ["generic"]
    contenders: list[Callable[[], object]] = [
        lambda: deformable_attention(*tensors),
        *(bound_run(operator_session(native, threads=1), case) for native in (False, True)),
    ]
    for isa in isas:
        contenders += [whole_kernel(case, isa), gather_bound(case, isa)]
    in_torch, in_body, in_session, *by_isa = (MILLI * seconds for seconds in settled_medians(contenders, rounds))
    rows = against_others(name, batch, f"{label}, ORT operator", isas[-1], in_session, in_torch, in_body)
    for isa, ours, bound in zip(isas, by_isa[::2], by_isa[1::2], strict=True):
        if isa != isas[-1]:
            rows += against_others(name, batch, f"{label}, kernel", isa, ours, in_torch, in_body)
        ratio = ours / bound
        goal = f"≤ {BOUND_GOAL:g}×"
        rows.append(Row(f"{label}, kernel, {isa}", "gather bound", ours, bound, "ms", ratio, goal, ratio <= BOUND_GOAL))
    two = [bound_run(operator_session(native, threads=2), case) for native in (True, False)]
    ours, theirs = paired_medians(two, rounds)
    rows.append(faster(f"{label}, ORT operator, 2 threads", "ORT GridSample body", MILLI * ours, MILLI * theirs, "ms"))
    return rows


def settled_medians(contenders: list[Callable[[], object]], rounds: int) -> list[float]:
    """Median CPU seconds, in turns; each call is timed after one that is not, so that it meets its own data in the
    caches, as inside a graph, and not its predecessor's."""
    seconds: list[list[float]] = [[] for _ in contenders]
    for _ in range(rounds):
        for index, contender in enumerate(contenders):
            contender()
            start = time.thread_time()
            contender()
            seconds[index].append(time.thread_time() - start)
    return [statistics.median(values) for values in seconds]


def bound_run(session: onnxruntime.InferenceSession, case: tuple[np.ndarray, ...]) -> Callable[[], None]:
    """A run into memory that is there already, as inside a graph."""
    binding = session.io_binding()
    for name, array in zip(INPUTS, case, strict=True):
        binding.bind_cpu_input(name, array)
    value, _, locations, _ = case
    shape = (value.shape[0], locations.shape[1], value.shape[2] * value.shape[3])
    binding.bind_ortvalue_output("output", onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, np.float32))
    return partial(session.run_with_iobinding, binding)


def against_others(
    name: str, batch: int, label: str, isa: str, ours: float, in_torch: float, in_body: float
) -> list[Row]:
    """Milliseconds of one lowering beside PyTorch and the function body."""
    case, body_goal = f"{label}, {isa}", BODY_GOALS.get((name, isa))
    return [
        faster(case, "torch grid_sample", ours, in_torch, "ms", torch_goal(name, batch, isa)),
        faster(case, "ORT GridSample body", ours, in_body, "ms", body_goal),
    ]


def torch_goal(name: str, batch: int, isa: str) -> float | None:
    return DECODER_GOALS[batch] if name == "decoder" else TORCH_GOALS.get((name, isa))


def whole_kernel(case: tuple[np.ndarray, ...], isa: str) -> Callable[[], None]:
    """Both phases, as ONNX Runtime calls them."""
    call = prepare_call(*case)

    def run() -> None:
        rows = (ctypes.c_int64(0), ctypes.c_int64(call.rows))
        invoke("devil_msda_run", ctypes.byref(call.arguments), ctypes.c_int(ISAS[isa]), *rows)

    return run


def gather_bound(case: tuple[np.ndarray, ...], isa: str) -> Callable[[], None]:
    """The sums alone, from corners listed beforehand: what is left when finding them costs nothing."""
    call = prepare_call(*case)
    lists = call.rows * call.arguments.heads
    room = 4 * call.arguments.levels * call.arguments.points
    arrays = (np.zeros((lists, room), np.int32), np.zeros((lists, room), np.float32), np.zeros(lists, np.int32))

    def phase(function: str) -> None:
        """Addresses are taken here, so that the call and the lists stay alive with this function."""
        pointers = (ctypes.c_void_p(array.ctypes.data) for array in arrays)
        invoke(function, ctypes.byref(call.arguments), ctypes.c_int(ISAS[isa]), *pointers)

    phase("devil_msda_prepare")
    return partial(phase, "devil_msda_gather")


def session(model: bytes | str, native: bool, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # or idle contenders take the cores
    if native:
        options.register_custom_ops_library(str(library()))
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def operator_session(native: bool, threads: int) -> onnxruntime.InferenceSession:
    """A graph of the operator alone, with its function body."""
    inputs = []
    for name, kind, rank in zip(INPUTS, ("FLOAT", "INT64", "FLOAT", "FLOAT"), (4, 2, 6, 5), strict=True):
        shape = ir.Shape([f"{name}{axis}" for axis in range(rank)])
        inputs.append(ir.Value(name=name, type=ir.TensorType(ir.DataType[kind]), shape=shape))
    node = ir.Node(DOMAIN, OP_TYPE, inputs, num_outputs=1)
    output = node.outputs[0]
    output.name, output.type, output.shape = "output", ir.TensorType(ir.DataType.FLOAT), ir.Shape(["N", "Q", "C"])
    graph = ir.Graph(inputs, [output], nodes=[node], opset_imports={"": 20, DOMAIN: 1}, name="operator")
    model = AttachDeformableAttention(len(level_shapes(*FRAME)))(ir.Model(graph, ir_version=10)).model
    return session(ir.to_proto(model).SerializeToString(), native, threads)


def detector_rows(rounds: int = 3) -> list[Row]:
    """Backbone and grounder of a Swin-T detector with random weights on one frame, in CPU time of one thread."""
    torch.manual_seed(0)
    ours = Detector(SWIN_T, LANGUAGE_HIDDEN).eval()
    theirs = transformers_detector()
    frames = torch.randint(0, 256, (1, *FRAME, 3), dtype=torch.uint8)
    rst = torch.randn(LANGUAGE_HIDDEN)
    pixels = torch.randn(1, 3, *FRAME)
    with TemporaryDirectory() as folder:
        graphs = export_detector(ours, frames, rst, Path(folder))
        contenders = [runner(graphs, frames, rst, native) for native in (True, False)]
        contenders.append(lambda: theirs(pixels, torch.full((1, 1), 7)))
        seconds = paired_medians(contenders, rounds, time.thread_time)
    native, body, in_transformers = (MILLI * value for value in seconds)
    return [
        faster("whole detector, ORT", "same graphs, GridSample body", native, body, "ms", 1.28),
        faster("whole detector, ORT", "transformers, PyTorch eager", native, in_transformers, "ms", 2),
        figure("whole detector: saved by the operator", body - native, "ms"),
    ]


def export_detector(detector: Detector, frames: torch.Tensor, rst: torch.Tensor, folder: Path) -> list[Path]:
    """Backbone and grounder as the exporter makes them."""
    specs = contract(dataclasses.replace(PRESETS["tiny"], detector=SWIN_T))
    shapes = torch.tensor(level_shapes(*FRAME))
    features = torch.zeros(1, int(shapes.prod(1).sum()), SWIN_T.hidden)
    modules = {
        "backbone": (BackboneGraph(detector), (frames,)),
        "grounder": (GrounderGraph(detector), (features, shapes, rst)),
    }
    paths = []
    for name, (module, inputs) in modules.items():
        graph = trace(module, inputs, specs[name])
        AttachDeformableAttention(SWIN_T.levels)(graph)
        paths.append(folder / f"{name}.onnx")
        ir.save(graph, paths[-1])
    return paths


def runner(graphs: list[Path], frames: torch.Tensor, rst: torch.Tensor, native: bool) -> Callable[[], object]:
    backbone, grounder = (session(str(path), native, threads=1) for path in graphs)
    shapes = np.array(level_shapes(*FRAME), np.int64)

    def run() -> object:
        (features,) = backbone.run(None, {"frames": frames.numpy()})
        return grounder.run(None, {"features": features, "level_shapes": shapes, "rst": rst.numpy()})

    return run


def transformers_detector() -> torch.nn.Module:
    """transformers' Grounding DINO of the same sizes, given one text token; its time does not depend on the weights."""
    import transformers

    swin = SWIN_T.backbone
    backbone = transformers.SwinConfig(
        embed_dim=swin.embed, depths=list(swin.depths), num_heads=list(swin.heads), window_size=swin.window,
        image_size=FRAME[1], out_indices=[2, 3, 4],
    )  # fmt: skip
    text = transformers.BertConfig(
        hidden_size=LANGUAGE_HIDDEN, num_hidden_layers=1, num_attention_heads=4, vocab_size=30
    )
    config = transformers.GroundingDinoConfig(backbone_config=backbone, text_config=text, disable_custom_kernels=True)
    detector = transformers.GroundingDinoForObjectDetection(config).eval()
    detector.model.text_backbone = _GivenText()
    return detector


class _GivenText(torch.nn.Module):
    """Stands in for BERT, as the RST does in DEViL: one token per frame."""

    def forward(self, *_arguments: object, **_keywords: object) -> SimpleNamespace:
        return SimpleNamespace(last_hidden_state=torch.ones(1, 1, LANGUAGE_HIDDEN))


if __name__ == "__main__":
    main(command_line(Options, __doc__))
