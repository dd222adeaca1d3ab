// The TensorRT plugin's methods as TensorRT calls them: shapes, types and formats, fields, serialise and deserialise,
// errors. The launcher and the CUDA runtime are stood in for here; nothing runs on a device.
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "msda/launch.h"
#include "plugin.h"

extern "C" void setLoggerFinder(nvinfer1::ILoggerFinder* finder);
extern "C" nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count);

namespace {

using nvinfer1::DataType;
using nvinfer1::TensorFormat;

std::string logged;
msda::Arguments launched;
cudaError_t launch_result = cudaSuccess;

struct Logger : nvinfer1::ILogger {
  void log(Severity, char const* message) noexcept override { logged = message; }
} logger;

struct Finder : nvinfer1::ILoggerFinder {
  nvinfer1::ILogger* findLogger() override { return &logger; }
} finder;

// Dimensions as TensorRT's builder hands them out: known ones and unknown ones (-1).
struct Dimension : nvinfer1::IDimensionExpr, nvinfer1::apiv::VDimensionExpr {
  explicit Dimension(int64_t value) : value(value) { mImpl = this; }
  bool isConstant() const override { return value >= 0; }
  int64_t getConstantValue() const override { return value; }
  bool isSizeTensor() const override { return false; }
  int64_t value;
};

struct Builder : nvinfer1::IExprBuilder, nvinfer1::apiv::VExprBuilder {
  Builder() { mImpl = this; }
  nvinfer1::IDimensionExpr const* constant(int64_t value) override {
    made.push_back(std::make_unique<Dimension>(value));
    return made.back().get();
  }
  nvinfer1::IDimensionExpr const* operation(nvinfer1::DimensionOperation op, nvinfer1::IDimensionExpr const& a,
                                            nvinfer1::IDimensionExpr const& b) override {
    if (op != nvinfer1::DimensionOperation::kPROD) return nullptr;
    bool const known = a.isConstant() && b.isConstant();
    return constant(known ? a.getConstantValue() * b.getConstantValue() : -1);
  }
  nvinfer1::IDimensionExpr const* declareSizeTensor(int32_t, nvinfer1::IDimensionExpr const&,
                                                    nvinfer1::IDimensionExpr const&) override {
    return nullptr;
  }
  std::vector<std::unique_ptr<Dimension>> made;
};

using Shapes = std::vector<std::vector<int64_t>>;
Shapes const kShapes = {{2, 16, 8, 32}, {2, 2}, {2, 5, 8, 2, 4, 2}, {2, 5, 8, 2, 4}, {2, 5, 256}};

nvinfer1::Dims dims(std::vector<int64_t> const& shape) {
  nvinfer1::Dims result{};
  result.nbDims = static_cast<int32_t>(shape.size());
  for (size_t i = 0; i < shape.size(); ++i) result.d[i] = shape[i];
  return result;
}

std::vector<nvinfer1::PluginTensorDesc> describe(Shapes const& shapes, DataType value, DataType weights) {
  DataType const types[] = {value, DataType::kINT64, DataType::kFLOAT, weights, value};
  std::vector<nvinfer1::PluginTensorDesc> result(5);
  for (size_t i = 0; i < 5; ++i) {
    result[i].dims = dims(shapes[i]);
    result[i].type = types[i];
    result[i].format = TensorFormat::kLINEAR;
  }
  return result;
}

std::vector<nvinfer1::DynamicPluginTensorDesc> dynamic(std::vector<nvinfer1::PluginTensorDesc> const& descs) {
  std::vector<nvinfer1::DynamicPluginTensorDesc> result(descs.size());
  for (size_t i = 0; i < descs.size(); ++i) result[i].desc = descs[i];
  return result;
}

std::vector<nvinfer1::DimsExprs> expressions(Builder& builder, Shapes const& shapes) {
  std::vector<nvinfer1::DimsExprs> result(4);
  for (size_t i = 0; i < 4; ++i) {
    result[i].nbDims = static_cast<int32_t>(shapes[i].size());
    for (size_t d = 0; d < shapes[i].size(); ++d) result[i].d[d] = builder.constant(shapes[i][d]);
  }
  return result;
}

#define EXPECT(condition)                                                              \
  do {                                                                                 \
    if (!(condition)) {                                                                \
      std::printf("line %d: %s (logged: %s)\n", __LINE__, #condition, logged.c_str()); \
      return false;                                                                    \
    }                                                                                  \
  } while (false)

bool contains(char const* part) { return logged.find(part) != std::string::npos; }

nvinfer1::IPluginCreatorV3One* creator() {
  int32_t count = 0;
  nvinfer1::IPluginCreatorInterface* const* const creators = getCreators(count);
  return count == 1 ? static_cast<nvinfer1::IPluginCreatorV3One*>(creators[0]) : nullptr;
}

bool names() {
  EXPECT(creator() != nullptr);
  EXPECT(std::strcmp(creator()->getPluginName(), "MultiScaleDeformableAttention") == 0);
  EXPECT(std::strcmp(creator()->getPluginVersion(), "1") == 0);
  EXPECT(std::strcmp(creator()->getPluginNamespace(), "") == 0);
  EXPECT(creator()->getFieldNames() != nullptr && creator()->getFieldNames()->nbFields == 0);
  return true;
}

bool capabilities(nvinfer1::IPluginV3& plugin) {
  for (auto const type : {nvinfer1::PluginCapabilityType::kCORE, nvinfer1::PluginCapabilityType::kBUILD,
                          nvinfer1::PluginCapabilityType::kRUNTIME}) {
    EXPECT(plugin.getCapabilityInterface(type) != nullptr);
  }
  std::unique_ptr<nvinfer1::IPluginV3> const clone(plugin.clone());
  EXPECT(clone != nullptr && clone.get() != &plugin);
  return true;
}

bool output_shapes(msda::Plugin& plugin) {
  Builder builder;
  nvinfer1::DimsExprs output{};
  std::vector<nvinfer1::DimsExprs> inputs = expressions(builder, kShapes);
  EXPECT(plugin.getOutputShapes(inputs.data(), 4, nullptr, 0, &output, 1, builder) == 0);
  EXPECT(output.nbDims == 3 && output.d[0]->getConstantValue() == 2 && output.d[1]->getConstantValue() == 5);
  EXPECT(output.d[2]->getConstantValue() == 256);

  inputs = expressions(builder, {{-1, -1, 8, 32}, {4, 2}, {-1, -1, 8, 4, 4, 2}, {-1, -1, 8, 4, 4}});
  EXPECT(plugin.getOutputShapes(inputs.data(), 4, nullptr, 0, &output, 1, builder) == 0);
  EXPECT(!output.d[0]->isConstant() && !output.d[1]->isConstant() && output.d[2]->getConstantValue() == 256);

  inputs = expressions(builder, {{-1, -1, 8, 32}, {4, 2}, {-1, -1, 8, 4, 4}, {-1, -1, 8, 4, 4}});
  EXPECT(plugin.getOutputShapes(inputs.data(), 4, nullptr, 0, &output, 1, builder) != 0);
  EXPECT(contains("sampling locations must be") && contains("[?, ?, 8, 4, 4, 2], got [?, ?, 8, 4, 4]"));
  EXPECT(plugin.getOutputShapes(inputs.data(), 3, nullptr, 0, &output, 1, builder) != 0);
  EXPECT(contains("needs 4 inputs and 1 output, got 3 and 1"));
  return true;
}

bool types(msda::Plugin& plugin) {
  for (DataType const value : {DataType::kFLOAT, DataType::kHALF, DataType::kBF16}) {
    for (DataType const weights : {value, DataType::kFLOAT}) {
      DataType const inputs[] = {value, DataType::kINT64, DataType::kFLOAT, weights};
      DataType output = DataType::kINT8;
      EXPECT(plugin.getNbOutputs() == 1 && plugin.getOutputDataTypes(&output, 1, inputs, 4) == 0 && output == value);
      auto tensors = dynamic(describe(kShapes, value, weights));
      for (int32_t position = 0; position < 5; ++position) {
        EXPECT(plugin.supportsFormatCombination(position, tensors.data(), 4, 1));
        tensors[position].desc.format = TensorFormat::kCHW32;
        EXPECT(!plugin.supportsFormatCombination(position, tensors.data(), 4, 1));
        tensors[position].desc.format = TensorFormat::kLINEAR;
        DataType const right = tensors[position].desc.type;
        tensors[position].desc.type = DataType::kINT8;
        EXPECT(!plugin.supportsFormatCombination(position, tensors.data(), 4, 1));
        tensors[position].desc.type = right;
      }
      EXPECT(!plugin.supportsFormatCombination(5, tensors.data(), 4, 1));
      EXPECT(!plugin.supportsFormatCombination(0, tensors.data(), 5, 1));
    }
  }
  auto mixed = dynamic(describe(kShapes, DataType::kFLOAT, DataType::kHALF));
  EXPECT(!plugin.supportsFormatCombination(3, mixed.data(), 4, 1));
  DataType const wrong[] = {DataType::kINT8, DataType::kINT64, DataType::kFLOAT, DataType::kINT8};
  DataType output;
  EXPECT(plugin.getOutputDataTypes(&output, 1, wrong, 4) != 0 &&
         contains("value must be float32, float16 or bfloat16"));
  return true;
}

bool configure(msda::Plugin& plugin) {
  auto descs = describe(kShapes, DataType::kHALF, DataType::kHALF);
  EXPECT(plugin.configurePlugin(dynamic(descs).data(), 4, nullptr, 1) == 0);
  EXPECT(plugin.onShapeChange(descs.data(), 4, descs.data() + 4, 1) == 0);
  Shapes unknown = kShapes;
  unknown[0][0] = unknown[2][0] = unknown[3][0] = unknown[0][1] = -1;
  EXPECT(plugin.configurePlugin(dynamic(describe(unknown, DataType::kFLOAT, DataType::kFLOAT)).data(), 4, nullptr, 1) ==
         0);
  Shapes wrong = kShapes;
  wrong[0][3] = 12;
  descs = describe(wrong, DataType::kFLOAT, DataType::kFLOAT);
  EXPECT(plugin.onShapeChange(descs.data(), 4, nullptr, 1) != 0 &&
         contains("head size must be a multiple of 8, got 12"));
  EXPECT(plugin.configurePlugin(dynamic(descs).data(), 4, nullptr, 1) != 0);
  wrong = kShapes;
  wrong[0][0] = wrong[2][0] = wrong[3][0] = 0;
  descs = describe(wrong, DataType::kFLOAT, DataType::kFLOAT);
  EXPECT(plugin.onShapeChange(descs.data(), 4, nullptr, 1) != 0 && contains("batch must be at least 1, got 0"));
  return true;
}

bool enqueue(msda::Plugin& plugin) {
  auto const descs = describe(kShapes, DataType::kBF16, DataType::kFLOAT);
  char buffers[5];
  void const* const inputs[] = {buffers, buffers + 1, buffers + 2, buffers + 3};
  void* const outputs[] = {buffers + 4};
  EXPECT(plugin.enqueue(descs.data(), descs.data() + 4, inputs, outputs, nullptr, nullptr) == 0);
  EXPECT(launched.value == buffers && launched.output == buffers + 4 && launched.weights == buffers + 3);
  EXPECT(launched.batch == 2 && launched.tokens == 16 && launched.queries == 5 && launched.heads == 8);
  EXPECT(launched.head_size == 32 && launched.levels == 2 && launched.points == 4);
  EXPECT(launched.value_type == msda::DataType::kBFloat16 && launched.weight_type == msda::DataType::kFloat32);
  launch_result = cudaErrorInvalidValue;
  EXPECT(plugin.enqueue(descs.data(), descs.data() + 4, inputs, outputs, nullptr, nullptr) != 0);
  EXPECT(contains("MultiScaleDeformableAttention: the kernel did not start: stand-in error"));
  launch_result = cudaSuccess;
  return true;
}

std::unique_ptr<nvinfer1::IPluginV3> deserialise(std::vector<nvinfer1::PluginField> const& fields) {
  nvinfer1::PluginFieldCollection const collection{static_cast<int32_t>(fields.size()), fields.data()};
  return std::unique_ptr<nvinfer1::IPluginV3>(
      creator()->createPlugin("node", &collection, nvinfer1::TensorRTPhase::kRUNTIME));
}

bool serialisation(msda::Plugin& plugin) {
  nvinfer1::PluginFieldCollection const* const fields = plugin.getFieldsToSerialize();
  EXPECT(fields != nullptr && fields->nbFields == 1);
  EXPECT(deserialise({fields->fields, fields->fields + 1}) != nullptr);
  EXPECT(deserialise({}) == nullptr && contains("does not hold this plugin's fields"));
  int32_t const newer = 2;
  nvinfer1::PluginField field = fields->fields[0];
  field.data = &newer;
  EXPECT(deserialise({field}) == nullptr &&
         contains("built with plugin interface 2, this library has 1; build it again"));
  field.type = nvinfer1::PluginFieldType::kFLOAT32;
  EXPECT(deserialise({field}) == nullptr);
  field = fields->fields[0];
  field.name = "stranger";
  EXPECT(deserialise({field}) == nullptr);

  nvinfer1::PluginFieldCollection const attribute{1, &field}, none{0, nullptr};
  std::unique_ptr<nvinfer1::IPluginV3> const built(
      creator()->createPlugin("node", &none, nvinfer1::TensorRTPhase::kBUILD));
  EXPECT(built != nullptr);
  EXPECT(creator()->createPlugin("node", &attribute, nvinfer1::TensorRTPhase::kBUILD) == nullptr);
  EXPECT(contains("the node has no attributes, got 'stranger'"));
  std::unique_ptr<nvinfer1::IPluginV3> const attached(plugin.attachToContext(nullptr));
  EXPECT(attached != nullptr);
  return true;
}

}  // namespace

cudaError_t msda::launch(Arguments const& arguments, int64_t const* host_shapes, cudaStream_t) {
  launched = arguments;
  return host_shapes == nullptr ? launch_result : cudaErrorInvalidValue;
}

extern "C" char const* cudaGetErrorString(cudaError_t) { return "stand-in error"; }

int main() {
  msda::Plugin plugin;
  msda::report("without a logger this is silent");
  setLoggerFinder(&finder);
  bool const passed = names() && capabilities(plugin) && output_shapes(plugin) && types(plugin) && configure(plugin) &&
                      enqueue(plugin) && serialisation(plugin);
  if (passed) std::printf("plugin checked with TensorRT %d.%d headers\n", NV_TENSORRT_MAJOR, NV_TENSORRT_MINOR);
  return passed ? 0 : 1;
}
