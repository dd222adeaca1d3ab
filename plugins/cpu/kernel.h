// The CPU kernels: one per instruction set, over a range of (frame, query) rows.
#pragma once

#include "msda/arguments.h"

namespace msda {

enum class Isa : int32_t { kAuto = -1, kGeneric = 0, kAvx2 = 1, kAvx512 = 2 };

// What the samples of every (query, head) have in common, spread out so that a vector of samples can load it.
struct Plan {
  static constexpr int kPadded = kMaxSamples + 16;  // whole vectors may be loaded from any sample on
  float width[kPadded];
  float height[kPadded];
  int32_t columns[kPadded];
  int32_t rows[kPadded];
  int32_t row_step[kPadded];  // groups from a token to the one below
  int32_t start[kPadded];     // groups before the level's first token
  int32_t token_step;         // groups from a token to the next: heads * head_size / kGroup
  int32_t samples;            // levels * points
};

Plan make_plan(const Arguments& arguments);

// The two phases of one (query, head), and room for the first one's results: the group offsets and the weights of
// the corners that lie inside their level.
struct Corners {
  static constexpr int kPadded = 4 * kMaxSamples + 16;
  int32_t offset[kPadded];
  float weight[kPadded];
};

// Rows [begin, end) of batch * queries. The arguments must have passed the checks.
using Kernel = void (*)(const Arguments&, const Plan&, int64_t begin, int64_t end);

// Phase one alone: writes the corners of row `row`, head `head` and returns their number.
using Prepare = int (*)(const Arguments&, const Plan&, int64_t row, int head, Corners*);

// Phase two alone, from corners prepared before: the gather bound that benchmarks compare with.
using Gather = void (*)(const Arguments&, int64_t row, int head, const int32_t* offset, const float* weight, int count);

struct Implementation {
  const char* name;
  Kernel kernel;
  Prepare prepare;
  Gather gather;
};

Implementation generic_implementation();
#if defined(MSDA_X86_KERNELS)
Implementation avx2_implementation();
Implementation avx512_implementation();
#endif

// The implementation for `isa`, or nullptr where this processor lacks it. kAuto takes the best one, or the one that
// the environment variable DEVIL_MSDA_ISA (generic, avx2, avx512) names when the processor has it.
const Implementation* choose(Isa isa);

}  // namespace msda
