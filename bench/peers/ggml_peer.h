// What the two ggml programs share: a backend with one thread, tensors of random values, the clock.
//
// What is timed: for the CPU backend the wall clock of a graph. The Vulkan backend waits for the
// device in a spin of the calling thread, which on one core takes half of it from the driver; its
// time is therefore the processor time of all other threads, which favours it.
#pragma once

#include <strings.h>
#include <sys/resource.h>

#include <cmath>
#include <cstring>
#include <ctime>

#include "ggml-alloc.h"
#include "ggml-backend.h"
#include "ggml.h"
#include "peer.h"

namespace peer {

inline double clock_ns(clockid_t id) {
  timespec t;
  clock_gettime(id, &t);
  return double(t.tv_sec) * 1e9 + double(t.tv_nsec);
}

inline double other_threads_ns() {
  return clock_ns(CLOCK_PROCESS_CPUTIME_ID) - clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

[[noreturn]] inline void end(int code, const char* text) {
  std::fprintf(code ? stderr : stdout, "%s\n", text);
  std::exit(code);
}

inline ggml_type type_of(const char* name) {
  for (int i = 0; i < GGML_TYPE_COUNT; ++i) {
    const char* other = ggml_type_name(ggml_type(i));
    if (other && !strcasecmp(other, name)) return ggml_type(i);
  }
  end(2, "ggml: no such type");
}

// Random values of the tensor's type: up to 128 rows, repeated.
inline void fill(ggml_tensor* tensor, float scale, uint64_t seed) {
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

struct Backend {
  ggml_backend_dev_t device = nullptr;
  ggml_backend_t backend = nullptr;
  ggml_backend_buffer_type_t memory = nullptr;
  bool is_cpu = false;

  // `name` is a ggml device: CPU, Vulkan0.
  explicit Backend(const char* name) : is_cpu(!std::strncmp(name, "CPU", 3)) {
    ggml_log_set(
        [](ggml_log_level level, const char* text, void*) {
          if (level == GGML_LOG_LEVEL_ERROR) std::fputs(text, stderr);
        },
        nullptr);
    ggml_backend_load_all();
    device = ggml_backend_dev_by_name(name);
    if (!device) end(2, "ggml: no such backend");
    backend = ggml_backend_dev_init(device, nullptr);
    memory = ggml_backend_dev_buffer_type(device);
    ggml_backend_reg_t registry = ggml_backend_dev_backend_reg(device);
    if (auto set = reinterpret_cast<ggml_backend_set_n_threads_t>(
            ggml_backend_reg_get_proc_address(registry, "ggml_backend_set_n_threads"))) {
      set(backend, 1);
    }
  }

  // Whether the backend takes the graph, and every tensor of it and of `tensors`.
  [[nodiscard]] bool takes(ggml_cgraph* graph, ggml_context* tensors) const {
    const size_t limit = ggml_backend_buft_get_max_size(memory);
    for (ggml_tensor* t = ggml_get_first_tensor(tensors); t; t = ggml_get_next_tensor(tensors, t)) {
      if (ggml_nbytes(t) > limit) return false;
    }
    for (int i = 0; i < ggml_graph_n_nodes(graph); ++i) {
      if (!ggml_backend_dev_supports_op(device, ggml_graph_node(graph, i))) return false;
    }
    return true;
  }

  // Nanoseconds of one run of the graph, see above.
  [[nodiscard]] double run_ns(ggml_cgraph* graph) const {
    const double start = is_cpu ? now_ns() : other_threads_ns();
    if (ggml_backend_graph_compute(backend, graph) != GGML_STATUS_SUCCESS) {
      end(1, "ggml: compute failed");
    }
    ggml_backend_synchronize(backend);
    return (is_cpu ? now_ns() : other_threads_ns()) - start;
  }

  // The thread that spins gives way to the driver's, so that a run takes half the wall time. Those
  // exist once a graph has run (and, on lavapipe, once the backend does).
  void give_way() const {
    if (!is_cpu) setpriority(PRIO_PROCESS, 0, 10);
  }

  void describe(Report& report, const char* type) const {
    report.path = std::string(is_cpu ? "ggml-cpu " : "ggml-vulkan ") + type;
    report.device = ggml_backend_dev_description(device);
    report.driver = std::string("ggml ") + ggml_version();
  }
};

}  // namespace peer
