// Launching the CUDA kernels: what ONNX Runtime's CUDA operator and the TensorRT plugin call.
#pragma once

#include <cuda_runtime_api.h>

#include "msda/arguments.h"

namespace msda {

// Everything in `arguments` is device memory. The levels come from the device (arguments.spatial_shapes) when
// `host_shapes` is null, else from there: int64 [levels, 2] in host memory, read before the function returns.
//
// Sizes and types must have passed the checks. Levels are not trusted: one that does not fit into the tokens
// contributes zero. Returns the launch's own error; nothing is synchronised and no memory is allocated.
cudaError_t launch(const Arguments& arguments, const int64_t* host_shapes, cudaStream_t stream);

// The operator with the softmax over a query's samples and the location arithmetic inside, so that no tensor of
// locations is written and read: weights = softmax(logits), and
//   location = reference + offset / (width, height)                    for points, reference [batch, queries, levels,
//   2] location = reference.xy + offset / points * 0.5 * reference.wh     for boxes cxcywh, reference [..., levels, 4]
struct FusedArguments {
  Arguments sizes;         // value, spatial_shapes, output and all sizes; locations and weights are not read
  const float* reference;  // 0-1
  int32_t reference_size;  // 2 or 4
  const void* offsets;     // [batch, queries, heads, levels, points, 2], of type sizes.weight_type
  const void* logits;      // [batch, queries, heads, levels, points], of type sizes.weight_type
};

cudaError_t launch_fused(const FusedArguments& arguments, const int64_t* host_shapes, cudaStream_t stream);

}  // namespace msda
