"""TensorRT on a machine without a GPU: its runtime's calls, with ONNX Runtime computing on the fake GPU's memory.

An "engine" names its ONNX file and its shapes. Shapes, addresses and profiles are checked as TensorRT checks them. A
test holds the fake's calls against the real bindings, where they are installed.
"""

import enum
import json
import sys
import types

import numpy as np

from devil.config import level_shapes
from tests.fake_cuda import at

INPUT, OUTPUT, DEVICE, HOST = "INPUT", "OUTPUT", "DEVICE", "HOST"
_KINDS = {"float": "FLOAT", "float16": "HALF", "int64": "INT64", "uint8": "UINT8", "bool": "BOOL"}
_NUMPY = {
    "FLOAT": "float32", "HALF": "float16", "INT64": "int64", "UINT8": "uint8", "BOOL": "bool",
}  # fmt: skip


class DataType(enum.Enum):
    FLOAT, HALF, BF16, INT32, INT64, UINT8, BOOL = range(7)


class ILogger:
    Severity = enum.Enum("Severity", "INTERNAL_ERROR ERROR WARNING INFO VERBOSE")


class IOutputAllocator:
    pass


class IProfiler:
    pass


def content(onnx, profiles, spec, host=(), wrong=0.0, host_code=False):
    """The bytes of an engine.

    Args:
        profiles: `devil.engine_profile.Profile`s.
        host: inputs whose values are read on the host.
        wrong: share by which all floats that come out are too large: a miscompiled engine.
        host_code: it holds code for the CPU, as version-compatible engines do.
    """
    shapes = [profile.shapes(spec) for profile in profiles]
    values = {"onnx": str(onnx), "shapes": shapes, "host": list(host), "wrong": wrong, "host_code": host_code}
    return json.dumps(values).encode()


class ICudaEngine:
    def __init__(self, machine, values):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 4
        self._session = onnxruntime.InferenceSession(values["onnx"], options, providers=["CPUExecutionProvider"])
        self._machine, self._values = machine, values
        self._nodes = {node.name: (INPUT, node) for node in self._session.get_inputs()}
        self._nodes |= {node.name: (OUTPUT, node) for node in self._session.get_outputs()}
        self.device_memory_size_v2 = 4096

    @property
    def num_io_tensors(self):
        return len(self._nodes)

    @property
    def num_optimization_profiles(self):
        return len(self._values["shapes"])

    def get_tensor_name(self, index):
        return list(self._nodes)[index]

    def get_tensor_mode(self, name):
        return self._nodes[name][0]

    def get_tensor_dtype(self, name):
        return DataType[_KINDS[self._nodes[name][1].type[7:-1]]]

    def get_tensor_shape(self, name):
        return [size if isinstance(size, int) else -1 for size in self._nodes[name][1].shape]

    def get_tensor_location(self, name):
        return HOST if name in self._values["host"] else DEVICE

    def get_aliased_input_tensor(self, name):
        return name.replace("present_", "past_", 1) if name.startswith("present_") else None

    def create_execution_context(self, strategy):
        return IExecutionContext(self, strategy)

    def create_engine_inspector(self):
        layers = [{"Name": "all of it", "LayerType": "Fake", "Outputs": [{"Format/Datatype": "Float"}]}]
        told = json.dumps({"Layers": layers, "Bindings": []})
        return types.SimpleNamespace(get_engine_information=lambda kind: told if kind == "JSON" else "")

    def create_runtime_config(self):
        return IRuntimeConfig()


class IRuntimeConfig:
    """TensorRT-RTX's; its cache of compiled kernels holds what it was given."""

    cuda_graph_strategy = None

    def set_execution_context_allocation_strategy(self, strategy):
        self.allocation = strategy

    def create_runtime_cache(self):
        return IRuntimeCache()

    def set_runtime_cache(self, cache):
        self.cache = cache


class IRuntimeCache:
    kernels = b"compiled"

    def deserialize(self, content):
        self.kernels += b", " + content
        return True

    def serialize(self):
        return self.kernels


