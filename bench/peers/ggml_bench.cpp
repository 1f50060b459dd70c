// ggml's product of a weight with float activations at one shape, on one of its backends.
//   g++ -O2 -std=c++20 ggml_bench.cpp -o ggml_bench -lggml -lggml-base
//   ggml_bench KERNEL BACKEND TYPE m n k [experts top_k]
// BACKEND is a ggml device (Vulkan0, CPU), TYPE the weight's (q8_0, bf16, f16). With experts it is
// mul_mat_id over m tokens. Prints one JSON object, or "refused" where the backend cannot
// (ggml-vulkan takes no tensor above the device's maxStorageBufferRange).
//
// What is timed: for the CPU backend the wall clock of a graph. The Vulkan backend waits for the
// device in a spin of the calling thread, which on one core takes half of it from the driver; its
// time is therefore the processor time of all other threads, which favours it.
#include <strings.h>

#include <cmath>
#include <cstring>
#include <ctime>

#include "ggml-alloc.h"
#include "ggml-backend.h"
#include "ggml.h"
#include "peer.h"

namespace {

double clock_ns(clockid_t id) {
  timespec t;
  clock_gettime(id, &t);
  return double(t.tv_sec) * 1e9 + double(t.tv_nsec);
}

double other_threads_ns() {
  return clock_ns(CLOCK_PROCESS_CPUTIME_ID) - clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

[[noreturn]] void end(int code, const char* text) {
  std::fprintf(code ? stderr : stdout, "%s\n", text);
  std::exit(code);
}

ggml_type type_of(const char* name) {
  for (int i = 0; i < GGML_TYPE_COUNT; ++i) {
    const char* other = ggml_type_name(ggml_type(i));
    if (other && !strcasecmp(other, name)) return ggml_type(i);
  }
  end(2, "ggml_bench: no such type");
}

// Random values of the tensor's type: up to 128 rows, repeated.
void fill(ggml_tensor* tensor, float scale, uint64_t seed) {
  const int64_t width = tensor->ne[0], rows = ggml_nrows(tensor);
  const int64_t distinct = std::min<int64_t>(rows, 128);
  std::vector<float> values(size_t(width * distinct));
  for (float& v : values) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    v = scale * float(int32_t(seed >> 32)) * 0x1p-31f;
  }
  const size_t row_bytes = ggml_row_size(tensor->type, width);
  std::vector<uint8_t> packed(row_bytes * size_t(distinct));
  if (tensor->type == GGML_TYPE_F32) {
    std::memcpy(packed.data(), values.data(), packed.size());
  } else {
    ggml_quantize_chunk(tensor->type, values.data(), packed.data(), 0, distinct, width, nullptr);
  }
  for (int64_t row = 0; row < rows; row += distinct) {
    ggml_backend_tensor_set(tensor, packed.data(), size_t(row) * row_bytes,
                            size_t(std::min(distinct, rows - row)) * row_bytes);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 7 && argc != 9) {
    end(2, "usage: ggml_bench KERNEL BACKEND TYPE m n k [experts top_k]");
  }
  const std::string backend_name = argv[2];
  const int64_t m = std::atoll(argv[4]), n = std::atoll(argv[5]), k = std::atoll(argv[6]);
  const int64_t experts = argc == 9 ? std::atoll(argv[7]) : 0;
  const int64_t top_k = argc == 9 ? std::atoll(argv[8]) : 0;
  ggml_log_set(
      [](ggml_log_level level, const char* text, void*) {
        if (level == GGML_LOG_LEVEL_ERROR) std::fputs(text, stderr);
      },
      nullptr);
  ggml_backend_load_all();
  ggml_backend_dev_t device = ggml_backend_dev_by_name(argv[2]);
  if (!device) end(2, "ggml_bench: no such backend");
  ggml_backend_t backend = ggml_backend_dev_init(device, nullptr);
  ggml_backend_reg_t registry = ggml_backend_dev_backend_reg(device);
  if (auto set = reinterpret_cast<ggml_backend_set_n_threads_t>(
          ggml_backend_reg_get_proc_address(registry, "ggml_backend_set_n_threads"))) {
    set(backend, 1);
  }

  const ggml_init_params params{1 << 20, nullptr, true};
  ggml_context *weights = ggml_init(params), *inputs = ggml_init(params),
               *graphs = ggml_init(params);
  ggml_tensor *w = nullptr, *x = nullptr, *ids = nullptr, *y = nullptr;
  if (experts == 0) {
    w = ggml_new_tensor_2d(weights, type_of(argv[3]), k, n);
    x = ggml_new_tensor_2d(inputs, GGML_TYPE_F32, k, m);
    y = ggml_mul_mat(graphs, w, x);
  } else {
    w = ggml_new_tensor_3d(weights, type_of(argv[3]), k, n, experts);
    x = ggml_new_tensor_3d(inputs, GGML_TYPE_F32, k, 1, m);
    ids = ggml_new_tensor_2d(inputs, GGML_TYPE_I32, top_k, m);
    y = ggml_mul_mat_id(graphs, w, x, ids);
  }
  ggml_cgraph* graph = ggml_new_graph(graphs);
  ggml_build_forward_expand(graph, y);
  // A tensor above the backend's limit is refused here, before anything is allocated for it.
  ggml_backend_buffer_type_t memory = ggml_backend_dev_buffer_type(device);
  if (ggml_nbytes(w) > ggml_backend_buft_get_max_size(memory)) end(0, "refused");
  ggml_backend_buffer_t buffer = ggml_backend_alloc_ctx_tensors_from_buft(weights, memory);
  if (!buffer) end(0, "refused");
  ggml_backend_buffer_set_usage(buffer, GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
  if (!ggml_backend_alloc_ctx_tensors_from_buft(inputs, memory) ||
      !ggml_backend_alloc_ctx_tensors_from_buft(graphs, memory)) {
    end(0, "refused");
  }
  for (int i = 0; i < ggml_graph_n_nodes(graph); ++i) {
    if (!ggml_backend_dev_supports_op(device, ggml_graph_node(graph, i))) end(0, "refused");
  }
  fill(w, 0.05f, 1);
  fill(x, 1.0f, 2);
  if (ids) {  // every expert gets the same number of rows
    std::vector<int32_t> chosen(size_t(m * top_k));
    for (size_t i = 0; i < chosen.size(); ++i) chosen[i] = int32_t(i % size_t(experts));
    ggml_backend_tensor_set(ids, chosen.data(), 0, chosen.size() * 4);
  }

  const bool spins = backend_name.rfind("CPU", 0) != 0;
  const auto run = [&] {
    const double start = spins ? other_threads_ns() : peer::now_ns();
    if (ggml_backend_graph_compute(backend, graph) != GGML_STATUS_SUCCESS) {
      end(1, "ggml_bench: compute failed");
    }
    ggml_backend_synchronize(backend);
    return (spins ? other_threads_ns() : peer::now_ns()) - start;
  };
  run();
  std::vector<float> result(static_cast<size_t>(ggml_nelements(y)));
  ggml_backend_tensor_get(y, result.data(), 0, ggml_nbytes(y));
  double sum = 0;
  for (float v : result) sum += double(v) * double(v);
  // k products of uniform values up to 0.05 and 1: no bound is known for ggml's own rounding.
  const double expected = 0.05 * std::sqrt(double(k)) / 3,
               rms = std::sqrt(sum / double(result.size()));
  if (!(rms > 0.5 * expected && rms < 2 * expected)) end(1, "ggml_bench: wrong result");

  peer::Report report;
  report.kernel = argv[1];
  report.shape = std::string("m=") + argv[4] + ",n=" + argv[5] + ",k=" + argv[6];
  if (experts) {
    report.shape = std::string("experts=") + argv[7] + ",used=" + argv[7] + ",n=" + argv[5] +
                   ",k=" + argv[6] + ",tokens=" + argv[4] + ",top_k=" + argv[8] + ",routing=even";
  }
  report.path = std::string("ggml-") + (spins ? "vulkan " : "cpu ") + argv[3];
  report.device = ggml_backend_dev_description(device);
  report.driver = std::string("ggml ") + ggml_version();
  const double rows = double(experts ? m * top_k : m);
  report.flop = 2.0 * rows * double(n) * double(k);
  report.bytes = double(ggml_nbytes(w)) + 4.0 * rows * double(k + n);
  peer::print(report, peer::sample(run));
}
