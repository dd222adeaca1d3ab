"""The native parts as C++: sanitized programs, other processors, partial builds, CUDA and TensorRT."""

import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLUGINS = ROOT / "plugins"
SOURCES = ROOT / "tests" / "plugins" / "native"
TOOLS = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])  # cmake and ninja from PyPI too
CMAKE, NINJA, NVCC = (shutil.which(name, path=TOOLS) for name in ("cmake", "ninja", "nvcc"))
AARCH64 = "aarch64-linux-gnu"

needs_build = pytest.mark.skipif(
    not CMAKE or not shutil.which("c++"), reason="needs CMake and a C++ compiler (apt-get install cmake g++)"
)
needs_nvcc = pytest.mark.skipif(not NVCC, reason="needs the CUDA compiler nvcc")


def run(*command, timeout=500, **kwargs):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=timeout, **kwargs)
    assert done.returncode == 0, f"{command} said\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout + done.stderr


def cuda_headers():
    """The folder of cuda_fp16.h: beside nvcc (whose `nvcc` may be a link), or CUDA_HOME."""
    homes = [os.environ.get("CUDA_HOME", ""), "/usr/local/cuda"]
    if NVCC:
        homes.append(str(Path(NVCC).resolve().parents[1]))
    return next((Path(home) / "include" for home in homes if (Path(home) / "include" / "cuda_fp16.h").is_file()), None)


def tensorrt_headers():
    """The folder of NvInferRuntime.h: TENSORRT_INCLUDE_DIR, or where packages put it."""
    machine = f"/usr/include/{platform.machine()}-linux-gnu"
    folders = [os.environ.get("TENSORRT_INCLUDE_DIR", ""), "/usr/include", machine]
    return next((Path(folder) for folder in folders if folder and (Path(folder) / "NvInferRuntime.h").is_file()), None)


def configure(source, build, *options):
    generator = ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={NINJA}"] if NINJA else []
    return run(CMAKE, "-S", source, "-B", build, *generator, *options)


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """The test programs, built with the address and undefined-behaviour sanitizers."""
    build = tmp_path_factory.mktemp("native")
    options = [f"-DCUDA_INCLUDE_DIR={cuda_headers() or ''}", f"-DTENSORRT_INCLUDE_DIR={tensorrt_headers() or ''}"]
    configure(SOURCES, build, *options)
    run(CMAKE, "--build", build)
    return build


@needs_build
def test_cpu_kernels_are_clean_under_sanitizers(programs):
    assert "calls checked" in run(programs / "cpu_check")


@needs_build
@pytest.mark.skipif(not cuda_headers(), reason="needs CUDA's headers")
def test_cuda_kernels_run_on_the_cpu_are_right_and_clean_under_sanitizers(programs):
    assert "calls checked" in run(programs / "emulate_cuda")


@needs_build
@pytest.mark.skipif(not cuda_headers() or not tensorrt_headers(), reason="needs TensorRT's and CUDA's headers")
@pytest.mark.tensorrt
def test_tensorrt_plugin_methods(programs):
    assert "plugin checked" in run(programs / "plugin_check")


@needs_build
@pytest.mark.skipif(not shutil.which(f"{AARCH64}-g++"), reason=f"needs {AARCH64}-g++ (apt-get install g++-{AARCH64})")
def test_the_plain_kernel_is_right_on_aarch64(tmp_path):
    """Cross-compiled; run too where an emulator is installed (apt-get install qemu-user)."""
    configure(
        SOURCES, tmp_path, "-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64", "-DSANITIZE=OFF",
        f"-DCMAKE_CXX_COMPILER={AARCH64}-g++", "-DCMAKE_EXE_LINKER_FLAGS=-static", "-DCMAKE_BUILD_TYPE=Release",
    )  # fmt: skip
    run(CMAKE, "--build", tmp_path, "--target", "cpu_check")
    assert (tmp_path / "cpu_check").read_bytes()[18:20] == b"\xb7\x00"  # EM_AARCH64
    emulator = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
    if emulator:
        assert "50 calls checked" in run(emulator, tmp_path / "cpu_check")


