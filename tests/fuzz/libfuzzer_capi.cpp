// The targets of the C ABI (fuzz/capi.h) as a libFuzzer program: a host with the validation layer.
#include "fuzz/capi.h"

#include "fuzz/libfuzzer.h"

namespace {

// Context and command buffer are made anew now and then, so that what they keep stays small.
class World {
 public:
  World() {
    VkPhysicalDevice devices[8];
    if (!host_instance_create(&instance_) || host_physical_devices(&instance_, devices) == 0) {
      std::fprintf(stderr, "fuzz: no Vulkan device or validation layer\n");
      std::exit(77);
    }
    host_device_create(&instance_, devices[0], &device_);
    memory_ = host_buffer_create(&device_, 1 << 16, 0);
    constants_ = host_buffer_create(&device_, HADAL_CONSTANTS_BYTES, 0);
    hadal_constants_write(constants_.mapped);
    world_.query = host_query(&instance_, devices[0]);
    world_.memory = &memory_;
  }
  const hadal::fuzz::CapiWorld& next() {
    if (runs_++ % 256 == 0) renew();
    return world_;
  }
  [[nodiscard]] int messages() const { return instance_.messages; }

 private:
  void renew() {
    hadal_error error = HADAL_ERROR_INIT;
    if (world_.commands) {
      HOST_CHECK(HOST_DEVICE_FN(&device_, EndCommandBuffer)(world_.commands) == VK_SUCCESS);
      HOST_DEVICE_FN(&device_, FreeCommandBuffers)
      (device_.device, device_.pool, 1, &world_.commands);
      HOST_OK(hadal_context_destroy(world_.context, &error));
    }
    hadal_context_info info = host_context_info(&device_);
    info.constants = constants_.address;
    HOST_OK(hadal_context_create(&info, &world_.context, &error));
    world_.commands = host_begin(&device_, device_.pool);
  }
  host_instance instance_{};
  host_device device_{};
  host_buffer memory_{}, constants_{};
  hadal::fuzz::CapiWorld world_;
  uint64_t runs_ = 0;
};

const hadal::fuzz::CapiTarget& target() {
  static const auto& wanted = hadal::fuzz::wanted_target(hadal::fuzz::capi_targets());
  return wanted;
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  hadal::fuzz::write_seeds(*argc, *argv, hadal::fuzz::capi_seeds(target().name));
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static World& world = *new World;  // the process's
  hadal::fuzz::Outcome outcome = target().run(world.next(), {data, size});
  if (world.messages() && outcome.fault.empty()) outcome.fault = "a validation message";
  return hadal::fuzz::report(target().name, outcome);
}
