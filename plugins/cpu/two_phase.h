// The two-phase kernel, written once over a small vector interface and compiled once per instruction set.
//
// Phase one turns the samples of a (query, head) into a list of row offsets and weights, a vector of samples at a time
// and without branches: corners outside the level are dropped from the list, so padding is exact even next to
// infinities. Phase two adds up the listed rows; it is bound by the loads.
//
// Everything has internal linkage and no standard templates are used: see half.h.
//
// What an instruction set `V` provides: F, I and M (vectors of kLanes floats, 32-bit integers, and a lane mask) with
// the operations used below; `locations` (kLanes interleaved pairs to two vectors), `append` (stores the chosen lanes
// of offset and weight together and returns their number), `load_row` and `store_row` (memory of any value type), and
// `Eight`, a vector of eight floats for the rest of a row.
#pragma once

#include "kernel.h"
#include "msda/half.h"

namespace msda {
namespace {

template <typename V>
int list_corners(const Plan& plan, const float* locations, const float* weights, Corners* corners) {
  using F = typename V::F;
  using I = typename V::I;
  using M = typename V::M;
  const F minus_one = V::splat(-1.0f), minus_half = V::splat(-0.5f);
  const I zero = V::splat(0), one = V::splat(1), token_step = V::splat(plan.token_step);
  int count = 0;
  for (int sample = 0; sample < plan.samples; sample += V::kLanes) {
    const int lanes = plan.samples - sample < V::kLanes ? plan.samples - sample : V::kLanes;
    const F width = V::load(plan.width + sample), height = V::load(plan.height + sample);
    F x, y;
    V::locations(locations + 2 * sample, lanes, &x, &y);
    x = V::fma(x, width, minus_half);
    y = V::fma(y, height, minus_half);
    // NaN fails every comparison; lanes past the last sample are dropped here too.
    const M near =
        V::first(lanes) & V::less(minus_one, x) & V::less(x, width) & V::less(minus_one, y) & V::less(y, height);

    const F left = V::floor(x), top = V::floor(y), right = V::sub(x, left), below = V::sub(y, top);
    const I column = V::to_int(left), row = V::to_int(top);
    const M left_in = near & ~V::less(column, zero);
    const M right_in = near & V::less(V::add(column, one), V::load(plan.columns + sample));
    const M top_in = ~V::less(row, zero), bottom_in = V::less(V::add(row, one), V::load(plan.rows + sample));

    const I row_step = V::load(plan.row_step + sample);
    const I in_level = V::add(V::mul(row, row_step), V::mul(column, token_step));
    const I top_left = V::add(V::load(plan.start + sample), in_level), bottom_left = V::add(top_left, row_step);
    const F weight = V::load_first(weights + sample, lanes);
    const F weight_bottom = V::mul(weight, below), weight_top = V::sub(weight, weight_bottom);
    const F top_right = V::mul(weight_top, right), bottom_right = V::mul(weight_bottom, right);
    count += V::append(corners, count, top_in & left_in, top_left, V::sub(weight_top, top_right));
    count += V::append(corners, count, top_in & right_in, V::add(top_left, token_step), top_right);
    count += V::append(corners, count, bottom_in & left_in, bottom_left, V::sub(weight_bottom, bottom_right));
    count += V::append(corners, count, bottom_in & right_in, V::add(bottom_left, token_step), bottom_right);
  }
  return count;
}

// Adds up kVectors vectors of every listed row. Several rows are summed side by side, because one chain of dependent
// additions would wait for the latency of each.
template <typename V, int kVectors, typename Value>
inline void sum_rows(const Value* base, const int32_t* offset, const float* weight, int count, Value* out) {
  constexpr int kChains = 8 / kVectors;
  typename V::F sums[kChains][kVectors];
  for (int chain = 0; chain < kChains; ++chain) {
    for (int v = 0; v < kVectors; ++v) sums[chain][v] = V::splat(0.0f);
  }
  int i = 0;
  for (; i + kChains <= count; i += kChains) {
    for (int chain = 0; chain < kChains; ++chain) {
      const Value* row = base + static_cast<int64_t>(offset[i + chain]) * kGroup;
      const typename V::F w = V::splat(weight[i + chain]);
      for (int v = 0; v < kVectors; ++v) {
        sums[chain][v] = V::fma(w, V::load_row(row + v * V::kLanes), sums[chain][v]);
      }
    }
  }
  for (; i < count; ++i) {
    const Value* row = base + static_cast<int64_t>(offset[i]) * kGroup;
    const typename V::F w = V::splat(weight[i]);
    for (int v = 0; v < kVectors; ++v) sums[0][v] = V::fma(w, V::load_row(row + v * V::kLanes), sums[0][v]);
  }
  for (int v = 0; v < kVectors; ++v) {
    for (int chain = 1; chain < kChains; ++chain) sums[0][v] = V::add(sums[0][v], sums[chain][v]);
    V::store_row(out + v * V::kLanes, sums[0][v]);
  }
}

template <typename V, typename Value>
void gather(const Arguments& a, int64_t row, int head, const int32_t* offset, const float* weight, int count) {
  const int64_t frame = row / a.queries;
  const Value* base = static_cast<const Value*>(a.value) + (frame * a.tokens * a.heads + head) * a.head_size;
  Value* out = static_cast<Value*>(a.output) + (row * a.heads + head) * a.head_size;
  int left = a.head_size;
  for (; left >= 32; left -= 32, base += 32, out += 32) {
    sum_rows<V, 32 / V::kLanes>(base, offset, weight, count, out);
  }
  if (left >= 16) {
    sum_rows<V, 16 / V::kLanes>(base, offset, weight, count, out);
    left -= 16, base += 16, out += 16;
  }
  if (left) sum_rows<typename V::Eight, 1>(base, offset, weight, count, out);
}

template <typename V, typename Weight>
int prepare(const Arguments& a, const Plan& plan, int64_t row, int head, Corners* corners) {
  const int64_t first = (row * a.heads + head) * plan.samples;
  const Weight* stored = static_cast<const Weight*>(a.weights) + first;
  float widened[kMaxSamples];
  for (int i = 0; i < plan.samples; ++i) widened[i] = widen(stored[i]);
  return list_corners<V>(plan, a.locations + 2 * first, widened, corners);
}

template <typename V>
int prepare_fp32(const Arguments& a, const Plan& plan, int64_t row, int head, Corners* corners) {
  const int64_t first = (row * a.heads + head) * plan.samples;
  return list_corners<V>(plan, a.locations + 2 * first, static_cast<const float*>(a.weights) + first, corners);
}

template <typename V>
int prepare_any(const Arguments& a, const Plan& plan, int64_t row, int head, Corners* corners) {
  switch (a.weight_type) {
    case DataType::kFloat16: return prepare<V, Half>(a, plan, row, head, corners);
    case DataType::kBFloat16: return prepare<V, BFloat16>(a, plan, row, head, corners);
    default: return prepare_fp32<V>(a, plan, row, head, corners);
  }
}

template <typename V>
void gather_any(const Arguments& a, int64_t row, int head, const int32_t* offset, const float* weight, int count) {
  switch (a.value_type) {
    case DataType::kFloat16: return gather<V, Half>(a, row, head, offset, weight, count);
    case DataType::kBFloat16: return gather<V, BFloat16>(a, row, head, offset, weight, count);
    default: return gather<V, float>(a, row, head, offset, weight, count);
  }
}

template <typename V>
void kernel(const Arguments& a, const Plan& plan, int64_t begin, int64_t end) {
  Corners corners;
  for (int64_t row = begin; row < end; ++row) {
    for (int head = 0; head < a.heads; ++head) {
      const int count = prepare_any<V>(a, plan, row, head, &corners);
      gather_any<V>(a, row, head, corners.offset, corners.weight, count);
    }
  }
}

}  // namespace
}  // namespace msda