@needs_build
def test_a_build_without_the_header_has_the_c_interface_alone(tmp_path):
    said = configure(ROOT, tmp_path, "-DDEVIL_FETCH_HEADERS=OFF", "-DMSDA_SYSTEM_ONNXRUNTIME=", "-DDEVIL_CUDA=OFF")
    assert "graphs run its function body" in " ".join(said.split())
    run(CMAKE, "--build", tmp_path)
    code = """
import ctypes, sys
library = ctypes.CDLL(sys.argv[1])
assert library.devil_msda_abi() == 1 and library.devil_msda_onnxruntime_api() == 0
assert not hasattr(library, "RegisterCustomOps")
"""
    run(sys.executable, "-c", code, tmp_path / "plugins" / "libdevil_msda.so")


@needs_build
def test_without_a_compiler_configuring_warns_and_succeeds(tmp_path):
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("cmake", "ninja", "make", "sh", "uname"):
        if found := shutil.which(name, path=TOOLS):
            (tools / name).symlink_to(found)
    environment = {"PATH": str(tools), "HOME": str(tmp_path)}
    said = run(CMAKE, "-S", ROOT, "-B", tmp_path / "build", env=environment)
    assert "No C++ compiler" in said
    run(CMAKE, "--build", tmp_path / "build", env=environment)
    run(CMAKE, "--install", tmp_path / "build", "--prefix", tmp_path / "installed", env=environment)
    assert not list((tmp_path / "installed").rglob("*.so"))


