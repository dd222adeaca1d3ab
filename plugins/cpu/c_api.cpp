#include "msda/c_api.h"

#include <cstdio>
#include <cstring>
#include <string>

#include "kernel.h"
#include "msda/check.h"
#include "msda/half.h"
#include "msda/reference.h"

namespace {

using msda::Arguments;
using msda::DataType;
using msda::Implementation;

int fail(const std::string& reason, char* message, int message_size) {
  if (message != nullptr && message_size > 0)
    std::snprintf(message, static_cast<size_t>(message_size), "%s", reason.c_str());
  return 1;
}

std::string check(const Arguments* a) {
  if (a == nullptr || a->value == nullptr || a->spatial_shapes == nullptr || a->locations == nullptr ||
      a->weights == nullptr || a->output == nullptr) {
    return "a buffer is missing";
  }
  std::string error = msda::check_types(a->value_type, a->weight_type);
  if (error.empty()) error = msda::check_sizes(*a);
  if (error.empty()) error = msda::check_levels(*a);
  return error;
}

std::string check(const Arguments* a, int isa, const Implementation** implementation) {
  *implementation = msda::choose(static_cast<msda::Isa>(isa));
  return *implementation == nullptr ? "this processor lacks the instruction set asked for" : check(a);
}

template <typename Value, typename Weight>
void reference(const Arguments& a) {
  const auto to_double = [](auto stored) { return static_cast<double>(msda::widen(stored)); };
  const int64_t samples = static_cast<int64_t>(a.levels) * a.points;
  double* out = static_cast<double*>(a.output);
  for (int64_t row = 0; row < a.batch * a.queries; ++row) {
    for (int head = 0; head < a.heads; ++head) {
      const Value* value =
          static_cast<const Value*>(a.value) + (row / a.queries * a.tokens * a.heads + head) * a.head_size;
      const int64_t first = (row * a.heads + head) * samples;
      for (int channel = 0; channel < a.head_size; ++channel) {
        *out++ = msda::reference_channel<double>(
            value, static_cast<int64_t>(a.heads) * a.head_size, channel, a.spatial_shapes, a.locations + 2 * first,
            static_cast<const Weight*>(a.weights) + first, a.levels, a.points, to_double);
      }
    }
  }
}

template <typename Value>
void reference_of(const Arguments& a) {
  if (a.weight_type == DataType::kFloat32) return reference<Value, float>(a);
  return reference<Value, Value>(a);
}

}  // namespace

extern "C" {

int devil_msda_abi(void) { return 1; }

const char* devil_msda_isa_name(int isa) {
  const Implementation* implementation = msda::choose(static_cast<msda::Isa>(isa));
  return implementation == nullptr ? nullptr : implementation->name;
}

int devil_msda_run(const Arguments* a, int isa, int64_t begin, int64_t end, char* message, int message_size) {
  const Implementation* implementation;
  std::string error = check(a, isa, &implementation);
  if (error.empty() && (begin < 0 || begin > end || end > a->batch * a->queries)) error = "rows out of range";
  if (!error.empty()) return fail(error, message, message_size);
  implementation->kernel(*a, msda::make_plan(*a), begin, end);
  return 0;
}

int devil_msda_reference(const Arguments* a, char* message, int message_size) {
  const std::string error = check(a);
  if (!error.empty()) return fail(error, message, message_size);
  switch (a->value_type) {
    case DataType::kFloat16: reference_of<msda::Half>(*a); break;
    case DataType::kBFloat16: reference_of<msda::BFloat16>(*a); break;
    default: reference_of<float>(*a);
  }
  return 0;
}

int devil_msda_prepare(const Arguments* a, int isa, int32_t* offset, float* weight, int32_t* count, char* message,
                       int message_size) {
  const Implementation* implementation;
  const std::string error = check(a, isa, &implementation);
  if (!error.empty()) return fail(error, message, message_size);
  const msda::Plan plan = msda::make_plan(*a);
  const size_t room = 4 * static_cast<size_t>(plan.samples);
  msda::Corners corners;
  for (int64_t row = 0; row < a->batch * a->queries; ++row) {
    for (int head = 0; head < a->heads; ++head, offset += room, weight += room) {
      *count = implementation->prepare(*a, plan, row, head, &corners);
      std::memcpy(offset, corners.offset, sizeof(int32_t) * static_cast<size_t>(*count));
      std::memcpy(weight, corners.weight, sizeof(float) * static_cast<size_t>(*count++));
    }
  }
  return 0;
}

int devil_msda_gather(const Arguments* a, int isa, const int32_t* offset, const float* weight, const int32_t* count,
                      char* message, int message_size) {
  const Implementation* implementation;
  const std::string error = check(a, isa, &implementation);
  if (!error.empty()) return fail(error, message, message_size);
  const size_t room = 4 * static_cast<size_t>(a->levels) * static_cast<size_t>(a->points);
  for (int64_t row = 0; row < a->batch * a->queries; ++row) {
    for (int head = 0; head < a->heads; ++head, offset += room, weight += room) {
      implementation->gather(*a, row, head, offset, weight, *count++);
    }
  }
  return 0;
}
}
