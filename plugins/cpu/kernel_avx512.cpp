// The two-phase kernel with AVX-512 F, BW, DQ and VL.
#include <immintrin.h>

#include "two_phase.h"

namespace msda {
namespace {

// Rows of eight floats.
struct Ymm {
  using F = __m256;
  static constexpr int kLanes = 8;
  static F splat(float value) { return _mm256_set1_ps(value); }
  static F add(F a, F b) { return _mm256_add_ps(a, b); }
  static F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  static __m128i bits(const void* row) { return _mm_loadu_si128(static_cast<const __m128i*>(row)); }
  static F load_row(const float* row) { return _mm256_loadu_ps(row); }
  static F load_row(const Half* row) { return _mm256_cvtph_ps(bits(row)); }
  static F load_row(const BFloat16* row) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits(row)), 16));
  }
  static void store_row(float* row, F value) { _mm256_storeu_ps(row, value); }
  static void store_row(Half* row, F value) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(row), _mm256_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT));
  }
  static void store_row(BFloat16* row, F value) {
    alignas(32) float lanes[kLanes];
    _mm256_store_ps(lanes, value);
    for (int i = 0; i < kLanes; ++i) narrow(lanes[i], row[i]);
  }
};

// Lane mask with the usual operators, so that the shared code reads the same for every instruction set.
struct Mask {
  __mmask16 bits;
};
inline Mask operator&(Mask a, Mask b) { return {_kand_mask16(a.bits, b.bits)}; }
inline Mask operator~(Mask a) { return {_knot_mask16(a.bits)}; }

struct Zmm {
  using F = __m512;
  using I = __m512i;
  using M = Mask;
  using Eight = Ymm;
  static constexpr int kLanes = 16;

  static M first(int lanes) { return {static_cast<__mmask16>((1u << lanes) - 1u)}; }
  static F splat(float value) { return _mm512_set1_ps(value); }
  static I splat(int32_t value) { return _mm512_set1_epi32(value); }
  static F load(const float* values) { return _mm512_loadu_ps(values); }
  static I load(const int32_t* values) { return _mm512_loadu_si512(values); }
  static F load_first(const float* values, int lanes) { return _mm512_maskz_loadu_ps(first(lanes).bits, values); }
  static F add(F a, F b) { return _mm512_add_ps(a, b); }
  static I add(I a, I b) { return _mm512_add_epi32(a, b); }
  static F sub(F a, F b) { return _mm512_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static I mul(I a, I b) { return _mm512_mullo_epi32(a, b); }
  static F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static F floor(F a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); }
  static I to_int(F a) { return _mm512_cvttps_epi32(a); }
  static M less(F a, F b) { return {_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ)}; }
  static M less(I a, I b) { return {_mm512_cmplt_epi32_mask(a, b)}; }

  static void locations(const float* pairs, int lanes, F* x, F* y) {
    const uint32_t floats = static_cast<uint32_t>((uint64_t{1} << 2 * lanes) - 1);
    const F low = _mm512_maskz_loadu_ps(static_cast<__mmask16>(floats), pairs);
    const F high =
        floats >> 16 ? _mm512_maskz_loadu_ps(static_cast<__mmask16>(floats >> 16), pairs + 16) : _mm512_setzero_ps();
    const I even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    *x = _mm512_permutex2var_ps(low, even, high);
    *y = _mm512_permutex2var_ps(low, _mm512_add_epi32(even, _mm512_set1_epi32(1)), high);
  }

  // The whole vector is stored: Corners has room, and the next append overwrites the rest.
  static int append(Corners* corners, int at, M chosen, I offset, F weight) {
    _mm512_storeu_si512(corners->offset + at, _mm512_maskz_compress_epi32(chosen.bits, offset));
    _mm512_storeu_ps(corners->weight + at, _mm512_maskz_compress_ps(chosen.bits, weight));
    return __builtin_popcount(chosen.bits);
  }

  static __m256i bits(const void* row) { return _mm256_loadu_si256(static_cast<const __m256i*>(row)); }
  static F load_row(const float* row) { return _mm512_loadu_ps(row); }
  static F load_row(const Half* row) { return _mm512_cvtph_ps(bits(row)); }
  static F load_row(const BFloat16* row) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits(row)), 16));
  }
  static void store_row(float* row, F value) { _mm512_storeu_ps(row, value); }
  static void store_row(Half* row, F value) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(row), _mm512_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT));
  }
  static void store_row(BFloat16* row, F value) {
    Ymm::store_row(row, _mm512_castps512_ps256(value));
    Ymm::store_row(row + Ymm::kLanes, _mm512_extractf32x8_ps(value, 1));
  }
};

}  // namespace

Implementation avx512_implementation() { return {"avx512", &kernel<Zmm>, &prepare_any<Zmm>, &gather_any<Zmm>}; }

}  // namespace msda
