// The definition of the operator, in scalar code: what every kernel is compared with.
#pragma once

#include "msda/arguments.h"
#include "msda/geometry.h"

namespace msda {

// One channel of one output: sum over levels and points of weight * bilinear sample.
//
// `value` points at channel 0 of the head in its frame, so that token t lies at value + t * token_stride;
// `locations` and `weights` at the first sample of the (query, head). Computed in Real throughout.
template <typename Real, typename Value, typename Weight, typename Widen>
MSDA_HOST_DEVICE Real reference_channel(const Value* value, int64_t token_stride, int channel, const int64_t* shapes,
                                        const float* locations, const Weight* weights, int levels, int points,
                                        Widen widen_to_real) {
  Real sum = 0;
  int64_t start = 0;
  for (int level = 0; level < levels; ++level) {
    const int32_t height = static_cast<int32_t>(shapes[2 * level]), width = static_cast<int32_t>(shapes[2 * level + 1]);
    for (int point = 0; point < points; ++point) {
      const int sample = level * points + point;
      const Footprint<Real> f =
          footprint(to_pixel(static_cast<Real>(locations[2 * sample]), width),
                    to_pixel(static_cast<Real>(locations[2 * sample + 1]), height), height, width);
      const Real weight = widen_to_real(weights[sample]);
      for (int corner = 0; corner < 4; ++corner) {
        if (!(f.inside >> corner & 1u)) continue;
        const int64_t token = corner_token(f, corner, start, width);
        sum += weight * corner_weight(f, corner) * widen_to_real(value[token * token_stride + channel]);
      }
    }
    start += static_cast<int64_t>(height) * width;
  }
  return sum;
}

}  // namespace msda
