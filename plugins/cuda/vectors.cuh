// Sixteen bytes of a value row: loading, blending the four corners, adding up in fp32, storing.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace msda {

__device__ __forceinline__ float to_float(float value) { return value; }
__device__ __forceinline__ float to_float(__half value) { return __half2float(value); }
__device__ __forceinline__ float to_float(__nv_bfloat16 value) { return __bfloat162float(value); }

template <typename To>
__device__ __forceinline__ To bit_cast(uint32_t bits) {
  static_assert(sizeof(To) == sizeof(bits), "four bytes");
  To value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

template <typename From>
__device__ __forceinline__ uint32_t bits_of(From value) {
  static_assert(sizeof(From) == sizeof(uint32_t), "four bytes");
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

__device__ __forceinline__ __half2 multiply(__half2 a, __half2 b) { return __hmul2(a, b); }
__device__ __forceinline__ __half2 multiply_add(__half2 a, __half2 b, __half2 c) { return __hfma2(a, b, c); }

// Turing (sm_75) stores bf16 but does not compute in it.
__device__ __forceinline__ __nv_bfloat162 multiply_add(__nv_bfloat162 a, __nv_bfloat162 b, __nv_bfloat162 c) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
  const float2 x = __bfloat1622float2(a), y = __bfloat1622float2(b), z = __bfloat1622float2(c);
  return __float22bfloat162_rn(make_float2(fmaf(x.x, y.x, z.x), fmaf(x.y, y.y, z.y)));
#else
  return __hfma2(a, b, c);
#endif
}
__device__ __forceinline__ __nv_bfloat162 multiply(__nv_bfloat162 a, __nv_bfloat162 b) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
  return multiply_add(a, b, __float2bfloat162_rn(0.0f));
#else
  return __hmul2(a, b);
#endif
}

// How a type of value is blended. `Weight` is a bilinear weight as the blend wants it, in 32 bits.
template <typename Value>
struct Blend;

// fp32: the attention weight is already in the bilinear weights.
template <>
struct Blend<float> {
  static constexpr int kElements = 4;
  static constexpr bool kFoldsAttention = true;
  static __device__ __forceinline__ uint32_t weight(float w) { return __float_as_uint(w); }
  static __device__ __forceinline__ void add(const uint4 corners[4], uint4 weights, float, float sums[kElements]) {
    const uint32_t w[4] = {weights.x, weights.y, weights.z, weights.w};
#pragma unroll
    for (int corner = 0; corner < 4; ++corner) {
      const uint32_t v[4] = {corners[corner].x, corners[corner].y, corners[corner].z, corners[corner].w};
#pragma unroll
      for (int i = 0; i < kElements; ++i) {
        sums[i] = fmaf(__uint_as_float(w[corner]), __uint_as_float(v[i]), sums[i]);
      }
    }
  }
  static __device__ __forceinline__ uint4 pack(const float sums[kElements]) {
    return make_uint4(bits_of(sums[0]), bits_of(sums[1]), bits_of(sums[2]), bits_of(sums[3]));
  }
};

// fp16 and bf16: the corners are blended two channels at a time in the value's own type; samples add up in fp32.
template <typename Pair, Pair (*kDuplicate)(float), float2 (*kWiden)(Pair), Pair (*kNarrow)(float2)>
struct PairBlend {
  static constexpr int kElements = 8;
  static constexpr bool kFoldsAttention = false;
  static __device__ __forceinline__ uint32_t weight(float w) { return bits_of(kDuplicate(w)); }
  static __device__ __forceinline__ void add(const uint4 corners[4], uint4 weights, float attention,
                                             float sums[kElements]) {
    const uint32_t w[4] = {weights.x, weights.y, weights.z, weights.w};
    Pair blended[4];
#pragma unroll
    for (int corner = 0; corner < 4; ++corner) {
      const uint32_t v[4] = {corners[corner].x, corners[corner].y, corners[corner].z, corners[corner].w};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const Pair weight = bit_cast<Pair>(w[corner]), value = bit_cast<Pair>(v[i]);
        blended[i] = corner == 0 ? multiply(weight, value) : multiply_add(weight, value, blended[i]);
      }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float2 wide = kWiden(blended[i]);
      sums[2 * i] = fmaf(attention, wide.x, sums[2 * i]);
      sums[2 * i + 1] = fmaf(attention, wide.y, sums[2 * i + 1]);
    }
  }
  static __device__ __forceinline__ uint4 pack(const float sums[kElements]) {
    uint32_t packed[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) packed[i] = bits_of(kNarrow(make_float2(sums[2 * i], sums[2 * i + 1])));
    return make_uint4(packed[0], packed[1], packed[2], packed[3]);
  }
};

__device__ __forceinline__ __half2 duplicate_half(float w) { return __float2half2_rn(w); }
__device__ __forceinline__ float2 widen_half(__half2 pair) { return __half22float2(pair); }
__device__ __forceinline__ __half2 narrow_half(float2 pair) { return __float22half2_rn(pair); }
__device__ __forceinline__ __nv_bfloat162 duplicate_bf16(float w) { return __float2bfloat162_rn(w); }
__device__ __forceinline__ float2 widen_bf16(__nv_bfloat162 pair) { return __bfloat1622float2(pair); }
__device__ __forceinline__ __nv_bfloat162 narrow_bf16(float2 pair) { return __float22bfloat162_rn(pair); }

template <>
struct Blend<__half> : PairBlend<__half2, duplicate_half, widen_half, narrow_half> {};
template <>
struct Blend<__nv_bfloat16> : PairBlend<__nv_bfloat162, duplicate_bf16, widen_bf16, narrow_bf16> {};

}  // namespace msda
