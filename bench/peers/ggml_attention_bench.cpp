// ggml's attention at one shape of mla_decode or mla_prefill, on one of its backends.
//   g++ -O2 -std=c++20 ggml_attention_bench.cpp -o ggml_attention_bench -lggml -lggml-base
//   ggml_attention_bench mla_decode BACKEND TYPE FORM tokens kv_len heads rank rope
//   ggml_attention_bench mla_prefill BACKEND TYPE FORM q_begin q_len heads nope rope v
// BACKEND is a ggml device (Vulkan0, CPU), TYPE that of the keys and values (f16, q8_0), FORM:
//   flash    ggml_flash_attn_ext as llama.cpp calls it: heads are heads, for decode over one key
//            head whose first rank channels are the values
//   rows     decode only: the heads, which share their keys, are given as queries of one head
//   mul_mat  what llama.cpp does without flash attention: mul_mat, soft_max_ext, mul_mat; decode
//            with heads as queries; values lie transposed already
// Every token of decode is a sequence of its own. Decode has no mask, prefill a causal one. Where
// the backend refuses a tensor (ggml-vulkan: above the device's maxStorageBufferRange), the
// sequences or heads are spread over several nodes of one graph.
// Prints one JSON object, or "refused". ggml_peer.h says what is timed.
#include <memory>

#include "ggml_peer.h"

