// The creator, and the two functions by which TensorRT's registry takes it from the library
// (IPluginRegistry::loadLibrary). The library is not linked with libnvinfer.
#include <atomic>
#include <cstring>
#include <new>

#include "plugin.h"

#define MSDA_EXPORT __attribute__((visibility("default")))

namespace {

// Set by TensorRT when it loads the library; the only thing here that outlives a call.
std::atomic<nvinfer1::ILoggerFinder*> logger_finder{nullptr};

std::string check_fields(nvinfer1::PluginFieldCollection const* fields, nvinfer1::TensorRTPhase phase) {
  int32_t const count = fields == nullptr ? 0 : fields->nbFields;
  if (phase == nvinfer1::TensorRTPhase::kBUILD) {
    return count == 0 ? std::string() : "the node has no attributes, got '" + std::string(fields->fields[0].name) + "'";
  }
  if (count != 1 || std::strcmp(fields->fields[0].name, msda::kInterfaceField) != 0 ||
      fields->fields[0].type != nvinfer1::PluginFieldType::kINT32 || fields->fields[0].length != 1) {
    return "the engine does not hold this plugin's fields; build it again";
  }
  int32_t const interface = *static_cast<int32_t const*>(fields->fields[0].data);
  if (interface == msda::kPluginInterface) return {};
  return "the engine was built with plugin interface " + std::to_string(interface) + ", this library has " +
         std::to_string(msda::kPluginInterface) + "; build it again";
}

}  // namespace

namespace msda {

void report(std::string const& reason) noexcept {
  nvinfer1::ILoggerFinder* const finder = logger_finder.load();
  nvinfer1::ILogger* const logger = finder == nullptr ? nullptr : finder->findLogger();
  if (logger == nullptr) return;
  logger->log(nvinfer1::ILogger::Severity::kERROR, (std::string(kPluginName) + ": " + reason).c_str());
}

nvinfer1::IPluginV3* Creator::createPlugin(char const*, nvinfer1::PluginFieldCollection const* fields,
                                           nvinfer1::TensorRTPhase phase) noexcept {
  std::string const error = check_fields(fields, phase);
  if (error.empty()) return new (std::nothrow) Plugin;
  report(error);
  return nullptr;
}

}  // namespace msda

extern "C" {

MSDA_EXPORT void setLoggerFinder(nvinfer1::ILoggerFinder* finder) { logger_finder.store(finder); }

MSDA_EXPORT nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count) {
  static msda::Creator creator;
  static nvinfer1::IPluginCreatorInterface* const creators[] = {&creator};
  count = 1;
  return creators;
}
}
