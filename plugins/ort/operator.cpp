// The operator as ONNX Runtime sees it: name, types, and the reading of a call.
#include "api.h"

namespace msda {
namespace {

ONNXTensorElementDataType element_type(DataType type) {
  switch (type) {
    case DataType::kFloat16: return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16;
    case DataType::kBFloat16: return ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16;
    default: return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
  }
}

ONNXTensorElementDataType input_type(const OrtCustomOp* op, size_t index) {
  const Operator* self = static_cast<const Operator*>(op);
  switch (index) {
    case 0: return element_type(self->value_type);
    case 1: return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
    case 2: return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
    default: return element_type(self->weight_type);
  }
}

OrtStatus* read_shape(const OrtApi& api, const OrtValue* tensor, const char* name, Shape* shape) {
  OrtTensorTypeAndShapeInfo* info = nullptr;
  MSDA_RETURN_IF_ERROR(api.GetTensorTypeAndShape(tensor, &info));
  size_t rank = 0;
  OrtStatus* failed = api.GetDimensionsCount(info, &rank);
  if (failed == nullptr && rank > Shape::kMaxRank) {
    failed = status(api, std::string(name) + " has " + std::to_string(rank) + " dimensions");
  }
  if (failed == nullptr) {
    shape->rank = static_cast<int>(rank);
    failed = api.GetDimensions(info, shape->dims, rank);
  }
  api.ReleaseTensorTypeAndShapeInfo(info);
  return failed;
}

}  // namespace

OrtStatus* read_call(const OrtApi& api, OrtKernelContext* context, DataType value_type, DataType weight_type,
                     Arguments* arguments) {
  const char* const names[kInputs] = {"value", "spatial shapes", "sampling locations", "weights"};
  const void* data[kInputs];
  Shape shapes[kInputs];
  for (size_t i = 0; i < kInputs; ++i) {
    const OrtValue* tensor = nullptr;
    MSDA_RETURN_IF_ERROR(api.KernelContext_GetInput(context, i, &tensor));
    MSDA_RETURN_IF_ERROR(read_shape(api, tensor, names[i], &shapes[i]));
    void* buffer = nullptr;
    MSDA_RETURN_IF_ERROR(api.GetTensorMutableData(const_cast<OrtValue*>(tensor), &buffer));
    data[i] = buffer;
  }
  MSDA_RETURN_IF_ERROR(status(api, read_sizes(shapes[0], shapes[1], shapes[2], shapes[3], arguments)));
  arguments->value = data[0];
  arguments->spatial_shapes = static_cast<const int64_t*>(data[1]);
  arguments->locations = static_cast<const float*>(data[2]);
  arguments->weights = data[3];
  arguments->value_type = value_type;
  arguments->weight_type = weight_type;

  const int64_t dims[3] = {arguments->batch, arguments->queries,
                           static_cast<int64_t>(arguments->heads) * arguments->head_size};
  OrtValue* output = nullptr;
  MSDA_RETURN_IF_ERROR(api.KernelContext_GetOutput(context, 0, dims, 3, &output));
  return api.GetTensorMutableData(output, &arguments->output);
}

Operator make_operator(DataType value_type, DataType weight_type) {
  Operator op{};
  op.value_type = value_type;
  op.weight_type = weight_type;
  op.version = kOrtApiVersion;
  op.GetName = [](const OrtCustomOp*) { return kOperator; };
  op.GetExecutionProviderType = [](const OrtCustomOp*) -> const char* { return nullptr; };
  op.GetInputTypeCount = [](const OrtCustomOp*) { return kInputs; };
  op.GetInputType = input_type;
  op.GetOutputTypeCount = [](const OrtCustomOp*) { return size_t{1}; };
  op.GetOutputType = [](const OrtCustomOp* self, size_t) { return input_type(self, 0); };
  op.GetInputCharacteristic = [](const OrtCustomOp*, size_t) { return INPUT_OUTPUT_REQUIRED; };
  op.GetOutputCharacteristic = [](const OrtCustomOp*, size_t) { return INPUT_OUTPUT_REQUIRED; };
  op.GetInputMemoryType = [](const OrtCustomOp*, size_t) { return OrtMemTypeDefault; };
  op.GetStartVersion = [](const OrtCustomOp*) { return 1; };
  op.GetEndVersion = [](const OrtCustomOp*) { return INT32_MAX; };
  return op;
}

}  // namespace msda
