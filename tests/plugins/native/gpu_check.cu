// The CUDA kernels on a GPU: every case against the reference, then (with the argument "time") 64 frames of the
// detector's encoder at 640x360 in fp16, against the bound that L1 sets.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "cases.h"
#include "msda/launch.h"

namespace {

void must(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  std::printf("%s: %s\n", what, cudaGetErrorString(status));
  std::exit(1);
}

// A device copy of exactly as many bytes, so that compute-sanitizer sees every step beyond them.
class DeviceCopy {
 public:
  DeviceCopy(const void* host, size_t bytes) {
    must(cudaMalloc(&data_, bytes), "cudaMalloc");
    must(cudaMemcpy(data_, host, bytes, cudaMemcpyHostToDevice), "cudaMemcpy");
  }
  ~DeviceCopy() { cudaFree(data_); }
  DeviceCopy(const DeviceCopy&) = delete;
  void* get() const { return data_; }

 private:
  void* data_ = nullptr;
};

struct DeviceCall {
  explicit DeviceCall(const cases::Call& call)
      : bytes(call.outputs() * cases::width(call.arguments.value_type)),
        value(call.value.get(), static_cast<size_t>(call.arguments.batch * call.arguments.tokens *
                                                    call.arguments.heads * call.arguments.head_size) *
                                    cases::width(call.arguments.value_type)),
        shapes(call.shapes.get(), static_cast<size_t>(call.arguments.levels) * 16),
        locations(call.locations.get(), call.samples() * 8),
        weights(call.weights.get(), call.samples() * cases::width(call.arguments.weight_type)),
        output(call.output.get(), bytes),
        arguments(call.arguments) {
    arguments.value = value.get(), arguments.spatial_shapes = static_cast<const int64_t*>(shapes.get());
    arguments.locations = static_cast<const float*>(locations.get()), arguments.weights = weights.get();
    arguments.output = output.get();
  }
  size_t bytes;
  DeviceCopy value, shapes, locations, weights, output;
  cases::Arguments arguments;
};

bool check(cases::Call& call, bool on_host) {
  const DeviceCall device(call);
  must(msda::launch(device.arguments, on_host ? call.shapes.as<int64_t>() : nullptr, nullptr), "launch");
  must(cudaMemcpy(call.output.get(), device.output.get(), device.bytes, cudaMemcpyDeviceToHost), "the kernel");
  const bool blended = call.arguments.head_size == 32 && call.arguments.value_type != cases::DataType::kFloat32;
  return cases::compare(call, call.reference(), blended,
                        "types " + std::to_string(static_cast<int>(call.arguments.value_type)));
}

double median_microseconds(const DeviceCall& device, int rounds) {
  cudaEvent_t start, stop;
  must(cudaEventCreate(&start), "event");
  must(cudaEventCreate(&stop), "event");
  std::vector<float> times;
  for (int round = 0; round < rounds + 3; ++round) {
    must(cudaEventRecord(start), "record");
    must(msda::launch(device.arguments, nullptr, nullptr), "launch");
    must(cudaEventRecord(stop), "record");
    must(cudaEventSynchronize(stop), "the kernel");
    float milliseconds = 0;
    must(cudaEventElapsedTime(&milliseconds, start, stop), "elapsed");
    if (round >= 3) times.push_back(milliseconds * 1000);
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

// A row of 32 halves per corner, and 128 bytes per clock and multiprocessor out of L1.
void time_encoder() {
  const cases::Sizes encoder{{45, 80, 23, 40, 12, 20, 6, 10}, 64, 4820, 8, 32, 4, false};
  const cases::Call call(encoder, cases::DataType::kFloat16, cases::DataType::kFloat16, 1);
  const DeviceCall device(call);
  cudaDeviceProp properties;
  must(cudaGetDeviceProperties(&properties, 0), "properties");
  int kilohertz = 0;
  must(cudaDeviceGetAttribute(&kilohertz, cudaDevAttrClockRate, 0), "clock");
  const double bytes = static_cast<double>(call.samples()) * 4 * 64;
  const double bound = bytes / (128.0 * properties.multiProcessorCount * kilohertz * 1e3) * 1e6;
  const double found = median_microseconds(device, 30);
  std::printf("%s: encoder, 64 frames, fp16: %.0f us, L1 bound %.0f us, fraction %.2f\n", properties.name, found, bound,
              bound / found);
}

}  // namespace

int main(int count, char** arguments) {
  int checked = 0;
  uint32_t seed = 0;
  std::vector<cases::Sizes> all = cases::all_sizes();
  all.push_back({{23, 40, 12, 20, 6, 10, 3, 5}, 64, 37, 8, 32, 4, true});
  for (const cases::Sizes& sizes : all) {
    for (const auto& types : cases::kTypes) {
      cases::Call call(sizes, types[0], types[1], ++seed);
      if (!check(call, seed % 2 == 0)) return 1;
      ++checked;
    }
  }
  std::printf("%d calls checked\n", checked);
  if (count > 1 && std::strcmp(arguments[1], "time") == 0) time_encoder();
  return 0;
}
