// The part of ONNX Runtime's C API that the operator uses. The library is not linked with ONNX Runtime: the table of
// functions comes from whoever loads it.
#pragma once

#define ORT_API_MANUAL_INIT
#include <onnxruntime_c_api.h>

#include <string>

#include "msda/arguments.h"
#include "msda/check.h"

namespace msda {

// The oldest version with everything used here (KernelContext_ParallelFor), whatever the header's own version is:
// the table only grows, so a library built with a newer header still loads in an older runtime.
constexpr int kOrtApiVersion = 17;
static_assert(ORT_API_VERSION >= kOrtApiVersion, "ONNX Runtime's C API header is older than 1.17");

constexpr const char* kDomain = "devil";
constexpr const char* kOperator = "MultiScaleDeformableAttention";

// Inputs: value, spatial shapes, sampling locations, weights.
constexpr size_t kInputs = 4;

// A status that names the operator, or nullptr for an empty reason.
inline OrtStatus* status(const OrtApi& api, const std::string& reason) {
  if (reason.empty()) return nullptr;
  return api.CreateStatus(ORT_INVALID_ARGUMENT, (std::string(kOperator) + ": " + reason).c_str());
}

// Reads the inputs of a call, checks everything but the levels, and allocates the output.
OrtStatus* read_call(const OrtApi& api, OrtKernelContext* context, DataType value_type, DataType weight_type,
                     Arguments* arguments);

// One entry per pair of types; ONNX Runtime picks the one that fits the node.
struct Operator : OrtCustomOp {
  DataType value_type;
  DataType weight_type;
};

// What the CPU and the CUDA operator share: names, types, characteristics, no attributes.
Operator make_operator(DataType value_type, DataType weight_type);

// The CPU operators, and the CUDA ones where the library was built with CUDA.
OrtStatus* add_cpu_operators(const OrtApi& api, OrtCustomOpDomain* domain);
OrtStatus* add_cuda_operators(const OrtApi& api, OrtCustomOpDomain* domain);

// All pairs of types that the operator takes.
struct Types {
  DataType value;
  DataType weights;
};
constexpr Types kTypes[] = {{DataType::kFloat32, DataType::kFloat32},
                            {DataType::kFloat16, DataType::kFloat16},
                            {DataType::kFloat16, DataType::kFloat32},
                            {DataType::kBFloat16, DataType::kBFloat16},
                            {DataType::kBFloat16, DataType::kFloat32}};
constexpr size_t kTypeCount = sizeof(kTypes) / sizeof(kTypes[0]);

}  // namespace msda

// Leaves the function with the status of a failed call.
#define MSDA_RETURN_IF_ERROR(call)                                    \
  do {                                                                \
    if (OrtStatus* failed = (call); failed != nullptr) return failed; \
  } while (false)