namespace {

using namespace peer;

struct Problem {
  bool decode = false;
  int64_t sequences = 1, heads = 0, key_heads = 0, queries = 0, keys = 0, key = 0, value = 0;
  int64_t q_begin = 0;
  float scale = 1;
};

// One node's operands and result.
struct Part {
  ggml_tensor *q = nullptr, *k = nullptr, *v = nullptr, *mask = nullptr, *o = nullptr;
};

struct Graph {
  ggml_context *inputs = nullptr, *nodes = nullptr;
  ggml_cgraph* graph = nullptr;
  std::vector<Part> parts;
};

// `count` parts of the sequences (decode) or heads (prefill).
Graph build(const Problem& p, const std::string& form, ggml_type type, int64_t count) {
  Graph g;
  const ggml_init_params params{8u << 20, nullptr, true};
  g.inputs = ggml_init(params), g.nodes = ggml_init(params);
  g.graph = ggml_new_graph(g.nodes);
  const int64_t sequences = p.decode ? p.sequences / count : 1;
  const int64_t heads = p.decode ? p.heads : p.heads / count;
  const int64_t key_heads = p.decode ? 1 : heads;
  const bool flash = form != "mul_mat", rows = p.decode && form != "flash";
  for (int64_t i = 0; i < count; ++i) {
    Part t;
    t.q = ggml_new_tensor_4d(g.inputs, GGML_TYPE_F32, p.key, rows ? heads : p.queries,
                             rows ? 1 : heads, sequences);
    t.k = ggml_new_tensor_4d(g.inputs, type, p.key, p.keys, key_heads, sequences);
    if (!p.decode) {
      t.mask =
          ggml_new_tensor_2d(g.inputs, flash ? GGML_TYPE_F16 : GGML_TYPE_F32, p.keys, p.queries);
    }
    if (flash) {
      t.v = p.decode ? ggml_view_4d(g.inputs, t.k, p.value, p.keys, key_heads, sequences,
                                    t.k->nb[1], t.k->nb[2], t.k->nb[3], 0)
                     : ggml_new_tensor_4d(g.inputs, type, p.value, p.keys, key_heads, sequences);
      t.o = ggml_flash_attn_ext(g.nodes, t.q, t.k, t.v, t.mask, p.scale, 0.0f, 0.0f);
      ggml_prec_set_acc(t.o, GGML_PREC_F32);
    } else {
      t.v = ggml_new_tensor_4d(g.inputs, type, p.keys, p.value, key_heads, sequences);
      ggml_tensor* scores = ggml_mul_mat(g.nodes, t.k, t.q);
      t.o = ggml_mul_mat(g.nodes, t.v, ggml_soft_max_ext(g.nodes, scores, t.mask, p.scale, 0.0f));
    }
    ggml_build_forward_expand(g.graph, t.o);
    g.parts.push_back(t);
  }
  return g;
}

void fill_mask(ggml_tensor* mask, int64_t q_begin) {
  const int64_t keys = mask->ne[0], queries = mask->ne[1];
  std::vector<float> values(size_t(keys * queries));
  for (int64_t i = 0; i < queries; ++i) {
    for (int64_t j = 0; j < keys; ++j) {
      values[size_t(i * keys + j)] = j <= q_begin + i ? 0.0f : -INFINITY;
    }
  }
  if (mask->type == GGML_TYPE_F32) {
    ggml_backend_tensor_set(mask, values.data(), 0, values.size() * 4);
    return;
  }
  std::vector<ggml_fp16_t> half(values.size());
  ggml_fp32_to_fp16_row(values.data(), half.data(), int64_t(half.size()));
  ggml_backend_tensor_set(mask, half.data(), 0, half.size() * 2);
}

// Row i1 of [i3][i2] of a tensor as floats.
std::vector<float> row_of(const ggml_tensor* t, int64_t i1, int64_t i2, int64_t i3) {
  std::vector<uint8_t> packed(ggml_row_size(t->type, t->ne[0]));
  const ggml_tensor* base = t->view_src ? t->view_src : t;
  const size_t at = size_t(i1) * t->nb[1] + size_t(i2) * t->nb[2] + size_t(i3) * t->nb[3];
  ggml_backend_tensor_get(base, packed.data(), at, packed.size());
  std::vector<float> values(size_t(t->ne[0]));
  if (t->type == GGML_TYPE_F32) {
    std::memcpy(values.data(), packed.data(), packed.size());
  } else {
    ggml_get_type_traits(t->type)->to_float(packed.data(), values.data(), t->ne[0]);
  }
  return values;
}

// Error of the first and last head's (of the last query, part and sequence) results against the
// formula in double over the keys and values as ggml holds them: sum of squares of the differences
// over sum of squares, over the 5e-4 that ggml's own tests allow flash attention. Above 1 is ggml's
// own rounding (its CPU backend adds up f16 values in f16: 16 at 16,384 keys), far above it a wrong
// graph.
double worst_error(const Problem& p, const Graph& g, const std::string& form) {
  const bool flash = form != "mul_mat", rows = p.decode && form != "flash";
  const Part& t = g.parts.back();
  const int64_t sequence = t.q->ne[3] - 1, heads = rows ? t.q->ne[1] : t.q->ne[2];
  double worst = 0;
  for (const int64_t head : {int64_t{0}, heads - 1}) {
    const int64_t query = rows ? head : p.queries - 1, plane = rows ? 0 : head;
    const int64_t key_head = p.decode ? 0 : head;
    const std::vector<float> q = row_of(t.q, query, plane, sequence);
    std::vector<double> scores(size_t(p.keys)), o(size_t(p.value), 0.0);
    double most = -INFINITY, sum = 0;
    for (int64_t j = 0; j < p.keys; ++j) {
      const std::vector<float> k = row_of(t.k, j, key_head, sequence);
      double s = 0;
      for (size_t c = 0; c < q.size(); ++c) s += double(q[c]) * double(k[c]);
      scores[size_t(j)] = s * double(p.scale);
      most = std::fmax(most, scores[size_t(j)]);
    }
    for (double& s : scores) s = std::exp(s - most), sum += s;
    if (flash) {
      for (int64_t j = 0; j < p.keys; ++j) {
        const std::vector<float> v = row_of(t.v, j, key_head, sequence);
        for (size_t c = 0; c < o.size(); ++c) o[c] += scores[size_t(j)] / sum * double(v[c]);
      }
    } else {
      for (int64_t c = 0; c < p.value; ++c) {
        const std::vector<float> v = row_of(t.v, c, key_head, sequence);
        for (int64_t j = 0; j < p.keys; ++j) {
          o[size_t(c)] += scores[size_t(j)] / sum * double(v[size_t(j)]);
        }
      }
    }
    // ggml_flash_attn_ext gives [value, heads, queries, sequences].
    const std::vector<float> found =
        flash ? row_of(t.o, plane, query, sequence) : row_of(t.o, query, plane, sequence);
    double error = 0, size = 0;
    for (size_t c = 0; c < o.size(); ++c) {
      error += (double(found[c]) - o[c]) * (double(found[c]) - o[c]), size += o[c] * o[c];
    }
    const double ratio = error / size / 5e-4;
    worst = ratio <= worst ? worst : ratio == ratio ? ratio : INFINITY;
  }
  return worst;
}

}  // namespace

