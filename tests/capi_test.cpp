// The C ABI as a host sees it: requirements, contexts, plans, recorded results, refusals.
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <set>

#include "hadal/reference/fp8_gemm.h"
#include "hadal/reference/fp8_quantize.h"
#include "support/capi.h"
#include "support/compare.h"
#include "support/random.h"
#include "support/tolerance.h"

namespace hadal::test {
namespace {

TEST(CapiHost, VersionAndNames) {
  EXPECT_EQ(hadal_version(), VK_MAKE_API_VERSION(0, HADAL_C_VERSION_MAJOR, HADAL_C_VERSION_MINOR,
                                                 HADAL_C_VERSION_PATCH));
  EXPECT_STREQ(hadal_status_name(HADAL_OK), "Ok");
  EXPECT_STREQ(hadal_status_name(HADAL_ERROR_INTERNAL), "Internal");
  EXPECT_STREQ(hadal_status_name(99), "Unknown");
  EXPECT_STREQ(hadal_status_name(-1), "Unknown");
}

TEST(CapiHost, NullIsRefusedOrANoOp) {
  hadal_error error = HADAL_ERROR_INIT;
  EXPECT_EQ(hadal_context_create(nullptr, nullptr, nullptr), HADAL_ERROR_INVALID_ARGUMENT);
  hadal_context* context = nullptr;
  EXPECT_EQ(hadal_context_create(nullptr, &context, &error), HADAL_ERROR_INVALID_ARGUMENT);
  EXPECT_STREQ(error.message, "context: info must not be null");
  EXPECT_EQ(error.status, HADAL_ERROR_INVALID_ARGUMENT);
  hadal_context_info info{};
  info.struct_size = sizeof(info);
  EXPECT_EQ(hadal_context_create(&info, &context, &error), HADAL_ERROR_INVALID_ARGUMENT);
  EXPECT_NE(std::strstr(error.message, "get_instance_proc_addr"), nullptr) << error.message;
  EXPECT_EQ(context, nullptr);
  EXPECT_EQ(hadal_context_destroy(nullptr, nullptr), HADAL_OK);
  hadal_plan_destroy(nullptr);
  EXPECT_EQ(hadal_plan_scratch_bytes(nullptr), 0u);
  EXPECT_STREQ(hadal_plan_description(nullptr), "");
  hadal_fp8_gemm_args args{};
  args.struct_size = sizeof(args);
  EXPECT_EQ(hadal_fp8_gemm_record(nullptr, VK_NULL_HANDLE, &args, &error),
            HADAL_ERROR_INVALID_ARGUMENT);
  EXPECT_STREQ(error.message, "fp8_gemm: plan must not be null");
}

TEST(CapiHost, AnErrorOfAnySizeIsWrittenInside) {
  struct {
    hadal_error error;
    char behind[8];
  } guarded;
  std::memset(&guarded, 0x5a, sizeof(guarded));
  guarded.error.struct_size = offsetof(hadal_error, message) + 8;  // an older, shorter one
  EXPECT_EQ(hadal_barrier_record(nullptr, VK_NULL_HANDLE, &guarded.error),
            HADAL_ERROR_INVALID_ARGUMENT);
  EXPECT_STREQ(guarded.error.message, "barrier");
  EXPECT_EQ(guarded.error.message[8], 0x5a);
  for (size_t size : {size_t{0}, sizeof(size_t), offsetof(hadal_error, message)}) {
    std::memset(&guarded, 0x5a, sizeof(guarded));
    guarded.error.struct_size = size;
    EXPECT_EQ(hadal_barrier_record(nullptr, VK_NULL_HANDLE, &guarded.error),
              HADAL_ERROR_INVALID_ARGUMENT);
    EXPECT_EQ(guarded.error.status, 0x5a5a5a5a);
  }
}

class CapiGpu : public CapiTest {
 protected:
  // D[m, n] of quantised x and w, recorded into one command buffer on `context`.
  struct Gemm {
    uint32_t m = 5, n = 70, k = 300;
    std::vector<float> x, w;
    Gemm() {
      Random random(7);
      x = random.normals(size_t(m) * k);
      w = random.normals(size_t(n) * k);
    }
  };
  std::vector<float> multiply(const Gemm& g, hadal_context* context) {
    const uint32_t blocks = (g.k + 127) / 128, stride = (g.k + 15) / 16 * 16;
    host_buffer *x = buffer_of(g.x), *w = buffer_of(g.w);
    host_buffer *a = buffer(uint64_t(g.m) * stride), *b = buffer(uint64_t(g.n) * stride);
    host_buffer* a_scale = buffer(uint64_t(g.m) * blocks * 4);
    host_buffer* b_scale = buffer(uint64_t(g.n) * blocks * 4);
    host_buffer* d = buffer(uint64_t(g.m) * g.n * 4);

    auto quantize = sized<hadal_fp8_quantize_desc>();
    quantize.rows = std::max(g.m, g.n), quantize.k = g.k;
    hadal_plan* to_codes = plan(hadal_fp8_quantize_plan, quantize, context);
    auto desc = sized<hadal_fp8_gemm_desc>();
    desc.m = g.m + 3, desc.n = g.n, desc.k = g.k, desc.b_scale_rows = 1;
    hadal_plan* gemm = plan(hadal_fp8_gemm_plan, desc, context);
    EXPECT_TRUE(to_codes && gemm) << error_.message;

    VkCommandBuffer commands = host_begin(current_, current_->pool);
    auto codes = sized<hadal_fp8_quantize_args>();
    codes.rows = g.m, codes.x = host_range(x), codes.q = host_range(a);
    codes.scale = host_range(a_scale);
    EXPECT_EQ(hadal_fp8_quantize_record(to_codes, commands, &codes, &error_), HADAL_OK)
        << error_.message;
    codes.rows = g.n, codes.x = host_buffer_range(w, 0), codes.q = host_buffer_range(b, 0);
    codes.scale = host_buffer_range(b_scale, 0);
    EXPECT_EQ(hadal_fp8_quantize_record(to_codes, commands, &codes, &error_), HADAL_OK)
        << error_.message;
    EXPECT_EQ(hadal_barrier_record(context, commands, &error_), HADAL_OK);
    auto args = sized<hadal_fp8_gemm_args>();
    args.m = g.m, args.a = host_range(a), args.a_scale = host_range(a_scale);
    args.b = host_range(b), args.b_scale = host_range(b_scale), args.d = host_range(d);
    EXPECT_EQ(hadal_fp8_gemm_record(gemm, commands, &args, &error_), HADAL_OK) << error_.message;
    host_submit(current_, current_->queue, commands);
    return read<float>(d);
  }
  void expect_right(const Gemm& g, const std::vector<float>& d) {
    const auto a = reference::fp8_quantize(g.m, g.k, g.x.data(), g.k, ScaleFormat::kFp32);
    const auto b = reference::fp8_quantize(g.n, g.k, g.w.data(), g.k, ScaleFormat::kFp32);
    Fp8GemmShape shape = Fp8GemmShape::packed(g.m, g.n, g.k);
    shape.a_stride = shape.b_stride = g.k;  // the reference's rows are dense
    shape.scales.b_rows = 1;
    const auto expected = reference::fp8_gemm(
        shape, {a.codes.data(), a.scales.data(), b.codes.data(), b.scales.data()});
    EXPECT_TRUE(matches("fp8_gemm through the C ABI", d, expected.value, g.n, [&](size_t i) {
      return fp8_gemm_coopmat_bound(g.k, 8, expected.value[i], expected.magnitude[i]);
    }));
  }
};

TEST_F(CapiGpu, RequirementsAreWhatTheDeviceWasMadeWith) {
  const hadal_device_query query = host_query(&instance_, devices_[0]);
  std::set<std::string> names;
  bool optional_seen = false;
  for (uint32_t i = 0; i < hadal_feature_count(); ++i) {
    auto feature = sized<hadal_feature>();
    ASSERT_EQ(hadal_device_feature(&query, i, &feature, &error_), HADAL_OK) << error_.message;
    EXPECT_TRUE(names.insert(feature.name).second) << feature.name;
    EXPECT_TRUE(feature.structure && feature.purpose);
    if (feature.required) {
      EXPECT_TRUE(feature.offered) << feature.name;
      EXPECT_FALSE(optional_seen) << "required ones come first";
      EXPECT_EQ(feature.extension, nullptr);
    }
    optional_seen = optional_seen || !feature.required;
  }
  EXPECT_TRUE(names.count("bufferDeviceAddress") && names.count("shaderInt64"));
  EXPECT_TRUE(device_.features.features.shaderInt64 && device_.v12.bufferDeviceAddress);
  EXPECT_TRUE(device_.v11.storageBuffer16BitAccess && device_.v12.storageBuffer8BitAccess);
  auto feature = sized<hadal_feature>();
  EXPECT_EQ(hadal_device_feature(&query, hadal_feature_count(), &feature, &error_),
            HADAL_ERROR_INVALID_ARGUMENT);

  // A chain without a place for a required bit is refused by the bit's name.
  VkPhysicalDeviceVulkan12Features v12{};
  v12.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES;
  EXPECT_EQ(hadal_device_enable(&query, &v12, &error_), HADAL_ERROR_INVALID_ARGUMENT);
  EXPECT_STREQ(error_.message,
               "requirements: chain must hold a VkPhysicalDeviceFeatures2 for shaderInt64");
  // A bit of the host's stays.
  VkPhysicalDeviceFeatures2 core{};
  core.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2;
  core.features.robustBufferAccess = VK_TRUE;
  VkPhysicalDeviceVulkan11Features v11{};
  v11.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES;
  core.pNext = &v11, v11.pNext = &v12;
  EXPECT_EQ(hadal_device_enable(&query, &core, &error_), HADAL_OK) << error_.message;
  EXPECT_TRUE(core.features.robustBufferAccess && core.features.shaderInt64);
  EXPECT_FALSE(core.features.geometryShader);
}

TEST_F(CapiGpu, ADeviceWithoutARequiredFeatureIsRefusedByName) {
  hadal_context_info info = host_context_info(&device_);
  VkDeviceCreateInfo lie = device_.info;
  VkPhysicalDeviceVulkan12Features v12 = device_.v12;
  v12.scalarBlockLayout = VK_FALSE;
  VkPhysicalDeviceVulkan11Features v11 = device_.v11;
  v11.pNext = &v12;
  VkPhysicalDeviceFeatures2 core = device_.features;
  core.pNext = &v11, lie.pNext = &core;
  info.create_info = &lie;
  hadal_context* context = nullptr;
  EXPECT_EQ(hadal_context_create(&info, &context, &error_), HADAL_ERROR_INVALID_ARGUMENT);
  EXPECT_STREQ(error_.message, "device: create_info must enable scalarBlockLayout");
}

TEST_F(CapiGpu, QuantisesAndMultiplies) {
  const Gemm g;
  expect_right(g, multiply(g, context_));
}

// Without the tables CPU drivers take other paths; a row's bits are the same.
TEST_F(CapiGpu, ConstantsChangeNoBit) {
  const Gemm g;
  hadal_context_info info = host_context_info(&device_);
  hadal_context* plain = nullptr;
  ASSERT_EQ(hadal_context_create(&info, &plain, &error_), HADAL_OK) << error_.message;
  EXPECT_EQ(multiply(g, plain), multiply(g, context_));
  destroy_plans();
  EXPECT_EQ(hadal_context_destroy(plain, &error_), HADAL_OK);
}

TEST_F(CapiGpu, TwoContextsOnOneDeviceGoInAnyOrder) {
  const Gemm g;
  const hadal_context_info info = host_context_info(&device_);
  for (bool first_made_first : {true, false}) {
    hadal_context *one = nullptr, *two = nullptr;
    ASSERT_EQ(hadal_context_create(&info, &one, &error_), HADAL_OK);
    ASSERT_EQ(hadal_context_create(&info, &two, &error_), HADAL_OK);
    const std::vector<float> a = multiply(g, one), b = multiply(g, two);
    EXPECT_EQ(a, b);
    destroy_plans();
    hadal_context* earlier = first_made_first ? one : two;
    hadal_context* later = first_made_first ? two : one;
    EXPECT_EQ(hadal_context_destroy(earlier, &error_), HADAL_OK);
    EXPECT_EQ(multiply(g, later), a);
    destroy_plans();
    EXPECT_EQ(hadal_context_destroy(later, &error_), HADAL_OK);
  }
}

// Two drivers in one process share nothing: work interleaved, contexts and devices gone in both
// orders. ctest runs it with two drivers (capi_two_drivers); on a machine with one it says so.
TEST_F(CapiGpu, TwoDriversGoInAnyOrder) {
  if (device_count_ < 2) GTEST_SKIP() << "one Vulkan device only";
  const Gemm g;
  for (bool first_goes_first : {true, false}) {
    host_device hosts[2];
    hadal_context* contexts[2] = {};
    for (int i : {0, 1}) {
      host_device_create(&instance_, devices_[i], &hosts[i]);
      const hadal_context_info info = host_context_info(&hosts[i]);
      ASSERT_EQ(hadal_context_create(&info, &contexts[i], &error_), HADAL_OK) << error_.message;
    }
    const auto work = [&](int i) {
      current_ = &hosts[i];
      expect_right(g, multiply(g, contexts[i]));
    };
    work(0), work(1), work(0), work(1);
    destroy_plans();
    const int earlier = first_goes_first ? 0 : 1, later = 1 - earlier;
    EXPECT_EQ(hadal_context_destroy(contexts[earlier], &error_), HADAL_OK);
    work(later);
    destroy_plans();
    EXPECT_EQ(hadal_context_destroy(contexts[later], &error_), HADAL_OK);
    current_ = &device_;
    destroy_buffers();
    host_device_destroy(&hosts[later]);
    host_device_destroy(&hosts[earlier]);
  }
}

TEST_F(CapiGpu, AContextWithPlansIsNotDestroyed) {
  auto desc = sized<hadal_sample_desc>();
  desc.rows = 1, desc.vocab = 10;
  ASSERT_TRUE(plan(hadal_sample_plan, desc)) << error_.message;
  EXPECT_EQ(hadal_context_destroy(context_, &error_), HADAL_ERROR_INVALID_ARGUMENT);
  EXPECT_STREQ(error_.message, "context: plans must be destroyed first, got 1 alive");
}

struct Counts {
  std::atomic<int> allocations{0}, frees{0};
};
void* VKAPI_PTR count_allocation(void* user, size_t size, size_t alignment,
                                 VkSystemAllocationScope) {
  ++static_cast<Counts*>(user)->allocations;
  const size_t step = std::max(alignment, sizeof(void*));
  return std::aligned_alloc(step, (size + step - 1) / step * step);
}
void* VKAPI_PTR count_reallocation(void* user, void* old, size_t size, size_t alignment,
                                   VkSystemAllocationScope scope) {
  if (!old) return count_allocation(user, size, alignment, scope);
  return std::realloc(old, size);  // alignments up to max_align_t only
}
void VKAPI_PTR count_free(void* user, void* memory) {
  if (memory) ++static_cast<Counts*>(user)->frees;
  std::free(memory);
}

TEST_F(CapiGpu, TheHostsCallbacksAndPipelineCacheAreUsed) {
  Counts counts;
  const VkAllocationCallbacks callbacks{&counts,    count_allocation, count_reallocation,
                                        count_free, nullptr,          nullptr};
  VkPipelineCacheCreateInfo cache_info{};
  cache_info.sType = VK_STRUCTURE_TYPE_PIPELINE_CACHE_CREATE_INFO;
  VkPipelineCache cache = VK_NULL_HANDLE;
  ASSERT_EQ(
      HOST_DEVICE_FN(&device_, CreatePipelineCache)(device_.device, &cache_info, nullptr, &cache),
      VK_SUCCESS);
  hadal_context_info info = host_context_info(&device_);
  info.allocation_callbacks = &callbacks;
  info.pipeline_cache = cache;
  struct Log {
    std::vector<std::string> lines;
  } log;
  info.log = [](void* user, hadal_log_level level, const char* text) {
    EXPECT_EQ(level, uint32_t{HADAL_LOG_INFO});
    static_cast<Log*>(user)->lines.emplace_back(text);
  };
  info.log_user = &log;
  hadal_context* context = nullptr;
  ASSERT_EQ(hadal_context_create(&info, &context, &error_), HADAL_OK) << error_.message;
  const Gemm g;
  expect_right(g, multiply(g, context));
  destroy_plans();
  EXPECT_EQ(hadal_context_destroy(context, &error_), HADAL_OK);
  EXPECT_GT(counts.allocations, 0);
  EXPECT_EQ(counts.allocations, counts.frees);
  ASSERT_EQ(log.lines.size(), 3u);
  EXPECT_TRUE(log.lines[0].starts_with("context: ")) << log.lines[0];
  EXPECT_TRUE(log.lines[1].starts_with("fp8_quantize: ")) << log.lines[1];
  EXPECT_TRUE(log.lines[2].starts_with("fp8_gemm: ")) << log.lines[2];
  // The cache is the host's: it is still alive.
  HOST_DEVICE_FN(&device_, DestroyPipelineCache)(device_.device, cache, nullptr);
}

class CapiRefusalsGpu : public CapiTest {
 protected:
  void SetUp() override {
    CapiTest::SetUp();
    if (!alive_) return;
    desc_ = sized<hadal_fp8_gemm_desc>();
    desc_.m = 4, desc_.n = 64, desc_.k = 256;
    gemm_ = plan(hadal_fp8_gemm_plan, desc_);
    ASSERT_TRUE(gemm_) << error_.message;
    args_ = sized<hadal_fp8_gemm_args>();
    args_.m = 4;
    args_.a = host_range(buffer(4 * 256)), args_.a_scale = host_range(buffer(4 * 2 * 4));
    args_.b = host_range(buffer(64 * 256)), args_.b_scale = host_range(buffer(2 * 4));
    args_.d = host_range(buffer(4 * 64 * 4));
    commands_ = host_begin(&device_, device_.pool);
  }
  void TearDown() override {
    if (alive_) {
      EXPECT_EQ(HOST_DEVICE_FN(&device_, EndCommandBuffer)(commands_), VK_SUCCESS);
    }
    CapiTest::TearDown();
  }
  void expect_refused(const hadal_fp8_gemm_args& args, const std::string& message) {
    EXPECT_EQ(hadal_fp8_gemm_record(gemm_, commands_, &args, &error_),
              HADAL_ERROR_INVALID_ARGUMENT);
    EXPECT_EQ(error_.message, message);
  }
  hadal_fp8_gemm_desc desc_{};
  hadal_fp8_gemm_args args_{};
  hadal_plan* gemm_ = nullptr;
  VkCommandBuffer commands_ = VK_NULL_HANDLE;
};

TEST_F(CapiRefusalsGpu, OfRecordsNameTheArgument) {
  EXPECT_EQ(hadal_fp8_gemm_record(gemm_, commands_, &args_, &error_), HADAL_OK) << error_.message;
  hadal_fp8_gemm_args bad = args_;
  bad.m = 5;
  expect_refused(bad, "fp8_gemm: m must be at most the plan's 4, got 5");
  bad = args_, bad.b_scale = {};
  expect_refused(bad, "fp8_gemm: b_scale must be given, as an address or a buffer");
  bad = args_, bad.d.bytes -= 4;
  expect_refused(bad, "fp8_gemm: d must hold 1024 bytes, got 1020");
  bad = args_, bad.a.address += 8, bad.a.bytes = 0;
  EXPECT_EQ(hadal_fp8_gemm_record(gemm_, commands_, &bad, &error_), HADAL_ERROR_INVALID_ARGUMENT);
  EXPECT_TRUE(std::string(error_.message).starts_with("fp8_gemm: a must be 16-byte aligned, got"))
      << error_.message;
  bad = args_, bad.struct_size = 4;
  EXPECT_EQ(hadal_fp8_gemm_record(gemm_, commands_, &bad, &error_), HADAL_ERROR_INVALID_ARGUMENT);
  EXPECT_TRUE(std::string(error_.message).starts_with("fp8_gemm: args.struct_size must be"))
      << error_.message;
}

TEST_F(CapiRefusalsGpu, OfPlansNameTheArgument) {
  const auto refused = [&](const hadal_fp8_gemm_desc& bad) -> std::string {
    EXPECT_EQ(plan(hadal_fp8_gemm_plan, bad), nullptr);
    EXPECT_EQ(status_, HADAL_ERROR_INVALID_ARGUMENT);
    return error_.message;
  };
  hadal_fp8_gemm_desc bad = desc_;
  bad.a_stride = 240;
  EXPECT_EQ(refused(bad), "fp8_gemm: a_stride must be at least k, got 240 < 256");
  bad = desc_, bad.d_type = 2;
  EXPECT_EQ(refused(bad), "fp8_gemm: d_type must be below 2, got 2");
  bad = desc_, bad.flags = 8;
  EXPECT_EQ(refused(bad), "fp8_gemm: flags must be of 0x7, got 0x8");
  bad = desc_, bad.b_scale_rows = 64;
  EXPECT_EQ(refused(bad), "fp8_gemm: b_scale_rows must be 0, 1 or 128, got 64");
  bad = desc_, bad.k = 1u << 31;
  EXPECT_EQ(refused(bad), "fp8_gemm: k must be at most 1073741824, got 2147483648");
}

TEST_F(CapiRefusalsGpu, PlansAreOfTheirKernel) {
  auto other = sized<hadal_sample_args>();
  EXPECT_EQ(hadal_sample_record(gemm_, commands_, &other, &error_), HADAL_ERROR_INVALID_ARGUMENT);
  EXPECT_STREQ(error_.message, "sample: plan must be of sample, got one of fp8_gemm");
  auto tiling = sized<hadal_grouped_tiling>();
  EXPECT_EQ(hadal_grouped_gemm_tiling(gemm_, &tiling, &error_), HADAL_ERROR_INVALID_ARGUMENT);
}

// A newer caller's structure is taken while what this version does not know is zero.
TEST_F(CapiRefusalsGpu, StructuresOfNewerCallers) {
  struct {
    hadal_fp8_gemm_desc desc;
    uint64_t new_member = 0;
  } newer;
  newer.desc = desc_;
  newer.desc.struct_size = sizeof(newer);
  hadal_plan* made = nullptr;
  EXPECT_EQ(hadal_fp8_gemm_plan(context_, &newer.desc, &made, &error_), HADAL_OK) << error_.message;
  hadal_plan_destroy(made);
  newer.new_member = 1;
  EXPECT_EQ(hadal_fp8_gemm_plan(context_, &newer.desc, &made, &error_), HADAL_ERROR_UNSUPPORTED);
}

}  // namespace
}  // namespace hadal::test
