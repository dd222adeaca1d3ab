# The CUDA kernels, ONNX Runtime's CUDA operator and the TensorRT plugin.
#
# DEVIL_CUDA=AUTO builds them where they can be of use: a CUDA compiler, and a GPU, TensorRT or named architectures.
# A compiler alone is not enough, because an install should not spend minutes on kernels that nothing here runs.
set(DEVIL_CUDA AUTO CACHE STRING "Build the CUDA kernels: AUTO, ON or OFF")
set(DEVIL_CUDA_ARCHITECTURES "" CACHE STRING "GPU architectures, such as 87;89 (empty: the GPU here, else all)")
set(TENSORRT_ROOT "" CACHE PATH "A TensorRT installation or checkout, with include/NvInferRuntime.h")

set(MSDA_CUDA OFF)
find_path(TENSORRT_INCLUDE_DIR NvInferRuntime.h HINTS "${TENSORRT_ROOT}" PATH_SUFFIXES include)
if(DEVIL_CUDA STREQUAL "OFF")
  return()
endif()

check_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER)
  if(DEVIL_CUDA STREQUAL "ON")
    message(FATAL_ERROR "DEVIL_CUDA is ON but there is no CUDA compiler: install the CUDA toolkit or set CMAKE_CUDA_COMPILER")
  endif()
  return()
endif()

find_program(MSDA_NVIDIA_SMI nvidia-smi)
set(MSDA_GPU OFF)
if(MSDA_NVIDIA_SMI)
  execute_process(COMMAND "${MSDA_NVIDIA_SMI}" -L RESULT_VARIABLE MSDA_NO_GPU OUTPUT_QUIET ERROR_QUIET)
  if(MSDA_NO_GPU EQUAL 0)
    set(MSDA_GPU ON)
  endif()
endif()
if(DEVIL_CUDA STREQUAL "AUTO" AND NOT MSDA_GPU AND NOT TENSORRT_INCLUDE_DIR AND NOT DEVIL_CUDA_ARCHITECTURES)
  return()
endif()

if(DEVIL_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES "${DEVIL_CUDA_ARCHITECTURES}")
elseif(MSDA_GPU)
  set(CMAKE_CUDA_ARCHITECTURES native)
else()
  # Machine code for each, and from the last one PTX for what comes later.
  set(CMAKE_CUDA_ARCHITECTURES 75-real 80-real 86-real 87-real 89-real 90-real 100-real 110-real 120)
endif()
enable_language(CUDA)
set(CMAKE_CUDA_STANDARD 17)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CUDA_RUNTIME_LIBRARY Static)  # the library must load where there is no CUDA
set(CMAKE_CUDA_VISIBILITY_PRESET hidden)
set(MSDA_CUDA ON)

add_library(msda_cuda STATIC cuda/launch.cu)
target_include_directories(msda_cuda PUBLIC include "${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES}" PRIVATE cuda)

if(MSDA_ONNXRUNTIME_INCLUDE)
  target_sources(devil_msda PRIVATE ort/cuda_operator.cpp)
  target_compile_definitions(devil_msda PRIVATE MSDA_CUDA)
  target_link_libraries(devil_msda PRIVATE msda_cuda)
  set_target_properties(devil_msda PROPERTIES LINKER_LANGUAGE CXX)
  target_link_libraries(devil_msda PRIVATE cudart_static rt dl pthread)
endif()

if(TENSORRT_INCLUDE_DIR)
  add_library(devil_msda_tensorrt MODULE tensorrt/plugin.cpp tensorrt/creator.cpp cpu/check.cpp)
  target_include_directories(devil_msda_tensorrt PRIVATE include)
  target_include_directories(devil_msda_tensorrt SYSTEM PRIVATE "${TENSORRT_INCLUDE_DIR}")
  target_compile_options(devil_msda_tensorrt PRIVATE -Wall -Wextra)
  target_link_libraries(devil_msda_tensorrt PRIVATE msda_cuda)
  install(TARGETS devil_msda_tensorrt LIBRARY DESTINATION devil/plugins)
endif()
