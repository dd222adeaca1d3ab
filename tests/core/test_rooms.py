"""The rules of the house: which room may import what, and what an edge device needs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "transformers", "onnx", "onnx_ir", "onnxscript"}
OPTIONAL = {"tensorrt", "tensorrt_rtx", "pycuda", "polygraphy", "onnxruntime", "flash_attn"}
PIPELINE_ROOMS = {"export", "calibration", "runtime"}

EDGE_ROOMS = ("devil/*.py", "devil/data/**/*.py", "devil/evaluation/**/*.py", "plugins/**/*.py", "runtime/**/*.py")
# Evaluation judges what the rooms make: it is a user of the runtime, as a person at the command line is.
USERS_OF_THE_RUNTIME = ("devil/evaluation/",)
# Calibration stands above both: it records what the runtime feeds the graphs, and writes them as the exporter does.
ABOVE_BOTH = "calibration"
TORCH_FREE = sorted(path for pattern in EDGE_ROOMS for path in ROOT.glob(pattern))
EVERYTHING = sorted(path for room in ("devil", "plugins", *PIPELINE_ROOMS) for path in (ROOT / room).rglob("*.py"))


def imports(path, top_level_only=False):
    """Every module name that a file imports, as written."""
    tree = ast.parse(path.read_text())
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def name(path):
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", TORCH_FREE, ids=name)
def test_edge_rooms_need_no_training_framework(path):
    assert not {module.split(".")[0] for module in imports(path)} & HEAVY


@pytest.mark.parametrize("path", EVERYTHING, ids=name)
def test_pipeline_rooms_do_not_import_each_other(path):
    room = path.relative_to(ROOT).parts[0]
    others = PIPELINE_ROOMS - {room} - ({"runtime"} if name(path).startswith(USERS_OF_THE_RUNTIME) else set())
    others -= {"export", "runtime"} if room == ABOVE_BOTH else set()
    found = {module.split(".")[1] for module in imports(path) if module.startswith("devil.")} & others
    assert not found


@pytest.mark.parametrize("path", EVERYTHING, ids=name)
def test_optional_packages_are_imported_where_they_are_used(path):
    assert not {module.split(".")[0] for module in imports(path, top_level_only=True)} & OPTIONAL


def test_importing_the_runtime_loads_no_heavy_package():
    code = f"""
import sys
import devil.runtime.pipeline, devil.runtime.cli
loaded = {(HEAVY | OPTIONAL)!r} & set(sys.modules)
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd="/")


def test_edge_rooms_import_where_heavy_packages_are_missing():
    modules = [name(path).removesuffix(".py").replace("/", ".") for path in TORCH_FREE]
    modules = [m if m.startswith("devil") else f"devil.{m}" for m in modules]
    code = f"""
import importlib, sys
for missing in {sorted(HEAVY | OPTIONAL)!r}:
    sys.modules[missing] = None
for module in {modules!r}:
    if not module.endswith("__main__"):
        importlib.import_module(module.removesuffix(".__init__"))
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd="/")
