// What a call must look like, and what to say when it does not. Shared by the C interface, ONNX Runtime and TensorRT.
#pragma once

#include <stdint.h>

#include <string>

#include "msda/arguments.h"

namespace msda {

// A tensor's shape; -1 is a dimension that is not known yet (shape inference, TensorRT's build phase).
struct Shape {
  static constexpr int kMaxRank = 8;
  int rank = 0;
  int64_t dims[kMaxRank] = {};
};

// Reads the sizes of a call from its inputs' shapes into `sizes`; its buffers and types stay as they are.
// Returns an empty string, or one line with the expected and the actual shape.
std::string read_sizes(const Shape& value, const Shape& spatial_shapes, const Shape& locations, const Shape& weights,
                       Arguments* sizes);

// Checks sizes that came some other way (the C interface).
std::string check_sizes(const Arguments& arguments);

// Checks that the levels are valid and sum to the number of tokens. Reads `spatial_shapes`, which must be host memory.
std::string check_levels(const Arguments& arguments);

// Checks the pair of types: value fp32, fp16 or bf16; weights of the value's type or fp32.
std::string check_types(DataType value, DataType weights);

}  // namespace msda
