// The one function that turns a VkResult into a Status.
#pragma once

#include <string_view>

#include "dispatch_table.h"
#include "hadal/status.h"

namespace hadal::vk {

// Ok for VK_SUCCESS, else an error whose message is "what: VK_ERROR_...".
[[nodiscard]] Status to_status(VkResult result, std::string_view what);

}  // namespace hadal::vk
