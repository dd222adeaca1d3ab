// Which kernel runs on this processor, and the plan that all of them use.
#include <cstdlib>
#include <cstring>

#include "kernel.h"

namespace msda {
namespace {

constexpr int kImplementations = 3;

bool supported(Isa isa) {
  if (isa == Isa::kGeneric) return true;
#if defined(MSDA_X86_KERNELS)
  // Asks the operating system too: it must save the wide registers.
  // F16C is older than AVX2 and in every processor with AVX2 and FMA, and older compilers cannot ask for it.
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (isa == Isa::kAvx2) return avx2;
  return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#else
  return false;
#endif
}

const Implementation* implementation(Isa isa) {
#if defined(MSDA_X86_KERNELS)
  static const Implementation all[kImplementations] = {generic_implementation(), avx2_implementation(),
                                                       avx512_implementation()};
#else
  static const Implementation all[1] = {generic_implementation()};
#endif
  return supported(isa) ? &all[static_cast<int>(isa)] : nullptr;
}

const Implementation* best() {
  const char* wanted = std::getenv("DEVIL_MSDA_ISA");
  const Implementation* found = nullptr;
  for (int i = 0; i < kImplementations; ++i) {
    const Implementation* candidate = implementation(static_cast<Isa>(i));
    if (candidate == nullptr) continue;
    found = candidate;
    if (wanted != nullptr && std::strcmp(wanted, candidate->name) == 0) break;
  }
  return found;
}

}  // namespace

const Implementation* choose(Isa isa) {
  static const Implementation* const chosen = best();
  if (isa == Isa::kAuto) return chosen;
  const bool known = isa == Isa::kGeneric || isa == Isa::kAvx2 || isa == Isa::kAvx512;
  return known ? implementation(isa) : nullptr;
}

Plan make_plan(const Arguments& a) {
  Plan plan{};
  plan.token_step = a.heads * (a.head_size / kGroup);
  plan.samples = a.levels * a.points;
  int64_t start = 0;
  for (int level = 0; level < a.levels; ++level) {
    const int64_t height = a.spatial_shapes[2 * level], width = a.spatial_shapes[2 * level + 1];
    for (int sample = level * a.points; sample < (level + 1) * a.points; ++sample) {
      plan.width[sample] = static_cast<float>(width);
      plan.height[sample] = static_cast<float>(height);
      plan.columns[sample] = static_cast<int32_t>(width);
      plan.rows[sample] = static_cast<int32_t>(height);
      plan.row_step[sample] = static_cast<int32_t>(width * plan.token_step);
      plan.start[sample] = static_cast<int32_t>(start * plan.token_step);
    }
    start += height * width;
  }
  return plan;
}

}  // namespace msda
