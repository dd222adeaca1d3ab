# Sets MSDA_ONNXRUNTIME_INCLUDE to the folder of ONNX Runtime's C API header, or leaves it empty with a warning.
set(MSDA_ONNXRUNTIME_INCLUDE "")
if(ONNXRUNTIME_INCLUDE_DIR)
  if(NOT EXISTS "${ONNXRUNTIME_INCLUDE_DIR}/onnxruntime_c_api.h")
    message(FATAL_ERROR "ONNXRUNTIME_INCLUDE_DIR (${ONNXRUNTIME_INCLUDE_DIR}) holds no onnxruntime_c_api.h")
  endif()
  set(MSDA_ONNXRUNTIME_INCLUDE "${ONNXRUNTIME_INCLUDE_DIR}")
else()
  find_path(MSDA_SYSTEM_ONNXRUNTIME onnxruntime_c_api.h PATH_SUFFIXES onnxruntime onnxruntime/core/session)
  if(MSDA_SYSTEM_ONNXRUNTIME)
    set(MSDA_ONNXRUNTIME_INCLUDE "${MSDA_SYSTEM_ONNXRUNTIME}")
  elseif(DEVIL_FETCH_HEADERS)
    find_package(Python COMPONENTS Interpreter QUIET)
    if(Python_EXECUTABLE)
      message(STATUS "Fetching ONNX Runtime's C API header")
      execute_process(
        COMMAND "${Python_EXECUTABLE}" "${CMAKE_CURRENT_SOURCE_DIR}/fetch_headers.py" "${CMAKE_CURRENT_BINARY_DIR}/headers"
        OUTPUT_VARIABLE MSDA_ONNXRUNTIME_INCLUDE OUTPUT_STRIP_TRAILING_WHITESPACE
        ERROR_VARIABLE MSDA_FETCH_ERROR ERROR_STRIP_TRAILING_WHITESPACE
        RESULT_VARIABLE MSDA_FETCH_FAILED)
      if(MSDA_FETCH_FAILED)
        set(MSDA_ONNXRUNTIME_INCLUDE "")
      endif()
    endif()
  endif()
endif()
if(NOT MSDA_ONNXRUNTIME_INCLUDE)
  message(WARNING "No ONNX Runtime C API header (${MSDA_FETCH_ERROR}): the deformable-attention library is built without the "
    "ONNX Runtime operator, and graphs run its function body. Mend: -DONNXRUNTIME_INCLUDE_DIR=<folder with onnxruntime_c_api.h>.")
endif()
