# The library: one object per instruction set, chosen at run time.
add_library(devil_msda MODULE)
target_sources(devil_msda PRIVATE cpu/c_api.cpp cpu/check.cpp cpu/dispatch.cpp cpu/kernel_generic.cpp)
target_include_directories(devil_msda PRIVATE include cpu)
target_compile_options(devil_msda PRIVATE -Wall -Wextra)

# The sums of the plain kernel vectorise at -O3 only.
set_source_files_properties(cpu/kernel_generic.cpp PROPERTIES COMPILE_OPTIONS "-O3")

if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64)$")
  target_sources(devil_msda PRIVATE cpu/kernel_avx2.cpp cpu/kernel_avx512.cpp)
  target_compile_definitions(devil_msda PRIVATE MSDA_X86_KERNELS)
  set_source_files_properties(cpu/kernel_avx2.cpp PROPERTIES COMPILE_OPTIONS "-O3;-mavx2;-mfma;-mf16c;-mpopcnt")
  # GCC 12 warns about its own intrinsics, which leave a masked-off operand undefined on purpose.
  set_source_files_properties(cpu/kernel_avx512.cpp PROPERTIES COMPILE_OPTIONS
    "-O3;-mavx512f;-mavx512bw;-mavx512dq;-mavx512vl;-mfma;-mf16c;-mpopcnt;-Wno-uninitialized;$<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>")
endif()

if(MSDA_ONNXRUNTIME_INCLUDE)
  target_sources(devil_msda PRIVATE ort/operator.cpp ort/cpu_operator.cpp ort/register.cpp)
  target_include_directories(devil_msda SYSTEM PRIVATE "${MSDA_ONNXRUNTIME_INCLUDE}")
else()
  target_sources(devil_msda PRIVATE ort/absent.cpp)
endif()

install(TARGETS devil_msda LIBRARY DESTINATION devil/plugins)
