// MultiScaleDeformableAttention for TensorRT 10.0 and newer: a thin adapter between IPluginV3 and the CUDA launcher.
#pragma once

#include <NvInferRuntime.h>

#include <string>

#include "msda/check.h"

namespace msda {

constexpr char const* kPluginName = "MultiScaleDeformableAttention";
constexpr char const* kPluginVersion = "1";
constexpr char const* kPluginNamespace = "";

// Written into engines; raised when the inputs or their meaning change, so that an old engine is refused.
constexpr int32_t kPluginInterface = 1;
constexpr char const* kInterfaceField = "interface";

// Says what is wrong where TensorRT can hear it: the logger it gave this library, if any.
void report(std::string const& reason) noexcept;

// Inputs: value, spatial shapes, sampling locations, weights; one output. No attributes, no state beyond the interface
// number that is serialised, so one object serves every shape and every context.
class Plugin final : public nvinfer1::IPluginV3,
                     public nvinfer1::IPluginV3OneCore,
                     public nvinfer1::IPluginV3OneBuild,
                     public nvinfer1::IPluginV3OneRuntime {
 public:
  static constexpr int32_t kInputs = 4;
  static constexpr int32_t kOutputs = 1;

  Plugin() noexcept;
  ~Plugin() override = default;
  Plugin(Plugin const&) = delete;
  Plugin& operator=(Plugin const&) = delete;

  // IPluginV3
  nvinfer1::IPluginCapability* getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept override;
  nvinfer1::IPluginV3* clone() noexcept override;

  // Core
  char const* getPluginName() const noexcept override { return kPluginName; }
  char const* getPluginVersion() const noexcept override { return kPluginVersion; }
  char const* getPluginNamespace() const noexcept override { return kPluginNamespace; }

  // Build
  int32_t getNbOutputs() const noexcept override { return kOutputs; }
  int32_t getOutputDataTypes(nvinfer1::DataType* outputs, int32_t output_count, nvinfer1::DataType const* inputs,
                             int32_t input_count) const noexcept override;
  int32_t getOutputShapes(nvinfer1::DimsExprs const* inputs, int32_t input_count,
                          nvinfer1::DimsExprs const* shape_inputs, int32_t shape_input_count,
                          nvinfer1::DimsExprs* outputs, int32_t output_count,
                          nvinfer1::IExprBuilder& builder) noexcept override;
  bool supportsFormatCombination(int32_t position, nvinfer1::DynamicPluginTensorDesc const* tensors,
                                 int32_t input_count, int32_t output_count) noexcept override;
  int32_t configurePlugin(nvinfer1::DynamicPluginTensorDesc const* inputs, int32_t input_count,
                          nvinfer1::DynamicPluginTensorDesc const* outputs, int32_t output_count) noexcept override;

  // Runtime
  int32_t onShapeChange(nvinfer1::PluginTensorDesc const* inputs, int32_t input_count,
                        nvinfer1::PluginTensorDesc const* outputs, int32_t output_count) noexcept override;
  int32_t enqueue(nvinfer1::PluginTensorDesc const* input_descs, nvinfer1::PluginTensorDesc const* output_descs,
                  void const* const* inputs, void* const* outputs, void* workspace,
                  cudaStream_t stream) noexcept override;
  nvinfer1::IPluginV3* attachToContext(nvinfer1::IPluginResourceContext* context) noexcept override;
  nvinfer1::PluginFieldCollection const* getFieldsToSerialize() noexcept override;

 private:
  nvinfer1::PluginField field_;
  nvinfer1::PluginFieldCollection fields_;
};

class Creator final : public nvinfer1::IPluginCreatorV3One {
 public:
  // Build phase: no fields. Runtime phase: the serialised interface number. Anything else is reported and refused.
  nvinfer1::IPluginV3* createPlugin(char const* name, nvinfer1::PluginFieldCollection const* fields,
                                    nvinfer1::TensorRTPhase phase) noexcept override;
  nvinfer1::PluginFieldCollection const* getFieldNames() noexcept override { return &no_fields_; }
  char const* getPluginName() const noexcept override { return kPluginName; }
  char const* getPluginVersion() const noexcept override { return kPluginVersion; }
  char const* getPluginNamespace() const noexcept override { return kPluginNamespace; }

 private:
  nvinfer1::PluginFieldCollection no_fields_{0, nullptr};
};

}  // namespace msda
