"""What the facts mean: one finding per thing that inference depends on."""

from __future__ import annotations

from collections.abc import Iterator

from devil.runtime.doctor.facts import Facts, Finding
from devil.runtime.doctor.software import OnnxRuntime, TensorRt
from devil.tensorrt_api import MODULES

LEAST_DISK = 2e9  # bytes; devil-tiny's bundle and engines take a twentieth, a 7B one fifteen times as much
LEAST_MEMORY = 1e9  # bytes; the runtime itself takes a fifth of it
INSTALL_CPU = "pip install 'devil-deploy[cpu]'"
INSTALL_GPU = "pip install 'devil-deploy[gpu]'"
INSTALL_PYCUDA = "pip install 'devil-deploy[cuda]'"
INSTALL_TENSORRT = "pip install 'devil-deploy[tensorrt]'"
INSTALL_RTX = "pip install 'devil-deploy[tensorrt-rtx]'"
FROM_JETPACK = "make the environment with `python3 -m venv --system-site-packages`: TensorRT comes with JetPack"


def judge(facts: Facts) -> list[Finding]:
    """Findings about the machine, whatever will run on it."""
    return [*_machine(facts), *_gpus(facts), *_software(facts), _operator(facts)]


def _machine(facts: Facts) -> Iterator[Finding]:
    system = facts.system
    yield Finding("machine", "system", "good", f"{system.name}, {system.processor}, {system.cores} cores")
    if system.jetson:
        jetson = system.jetson
        words = (jetson.model, jetson.jetpack or "unknown JetPack", f"Jetson Linux {jetson.release or 'unknown'}")
        yield Finding("machine", "Jetson", "good", ", ".join((*words, f"power mode {jetson.power or 'unknown'}")))
        if jetson.power and not jetson.power.upper().startswith("MAXN"):
            yield Finding(
                "machine", "power", "note", f"power mode {jetson.power} caps the clocks", "sudo nvpmodel -m 0"
            )
    if system.memory is None:
        yield Finding("machine", "memory", "note", "this system does not tell what is free")
    else:
        enough = system.memory >= LEAST_MEMORY
        mend = "" if enough else "end other programs"
        yield Finding("machine", "memory", "good" if enough else "bad", f"{_gb(system.memory)} free", mend)
    enough = system.disk >= LEAST_DISK
    yield Finding(
        "machine", "disk", "good" if enough else "note", f"{_gb(system.disk)} free", "" if enough else "free some space"
    )


def _gpus(facts: Facts) -> Iterator[Finding]:
    driver = facts.driver
    if driver.problem:
        # No GPU is no fault; a driver that does not work is one.
        yield Finding("gpu", "GPU", "bad" if driver.version or driver.cuda else "note", driver.problem, driver.mend)
    for index, gpu in enumerate(driver.gpus):
        memory = "shares the machine's memory" if gpu.integrated else _gb(gpu.bytes)
        yield Finding("gpu", f"GPU {index}", "good", f"{gpu.name}, {gpu.capability}, {memory}")
    if driver.cuda:
        served = ".".join(map(str, driver.cuda))
        yield Finding("gpu", "driver", "good", f"{driver.version or 'unknown version'}, serves CUDA up to {served}")


def _software(facts: Facts) -> Iterator[Finding]:
    software = facts.software
    yield Finding("software", "Python", "good", software.python)
    yield from _onnxruntime(software.onnxruntime, needed=not (facts.driver.gpus and software.tensorrts))
    for tensorrt in software.tensorrts:
        yield from _tensorrt(tensorrt, facts)
    missing = [kind for kind in MODULES if kind not in {tensorrt.kind for tensorrt in software.tensorrts}]
    if len(missing) == len(MODULES):
        mend = (FROM_JETPACK if facts.system.jetson else INSTALL_TENSORRT) if facts.driver.gpus else ""
        yield Finding("software", "TensorRT", "note", "not installed", mend)
    elif not missing:
        yield Finding("software", "TensorRT", "note", "two kinds are installed; --engine names the one to use")
    if software.pycuda_problem and facts.driver.gpus:
        mend = f"install it again with this machine's CUDA: {INSTALL_PYCUDA} --force-reinstall --no-cache-dir"
        yield Finding(
            "software", "pycuda", "bad", f"{software.pycuda} does not start ({software.pycuda_problem})", mend
        )
    elif software.pycuda:
        yield Finding("software", "pycuda", "good", software.pycuda)
    others = ", ".join(f"{name} {version}" for name, version in software.packages.items())
    yield Finding("software", "others", "good", others)


def _onnxruntime(found: OnnxRuntime | None, needed: bool) -> Iterator[Finding]:
    if found is None:
        state, use = ("bad", "") if needed else ("note", ": nothing can judge TensorRT's engines")
        yield Finding("software", "ONNX Runtime", state, f"not installed{use}", INSTALL_CPU)
        return
    if found.problem:
        mend = f"{INSTALL_CPU} --force-reinstall"
        yield Finding("software", "ONNX Runtime", "bad", f"cannot be used ({found.problem})", mend)
    else:
        kind = f", built for CUDA {found.cuda}" if found.cuda else ""
        yield Finding("software", "ONNX Runtime", "good", f"{found.version}{kind}, {_providers(found)}")
    if len(found.packages) > 1:
        names = " and ".join(found.packages)
        mend = f"pip uninstall {' '.join(found.packages)}, then install the one you want"
        yield Finding("software", "ONNX Runtime", "bad", f"{names} overwrite each other's files", mend)


def _providers(found: OnnxRuntime) -> str:
    names = {"CPUExecutionProvider": "CPU", "CUDAExecutionProvider": "CUDA"}
    told = [f"{names[name]} {'works' if works else 'does not start'}" for name, works in sorted(found.works.items())]
    return ", ".join(told) or "no provider of use"


def _tensorrt(found: TensorRt, facts: Facts) -> Iterator[Finding]:
    name = "TensorRT" if found.kind == "tensorrt" else "TensorRT-RTX"
    fault = "bad" if facts.driver.gpus else "note"  # without a GPU nobody runs it
    if not found.version:
        yield Finding("software", name, fault, f"cannot be imported ({found.problem})", "install it again")
        return
    yield Finding("software", name, "good", found.version)
    if found.problem:
        mend = "build it against this TensorRT's headers (plugins/README.md)"
        yield Finding("operator", "TensorRT plugin", fault, found.problem, mend)
    elif found.plugin:
        yield Finding("operator", "TensorRT plugin", "good", f"{found.plugin} loads")
    elif found.kind == "tensorrt" and facts.driver.gpus:
        text = "not built: engines use the function body, which is slower and which some TensorRT miscompile"
        yield Finding("operator", "TensorRT plugin", "note", text, "build it: plugins/README.md")


def _operator(facts: Facts) -> Finding:
    operator = facts.operator
    if operator.path:
        return Finding("operator", "ONNX Runtime kernel", "good", f"{operator.kernel}, {operator.path}")
    slow = "graphs run the function body, which is slower and gives the same numbers"
    mend = "install the package again with a C++ compiler (plugins/README.md)"
    text = f"{operator.problem}; {slow}" if operator.problem else f"not built: {slow}"
    return Finding("operator", "ONNX Runtime kernel", "note", text, mend)


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
