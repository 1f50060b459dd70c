// ggml's product of a weight with float activations at one shape, on one of its backends.
//   g++ -O2 -std=c++20 ggml_bench.cpp -o ggml_bench -lggml -lggml-base
//   ggml_bench KERNEL BACKEND TYPE m n k [experts top_k]
// BACKEND is a ggml device (Vulkan0, CPU), TYPE the weight's (q8_0, bf16, f16). With experts it is
// mul_mat_id over m tokens. Prints one JSON object, or "refused" where the backend cannot
// (ggml-vulkan takes no tensor above the device's maxStorageBufferRange). ggml_peer.h says what is
// timed.
#include "ggml_peer.h"

int main(int argc, char** argv) {
  using namespace peer;
  if (argc != 7 && argc != 9) {
    end(2, "usage: ggml_bench KERNEL BACKEND TYPE m n k [experts top_k]");
  }
  const int64_t m = std::atoll(argv[4]), n = std::atoll(argv[5]), k = std::atoll(argv[6]);
  const int64_t experts = argc == 9 ? std::atoll(argv[7]) : 0;
  const int64_t top_k = argc == 9 ? std::atoll(argv[8]) : 0;
  const Backend backend(argv[2]);

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
  if (ggml_nbytes(w) > ggml_backend_buft_get_max_size(backend.memory)) end(0, "refused");
  ggml_backend_buffer_t buffer = ggml_backend_alloc_ctx_tensors_from_buft(weights, backend.memory);
  if (!buffer) end(0, "refused");
  ggml_backend_buffer_set_usage(buffer, GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
  if (!ggml_backend_alloc_ctx_tensors_from_buft(inputs, backend.memory) ||
      !ggml_backend_alloc_ctx_tensors_from_buft(graphs, backend.memory) ||
      !backend.takes(graph, weights)) {
    end(0, "refused");
  }
  fill(w, 0.05f, 1);
  fill(x, 1.0f, 2);
  if (ids) {  // every expert gets the same number of rows
    std::vector<int32_t> chosen(size_t(m * top_k));
    for (size_t i = 0; i < chosen.size(); ++i) chosen[i] = int32_t(i % size_t(experts));
    ggml_backend_tensor_set(ids, chosen.data(), 0, chosen.size() * 4);
  }

  (void)backend.run_ns(graph);
  backend.give_way();
  std::vector<float> result(static_cast<size_t>(ggml_nelements(y)));
  ggml_backend_tensor_get(y, result.data(), 0, ggml_nbytes(y));
  double sum = 0;
  for (float v : result) sum += double(v) * double(v);
  // k products of uniform values up to 0.05 and 1: no bound is known for ggml's own rounding.
  const double expected = 0.05 * std::sqrt(double(k)) / 3,
               rms = std::sqrt(sum / double(result.size()));
  if (!(rms > 0.5 * expected && rms < 2 * expected)) end(1, "ggml_bench: wrong result");

  Report report;
  report.kernel = argv[1];
  report.shape = std::string("m=") + argv[4] + ",n=" + argv[5] + ",k=" + argv[6];
  if (experts) {
    report.shape = std::string("experts=") + argv[7] + ",used=" + argv[7] + ",n=" + argv[5] +
                   ",k=" + argv[6] + ",tokens=" + argv[4] + ",top_k=" + argv[8] + ",routing=even";
  }
  backend.describe(report, argv[3]);
  const double rows = double(experts ? m * top_k : m);
  report.flop = 2.0 * rows * double(n) * double(k);
  report.bytes = double(ggml_nbytes(w)) + 4.0 * rows * double(k + n);
  print(report, sample([&] { return backend.run_ns(graph); }));
}
