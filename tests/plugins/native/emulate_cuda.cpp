// The CUDA kernels on the CPU: every case against the reference, shapes that lie, infinities, and the fused entry
// against the unfused operator on locations and weights computed here.
#include "cuda_on_cpu.h"

#include "call.cuh"
#include "cases.h"

namespace {

template <typename Value, typename Source>
void launch(const cases::Arguments& a, const Source& source, const int64_t* host_shapes) {
  const msda::Grid grid = msda::grid_of<Value>(a);
  const msda::LevelShapes shapes = msda::level_shapes(a, host_shapes);
  const auto kernel = a.head_size == 32 ? msda::head32_kernel<Value, Source> : msda::generic_kernel<Value, Source>;
  cuda_on_cpu::launch(
      static_cast<unsigned>(grid.blocks), static_cast<unsigned>(grid.frames), static_cast<unsigned>(grid.threads), [&] {
        kernel(static_cast<const Value*>(a.value), source, shapes, msda::sizes_of(a), static_cast<Value*>(a.output));
      });
}

template <typename Call>
void launch_typed(const cases::Arguments& a, const Call& call, const int64_t* host_shapes = nullptr) {
  switch (a.value_type) {
    case cases::DataType::kFloat16: return launch<__half>(a, msda::source_of<__half>(call), host_shapes);
    case cases::DataType::kBFloat16: return launch<__nv_bfloat16>(a, msda::source_of<__nv_bfloat16>(call), host_shapes);
    default: return launch<float>(a, msda::source_of<float>(call), host_shapes);
  }
}

// fp16 and bf16 are blended in their own type by the kernel for head size 32 only.
bool blended(const cases::Arguments& a) { return a.head_size == 32 && a.value_type != cases::DataType::kFloat32; }

std::string describe(const cases::Arguments& a) {
  return "types " + std::to_string(static_cast<int>(a.value_type)) + " " +
         std::to_string(static_cast<int>(a.weight_type)) + ", head size " + std::to_string(a.head_size);
}

bool check(cases::Call& call, bool on_host) {
  const std::vector<double> exact = call.reference();
  launch_typed(call.arguments, call.arguments, on_host ? call.arguments.spatial_shapes : nullptr);
  return cases::compare(call, exact, blended(call.arguments), describe(call.arguments));
}

// Levels that claim more than the tokens must read nothing, so the result is that of the levels before them.
bool lying_shapes() {
  for (const int head_size : {8, 32}) {
    cases::Call call({{3, 3, 2, 2}, 1, 4, 2, head_size, 4, false}, cases::DataType::kFloat32, cases::DataType::kFloat32,
                     5);
    for (const int64_t lie : {int64_t{1000}, int64_t{-1}, int64_t{0}, int64_t{1} << 40}) {
      call.shapes.as<int64_t>()[2] = lie;
      launch_typed(call.arguments, call.arguments);
      const std::vector<float> found(call.output.as<float>(), call.output.as<float>() + call.outputs());
      call.shapes.as<int64_t>()[0] = lie;
      launch_typed(call.arguments, call.arguments);
      for (size_t i = 0; i < call.outputs(); ++i) {
        if (!std::isfinite(found[i]) || call.output.as<float>()[i] != 0)
          return std::printf("a lie of %ld was read\n", lie), false;
      }
      call.shapes.as<int64_t>()[0] = 3;
    }
  }
  return true;
}

// A pixel of infinity reaches exactly the outputs whose footprints hold it.
bool infinities(cases::DataType type) {
  cases::Call call({{6, 6}, 1, 64, 1, 32, 8, false}, type, type, 9);
  launch_typed(call.arguments, call.arguments);
  std::vector<float> clean(call.outputs());
  for (size_t i = 0; i < clean.size(); ++i) clean[i] = cases::load(call.output.get(), i, type);
  for (int channel = 0; channel < 32; ++channel)
    cases::store(call.value.get(), (2 * 6 + 3) * 32 + channel, INFINITY, type);
  launch_typed(call.arguments, call.arguments);
  int untouched = 0;
  for (int query = 0; query < 64; ++query) {
    bool touches = false;
    for (int point = 0; point < 8; ++point) {
      const float* at = call.locations.as<float>() + 2 * (query * 8 + point);
      touches |= std::fabs(at[0] * 6 - 0.5f - 3) < 1 && std::fabs(at[1] * 6 - 0.5f - 2) < 1;
    }
    untouched += !touches;
    for (int channel = 0; channel < 32; ++channel) {
      const float found = cases::load(call.output.get(), query * 32 + channel, type);
      if (touches ? std::isfinite(found) : found != clean[query * 32 + channel])
        return std::printf("infinity leaked\n"), false;
    }
  }
  return untouched > 10 && untouched < 60;
}

// Offsets and logits such that the fused entry must give what the plain operator gives on the same numbers.
bool fused(const cases::Sizes& sizes, cases::DataType type, int reference_size, uint32_t seed) {
  cases::Call call(sizes, type, cases::DataType::kFloat32, seed);
  const cases::Arguments& a = call.arguments;
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> uniform(0.1f, 0.9f), offset(-3.0f, 3.0f);
  const size_t each = static_cast<size_t>(a.levels * a.points),
               anchors = static_cast<size_t>(a.batch * a.queries * a.levels);
  const cases::Buffer reference(4 * anchors * static_cast<size_t>(reference_size)), offsets(8 * call.samples()),
      logits(4 * call.samples());
  for (size_t i = 0; i < anchors * static_cast<size_t>(reference_size); ++i) reference.as<float>()[i] = uniform(random);
  for (size_t i = 0; i < 2 * call.samples(); ++i) offsets.as<float>()[i] = offset(random);
  for (size_t i = 0; i < call.samples(); ++i) logits.as<float>()[i] = 4 * offset(random);
  for (size_t pair = 0; pair < call.samples() / each; ++pair) {
    double sum = 0;
    for (size_t i = 0; i < each; ++i) sum += std::exp(static_cast<double>(logits.as<float>()[pair * each + i]));
    for (size_t i = 0; i < each; ++i) {
      const size_t sample = pair * each + i, level = i / static_cast<size_t>(a.points);
      call.weights.as<float>()[sample] =
          static_cast<float>(std::exp(static_cast<double>(logits.as<float>()[sample])) / sum);
      const float* anchor =
          reference.as<float>() + (pair / static_cast<size_t>(a.heads) * static_cast<size_t>(a.levels) + level) *
                                      static_cast<size_t>(reference_size);
      for (size_t axis = 0; axis < 2; ++axis) {
        const double extent = static_cast<double>(a.spatial_shapes[2 * level + 1 - axis]);
        const double scale = reference_size == 2 ? 1 / extent : 0.5 * static_cast<double>(anchor[2 + axis]) / a.points;
        call.locations.as<float>()[2 * sample + axis] = static_cast<float>(
            static_cast<double>(anchor[axis]) + static_cast<double>(offsets.as<float>()[2 * sample + axis]) * scale);
      }
    }
  }
  const std::vector<double> exact = call.reference();
  launch_typed(a, msda::FusedArguments{a, reference.as<float>(), reference_size, offsets.get(), logits.get()});
  return cases::compare(call, exact, blended(a), "fused, " + describe(a));
}

}  // namespace

int main() {
  int checked = 0;
  uint32_t seed = 0;
  for (const cases::Sizes& sizes : cases::all_sizes()) {
    for (const auto& types : cases::kTypes) {
      cases::Call call(sizes, types[0], types[1], ++seed);
      if (!check(call, seed % 2 == 0)) return 1;
      ++checked;
    }
    for (const cases::DataType type :
         {cases::DataType::kFloat32, cases::DataType::kFloat16, cases::DataType::kBFloat16}) {
      if (!fused(sizes, type, 2, ++seed) || !fused(sizes, type, 4, ++seed)) return 1;
      ++checked;
    }
  }
  if (!lying_shapes() || !infinities(cases::DataType::kFloat32) || !infinities(cases::DataType::kFloat16)) return 1;
  std::printf("%d calls checked\n", checked);
  return 0;
}
