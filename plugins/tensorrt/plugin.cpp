#include "plugin.h"

#include <new>

#include "msda/launch.h"

namespace msda {
namespace {

using TensorType = nvinfer1::DataType;

constexpr int32_t kFailed = -1;

// Reports a reason; success for an empty one.
int32_t result(std::string const& reason) noexcept {
  if (reason.empty()) return 0;
  report(reason);
  return kFailed;
}

msda::DataType data_type(TensorType type) {
  switch (type) {
    case TensorType::kFLOAT: return msda::DataType::kFloat32;
    case TensorType::kHALF: return msda::DataType::kFloat16;
    case TensorType::kBF16: return msda::DataType::kBFloat16;
    default: return static_cast<msda::DataType>(-1 - static_cast<int32_t>(type));
  }
}

// TensorRT's shapes have room for eight dimensions, as ours.
Shape shape(nvinfer1::Dims const& dims) {
  Shape result;
  result.rank = dims.nbDims;
  for (int i = 0; i < dims.nbDims; ++i) result.dims[i] = dims.d[i];
  return result;
}

Shape shape(nvinfer1::DimsExprs const& dims) {
  Shape result;
  result.rank = dims.nbDims;
  for (int i = 0; i < dims.nbDims; ++i) result.dims[i] = dims.d[i]->isConstant() ? dims.d[i]->getConstantValue() : -1;
  return result;
}

std::string check_counts(int32_t inputs, int32_t outputs) {
  if (inputs == Plugin::kInputs && outputs == Plugin::kOutputs) return {};
  return "needs 4 inputs and 1 output, got " + std::to_string(inputs) + " and " + std::to_string(outputs);
}

template <typename Dims>
std::string read(Dims const& value, Dims const& shapes, Dims const& locations, Dims const& weights, Arguments* sizes) {
  return read_sizes(shape(value), shape(shapes), shape(locations), shape(weights), sizes);
}

std::string read(nvinfer1::PluginTensorDesc const* inputs, Arguments* sizes) {
  sizes->value_type = data_type(inputs[0].type);
  sizes->weight_type = data_type(inputs[3].type);
  std::string error = check_types(sizes->value_type, sizes->weight_type);
  return error.empty() ? read(inputs[0].dims, inputs[1].dims, inputs[2].dims, inputs[3].dims, sizes) : error;
}

}  // namespace

Plugin::Plugin() noexcept
    : field_(kInterfaceField, &kPluginInterface, nvinfer1::PluginFieldType::kINT32, 1), fields_{1, &field_} {}

nvinfer1::IPluginCapability* Plugin::getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept {
  switch (type) {
    case nvinfer1::PluginCapabilityType::kCORE: return static_cast<nvinfer1::IPluginV3OneCore*>(this);
    case nvinfer1::PluginCapabilityType::kBUILD: return static_cast<nvinfer1::IPluginV3OneBuild*>(this);
    case nvinfer1::PluginCapabilityType::kRUNTIME: return static_cast<nvinfer1::IPluginV3OneRuntime*>(this);
  }
  return nullptr;
}

nvinfer1::IPluginV3* Plugin::clone() noexcept { return new (std::nothrow) Plugin; }

int32_t Plugin::getOutputDataTypes(TensorType* outputs, int32_t output_count, TensorType const* inputs,
                                   int32_t input_count) const noexcept {
  std::string error = check_counts(input_count, output_count);
  if (error.empty()) error = check_types(data_type(inputs[0]), data_type(inputs[3]));
  if (!error.empty()) return result(error);
  outputs[0] = inputs[0];
  return 0;
}

int32_t Plugin::getOutputShapes(nvinfer1::DimsExprs const* inputs, int32_t input_count, nvinfer1::DimsExprs const*,
                                int32_t, nvinfer1::DimsExprs* outputs, int32_t output_count,
                                nvinfer1::IExprBuilder& builder) noexcept {
  std::string error = check_counts(input_count, output_count);
  Arguments sizes{};
  if (error.empty()) error = read(inputs[0], inputs[1], inputs[2], inputs[3], &sizes);
  if (!error.empty()) return result(error);
  outputs[0].nbDims = 3;
  outputs[0].d[0] = inputs[0].d[0];
  outputs[0].d[1] = inputs[3].d[1];
  outputs[0].d[2] = builder.operation(nvinfer1::DimensionOperation::kPROD, *inputs[0].d[2], *inputs[0].d[3]);
  return outputs[0].d[2] == nullptr ? result("TensorRT could not multiply heads and head size") : 0;
}

bool Plugin::supportsFormatCombination(int32_t position, nvinfer1::DynamicPluginTensorDesc const* tensors,
                                       int32_t input_count, int32_t output_count) noexcept {
  if (!check_counts(input_count, output_count).empty() || position < 0 || position >= kInputs + kOutputs) return false;
  if (tensors[position].desc.format != nvinfer1::TensorFormat::kLINEAR) return false;
  TensorType const type = tensors[position].desc.type, value = tensors[0].desc.type;
  switch (position) {
    case 0: return type == TensorType::kFLOAT || type == TensorType::kHALF || type == TensorType::kBF16;
    case 1: return type == TensorType::kINT64;
    case 2: return type == TensorType::kFLOAT;
    case 3: return type == value || type == TensorType::kFLOAT;
    default: return type == value;
  }
}

int32_t Plugin::configurePlugin(nvinfer1::DynamicPluginTensorDesc const* inputs, int32_t input_count,
                                nvinfer1::DynamicPluginTensorDesc const*, int32_t output_count) noexcept {
  std::string error = check_counts(input_count, output_count);
  Arguments sizes{};
  if (error.empty())
    error = read(inputs[0].desc.dims, inputs[1].desc.dims, inputs[2].desc.dims, inputs[3].desc.dims, &sizes);
  return result(error);
}

int32_t Plugin::onShapeChange(nvinfer1::PluginTensorDesc const* inputs, int32_t input_count,
                              nvinfer1::PluginTensorDesc const*, int32_t output_count) noexcept {
  std::string error = check_counts(input_count, output_count);
  Arguments sizes{};
  if (error.empty()) error = read(inputs, &sizes);
  return result(error);
}

int32_t Plugin::enqueue(nvinfer1::PluginTensorDesc const* input_descs, nvinfer1::PluginTensorDesc const*,
                        void const* const* inputs, void* const* outputs, void*, cudaStream_t stream) noexcept {
  Arguments arguments{};
  std::string error = read(input_descs, &arguments);
  if (!error.empty()) return result(error);
  arguments.value = inputs[0];
  arguments.spatial_shapes = static_cast<int64_t const*>(inputs[1]);
  arguments.locations = static_cast<float const*>(inputs[2]);
  arguments.weights = inputs[3];
  arguments.output = outputs[0];
  cudaError_t const failed = launch(arguments, nullptr, stream);
  return failed == cudaSuccess ? 0 : result(std::string("the kernel did not start: ") + cudaGetErrorString(failed));
}

nvinfer1::IPluginV3* Plugin::attachToContext(nvinfer1::IPluginResourceContext*) noexcept { return clone(); }

nvinfer1::PluginFieldCollection const* Plugin::getFieldsToSerialize() noexcept { return &fields_; }

}  // namespace msda
