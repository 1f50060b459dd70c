// A Vulkan host for tests of the C ABI, with the validation layer on: one instance and device for a
// suite; a test fails on any validation message. The C++ tests never give it hadal's own Device.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <deque>
#include <string>
#include <vector>

#include "consumer/vulkan_host.h"

namespace hadal::test {

class CapiTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    alive_ = host_instance_create(&instance_) &&
             (device_count_ = host_physical_devices(&instance_, devices_)) > 0;
    if (alive_) host_device_create(&instance_, devices_[0], &device_);
  }
  static void TearDownTestSuite() {
    if (!alive_) return;
    host_device_destroy(&device_);
    host_instance_destroy(&instance_);
    EXPECT_EQ(instance_.messages, 0);
  }
  void SetUp() override {
    if (!alive_) GTEST_SKIP() << "no Vulkan device or validation layer";
    hadal_context_info info = host_context_info(&device_);
    constants_ = buffer(HADAL_CONSTANTS_BYTES, 0);
    hadal_constants_write(constants_->mapped);
    info.constants = constants_->address;
    ASSERT_EQ(hadal_context_create(&info, &context_, &error_), HADAL_OK) << error_.message;
  }
  void TearDown() override {
    if (!alive_) return;
    for (hadal_plan* plan : plans_) hadal_plan_destroy(plan);
    EXPECT_EQ(hadal_context_destroy(context_, &error_), HADAL_OK) << error_.message;
    destroy_buffers();
    EXPECT_EQ(instance_.messages, 0);
  }

  // Freed after the test.
  host_buffer* buffer(uint64_t bytes, int fill = 0xff) {
    buffer_owners_.push_back(current_);
    return &buffers_.emplace_back(host_buffer_create(current_, bytes, fill));
  }
  template <class T>
  host_buffer* buffer_of(const std::vector<T>& values) {
    host_buffer* b = buffer(values.size() * sizeof(T));
    std::memcpy(b->mapped, values.data(), values.size() * sizeof(T));
    return b;
  }
  template <class T>
  static std::vector<T> read(const host_buffer* b) {
    std::vector<T> values(b->bytes / sizeof(T));
    std::memcpy(values.data(), b->mapped, values.size() * sizeof(T));
    return values;
  }
  // A structure of the ABI, zeroed but for its size.
  template <class T>
  static T sized() {
    T value;
    std::memset(&value, 0, sizeof(value));
    value.struct_size = sizeof(value);
    return value;
  }
  template <class Desc>
  using PlanFn = hadal_status (*)(hadal_context*, const Desc*, hadal_plan**, hadal_error*);
  // The plan, destroyed after the test; null and error_ when refused.
  template <class Desc>
  hadal_plan* plan(PlanFn<Desc> make, const Desc& desc, hadal_context* context = nullptr) {
    hadal_plan* made = nullptr;
    status_ = make(context ? context : context_, &desc, &made, &error_);
    if (made) plans_.push_back(made);
    return made;
  }
  void destroy_buffers() {
    for (size_t i = 0; i < buffers_.size(); ++i) {
      host_buffer_destroy(buffer_owners_[i], &buffers_[i]);
    }
    buffers_.clear(), buffer_owners_.clear();
  }
  void destroy_plans() {
    for (hadal_plan* made : plans_) hadal_plan_destroy(made);
    plans_.clear();
  }

  static inline host_instance instance_{};
  static inline host_device device_{};
  static inline VkPhysicalDevice devices_[8]{};
  static inline uint32_t device_count_ = 0;
  static inline bool alive_ = false;
  host_device* current_ = &device_;  // that buffers are made on
  hadal_context* context_ = nullptr;
  hadal_error error_ = HADAL_ERROR_INIT;
  hadal_status status_ = HADAL_OK;
  host_buffer* constants_ = nullptr;
  std::deque<host_buffer> buffers_;
  std::vector<host_device*> buffer_owners_;
  std::vector<hadal_plan*> plans_;
};

}  // namespace hadal::test
