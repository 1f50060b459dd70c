// A ggml engine as a host: a graph rms_norm -> product -> silu whose product is once ggml's own and
// once a custom node that hands its operands to hadal's bf16_gemm. Both on the same values: the
// weight is bfloat16 in hadal's hands and the same numbers as float in ggml's.
#include <ggml-alloc.h>
#include <ggml-backend.h>
#include <ggml.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <utility>
#include <vector>

#include "vulkan_host.h"

#ifdef __SANITIZE_ADDRESS__
// Drivers, layers and ggml's backends stay loaded: what their globals hold is no leak, and the
// frames of what is one have names.
extern "C" int dlclose(void*) {
  return 0;
}
#endif

namespace {

constexpr int64_t kM = 37, kN = 300, kK = 512;  // y[m,n] = sum_k x[m,k] w[n,k]

// What the custom node needs of hadal; made before the graph runs, used by one thread of ggml.
struct HadalProduct {
  host_device device{};
  hadal_context* context = nullptr;
  hadal_plan* plan = nullptr;
  host_buffer a{}, b{}, d{};
  int calls = 0;
};

template <class T>
T sized() {
  T value;
  std::memset(&value, 0, sizeof(value));
  value.struct_size = sizeof(value);
  return value;
}

void create(host_instance* instance, VkPhysicalDevice physical, HadalProduct* product) {
  hadal_error error = HADAL_ERROR_INIT;
  host_device_create(instance, physical, &product->device);
  const hadal_context_info info = host_context_info(&product->device);
  HOST_OK(hadal_context_create(&info, &product->context, &error));
  auto desc = sized<hadal_bf16_gemm_desc>();
  desc.m = kM, desc.n = kN, desc.k = kK;
  HOST_OK(hadal_bf16_gemm_plan(product->context, &desc, &product->plan, &error));
  product->a = host_buffer_create(&product->device, kM * kK * 4, 0xff);
  product->b = host_buffer_create(&product->device, kN * kK * 2, 0xff);
  product->d = host_buffer_create(&product->device, kM * kN * 4, 0xff);
}

void destroy(HadalProduct* product) {
  hadal_error error = HADAL_ERROR_INIT;
  for (host_buffer* b : {&product->a, &product->b, &product->d}) {
    host_buffer_destroy(&product->device, b);
  }
  hadal_plan_destroy(product->plan);
  HOST_OK(hadal_context_destroy(product->context, &error));
  host_device_destroy(&product->device);
}

// The custom node: dst [n, m] of src[0], bfloat16 [k, n], and src[1], float [k, m], in ggml's order
// of dimensions (the fastest first), which is hadal's row-major [n, k] and [m, k].
void multiply(ggml_tensor* dst, int ith, int, void* user) {
  if (ith != 0) return;
  auto* product = static_cast<HadalProduct*>(user);
  const ggml_tensor *w = dst->src[0], *x = dst->src[1];
  HOST_CHECK(w->type == GGML_TYPE_BF16 && x->type == GGML_TYPE_F32);
  HOST_CHECK(w->ne[0] == x->ne[0] && ggml_is_contiguous(w) && ggml_is_contiguous(x));
  HOST_CHECK(ggml_nbytes(x) == product->a.bytes && ggml_nbytes(w) == product->b.bytes);
  std::memcpy(product->a.mapped, x->data, ggml_nbytes(x));
  std::memcpy(product->b.mapped, w->data, ggml_nbytes(w));

  hadal_error error = HADAL_ERROR_INIT;
  VkCommandBuffer commands = host_begin(&product->device, product->device.pool);
  auto args = sized<hadal_bf16_gemm_args>();
  args.m = uint32_t(x->ne[1]);
  args.a = host_range(&product->a);
  args.b = host_range(&product->b);
  args.d = host_range(&product->d);
  HOST_OK(hadal_bf16_gemm_record(product->plan, commands, &args, &error));
  host_submit(&product->device, product->device.queue, commands);
  std::memcpy(dst->data, product->d.mapped, ggml_nbytes(dst));
  ++product->calls;
}

// The graph; without `hadal` its product is ggml's.
struct Graph {
  ggml_context* context;
  ggml_tensor *x, *w, *norm, *product, *y;
  ggml_cgraph* graph;
  ggml_backend_buffer_t buffer;
};

Graph make_graph(ggml_backend_t backend, HadalProduct* hadal) {
  Graph g{};
  g.context = ggml_init({1 << 20, nullptr, true});
  g.x = ggml_new_tensor_2d(g.context, GGML_TYPE_F32, kK, kM);
  g.w = ggml_new_tensor_2d(g.context, hadal ? GGML_TYPE_BF16 : GGML_TYPE_F32, kK, kN);
  g.norm = ggml_rms_norm(g.context, g.x, 1e-6f);
  if (hadal) {
    ggml_tensor* operands[] = {g.w, g.norm};
    g.product =
        ggml_custom_4d(g.context, GGML_TYPE_F32, kN, kM, 1, 1, operands, 2, multiply, 1, hadal);
  } else {
    g.product = ggml_mul_mat(g.context, g.w, g.norm);
  }
  g.y = ggml_silu(g.context, g.product);
  g.graph = ggml_new_graph(g.context);
  ggml_build_forward_expand(g.graph, g.y);
  g.buffer = ggml_backend_alloc_ctx_tensors(g.context, backend);
  HOST_CHECK(g.buffer);
  return g;
}

std::vector<float> values_of(const ggml_tensor* t) {
  std::vector<float> values(size_t(ggml_nelements(t)));
  ggml_backend_tensor_get(t, values.data(), 0, values.size() * sizeof(float));
  return values;
}

void run(ggml_backend_t backend, const Graph& g, const std::vector<float>& x,
         const std::vector<ggml_bf16_t>& w) {
  ggml_backend_tensor_set(g.x, x.data(), 0, ggml_nbytes(g.x));
  if (g.w->type == GGML_TYPE_BF16) {
    ggml_backend_tensor_set(g.w, w.data(), 0, ggml_nbytes(g.w));
  } else {
    std::vector<float> floats(w.size());
    ggml_bf16_to_fp32_row(w.data(), floats.data(), int64_t(w.size()));
    ggml_backend_tensor_set(g.w, floats.data(), 0, ggml_nbytes(g.w));
  }
  HOST_CHECK(ggml_backend_graph_compute(backend, g.graph) == GGML_STATUS_SUCCESS);
}

// Errors against the exact sums, in shares of their magnitudes sum |x w|, and the worst one of the
// first against the second.
struct Errors {
  double first = 0, second = 0, apart = 0;
};
Errors errors(const std::vector<float>& x, const std::vector<float>& w,
              const std::vector<float>& first, const std::vector<float>& second) {
  Errors worst;
  const auto keep = [](double& most, double value) {
    if (!(value <= most)) most = value;  // NaN is kept, too
  };
  for (int64_t m = 0; m < kM; ++m) {
    for (int64_t n = 0; n < kN; ++n) {
      double sum = 0, magnitude = 0;
      for (int64_t k = 0; k < kK; ++k) {
        const double term = double(x[size_t(m * kK + k)]) * w[size_t(n * kK + k)];
        sum += term;
        magnitude += std::fabs(term);
      }
      const double a = first[size_t(m * kN + n)], b = second[size_t(m * kN + n)];
      keep(worst.first, std::fabs(a - sum) / magnitude);
      keep(worst.second, std::fabs(b - sum) / magnitude);
      keep(worst.apart, std::fabs(a - b) / magnitude);
    }
  }
  return worst;
}

int compare(const HadalProduct& hadal, const Graph& own, const Graph& guest) {
  const std::vector<float> x = values_of(own.norm), w = values_of(own.w);
  HOST_CHECK(values_of(guest.norm) == x);  // the two products had the same operands
  const std::vector<float> expected = values_of(own.product), got = values_of(guest.product);
  const Errors worst = errors(x, w, got, expected);
  // hadal: a product rounds once, 127 additions in a segment of 128, one per segment; Vulkan's
  // roundings are within 2^-23. ggml: k roundings of 2^-24 in whatever order, for products and
  // sums.
  const double roundings = 1 + 127 + double(kK) / 128;
  const double bound = roundings * 0x1p-23 / (1 - roundings * 0x1p-23);
  const double ggml_bound = kK * 0x1p-24 / (1 - kK * 0x1p-24);
  std::printf("%s\n", hadal_plan_description(hadal.plan));
  std::printf(
      "worst errors, of the magnitudes: hadal %.3g (bound %.3g), ggml %.3g (bound %.3g), apart "
      "%.3g\n",
      worst.first, bound, worst.second, ggml_bound, worst.apart);
  HOST_CHECK(worst.first <= bound && worst.second <= ggml_bound);
  HOST_CHECK(worst.apart <= bound + ggml_bound);

  // A wrong product would not pass: the same, with two neighbours changed about.
  std::vector<float> wrong = got;
  std::swap(wrong[0], wrong[1]);
  HOST_CHECK(!(errors(x, w, wrong, expected).first <= bound));

  // ggml went on with hadal's product: silu's slope is at most 1.1, its own rounding far below.
  const std::vector<float> y = values_of(guest.y);
  for (size_t i = 0; i < y.size(); ++i) {
    const double exact = got[i] / (1 + std::exp(-double(got[i])));
    HOST_CHECK(std::fabs(y[i] - exact) <= 1e-5 * std::fabs(exact) + 1e-12);
  }
  return 0;
}

}  // namespace