class IExecutionContext:
    def __init__(self, engine, strategy):
        self._engine, self.strategy = engine, strategy
        self._needs_memory = getattr(strategy, "allocation", strategy) == "USER_MANAGED"
        self.engine, self.profiler = engine, None
        self._profile, self._shapes, self._addresses, self._allocators = None, {}, {}, {}
        self._changed, self._kept = True, []

    def set_device_memory(self, memory, size):
        assert memory % 256 == 0
        assert size >= self._engine.device_memory_size_v2
        self._needs_memory = False

    def set_optimization_profile_async(self, profile, stream):
        assert stream in self._engine._machine.streams
        self._profile = profile
        return True

    def set_tensor_address(self, name, address):
        if name not in self._engine._nodes or address % 256:
            return False
        self._changed |= self._addresses.get(name) != address
        self._addresses[name] = address
        return True

    def set_input_shape(self, name, shape):
        least, _, most = self._engine._values["shapes"][self._profile][name]
        if len(shape) != len(most) or not all(a <= b <= c for a, b, c in zip(least, shape, most, strict=True)):
            self._engine._machine.complain(f"{name}: {tuple(shape)} is out of the profile's range")
            return False
        self._changed |= self._shapes.get(name) != tuple(shape)
        self._shapes[name] = tuple(shape)
        return True

    def get_tensor_shape(self, name):
        """As shapes are known before the run: an expression of dimensions is, what depends on values is not."""
        mode, node = self._engine._nodes[name]
        if mode == INPUT:
            return self._shapes[name]
        sizes = {}
        for other, shape in self._shapes.items():
            sizes |= dict(zip(self._engine._nodes[other][1].shape, shape, strict=True))
        if "H" in sizes and "W" in sizes and self._engine._values.get("derives", True):
            sizes["L"] = sum(h * w for h, w in level_shapes(sizes["H"], sizes["W"]))
        return [size if isinstance(size, int) else _size(size, sizes) for size in node.shape]

    def set_output_allocator(self, name, allocator):
        assert isinstance(allocator, IOutputAllocator)
        self._allocators[name] = allocator
        self._kept.append(allocator)  # as the binding does, as long as the context lives
        return True

    def execute_async_v3(self, stream):
        machine = self._engine._machine
        assert not self._needs_memory, "a context without memory"
        stream = machine.streams[stream]
        assert stream.captured is None or not self._changed, "captured without a run before in the same sizes"
        self._changed = False
        inputs = [name for name, (mode, _) in self._engine._nodes.items() if mode == INPUT]
        if any(name not in self._shapes or name not in self._addresses for name in inputs):
            return False
        if self.profiler is not None and stream.captured is None:
            self.profiler.report_layer_time("all of it", 1.5)
        shapes, addresses = dict(self._shapes), dict(self._addresses)
        on_host = {name: self._read(name, shapes, addresses) for name in self._engine._values["host"]}
        waiting = {name: allocator for name, allocator in self._allocators.items() if name not in addresses}

        def work():
            outputs = self._compute(shapes, addresses, on_host)
            for name, array in outputs.items():
                if name in addresses:
                    at(addresses[name], array.nbytes)[:] = array.reshape(-1).view(np.uint8)

        if not waiting:
            stream.add(work)
            return True
        stream.synchronize()  # as TensorRT, which must know the sizes before it asks for memory
        outputs = self._compute(shapes, addresses, on_host)
        for name, allocator in waiting.items():
            address = allocator.reallocate_output_async(name, 0, max(outputs[name].nbytes, 1), 256, stream.handle)
            if not address:
                return False
            allocator.notify_shape(name, outputs[name].shape)
            at(address, outputs[name].nbytes)[:] = outputs[name].reshape(-1).view(np.uint8)
        return True

    def _compute(self, shapes, addresses, on_host):
        feeds = {name: on_host[name] if name in on_host else self._read(name, shapes, addresses) for name in shapes}
        names = [name for name, (mode, _) in self._engine._nodes.items() if mode == OUTPUT]
        outputs = dict(zip(names, self._engine._session.run(names, feeds), strict=True))
        factor = 1 + self._engine._values["wrong"]
        return {
            name: array if name.startswith("present_") else array * array.dtype.type(factor)
            for name, array in outputs.items()
        }

    def _read(self, name, shapes, addresses):
        dtype = np.dtype(_NUMPY[self._engine.get_tensor_dtype(name).name])
        size = int(np.prod(shapes[name])) * dtype.itemsize
        return at(addresses[name], size).view(dtype).reshape(shapes[name]).copy()


def _size(name, sizes):
    whole, _, divisor = name.replace("floor(", "").replace(")", "").partition("/")
    return sizes[whole] // int(divisor or 1) if whole in sizes else -1


def make_module(machine, version="11.1.0", rtx=False):
    """The module `tensorrt`, or `tensorrt_rtx`."""
    module = types.ModuleType("tensorrt_rtx" if rtx else "tensorrt")
    module.__version__ = version

    class Runtime:
        def __init__(self, logger):
            self._logger, self.engine_host_code_allowed = logger, False
            machine.complain = lambda text: logger.log(ILogger.Severity.ERROR, text)

        def deserialize_cuda_engine(self, serialised):
            try:
                values = json.loads(serialised)
            except ValueError:
                self._logger.log(ILogger.Severity.ERROR, "magic tag does not match")
                return None
            if values["host_code"] and not self.engine_host_code_allowed:
                self._logger.log(ILogger.Severity.ERROR, "the plan has host code, which is not allowed")
                return None
            return ICudaEngine(machine, values)

    module.Runtime, module.ILogger, module.DataType = Runtime, ILogger, DataType
    module.IOutputAllocator, module.IProfiler = IOutputAllocator, IProfiler
    module.LayerInformationFormat = types.SimpleNamespace(JSON="JSON", ONELINE="ONELINE")
    module.libraries = {}  # path → handle
    module.get_plugin_registry = lambda: types.SimpleNamespace(load_library=module.libraries.get)
    module.Builder = object  # a package without it is a stub
    module.TensorIOMode = types.SimpleNamespace(INPUT=INPUT, OUTPUT=OUTPUT)
    module.TensorLocation = types.SimpleNamespace(DEVICE=DEVICE, HOST=HOST)
    module.ExecutionContextAllocationStrategy = types.SimpleNamespace(USER_MANAGED="USER_MANAGED", STATIC="STATIC")
    module.CudaGraphStrategy = types.SimpleNamespace(WHOLE_GRAPH_CAPTURE="WHOLE_GRAPH_CAPTURE")
    return module


def install(monkeypatch, machine, version="11.1.0", rtx=False):
    """Puts the fake where the runtime looks; returns the module."""
    from devil.runtime.engines.tensorrt import api

    module = make_module(machine, version, rtx)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    api.open_api.cache_clear()
    return module