int main(int argc, char** argv) {
  const bool decode = argc > 1 && !std::strcmp(argv[1], "mla_decode");
  if (argc != (decode ? 10 : 11)) {
    end(2,
        "usage: ggml_attention_bench mla_decode BACKEND TYPE FORM tokens kv_len heads rank rope\n"
        "       ggml_attention_bench mla_prefill BACKEND TYPE FORM q_begin q_len heads nope rope "
        "v");
  }
  const std::string form = argv[4];
  std::vector<int64_t> n;
  for (int i = 5; i < argc; ++i) n.push_back(std::atoll(argv[i]));
  Problem p;
  Report report;
  report.kernel = argv[1];
  double pairs = 0;
  std::vector<const char*> names;
  p.decode = decode;
  if (decode) {
    p.sequences = n[0], p.keys = n[1], p.heads = n[2], p.value = n[3], p.key = n[3] + n[4];
    p.queries = 1, p.scale = 1 / std::sqrt(float(n[3]));
    pairs = double(n[0]) * double(n[1]) * double(n[2]);
    names = {"tokens", "kv_len", "heads", "rank", "rope"};
  } else {
    p.q_begin = n[0], p.queries = n[1], p.keys = n[0] + n[1], p.heads = n[2];
    p.key = n[3] + n[4], p.value = n[5], p.scale = 1 / std::sqrt(float(p.key));
    pairs = double(n[1]) * (double(n[0]) + (double(n[1]) + 1) / 2) * double(n[2]);
    names = {"q_begin", "q_len", "heads", "nope", "rope", "v"};
  }
  for (size_t i = 0; i < names.size(); ++i) {
    report.shape += std::string(i ? "," : "") + names[i] + "=" + argv[5 + i];
  }

  const Backend backend(argv[2]);
  const ggml_type type = type_of(argv[3]);
  Graph g;
  for (int64_t count = 1;; count *= 2) {
    if (count > (decode ? p.sequences : p.heads)) end(0, "refused");
    g = build(p, form, type, count);
    if (backend.takes(g.graph, g.inputs) && backend.takes(g.graph, g.nodes)) break;
    ggml_free(g.inputs), ggml_free(g.nodes);
  }
  if (!ggml_backend_alloc_ctx_tensors_from_buft(g.inputs, backend.memory)) end(0, "refused");
  ggml_gallocr_t allocator = ggml_gallocr_new(backend.memory);
  for (const Part& t : g.parts) ggml_set_output(t.o);
  if (!ggml_gallocr_alloc_graph(allocator, g.graph)) end(0, "refused");
  uint64_t seed = 1;
  for (const Part& t : g.parts) {
    fill(t.q, 1.0f, ++seed), fill(t.k, 1.0f, ++seed);
    if (!t.v->view_src) fill(t.v, 1.0f, ++seed);
    if (t.mask) fill_mask(t.mask, p.q_begin);
    report.bytes += double(ggml_nbytes(t.q) + ggml_nbytes(t.k) + ggml_nbytes(t.o));
    if (!t.v->view_src) report.bytes += double(ggml_nbytes(t.v));
  }
  backend.give_way();
  const double first_ns = backend.run_ns(g.graph);
  report.worst = worst_error(p, g, form);
  if (!(report.worst <= 100)) end(1, "ggml_attention_bench: wrong result");
  backend.describe(report, argv[3]);
  report.path += " " + form;
  if (g.parts.size() > 1) report.path += ", " + std::to_string(g.parts.size()) + " nodes";
  report.flop = 2.0 * pairs * double(p.key + p.value);
  // A run of that long is its own sample: what it took to fetch shaders is nothing beside it.
  const bool once = first_ns * 1e-9 > 12 * environment("PEER_SECONDS", 1);
  print(report,
        once ? std::vector<double>{first_ns} : sample([&] { return backend.run_ns(g.graph); }));
}
