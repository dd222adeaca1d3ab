// The C interface of the library, for callers without ONNX Runtime (devil.plugins through ctypes).
// Functions that return int give 0, or 1 with one line in `message`.
#pragma once

#include "msda/arguments.h"

#if defined(_WIN32)
#define MSDA_EXPORT __declspec(dllexport)
#else
#define MSDA_EXPORT __attribute__((visibility("default")))
#endif

extern "C" {

// Changes whenever Arguments or a function below does.
MSDA_EXPORT int devil_msda_abi(void);

// The ONNX Runtime C API version that RegisterCustomOps asks for, or 0 when the library was built without it.
MSDA_EXPORT int devil_msda_onnxruntime_api(void);

// 1 where the operator runs on ONNX Runtime's CUDA provider too, else 0; libraries before it was asked lack it.
MSDA_EXPORT int devil_msda_onnxruntime_cuda(void);

// The name of instruction set `isa` (-1: the one that runs by default), or null when this processor lacks it.
MSDA_EXPORT const char* devil_msda_isa_name(int isa);

// Rows [begin, end) of batch * queries; disjoint ranges may run on several threads.
MSDA_EXPORT int devil_msda_run(const msda::Arguments* arguments, int isa, int64_t begin, int64_t end, char* message,
                               int message_size);

// The scalar reference in double precision; `output` must hold doubles.
MSDA_EXPORT int devil_msda_reference(const msda::Arguments* arguments, char* message, int message_size);

// The two phases apart, for benchmarks: all corners of all rows into `offset` and `weight` (4 * levels * points each
// per row and head) with their numbers in `count`, and the sums from them.
MSDA_EXPORT int devil_msda_prepare(const msda::Arguments* arguments, int isa, int32_t* offset, float* weight,
                                   int32_t* count, char* message, int message_size);
MSDA_EXPORT int devil_msda_gather(const msda::Arguments* arguments, int isa, const int32_t* offset, const float* weight,
                                  const int32_t* count, char* message, int message_size);
}
