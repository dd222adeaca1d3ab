// Head size 32. A warp works on 8 (fp16, bf16) or 4 (fp32) pairs of query and head, each row of a value being read by
// 4 or 8 lanes with one 16-byte load each.
//
// Phase one: the lanes turn 16 samples of every pair into row offsets and weights, once per sample instead of once per
// lane, and pack those that touch their level to the front. Phase two: each group of lanes adds up its pair's rows.
#pragma once

#include "sources.cuh"

namespace msda {

constexpr int kHead32Threads = 128;
constexpr int kHead32Blocks = 8;  // per multiprocessor: lets the compiler use 64 registers
constexpr int kChunk = 16;        // samples staged at a time, half a warp
constexpr uint32_t kAllLanes = 0xffffffffu;

template <typename Value>
struct Head32 {
  static constexpr int kElements = Blend<Value>::kElements;
  static constexpr int kLanes = 32 / kElements;  // per pair
  static constexpr int kPairs = 32 / kLanes;     // per warp
  static constexpr int kWarps = kHead32Threads / 32;
  static constexpr int kPairsPerBlock = kPairs * kWarps;

  // One warp's staged samples, [sample][pair]. The pair is permuted by the sample so that neither phase meets a bank
  // conflict: phase one writes eight samples of one pair at once, phase two reads one sample of every pair.
  struct Stage {
    uint4 rows[kChunk][kPairs];
    uint4 weights[kChunk][kPairs];
    float attention[kChunk][kPairs];
    int count[kPairs];
    float peak[kPairs];   // softmax: largest logit
    float scale[kPairs];  // softmax: 1 / sum
  };
  static __device__ __forceinline__ int slot(int sample, int pair) { return pair ^ (sample / (8 / kPairs) % kPairs); }
};

// The pairs of a warp: consecutive heads and queries of one frame.
struct Tile {
  int64_t first_pair;  // over the whole call
  int64_t first_row;   // (frame, query) of query 0
  uint32_t in_frame;   // first pair within the frame
  int pairs;
};

// The rows and bilinear weights of a sample. Corners outside take the row of a corner of the same sample that lies
// inside, with weight zero: an infinity elsewhere cannot leak into the sum. Rows are counted in 16-byte vectors.
template <typename Value>
__device__ __forceinline__ void corners_of(const Footprint<float>& f, Level level, uint32_t token_vectors,
                                           float attention, uint4* rows, uint4* weights) {
  const uint32_t left = static_cast<uint32_t>(max(f.x, 0)) * token_vectors;
  const uint32_t right = static_cast<uint32_t>(min(f.x + 1, level.width - 1)) * token_vectors;
  const uint32_t line = static_cast<uint32_t>(level.width) * token_vectors, start = level.start * token_vectors;
  const uint32_t above = start + static_cast<uint32_t>(max(f.y, 0)) * line;
  const uint32_t below = start + static_cast<uint32_t>(min(f.y + 1, level.height - 1)) * line;
  *rows = make_uint4(above + left, above + right, below + left, below + right);

  float weight_left = f.x >= 0 ? 1.0f - f.right : 0.0f, weight_right = f.x + 1 < level.width ? f.right : 0.0f;
  if (Blend<Value>::kFoldsAttention) weight_left *= attention, weight_right *= attention;
  const float weight_above = f.y >= 0 ? 1.0f - f.below : 0.0f, weight_below = f.y + 1 < level.height ? f.below : 0.0f;
  *weights =
      make_uint4(Blend<Value>::weight(weight_above * weight_left), Blend<Value>::weight(weight_above * weight_right),
                 Blend<Value>::weight(weight_below * weight_left), Blend<Value>::weight(weight_below * weight_right));
}

// Softmax statistics of the warp's pairs: half a warp per pair.
template <typename Value, typename Source>
__device__ __forceinline__ void softmax_statistics(typename Head32<Value>::Stage* stage, const Source& source,
                                                   const Sizes& sizes, const Tile& tile) {
  const int lane = threadIdx.x % 32;
  for (int pair = lane / kChunk; pair < Head32<Value>::kPairs; pair += 2) {
    const int64_t base = (tile.first_pair + pair) * sizes.samples;
    const int samples = pair < tile.pairs ? sizes.samples : 0;
    float peak = -INFINITY, sum = 0.0f;
    for (int sample = lane % kChunk; sample < samples; sample += kChunk)
      peak = fmaxf(peak, source.weight(base + sample));
    for (int step = kChunk / 2; step > 0; step /= 2) peak = fmaxf(peak, __shfl_xor_sync(kAllLanes, peak, step));
    for (int sample = lane % kChunk; sample < samples; sample += kChunk)
      sum += __expf(source.weight(base + sample) - peak);
    for (int step = kChunk / 2; step > 0; step /= 2) sum += __shfl_xor_sync(kAllLanes, sum, step);
    if (lane % kChunk == 0) {
      stage->peak[pair] = peak;
      stage->scale[pair] = 1.0f / sum;
    }
  }
  __syncwarp();
}

// Phase one for the samples from `first_sample` on: a lane has one sample of every other pair.
template <typename Value, typename Source>
__device__ __forceinline__ void stage_samples(typename Head32<Value>::Stage* stage, const LevelTable& table,
                                              const Source& source, const Sizes& sizes, const Tile& tile,
                                              int first_sample) {
  using Layout = Head32<Value>;
  const int lane = threadIdx.x % 32, sample = first_sample + lane % kChunk;
  const int pairs = sample < sizes.samples ? tile.pairs : 0;
  const int index = table.level_of[pairs ? sample : 0];
  const Level level = table.levels[index];
  const int64_t base = tile.first_pair * sizes.samples + sample;
#pragma unroll
  for (int pass = 0; pass < Layout::kPairs / 2; ++pass) {
    const int pair = 2 * pass + lane / kChunk;
    Footprint<float> f{0, 0, 0.0f, 0.0f, 0};
    float attention = 0.0f;
    if (pair < pairs) {
      const int64_t at = base + pair * sizes.samples;
      const int64_t row =
          tile.first_row + (tile.in_frame + static_cast<uint32_t>(pair)) / static_cast<uint32_t>(sizes.heads);
      const Pixel pixel = source.pixel(sizes, at, row, index, level);
      f = footprint(pixel.x, pixel.y, level.height, level.width);
      attention = source.weight(at);
      if (Source::kSoftmax) attention = __expf(attention - stage->peak[pair]) * stage->scale[pair];
    }
    const uint32_t touching = __ballot_sync(kAllLanes, f.inside != 0) >> (lane / kChunk * kChunk) & 0xffffu;
    if (f.inside != 0) {
      const int at = __popc(touching & ((1u << lane % kChunk) - 1u)), slot = Layout::slot(at, pair);
      const uint32_t token_vectors = static_cast<uint32_t>(sizes.heads) * Layout::kLanes;
      corners_of<Value>(f, level, token_vectors, attention, &stage->rows[at][slot], &stage->weights[at][slot]);
      stage->attention[at][slot] = attention;
    }
    if (lane % kChunk == 0) stage->count[pair] = __popc(touching);
  }
  __syncwarp();
}

// Phase two: adds the staged samples of the lane's pair to `sums`.
template <typename Value>
__device__ __forceinline__ void gather(const typename Head32<Value>::Stage& stage, const uint4* rows, int pair,
                                       float sums[Head32<Value>::kElements]) {
  const int count = stage.count[pair];
#pragma unroll 2
  for (int sample = 0; sample < count; ++sample) {
    const int slot = Head32<Value>::slot(sample, pair);
    const uint4 at = stage.rows[sample][slot];
    const uint4 corners[4] = {__ldg(rows + at.x), __ldg(rows + at.y), __ldg(rows + at.z), __ldg(rows + at.w)};
    Blend<Value>::add(corners, stage.weights[sample][slot], stage.attention[sample][slot], sums);
  }
  __syncwarp();
}

template <typename Value, typename Source>
__global__ void __launch_bounds__(kHead32Threads, kHead32Blocks)
    head32_kernel(const Value* __restrict__ value, Source source, const __grid_constant__ LevelShapes shapes,
                  Sizes sizes, Value* __restrict__ output) {
  using Layout = Head32<Value>;
  __shared__ LevelTable table;
  __shared__ typename Layout::Stage stages[Layout::kWarps];
  fill(&table, sizes, shapes);

  typename Layout::Stage* stage = &stages[threadIdx.x / 32];
  const uint32_t pairs_per_frame = static_cast<uint32_t>(sizes.queries) * static_cast<uint32_t>(sizes.heads);
  const uint32_t in_frame = blockIdx.x * Layout::kPairsPerBlock + threadIdx.x / 32 * Layout::kPairs;
  if (in_frame >= pairs_per_frame) return;
  const int pairs = static_cast<int>(min(pairs_per_frame - in_frame, static_cast<uint32_t>(Layout::kPairs)));
  const int lane = threadIdx.x % 32, pair = lane / Layout::kLanes, part = lane % Layout::kLanes;
  const uint32_t head = (in_frame + static_cast<uint32_t>(pair)) % static_cast<uint32_t>(sizes.heads);

  for (int64_t frame = blockIdx.y; frame < sizes.batch; frame += gridDim.y) {
    const Tile tile{frame * pairs_per_frame + in_frame, frame * sizes.queries, in_frame, pairs};
    const uint4* rows =
        reinterpret_cast<const uint4*>(value) + (frame * sizes.tokens * sizes.heads + head) * Layout::kLanes + part;
    if (Source::kSoftmax) softmax_statistics<Value>(stage, source, sizes, tile);
    float sums[Layout::kElements] = {};
    for (int sample = 0; sample < sizes.samples; sample += kChunk) {
      stage_samples<Value>(stage, table, source, sizes, tile, sample);
      gather<Value>(*stage, rows, pair, sums);
    }
    if (pair < pairs) {
      reinterpret_cast<uint4*>(output)[(tile.first_pair + pair) * Layout::kLanes + part] = Blend<Value>::pack(sums);
    }
  }
}

}  // namespace msda