int main() {
  static host_instance instance;
  VkPhysicalDevice devices[8];
  if (!host_instance_create(&instance) || host_physical_devices(&instance, devices) == 0) {
    std::fprintf(stderr, "no Vulkan device or validation layer\n");
    return 77;
  }
  static HadalProduct hadal;
  create(&instance, devices[0], &hadal);

  ggml_backend_load_all();
  ggml_backend_t backend = ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, nullptr);
  if (!backend) {
    std::fprintf(stderr, "ggml has no CPU backend here\n");
    return 77;
  }
  const Graph own = make_graph(backend, nullptr), guest = make_graph(backend, &hadal);
  std::vector<float> x(kM * kK);
  std::vector<float> values(kN * kK);
  for (size_t i = 0; i < x.size(); ++i) x[i] = std::sin(0.7f * float(i));
  for (size_t i = 0; i < values.size(); ++i) values[i] = 0.1f * std::cos(3.1f * float(i));
  std::vector<ggml_bf16_t> w(values.size());
  ggml_fp32_to_bf16_row(values.data(), w.data(), int64_t(values.size()));
  run(backend, own, x, w);
  run(backend, guest, x, w);
  HOST_CHECK(hadal.calls == 1);
  const int result = compare(hadal, own, guest);

  for (const Graph& g : {own, guest}) {
    ggml_backend_buffer_free(g.buffer);
    ggml_free(g.context);
  }
  ggml_backend_free(backend);
  destroy(&hadal);
  host_instance_destroy(&instance);
  HOST_CHECK(instance.messages == 0);
  std::printf("the product of ggml's graph, computed by hadal, is right\n");
  return result;
}
