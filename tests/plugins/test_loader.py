"""Finding the library, and refusing one that does not fit."""

import logging
import shutil
import subprocess

import pytest

from devil.plugins import library, loader, lowering
from devil.plugins.loader import (
    FUNCTION_BODY,
    LibraryRefusedError,
    check_onnxruntime,
    load,
    native_path,
    serves_cuda,
)

needs_library = pytest.mark.skipif(native_path() is None, reason="the native library is not built")
needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")


def compiled(folder, source):
    """A shared library made of a line of C."""
    path = folder / "libdevil_msda.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", path, "-xc", "-"], input=source, text=True, check=True)
    return path


@needs_library
def test_the_lowering_names_the_kernel():
    assert library() == native_path()
    assert lowering().startswith("native CPU kernel (")


def test_a_file_that_is_no_library_is_refused(tmp_path):
    path = tmp_path / "libdevil_msda.so"
    path.write_bytes(b"\x7fELF")
    with pytest.raises(LibraryRefusedError, match="does not load"):
        load(path)


@needs_library
def test_a_library_for_another_processor_is_refused(tmp_path):
    machine_field = 18  # e_machine of an ELF header
    data = bytearray(native_path().read_bytes())
    data[machine_field : machine_field + 2] = (243).to_bytes(2, "little")  # RISC-V
    path = tmp_path / "libdevil_msda.so"
    path.write_bytes(data)
    with pytest.raises(LibraryRefusedError, match="does not load") as refusal:
        load(path)
    assert "\n" not in str(refusal.value)


@needs_compiler
def test_a_stranger_and_another_interface_are_refused(tmp_path):
    with pytest.raises(LibraryRefusedError, match="is another library"):
        load(compiled(tmp_path, "int something(void) { return 1; }"))
    (tmp_path / "b").mkdir()
    with pytest.raises(LibraryRefusedError, match="has C interface 99, this package needs 1: install"):
        load(compiled(tmp_path / "b", "int devil_msda_abi(void) { return 99; }"))


@needs_compiler
def test_a_library_without_the_operator_is_refused_for_onnx_runtime_only(tmp_path):
    source = """
        int devil_msda_abi(void) { return 1; }
        int devil_msda_onnxruntime_api(void) { return 0; }
        const char* devil_msda_isa_name(int isa) { return isa ? 0 : "generic"; }
    """
    path = compiled(tmp_path, source)
    load(path)
    with pytest.raises(LibraryRefusedError, match="was built without ONNX Runtime's C API header"):
        check_onnxruntime(path, "1.31.1")


@needs_compiler
@pytest.mark.parametrize(("line", "expected"), [("", False), ("return 0;", False), ("return 1;", True)])
def test_only_a_library_with_the_gpu_operator_goes_to_the_cuda_provider(line, expected, tmp_path):
    source = """
        int devil_msda_abi(void) { return 1; }
        const char* devil_msda_isa_name(int isa) { return isa ? 0 : "generic"; }
    """
    source += f"int devil_msda_onnxruntime_cuda(void) {{ {line} }}" if line else ""
    assert serves_cuda(compiled(tmp_path, source)) == expected


@needs_library
def test_an_older_onnx_runtime_is_refused():
    if library() is None:
        pytest.skip("built without the operator")
    check_onnxruntime(native_path(), "1.17.0")
    check_onnxruntime(native_path(), "2.0.0")
    check_onnxruntime(native_path(), None)
    with pytest.raises(LibraryRefusedError, match=r"needs ONNX Runtime 1\.17 or newer, this is 1\.9\.0"):
        check_onnxruntime(native_path(), "1.9.0")


@needs_library
def test_a_refused_library_is_one_warning_and_the_function_body(monkeypatch, caplog):
    for cached in (native_path, library):
        monkeypatch.setattr(loader, cached.__name__, cached.__wrapped__)
    monkeypatch.setattr(loader, "ABI", 2)
    with caplog.at_level(logging.WARNING):
        assert loader.lowering() == FUNCTION_BODY
    assert caplog.messages
    assert all(
        m.startswith("deformable attention: ") and m.endswith("the ONNX function body is used") for m in caplog.messages
    )
    assert not any("\n" in message for message in caplog.messages)
