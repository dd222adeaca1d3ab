// Where a sampling location falls: the bilinear footprint that the scalar reference, the CPU and the CUDA kernels
// share.
#pragma once

#include <math.h>
#include <stdint.h>

#if defined(__CUDACC__)
#define MSDA_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define MSDA_HOST_DEVICE inline
#endif

namespace msda {

// The four pixels around a location. Bit i of `inside` says whether corner i lies in the level:
// 0 = (y, x), 1 = (y, x + 1), 2 = (y + 1, x), 3 = (y + 1, x + 1). A corner outside contributes zero (zero padding).
template <typename Real>
struct Footprint {
  int32_t x;
  int32_t y;
  Real right;  // weight of the column x + 1, in [0, 1)
  Real below;  // weight of the row y + 1, in [0, 1)
  uint32_t inside;
};

// Location in 0-1 to pixels, where pixel centres are whole numbers (align_corners = false).
template <typename Real>
MSDA_HOST_DEVICE Real to_pixel(Real location, int32_t extent) {
  return location * static_cast<Real>(extent) - static_cast<Real>(0.5);
}

// NaN and infinite coordinates fail the first comparison, so they are never converted to an integer.
template <typename Real>
MSDA_HOST_DEVICE Footprint<Real> footprint(Real x, Real y, int32_t height, int32_t width) {
  Footprint<Real> result{0, 0, Real(0), Real(0), 0};
  if (!(x > Real(-1) && x < Real(width) && y > Real(-1) && y < Real(height))) return result;
  const Real left = floor(x), top = floor(y);
  result.x = static_cast<int32_t>(left);
  result.y = static_cast<int32_t>(top);
  result.right = x - left;
  result.below = y - top;
  const uint32_t columns = (result.x >= 0 ? 1u : 0u) | (result.x + 1 < width ? 2u : 0u);
  result.inside = (result.y >= 0 ? columns : 0u) | (result.y + 1 < height ? columns << 2 : 0u);
  return result;
}

// Bilinear weight of corner i of a footprint.
template <typename Real>
MSDA_HOST_DEVICE Real corner_weight(const Footprint<Real>& f, int corner) {
  const Real horizontal = corner & 1 ? f.right : Real(1) - f.right;
  const Real vertical = corner & 2 ? f.below : Real(1) - f.below;
  return horizontal * vertical;
}

// Token of corner i of a footprint, for a level whose first token is `start`.
template <typename Real>
MSDA_HOST_DEVICE int64_t corner_token(const Footprint<Real>& f, int corner, int64_t start, int32_t width) {
  return start + static_cast<int64_t>(f.y + (corner >> 1)) * width + f.x + (corner & 1);
}

}  // namespace msda
