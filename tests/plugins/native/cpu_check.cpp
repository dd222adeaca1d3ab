// Every CPU kernel on every case, under whatever sanitizers this was built with; also on two threads at once, and with
// arguments that must be refused.
#include <thread>

#include "cases.h"

namespace {

bool run(cases::Call& call, int isa, const std::vector<double>& exact) {
  char message[256] = "";
  const int64_t rows = call.arguments.batch * call.arguments.queries, middle = rows / 2;
  int failed[2] = {0, 0};
  std::thread other([&] { failed[1] = devil_msda_run(&call.arguments, isa, middle, rows, nullptr, 0); });
  failed[0] = devil_msda_run(&call.arguments, isa, 0, middle, message, sizeof message);
  other.join();
  if (failed[0] || failed[1]) return std::printf("refused: %s\n", message), false;
  return cases::compare(call, exact, false, devil_msda_isa_name(isa));
}

bool phases_agree(cases::Call& call, int isa, const std::vector<double>& exact) {
  const size_t lists = call.samples() / static_cast<size_t>(call.arguments.levels * call.arguments.points);
  std::vector<int32_t> offset(4 * call.samples()), count(lists);
  std::vector<float> weight(4 * call.samples());
  if (devil_msda_prepare(&call.arguments, isa, offset.data(), weight.data(), count.data(), nullptr, 0)) return false;
  if (devil_msda_gather(&call.arguments, isa, offset.data(), weight.data(), count.data(), nullptr, 0)) return false;
  return cases::compare(call, exact, false, "phases apart");
}

bool refuses(cases::Arguments arguments, const char* expected) {
  char message[256] = "";
  if (devil_msda_run(&arguments, -1, 0, 1, message, sizeof message) == 1 &&
      std::string(message).find(expected) != std::string::npos) {
    return true;
  }
  return std::printf("expected a refusal with '%s', got '%s'\n", expected, message), false;
}

bool refusals() {
  const cases::Call call({{4, 3, 2, 2}, 1, 5, 2, 8, 4, false}, cases::DataType::kFloat32, cases::DataType::kFloat32, 1);
  const auto changed = [&](auto change) {
    cases::Arguments a = call.arguments;
    change(a);
    return a;
  };
  return refuses(changed([](auto& a) { a.value = nullptr; }), "a buffer is missing") &&
         refuses(changed([](auto& a) { a.tokens = 17; }), "4x3, 2x2 hold 16 tokens, but value has 17") &&
         refuses(changed([](auto& a) { a.batch = 0; }), "at least 1") &&
         refuses(changed([](auto& a) { a.head_size = 12; }), "multiple of 8") &&
         refuses(changed([](auto& a) { a.levels = 9; }), "levels must be 1 to 8") &&
         refuses(changed([](auto& a) { a.points = -1; }), "at least 1") &&
         refuses(changed([](auto& a) { a.heads = INT32_MAX, a.head_size = INT32_MAX - 7; }), "below 2^34") &&
         refuses(changed([](auto& a) { a.weight_type = cases::DataType::kFloat16; }), "weights of the same type") &&
         refuses(changed([](auto& a) { a.value_type = static_cast<cases::DataType>(77); }), "got types 77");
}

}  // namespace

int main() {
  int checked = 0;
  uint32_t seed = 0;
  for (const cases::Sizes& sizes : cases::all_sizes()) {
    for (const auto& types : cases::kTypes) {
      cases::Call call(sizes, types[0], types[1], ++seed);
      const std::vector<double> exact = call.reference();
      for (int isa = 0; isa < 3; ++isa) {
        if (devil_msda_isa_name(isa) == nullptr) continue;
        if (!run(call, isa, exact) || !phases_agree(call, isa, exact)) return 1;
        ++checked;
      }
    }
  }
  if (!refusals()) return 1;
  std::printf("%d calls checked\n", checked);
  return 0;
}
