// Chooses and launches a kernel.
#include "call.cuh"

namespace msda {
namespace {

template <typename Value, typename Source>
cudaError_t launch_kernel(const Arguments& a, const Source& source, const int64_t* host_shapes, cudaStream_t stream) {
  const Grid grid = grid_of<Value>(a);
  if (grid.blocks > INT32_MAX) return cudaErrorInvalidValue;
  const dim3 blocks(static_cast<unsigned>(grid.blocks), static_cast<unsigned>(grid.frames));
  const LevelShapes shapes = level_shapes(a, host_shapes);
  const Sizes sizes = sizes_of(a);
  const Value* value = static_cast<const Value*>(a.value);
  Value* output = static_cast<Value*>(a.output);
  if (a.head_size == 32) {
    head32_kernel<Value, Source><<<blocks, grid.threads, 0, stream>>>(value, source, shapes, sizes, output);
  } else {
    generic_kernel<Value, Source><<<blocks, grid.threads, 0, stream>>>(value, source, shapes, sizes, output);
  }
  return cudaGetLastError();
}

// `call` is Arguments or FusedArguments.
template <typename Call>
cudaError_t launch_typed(const Arguments& a, const Call& call, const int64_t* host_shapes, cudaStream_t stream) {
  switch (a.value_type) {
    case DataType::kFloat32: return launch_kernel<float>(a, source_of<float>(call), host_shapes, stream);
    case DataType::kFloat16: return launch_kernel<__half>(a, source_of<__half>(call), host_shapes, stream);
    case DataType::kBFloat16:
      return launch_kernel<__nv_bfloat16>(a, source_of<__nv_bfloat16>(call), host_shapes, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace

cudaError_t launch(const Arguments& a, const int64_t* host_shapes, cudaStream_t stream) {
  return launch_typed(a, a, host_shapes, stream);
}

cudaError_t launch_fused(const FusedArguments& f, const int64_t* host_shapes, cudaStream_t stream) {
  if (f.reference_size != 2 && f.reference_size != 4) return cudaErrorInvalidValue;
  return launch_typed(f.sizes, f, host_shapes, stream);
}

}  // namespace msda
