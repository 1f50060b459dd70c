// Versions, statuses, requirements and contexts.
#include <algorithm>

#include "hadal/requirements.h"
#include "hadal/version.h"
#include "plan.h"

using hadal::Status;
using namespace hadal::capi;  // NOLINT: this file implements its declarations

namespace {

static_assert(HADAL_CONSTANTS_BYTES == hadal::kDeviceConstantsBytes);
static_assert(HADAL_C_VERSION_MAJOR == HADAL_VERSION_MAJOR);
static_assert(HADAL_C_VERSION_MINOR == HADAL_VERSION_MINOR);
static_assert(HADAL_C_VERSION_PATCH == HADAL_VERSION_PATCH);

hadal::Result<hadal::DeviceQuery> read_query(const hadal_device_query* query) {
  hadal_device_query known{};
  HADAL_TRY(read_struct("requirements", "query", query, known));
  return hadal::DeviceQuery{known.get_instance_proc_addr, known.instance, known.physical_device,
                            known.api_version};
}

Status create_context(const hadal_context_info& info, hadal_context& context) {
  context.log = info.log, context.log_user = info.log_user;
  hadal::DeviceOptions options;
  options.log = log_function(info.log, info.log_user);
  HADAL_ASSIGN(context.device, hadal::Device::borrow(borrowed_device(info), options));
  context.handle = info.device;
  const auto get_device_proc_addr = reinterpret_cast<PFN_vkGetDeviceProcAddr>(
      info.get_instance_proc_addr(info.instance, "vkGetDeviceProcAddr"));
  context.get_buffer_device_address = reinterpret_cast<PFN_vkGetBufferDeviceAddress>(
      get_device_proc_addr(info.device, "vkGetBufferDeviceAddress"));
  const hadal::Caps& caps = context.device->caps();
  context.say(
      HADAL_LOG_INFO,
      fmt::format("context: {}, {} {}, cooperative matrices {}, constants {}", caps.device_name,
                  caps.driver_name, caps.driver_info, caps.cooperative_matrix ? "on" : "off",
                  caps.device_constants ? "given" : "absent")
          .c_str());
  return {};
}

}  // namespace

uint32_t hadal_version(void) {
  return VK_MAKE_API_VERSION(0, HADAL_VERSION_MAJOR, HADAL_VERSION_MINOR, HADAL_VERSION_PATCH);
}

const char* hadal_status_name(hadal_status status) {
  // errc_name returns literals, which end with a zero.
  return hadal::errc_name(hadal::Errc(status)).data();
}

uint32_t hadal_feature_count(void) {
  return hadal::device_feature_count();
}

hadal_status hadal_device_feature(const hadal_device_query* query, uint32_t index,
                                  hadal_feature* feature, hadal_error* error) {
  return guarded(error, [&]() -> Status {
    HADAL_ASSIGN(const hadal::DeviceQuery q, read_query(query));
    HADAL_ASSIGN(const auto features, hadal::device_features(q));
    if (index >= features.size()) {
      return invalid("requirements",
                     fmt::format("index must be below {}, got {}", features.size(), index));
    }
    const hadal::DeviceFeature& f = features[index];
    const hadal_feature out{sizeof(out), f.name,     f.structure, f.extension,
                            f.purpose,   f.required, f.offered};
    return write_struct("requirements", "feature", out, feature);
  });
}

hadal_status hadal_device_extensions(const hadal_device_query* query, uint32_t* count,
                                     const char** names, hadal_error* error) {
  return guarded(error, [&]() -> Status {
    if (!count) return invalid("requirements", "count must not be null");
    HADAL_ASSIGN(const hadal::DeviceQuery q, read_query(query));
    HADAL_ASSIGN(const auto wanted, hadal::device_extensions(q));
    if (names && *count < wanted.size()) {
      return invalid("requirements",
                     fmt::format("count must be at least {}, got {}", wanted.size(), *count));
    }
    if (names) std::copy(wanted.begin(), wanted.end(), names);
    *count = uint32_t(wanted.size());
    return {};
  });
}

hadal_status hadal_device_enable(const hadal_device_query* query, void* chain, hadal_error* error) {
  return guarded(error, [&]() -> Status {
    HADAL_ASSIGN(const hadal::DeviceQuery q, read_query(query));
    return hadal::enable_device_features(q, chain);
  });
}

void hadal_constants_write(void* bytes) {
  if (!bytes) return;
  hadal::write_device_constants(std::span<std::byte, HADAL_CONSTANTS_BYTES>(
      static_cast<std::byte*>(bytes), HADAL_CONSTANTS_BYTES));
}

hadal_status hadal_context_create(const hadal_context_info* info, hadal_context** context,
                                  hadal_error* error) {
  return guarded(error, [&]() -> Status {
    if (!context) return invalid("context", "context must not be null");
    hadal_context_info known{};
    HADAL_TRY(read_struct("context", "info", info, known));
    auto made = std::make_unique<hadal_context>();
    HADAL_TRY(create_context(known, *made));
    *context = made.release();
    return {};
  });
}

hadal_status hadal_context_destroy(hadal_context* context, hadal_error* error) {
  return guarded(error, [&]() -> Status {
    if (!context) return {};
    if (const uint32_t alive = context->plans; alive != 0) {
      return invalid("context", fmt::format("plans must be destroyed first, got {} alive", alive));
    }
    delete context;
    return {};
  });
}

hadal_status hadal_barrier_record(const hadal_context* context, VkCommandBuffer commands,
                                  hadal_error* error) {
  return guarded(error, [&]() -> Status {
    if (!context) return invalid("barrier", "context must not be null");
    HADAL_ASSIGN(hadal::Recorder recorder, hadal::Recorder::borrow(*context->device, commands));
    recorder.barrier();
    return recorder.end();
  });
}

void hadal_plan_destroy(hadal_plan* plan) {
  delete plan;
}

uint64_t hadal_plan_scratch_bytes(const hadal_plan* plan) {
  return plan ? plan->scratch_bytes : 0;
}

const char* hadal_plan_description(const hadal_plan* plan) {
  return plan ? plan->description.c_str() : "";
}
