#include "hadal/status.h"

namespace hadal {

std::string_view errc_name(Errc code) noexcept {
  switch (code) {
    case Errc::kOk: return "Ok";
    case Errc::kInvalidArgument: return "InvalidArgument";
    case Errc::kUnsupported: return "Unsupported";
    case Errc::kOutOfHostMemory: return "OutOfHostMemory";
    case Errc::kOutOfDeviceMemory: return "OutOfDeviceMemory";
    case Errc::kNoDevice: return "NoDevice";
    case Errc::kDeviceLost: return "DeviceLost";
    case Errc::kHazard: return "Hazard";
    case Errc::kIo: return "Io";
    case Errc::kMalformed: return "Malformed";
    case Errc::kCancelled: return "Cancelled";
    case Errc::kInternal: return "Internal";
  }
  return "Unknown";
}

}  // namespace hadal
