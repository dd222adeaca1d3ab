// The two-phase kernel with AVX2, FMA and F16C.
#include <immintrin.h>

#include "two_phase.h"

namespace msda {
namespace {

// Lane mask as a vector of all-ones and all-zeros, with the usual operators.
struct Mask {
  __m256 lanes;
};
inline Mask operator&(Mask a, Mask b) { return {_mm256_and_ps(a.lanes, b.lanes)}; }
inline Mask operator~(Mask a) { return {_mm256_xor_ps(a.lanes, _mm256_castsi256_ps(_mm256_set1_epi32(-1)))}; }

// For every set of chosen lanes, their indices packed to the front, four bits each.
struct PackTable {
  uint32_t indices[256];
};
constexpr PackTable make_pack_table() {
  PackTable table{};
  for (uint32_t chosen = 0; chosen < 256; ++chosen) {
    uint32_t at = 0;
    for (uint32_t lane = 0; lane < 8; ++lane) {
      if (chosen >> lane & 1u) table.indices[chosen] |= lane << 4 * at++;
    }
  }
  return table;
}
constexpr PackTable kPack = make_pack_table();

struct Ymm {
  using F = __m256;
  using I = __m256i;
  using M = Mask;
  using Eight = Ymm;
  static constexpr int kLanes = 8;

  static I lane_below(int lanes) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(lanes), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  static M first(int lanes) { return {_mm256_castsi256_ps(lane_below(lanes))}; }
  static F splat(float value) { return _mm256_set1_ps(value); }
  static I splat(int32_t value) { return _mm256_set1_epi32(value); }
  static F load(const float* values) { return _mm256_loadu_ps(values); }
  static I load(const int32_t* values) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(values)); }
  static F load_first(const float* values, int lanes) { return _mm256_maskload_ps(values, lane_below(lanes)); }
  static F add(F a, F b) { return _mm256_add_ps(a, b); }
  static I add(I a, I b) { return _mm256_add_epi32(a, b); }
  static F sub(F a, F b) { return _mm256_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm256_mul_ps(a, b); }
  static I mul(I a, I b) { return _mm256_mullo_epi32(a, b); }
  static F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  static F floor(F a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); }
  static I to_int(F a) { return _mm256_cvttps_epi32(a); }
  static M less(F a, F b) { return {_mm256_cmp_ps(a, b, _CMP_LT_OQ)}; }
  static M less(I a, I b) { return {_mm256_castsi256_ps(_mm256_cmpgt_epi32(b, a))}; }

  static void locations(const float* pairs, int lanes, F* x, F* y) {
    const F low = load_first(pairs, 2 * lanes), high = lanes > 4 ? load_first(pairs + 8, 2 * lanes - 8) : splat(0.0f);
    *x = in_order(_mm256_shuffle_ps(low, high, 0x88));
    *y = in_order(_mm256_shuffle_ps(low, high, 0xdd));
  }
  // Shuffles stay within 128 bits, which leaves the pairs of lanes as 0 2 1 3.
  static F in_order(F a) { return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(a), 0xd8)); }

  // The whole vector is stored: Corners has room, and the next append overwrites the rest.
  static int append(Corners* corners, int at, M chosen, I offset, F weight) {
    const int bits = _mm256_movemask_ps(chosen.lanes);
    const I nibbles = splat(static_cast<int32_t>(kPack.indices[bits]));
    const I pack = _mm256_srlv_epi32(nibbles, _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(corners->offset + at), _mm256_permutevar8x32_epi32(offset, pack));
    _mm256_storeu_ps(corners->weight + at, _mm256_permutevar8x32_ps(weight, pack));
    return __builtin_popcount(static_cast<unsigned>(bits));
  }

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

}  // namespace

Implementation avx2_implementation() { return {"avx2", &kernel<Ymm>, &prepare_any<Ymm>, &gather_any<Ymm>}; }

}  // namespace msda
