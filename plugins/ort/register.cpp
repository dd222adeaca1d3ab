// What ONNX Runtime calls when a session loads the library.
#include "api.h"
#include "msda/c_api.h"

namespace {

// An older runtime has no table of our version; any table can still make the status that says so.
OrtStatus* refuse(const OrtApiBase* base) {
  for (uint32_t version = msda::kOrtApiVersion - 1; version > 0; --version) {
    if (const OrtApi* api = base->GetApi(version)) {
      const std::string reason = std::string(msda::kOperator) + " needs ONNX Runtime 1." +
                                 std::to_string(msda::kOrtApiVersion) + " or newer, this is " +
                                 base->GetVersionString();
      return api->CreateStatus(ORT_NOT_IMPLEMENTED, reason.c_str());
    }
  }
  return nullptr;
}

OrtStatus* add_operators(const OrtApi& api, OrtCustomOpDomain* domain) {
  MSDA_RETURN_IF_ERROR(msda::add_cpu_operators(api, domain));
#if defined(MSDA_CUDA)
  MSDA_RETURN_IF_ERROR(msda::add_cuda_operators(api, domain));
#endif
  return nullptr;
}

}  // namespace

extern "C" {

int devil_msda_onnxruntime_api(void) { return msda::kOrtApiVersion; }

int devil_msda_onnxruntime_cuda(void) {
#if defined(MSDA_CUDA)
  return 1;
#else
  return 0;
#endif
}

// The domain is never released: sessions made from these options use it for as long as the process lives.
MSDA_EXPORT OrtStatus* RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* base) {
  const OrtApi* api = base->GetApi(msda::kOrtApiVersion);
  if (api == nullptr) return refuse(base);
  OrtCustomOpDomain* domain = nullptr;
  MSDA_RETURN_IF_ERROR(api->CreateCustomOpDomain(msda::kDomain, &domain));
  OrtStatus* failed = add_operators(*api, domain);
  if (failed == nullptr) failed = api->AddCustomOpDomain(options, domain);
  if (failed != nullptr) api->ReleaseCustomOpDomain(domain);
  return failed;
}
}
