// Stands in for register.cpp where ONNX Runtime's header was not found: the C interface alone.
#include "msda/c_api.h"

extern "C" int devil_msda_onnxruntime_api(void) { return 0; }
extern "C" int devil_msda_onnxruntime_cuda(void) { return 0; }
