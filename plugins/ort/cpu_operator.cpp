// The CPU operator: checks, then rows in blocks on ONNX Runtime's own threads.
#include <vector>

#include "api.h"
#include "kernel.h"

namespace msda {
namespace {

// About 20 µs of work on the sizes of the detector: far above the cost of handing a block to a thread.
constexpr int64_t kBlock = 32;

struct CpuKernel {
  const OrtApi* api;
  const Implementation* implementation;
  DataType value_type;
  DataType weight_type;
};

struct Work {
  const Implementation* implementation;
  Arguments arguments;
  Plan plan;
};

void run_block(void* user, size_t block) {
  const Work& work = *static_cast<const Work*>(user);
  const int64_t rows = work.arguments.batch * work.arguments.queries;
  const int64_t begin = static_cast<int64_t>(block) * kBlock;
  work.implementation->kernel(work.arguments, work.plan, begin, begin + kBlock < rows ? begin + kBlock : rows);
}

OrtStatus* create(const OrtCustomOp* op, const OrtApi* api, const OrtKernelInfo*, void** kernel) {
  const Operator* self = static_cast<const Operator*>(op);
  *kernel = new CpuKernel{api, choose(Isa::kAuto), self->value_type, self->weight_type};
  return nullptr;
}

OrtStatus* compute(void* kernel, OrtKernelContext* context) {
  const CpuKernel& self = *static_cast<const CpuKernel*>(kernel);
  Work work{self.implementation, {}, {}};
  MSDA_RETURN_IF_ERROR(read_call(*self.api, context, self.value_type, self.weight_type, &work.arguments));
  MSDA_RETURN_IF_ERROR(status(*self.api, check_levels(work.arguments)));
  work.plan = make_plan(work.arguments);
  const int64_t rows = work.arguments.batch * work.arguments.queries;
  return self.api->KernelContext_ParallelFor(context, run_block, static_cast<size_t>((rows + kBlock - 1) / kBlock), 0,
                                             &work);
}

}  // namespace

OrtStatus* add_cpu_operators(const OrtApi& api, OrtCustomOpDomain* domain) {
  static const std::vector<Operator> operators = [] {
    std::vector<Operator> made;
    for (const Types& types : kTypes) {
      Operator op = make_operator(types.value, types.weights);
      op.CreateKernelV2 = create;
      op.KernelComputeV2 = compute;
      op.KernelDestroy = [](void* kernel) { delete static_cast<CpuKernel*>(kernel); };
      made.push_back(op);
    }
    return made;
  }();
  for (const Operator& op : operators) MSDA_RETURN_IF_ERROR(api.CustomOpDomain_Add(domain, &op));
  return nullptr;
}

}  // namespace msda
