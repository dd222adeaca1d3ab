// The two-phase kernel in plain C++ for any processor; the compiler vectorises the sums (NEON on aarch64).
#include "kernel.h"
#include "msda/geometry.h"
#include "msda/half.h"

namespace msda {
namespace {

template <typename Weight>
int list_corners(const Plan& plan, const float* locations, const Weight* weights, Corners* corners) {
  int count = 0;
  for (int sample = 0; sample < plan.samples; ++sample) {
    const int32_t width = plan.columns[sample], height = plan.rows[sample];
    const Footprint<float> f =
        footprint(to_pixel(locations[2 * sample], width), to_pixel(locations[2 * sample + 1], height), height, width);
    const float weight = widen(weights[sample]);
    // Unsigned, because the corner of a footprint outside may wrap around; it is then not kept.
    const uint32_t token_step = static_cast<uint32_t>(plan.token_step),
                   row_step = static_cast<uint32_t>(plan.row_step[sample]);
    const uint32_t top_left = static_cast<uint32_t>(plan.start[sample]) + static_cast<uint32_t>(f.y) * row_step +
                              static_cast<uint32_t>(f.x) * token_step;
    for (int corner = 0; corner < 4; ++corner) {
      corners->offset[count] =
          static_cast<int32_t>(top_left + (corner & 1 ? token_step : 0) + (corner & 2 ? row_step : 0));
      corners->weight[count] = weight * corner_weight(f, corner);
      count += static_cast<int>(f.inside >> corner & 1u);
    }
  }
  return count;
}

int prepare(const Arguments& a, const Plan& plan, int64_t row, int head, Corners* corners) {
  const int64_t first = (row * a.heads + head) * plan.samples;
  const float* locations = a.locations + 2 * first;
  switch (a.weight_type) {
    case DataType::kFloat16: return list_corners(plan, locations, static_cast<const Half*>(a.weights) + first, corners);
    case DataType::kBFloat16:
      return list_corners(plan, locations, static_cast<const BFloat16*>(a.weights) + first, corners);
    default: return list_corners(plan, locations, static_cast<const float*>(a.weights) + first, corners);
  }
}

template <int kWide, typename Value>
void sum_rows(const Value* base, const int32_t* offset, const float* weight, int count, Value* out) {
  float sums[kWide] = {};
  for (int i = 0; i < count; ++i) {
    const Value* row = base + static_cast<int64_t>(offset[i]) * kGroup;
    for (int channel = 0; channel < kWide; ++channel) sums[channel] += weight[i] * widen(row[channel]);
  }
  for (int channel = 0; channel < kWide; ++channel) narrow(sums[channel], out[channel]);
}

template <typename Value>
void gather(const Arguments& a, int64_t row, int head, const int32_t* offset, const float* weight, int count) {
  const int64_t frame = row / a.queries;
  const Value* base = static_cast<const Value*>(a.value) + (frame * a.tokens * a.heads + head) * a.head_size;
  Value* out = static_cast<Value*>(a.output) + (row * a.heads + head) * a.head_size;
  int left = a.head_size;
  for (; left >= 32; left -= 32, base += 32, out += 32) sum_rows<32>(base, offset, weight, count, out);
  for (; left >= 8; left -= 8, base += 8, out += 8) sum_rows<8>(base, offset, weight, count, out);
}

void gather_any(const Arguments& a, int64_t row, int head, const int32_t* offset, const float* weight, int count) {
  switch (a.value_type) {
    case DataType::kFloat16: return gather<Half>(a, row, head, offset, weight, count);
    case DataType::kBFloat16: return gather<BFloat16>(a, row, head, offset, weight, count);
    default: return gather<float>(a, row, head, offset, weight, count);
  }
}

void kernel(const Arguments& a, const Plan& plan, int64_t begin, int64_t end) {
  Corners corners;
  for (int64_t row = begin; row < end; ++row) {
    for (int head = 0; head < a.heads; ++head) {
      const int count = prepare(a, plan, row, head, &corners);
      gather_any(a, row, head, corners.offset, corners.weight, count);
    }
  }
}

}  // namespace

Implementation generic_implementation() { return {"generic", &kernel, &prepare, &gather_any}; }

}  // namespace msda
