// Calls for the C++ test programs: buffers of exactly the right size on the heap, so that a sanitizer sees every step
// beyond them, and the double-precision reference with error bounds from the dtypes (see tests/msda.py).
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "msda/c_api.h"
#include "msda/half.h"

namespace cases {

using msda::Arguments;
using msda::DataType;

struct Sizes {
  std::vector<int64_t> shapes;  // height, width of each level
  int64_t batch, queries;
  int heads, head_size, points;
  bool hostile;  // locations that are not finite, on the edges and far out
};

inline std::vector<Sizes> all_sizes() {
  return {
      {{9, 6, 5, 3, 2, 2, 1, 1}, 2, 17, 8, 32, 4, false},
      {{9, 6, 5, 3, 2, 2, 1, 1}, 3, 5, 3, 32, 4, true},
      {{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, 1, 1, 1, 32, 16, false},
      {{7, 5, 3, 2, 4, 4}, 1, 9, 5, 32, 7, true},
      {{31, 29, 13, 11}, 1, 11, 5, 40, 3, false},
      {{1, 13, 17, 1}, 3, 7, 3, 24, 5, true},
      {{19, 23}, 5, 1, 1, 64, 1, false},
      {{4, 4}, 2, 3, 2, 8, 2, true},
      {{3, 3, 2, 2}, 2, 33, 1, 16, 16, true},
      {{5, 5}, 1, 1, 1, 32, 1, true},
  };
}

// Bytes of one element.
inline size_t width(DataType type) { return type == DataType::kFloat32 ? 4 : 2; }

inline float round_trip(float value, DataType type) {
  if (type == DataType::kFloat32) return value;
  if (type == DataType::kFloat16) {
    msda::Half half;
    msda::narrow(value, half);
    return msda::widen(half);
  }
  msda::BFloat16 half;
  msda::narrow(value, half);
  return msda::widen(half);
}

inline float load(const void* data, size_t index, DataType type) {
  switch (type) {
    case DataType::kFloat16: return msda::widen(static_cast<const msda::Half*>(data)[index]);
    case DataType::kBFloat16: return msda::widen(static_cast<const msda::BFloat16*>(data)[index]);
    default: return static_cast<const float*>(data)[index];
  }
}

inline void store(void* data, size_t index, float value, DataType type) {
  switch (type) {
    case DataType::kFloat16: return msda::narrow(value, static_cast<msda::Half*>(data)[index]);
    case DataType::kBFloat16: return msda::narrow(value, static_cast<msda::BFloat16*>(data)[index]);
    default: static_cast<float*>(data)[index] = value;
  }
}

// 16-byte aligned, as device memory is.
class Buffer {
 public:
  explicit Buffer(size_t bytes) : data_(new char[bytes]) {}
  void* get() const { return data_.get(); }
  template <typename T>
  T* as() const {
    return static_cast<T*>(get());
  }

 private:
  std::unique_ptr<char[]> data_;
};

struct Call {
  Call(const Sizes& s, DataType value_type, DataType weight_type, uint32_t seed)
      : arguments{}, shapes(8 * s.shapes.size()), value(1), locations(1), weights(1), output(1), largest(0), extent(0) {
    Arguments& a = arguments;
    a.batch = s.batch, a.queries = s.queries, a.heads = s.heads, a.head_size = s.head_size, a.points = s.points;
    a.levels = static_cast<int32_t>(s.shapes.size() / 2);
    a.value_type = value_type, a.weight_type = weight_type;
    for (size_t i = 0; i < s.shapes.size(); ++i) {
      shapes.as<int64_t>()[i] = s.shapes[i];
      extent = std::max(extent, s.shapes[i]);
      if (i % 2) a.tokens += s.shapes[i - 1] * s.shapes[i];
    }
    fill(s, seed);
    a.value = value.get(), a.spatial_shapes = shapes.as<int64_t>(), a.locations = locations.as<float>();
    a.weights = weights.get(), a.output = output.get();
  }
  Call(const Call&) = delete;

  size_t outputs() const {
    return static_cast<size_t>(arguments.batch * arguments.queries * arguments.heads * arguments.head_size);
  }
  size_t samples() const {
    return static_cast<size_t>(arguments.batch * arguments.queries * arguments.heads * arguments.levels *
                               arguments.points);
  }

  std::vector<double> reference() const {
    std::vector<double> result(outputs());
    Arguments a = arguments;
    a.output = result.data();
    char message[256];
    if (devil_msda_reference(&a, message, sizeof message)) throw std::string(message);
    return result;
  }

  // See Case.bound in tests/msda.py; the weights of a pair sum to one.
  double bound(double exact, bool blended) const {
    const double unit[] = {std::ldexp(1, -24), std::ldexp(1, -11), std::ldexp(1, -8)};
    const double storage = unit[static_cast<int>(arguments.value_type)];
    double scale = unit[0] * (8.0 * (static_cast<double>(extent) + 1) + 4.0 * arguments.levels * arguments.points + 4);
    if (blended) scale += 8 * storage;
    return 1.01 * largest * scale + storage * std::fabs(exact) + std::ldexp(1, -25);
  }

  Arguments arguments;
  Buffer shapes, value, locations, weights, output;
  double largest;
  int64_t extent;

 private:
  void fill(const Sizes& s, uint32_t seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    std::uniform_real_distribution<float> uniform(-0.3f, 1.3f), positive(0.01f, 1.0f);
    const float infinity = std::numeric_limits<float>::infinity();
    const float odd[] = {NAN, infinity, -infinity, 3.4e38f, -3.4e38f, 0.0f, 1.0f, -0.0f, 2147483648.0f, 1e-40f};
    const size_t values = static_cast<size_t>(arguments.batch * arguments.tokens * s.heads * s.head_size);
    value = Buffer(values * width(arguments.value_type));
    for (size_t i = 0; i < values; ++i) {
      const float v = round_trip(normal(random), arguments.value_type);
      store(value.get(), i, v, arguments.value_type);
      largest = std::max(largest, std::fabs(static_cast<double>(v)));
    }
    locations = Buffer(samples() * 8);
    for (size_t i = 0; i < 2 * samples(); ++i) {
      const bool special = s.hostile && random() % 3 == 0;
      locations.as<float>()[i] = special ? odd[random() % (sizeof odd / sizeof *odd)] : uniform(random);
    }
    weights = Buffer(samples() * width(arguments.weight_type));
    const size_t each = static_cast<size_t>(arguments.levels * s.points);
    std::vector<float> raw(each);
    for (size_t pair = 0; pair < samples() / each; ++pair) {
      float sum = 0;
      for (float& w : raw) sum += w = positive(random);
      for (size_t i = 0; i < each; ++i) store(weights.get(), pair * each + i, raw[i] / sum, arguments.weight_type);
    }
    output = Buffer(outputs() * width(arguments.value_type));
  }
};

// Prints the first element out of bounds; true when there is none.
inline bool compare(const Call& call, const std::vector<double>& exact, bool blended, const std::string& name) {
  for (size_t i = 0; i < exact.size(); ++i) {
    const double found = load(call.output.get(), i, call.arguments.value_type);
    if (!(std::fabs(found - exact[i]) <= call.bound(exact[i], blended))) {
      std::printf("%s: element %zu is %.9g, expected %.9g within %.3g\n", name.c_str(), i, found, exact[i],
                  call.bound(exact[i], blended));
      return false;
    }
  }
  return true;
}

constexpr DataType kTypes[][2] = {{DataType::kFloat32, DataType::kFloat32},
                                  {DataType::kFloat16, DataType::kFloat16},
                                  {DataType::kFloat16, DataType::kFloat32},
                                  {DataType::kBFloat16, DataType::kBFloat16},
                                  {DataType::kBFloat16, DataType::kFloat32}};

}  // namespace cases
