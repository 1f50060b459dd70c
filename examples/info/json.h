// hadal-info --json: what every device exposes, and the path each kernel takes at V3's sizes.
#pragma once

#include <span>
#include <string>

#include "hadal/caps.h"

namespace hadal::examples {

// A JSON list, one object per device: every field of Caps under its own name, "missing" (the
// requirement that the device lacks, or ""), and "paths" where it lacks none.
[[nodiscard]] std::string devices_json(std::span<const Caps> devices);

}  // namespace hadal::examples
