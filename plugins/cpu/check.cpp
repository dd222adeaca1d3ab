#include "msda/check.h"

namespace msda {
namespace {

std::string text(int64_t dim) { return dim < 0 ? "?" : std::to_string(dim); }

std::string text(const Shape& shape) {
  std::string result = "[";
  for (int i = 0; i < shape.rank; ++i) result += (i ? ", " : "") + text(shape.dims[i]);
  return result + "]";
}

bool agree(int64_t expected, int64_t actual) { return expected < 0 || actual < 0 || expected == actual; }

bool agree(const Shape& expected, const Shape& actual) {
  if (expected.rank != actual.rank) return false;
  for (int i = 0; i < expected.rank; ++i) {
    if (!agree(expected.dims[i], actual.dims[i])) return false;
  }
  return true;
}

std::string mismatch(const char* name, const char* layout, const Shape& expected, const Shape& actual) {
  return std::string(name) + " must be " + layout + " = " + text(expected) + ", got " + text(actual);
}

// Keeps the first known of the two.
int64_t known(int64_t a, int64_t b) { return a < 0 ? b : a; }

std::string outside(const char* name, const char* expected, int64_t actual) {
  return std::string(name) + " must be " + expected + ", got " + std::to_string(actual);
}

// Unknown dimensions pass.
std::string check_ranges(int64_t batch, int64_t tokens, int64_t queries, int64_t heads, int64_t head_size,
                         int64_t levels, int64_t points) {
  constexpr int64_t kUnknown = -1, kMaxInt = INT32_MAX;
  if (batch == 0 || batch < kUnknown) return outside("batch", "at least 1", batch);
  if (tokens == 0 || tokens < kUnknown || tokens > kMaxInt) return outside("tokens", "1 to 2^31 - 1", tokens);
  if (queries == 0 || queries < kUnknown || queries > kMaxInt) return outside("queries", "1 to 2^31 - 1", queries);
  if (heads == 0 || heads < kUnknown || heads > kMaxInt) return outside("heads", "at least 1", heads);
  if (head_size != kUnknown && (head_size < kGroup || head_size % kGroup != 0 || head_size > kMaxInt)) {
    return outside("head size", "a multiple of 8", head_size);
  }
  if (levels == 0 || levels < kUnknown || levels > kMaxLevels) return outside("levels", "1 to 8", levels);
  if (points == 0 || points < kUnknown || points > kMaxPoints) return outside("points", "1 to 16", points);
  if (tokens > 0 && heads > 0 && head_size > 0 && head_size / kGroup * heads > kMaxInt / tokens) {
    return outside("tokens * heads * head size", "below 2^34 per frame", tokens);
  }
  if (queries > 0 && heads > 0 && queries > kMaxInt / heads) {
    return outside("queries * heads", "below 2^31 per frame", queries);
  }
  return {};
}

}  // namespace

std::string read_sizes(const Shape& value, const Shape& spatial_shapes, const Shape& locations, const Shape& weights,
                       Arguments* sizes) {
  const Shape any_value{4, {-1, -1, -1, -1}}, any_shapes{2, {-1, 2}};
  const char* const weights_layout = "[batch, queries, heads, levels, points]";
  const char* const locations_layout = "[batch, queries, heads, levels, points, 2]";
  if (!agree(any_value, value)) return mismatch("value", "[batch, tokens, heads, head size]", any_value, value);
  if (!agree(any_shapes, spatial_shapes)) return mismatch("spatial shapes", "[levels, 2]", any_shapes, spatial_shapes);

  const Shape expected_weights{5, {value.dims[0], -1, value.dims[2], spatial_shapes.dims[0], -1}};
  if (!agree(expected_weights, weights)) return mismatch("weights", weights_layout, expected_weights, weights);
  Shape expected{6, {}};
  for (int i = 0; i < 5; ++i) expected.dims[i] = known(expected_weights.dims[i], weights.dims[i]);
  expected.dims[5] = 2;
  if (!agree(expected, locations)) return mismatch("sampling locations", locations_layout, expected, locations);
  for (int i = 0; i < 5; ++i) expected.dims[i] = known(expected.dims[i], locations.dims[i]);

  std::string error = check_ranges(expected.dims[0], value.dims[1], expected.dims[1], expected.dims[2], value.dims[3],
                                   expected.dims[3], expected.dims[4]);
  if (!error.empty()) return error;
  sizes->batch = expected.dims[0];
  sizes->tokens = value.dims[1];
  sizes->queries = expected.dims[1];
  sizes->heads = static_cast<int32_t>(expected.dims[2]);
  sizes->head_size = static_cast<int32_t>(value.dims[3]);
  sizes->levels = static_cast<int32_t>(expected.dims[3]);
  sizes->points = static_cast<int32_t>(expected.dims[4]);
  return {};
}

std::string check_sizes(const Arguments& a) {
  if (a.batch < 1 || a.tokens < 1 || a.queries < 1 || a.heads < 1 || a.head_size < 1 || a.levels < 1 || a.points < 1) {
    const Shape value{4, {a.batch, a.tokens, a.heads, a.head_size}};
    const Shape weights{5, {a.batch, a.queries, a.heads, a.levels, a.points}};
    return "every size must be at least 1, got value " + text(value) + " and weights " + text(weights);
  }
  return check_ranges(a.batch, a.tokens, a.queries, a.heads, a.head_size, a.levels, a.points);
}

std::string check_levels(const Arguments& a) {
  int64_t tokens = 0;
  std::string listed;
  for (int level = 0; level < a.levels; ++level) {
    const int64_t height = a.spatial_shapes[2 * level], width = a.spatial_shapes[2 * level + 1];
    listed += (level ? ", " : "") + std::to_string(height) + "x" + std::to_string(width);
    if (height < 1 || width < 1 || height > kMaxExtent || width > kMaxExtent) {
      return "level " + std::to_string(level) + " must be 1 to 2^24 pixels in height and width, got " +
             std::to_string(height) + "x" + std::to_string(width);
    }
    tokens += height * width;
  }
  if (tokens == a.tokens) return {};
  return "spatial shapes " + listed + " hold " + std::to_string(tokens) + " tokens, but value has " +
         std::to_string(a.tokens);
}

std::string check_types(DataType value, DataType weights) {
  const bool known_value = value == DataType::kFloat32 || value == DataType::kFloat16 || value == DataType::kBFloat16;
  if (known_value && (weights == value || weights == DataType::kFloat32)) return {};
  return "value must be float32, float16 or bfloat16 and weights of the same type or float32, got types " +
         std::to_string(static_cast<int>(value)) + " and " + std::to_string(static_cast<int>(weights));
}

}  // namespace msda
