// The CUDA operator for onnxruntime-gpu: the C API hands out the stream, so none of ONNX Runtime's CUDA headers are
// needed. The spatial shapes are asked for in host memory, where they can be checked without waiting for the device.
#include <vector>

#include "api.h"
#include "msda/launch.h"

namespace msda {
namespace {

struct CudaKernel {
  const OrtApi* api;
  DataType value_type;
  DataType weight_type;
};

OrtStatus* create(const OrtCustomOp* op, const OrtApi* api, const OrtKernelInfo*, void** kernel) {
  const Operator* self = static_cast<const Operator*>(op);
  *kernel = new CudaKernel{api, self->value_type, self->weight_type};
  return nullptr;
}

OrtStatus* compute(void* kernel, OrtKernelContext* context) {
  const CudaKernel& self = *static_cast<const CudaKernel*>(kernel);
  Arguments arguments{};
  MSDA_RETURN_IF_ERROR(read_call(*self.api, context, self.value_type, self.weight_type, &arguments));
  MSDA_RETURN_IF_ERROR(status(*self.api, check_levels(arguments)));
  void* stream = nullptr;
  MSDA_RETURN_IF_ERROR(self.api->KernelContext_GetGPUComputeStream(context, &stream));
  const cudaError_t failed = launch(arguments, arguments.spatial_shapes, static_cast<cudaStream_t>(stream));
  if (failed == cudaSuccess) return nullptr;
  return self.api->CreateStatus(ORT_FAIL, (std::string(kOperator) + ": " + cudaGetErrorString(failed)).c_str());
}

}  // namespace

OrtStatus* add_cuda_operators(const OrtApi& api, OrtCustomOpDomain* domain) {
  static const std::vector<Operator> operators = [] {
    std::vector<Operator> made;
    for (const Types& types : kTypes) {
      Operator op = make_operator(types.value, types.weights);
      op.GetExecutionProviderType = [](const OrtCustomOp*) { return "CUDAExecutionProvider"; };
      op.GetInputMemoryType = [](const OrtCustomOp*, size_t index) {
        return index == 1 ? OrtMemTypeCPUInput : OrtMemTypeDefault;
      };
      op.CreateKernelV2 = create;
      op.KernelComputeV2 = compute;
      op.KernelDestroy = [](void* kernel) { delete static_cast<CudaKernel*>(kernel); };
      made.push_back(op);
    }
    return made;
  }();
  for (const Operator& op : operators) MSDA_RETURN_IF_ERROR(api.CustomOpDomain_Add(domain, &op));
  return nullptr;
}

}  // namespace msda
