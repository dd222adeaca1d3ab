// Any head size: one thread per 16 bytes of output, all arithmetic in fp32.
#pragma once

#include "sources.cuh"

namespace msda {

constexpr int kGenericThreads = 128;

template <typename Source>
__device__ __forceinline__ void softmax_of_pair(const Source& source, int64_t base, int samples, float* peak,
                                                float* scale) {
  float sum = 0.0f;
  *peak = -INFINITY;
  for (int sample = 0; sample < samples; ++sample) *peak = fmaxf(*peak, source.weight(base + sample));
  for (int sample = 0; sample < samples; ++sample) sum += __expf(source.weight(base + sample) - *peak);
  *scale = 1.0f / sum;
}

template <typename Value>
__device__ __forceinline__ void add_row(const Value* row, float weight, float sums[Blend<Value>::kElements]) {
  const uint4 loaded = __ldg(reinterpret_cast<const uint4*>(row));
  Value values[Blend<Value>::kElements];
  memcpy(values, &loaded, sizeof values);
#pragma unroll
  for (int i = 0; i < Blend<Value>::kElements; ++i) sums[i] = fmaf(weight, to_float(values[i]), sums[i]);
}

template <typename Value, typename Source>
__global__ void __launch_bounds__(kGenericThreads)
    generic_kernel(const Value* __restrict__ value, Source source, const __grid_constant__ LevelShapes shapes,
                   Sizes sizes, Value* __restrict__ output) {
  constexpr int kElements = Blend<Value>::kElements;
  __shared__ LevelTable table;
  fill(&table, sizes, shapes);

  const uint32_t parts = static_cast<uint32_t>(sizes.head_size / kElements), heads = static_cast<uint32_t>(sizes.heads);
  const uint32_t pairs_per_frame = static_cast<uint32_t>(sizes.queries) * heads;
  const uint64_t index = static_cast<uint64_t>(blockIdx.x) * kGenericThreads + threadIdx.x;
  if (index >= static_cast<uint64_t>(pairs_per_frame) * parts) return;
  const uint32_t in_frame = static_cast<uint32_t>(index / parts), part = static_cast<uint32_t>(index % parts);
  const int64_t token_step = static_cast<int64_t>(sizes.heads) * sizes.head_size;
  const int64_t channel = static_cast<int64_t>(in_frame % heads) * sizes.head_size + part * kElements;

  for (int64_t frame = blockIdx.y; frame < sizes.batch; frame += gridDim.y) {
    const int64_t pair = frame * pairs_per_frame + in_frame, row = frame * sizes.queries + in_frame / heads;
    const Value* base = value + frame * sizes.tokens * token_step + channel;
    float peak = 0.0f, scale = 1.0f, sums[kElements] = {};
    if (Source::kSoftmax) softmax_of_pair(source, pair * sizes.samples, sizes.samples, &peak, &scale);
    for (int sample = 0; sample < sizes.samples; ++sample) {
      const int at = table.level_of[sample];
      const Level level = table.levels[at];
      const Pixel pixel = source.pixel(sizes, pair * sizes.samples + sample, row, at, level);
      const Footprint<float> f = footprint(pixel.x, pixel.y, level.height, level.width);
      if (f.inside == 0) continue;
      float attention = source.weight(pair * sizes.samples + sample);
      if (Source::kSoftmax) attention = __expf(attention - peak) * scale;
#pragma unroll
      for (int corner = 0; corner < 4; ++corner) {
        if (!(f.inside >> corner & 1u)) continue;
        add_row(base + corner_token(f, corner, level.start, level.width) * token_step,
                attention * corner_weight(f, corner), sums);
      }
    }
    reinterpret_cast<uint4*>(output)[pair * parts + part] = Blend<Value>::pack(sums);
  }
}

}  // namespace msda