@needs_build
def test_a_header_folder_without_the_header_is_one_clear_error(tmp_path):
    done = subprocess.run(
        [CMAKE, "-S", ROOT, "-B", tmp_path, f"-DONNXRUNTIME_INCLUDE_DIR={tmp_path}"], capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "holds no onnxruntime_c_api.h" in " ".join(done.stderr.split())


def compile_cuda(folder, architecture):
    """Machine code of all kernels for one architecture, and what the assembler said about registers."""
    cubin = folder / f"sm_{architecture}.cubin"
    includes = ["-I", PLUGINS / "include", "-I", PLUGINS / "cuda"]
    said = run(
        NVCC, "-std=c++17", "-O3", f"-arch=sm_{architecture}", "-Xptxas", "-v", "-Werror", "all-warnings", *includes,
        "-cubin", "-o", cubin, PLUGINS / "cuda" / "launch.cu",
    )  # fmt: skip
    return cubin, said


@pytest.mark.parametrize(
    "architecture",
    [75, 90, *(pytest.param(sm, marks=pytest.mark.slow) for sm in (80, 86, 87, 89, 100, 110, 120))],
)
@needs_nvcc
def test_cuda_kernels_compile_without_spills(architecture, tmp_path):
    _, said = compile_cuda(tmp_path, architecture)
    spills = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", said)
    assert len(spills) == 12  # {located, fused} x {head size 32, generic} x three types
    assert set(spills) == {("0", "0", "0")}


def disassembler():
    """nvdisasm from the path, or from the package nvidia-cuda-nvdisasm."""
    packaged = Path(sysconfig.get_path("purelib")) / "nvidia"
    return shutil.which("nvdisasm") or next((str(path) for path in packaged.glob("*/bin/nvdisasm")), None)


@needs_nvcc
@pytest.mark.skipif(not disassembler(), reason="needs nvdisasm (pip install nvidia-cuda-nvdisasm)")
def test_machine_code_loads_rows_128_bits_at_a_time_and_keeps_everything_in_registers(tmp_path):
    cubin, _ = compile_cuda(tmp_path, 90)
    functions = re.split(r"^\.text\.", run(disassembler(), "-c", cubin), flags=re.MULTILINE)[1:]
    assert len(functions) == 12
    for code in functions:
        name = code.split(":", 1)[0]
        row_loads = re.findall(r"LDG\.E(\.\d+)?\.CONSTANT|LDG\.E(\.128)\.CONSTANT", code)
        assert len(re.findall(r"LDG\.E\.128\.CONSTANT", code)) >= 4, name  # the four corners
        assert not [width for pair in row_loads for width in pair if width and width != ".128"], name
        assert not re.search(r"\b(LDL|STL)\b", code), name
        if "head32" in name and "kernelIf" not in name:
            assert len(re.findall(r"HFMA2", code)) >= 12, name  # blended two channels at a time


@pytest.fixture(scope="module")
def plugin_library(tmp_path_factory):
    """The TensorRT plugin, with machine code for one architecture."""
    build = tmp_path_factory.mktemp("plugin")
    configure(
        ROOT, build, f"-DTENSORRT_ROOT={tensorrt_headers().parent}", "-DDEVIL_CUDA_ARCHITECTURES=90",
        "-DDEVIL_FETCH_HEADERS=OFF",
    )  # fmt: skip
    run(CMAKE, "--build", build)
    return build / "plugins" / "libdevil_msda_tensorrt.so"


needs_plugin = pytest.mark.skipif(
    not CMAKE or not NVCC or not tensorrt_headers(), reason="needs CMake, nvcc and TensorRT's headers"
)


@needs_plugin
@pytest.mark.slow
@pytest.mark.tensorrt
def test_the_plugin_library_exports_what_the_registry_asks_for(plugin_library):
    code = """
import ctypes, sys
library = ctypes.CDLL(sys.argv[1])
count = ctypes.c_int32(0)
library.getCreators.restype = ctypes.c_void_p
assert library.getCreators(ctypes.byref(count)) and count.value == 1
library.setLoggerFinder(None)
"""
    run(sys.executable, "-c", code, plugin_library)


@needs_plugin
@pytest.mark.slow
@pytest.mark.tensorrt
@pytest.mark.skipif(not find_spec("tensorrt_rtx"), reason="needs TensorRT-RTX (pip install tensorrt-rtx-cu13)")
def test_the_creator_registers_with_tensorrt_rtx(plugin_library):
    """In a process of its own: its registry works without a GPU, the use of custom plugins aborts."""
    code = """
import sys
import tensorrt_rtx as trt
registry = trt.get_plugin_registry()
assert registry.load_library(sys.argv[1]) is not None
creator = registry.get_creator("MultiScaleDeformableAttention", "1", "")
assert creator is not None and creator.api_language == trt.APILanguage.CPP
"""
    run(sys.executable, "-c", code, plugin_library)


@pytest.fixture(scope="module")
def gpu_check(tmp_path_factory):
    """The program that runs the CUDA kernels on the GPU here."""
    build = tmp_path_factory.mktemp("gpu")
    program = build / "gpu_check"
    configure(SOURCES, build, "-DSANITIZE=OFF", "-DCMAKE_BUILD_TYPE=Release")
    run(CMAKE, "--build", build, "--target", "msda_cpu")
    objects = sorted(build.rglob("*.cpp.o"))
    includes = [f"-I{PLUGINS / folder}" for folder in ("include", "cpu", "cuda")]
    sources = [SOURCES / "gpu_check.cu", PLUGINS / "cuda" / "launch.cu"]
    run(NVCC, "-std=c++17", "-O3", "-arch=native", "-DMSDA_X86_KERNELS", *includes, "-o", program, *sources, *objects)
    return program


def has_gpu():
    listed = shutil.which("nvidia-smi") and subprocess.run(["nvidia-smi", "-L"], capture_output=True)
    return bool(listed) and listed.returncode == 0


needs_gpu = pytest.mark.skipif(not has_gpu() or not NVCC or not CMAKE, reason="needs a GPU, nvcc and CMake")


@needs_gpu
@pytest.mark.gpu
def test_cuda_kernels_on_the_gpu_equal_the_reference(gpu_check):
    assert "calls checked" in run(gpu_check, "time")


@needs_gpu
@pytest.mark.gpu
@pytest.mark.skipif(not shutil.which("compute-sanitizer"), reason="needs compute-sanitizer")
@pytest.mark.parametrize("tool", ["memcheck", "racecheck"])
def test_cuda_kernels_are_clean_under_compute_sanitizer(gpu_check, tool):
    run("compute-sanitizer", "--tool", tool, "--error-exitcode", "3", gpu_check)
