// fp16 and bf16 as they lie in memory, converted to and from fp32 with round to nearest even.
// Everything here has internal linkage: this header is compiled with different instruction sets, and a shared
// definition would let the linker hand AVX-512 code to a processor without it.
#pragma once

#include <stdint.h>
#include <string.h>

namespace msda {
namespace {

struct Half {
  uint16_t bits;
};

struct BFloat16 {
  uint16_t bits;
};

inline float from_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

inline uint32_t to_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

inline float widen(float value) { return value; }

inline float widen(BFloat16 value) { return from_bits(static_cast<uint32_t>(value.bits) << 16); }

inline float widen(Half value) {
#if defined(__aarch64__)
  __fp16 native;
  memcpy(&native, &value, sizeof native);
  return native;
#else
  // Shifting the exponent field into place leaves a number 2^112 too small, subnormals included; one exact
  // multiplication repairs it. Infinity and NaN come out at 2^16 or more and get fp32's all-ones exponent.
  const uint32_t sign = static_cast<uint32_t>(value.bits & 0x8000u) << 16;
  const float magnitude = from_bits(static_cast<uint32_t>(value.bits & 0x7fffu) << 13) * from_bits(0x77800000u);
  const uint32_t bits = to_bits(magnitude);
  return from_bits(sign | (magnitude >= 65536.0f ? bits | 0x7f800000u : bits));
#endif
}

inline void narrow(float value, float& out) { out = value; }

inline void narrow(float value, BFloat16& out) {
  const uint32_t bits = to_bits(value);
  if (value != value) {
    out.bits = static_cast<uint16_t>((bits >> 16) | 0x0040u);  // keeps a NaN whose payload lies in the lower half
    return;
  }
  out.bits = static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

inline void narrow(float value, Half& out) {
#if defined(__aarch64__)
  const __fp16 native = static_cast<__fp16>(value);
  memcpy(&out, &native, sizeof native);
#else
  const uint32_t bits = to_bits(value), sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7fffffffu;
  uint32_t half;
  if (magnitude > 0x7f800000u) {
    half = 0x7e00u;  // NaN
  } else if (magnitude >= 0x477ff000u) {
    half = 0x7c00u;  // rounds to 65536 or more
  } else if (magnitude < 0x38800000u) {
    // Subnormal: adding 0.5 aligns the last half bit with the last float bit, so the addition does the rounding.
    half = to_bits(from_bits(magnitude) + 0.5f) - 0x3f000000u;
  } else {
    half = (magnitude - 0x38000000u + 0x0fffu + ((magnitude >> 13) & 1u)) >> 13;
  }
  out.bits = static_cast<uint16_t>(sign | half);
#endif
}

}  // namespace
}  // namespace msda
