#include "formats.h"

namespace hadal::runtime::grammar {
namespace {

// RFC 3339, section 5.6, with the days that a month has (5.7).
std::string date() {
  const std::string year = "\\d{4}";
  const std::string leap =
      "(?:\\d\\d(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)";
  return "(?:" + year +
         "-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\\d|30)|"
         "02-(?:0[1-9]|1\\d|2[0-8]))|" +
         leap + "-02-29)";
}

// Without leap seconds, which few days have.
std::string time() {
  return "(?:[01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(?:\\.\\d{1,9})?(?:Z|[+-](?:[01]\\d|2[0-3]):[0-5]"
         "\\d)";
}

std::string ipv4() {
  const std::string byte = "(?:25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)";
  return byte + "(?:\\." + byte + "){3}";
}

}  // namespace

std::optional<std::string> format_pattern(std::string_view format) {
  const std::string hex = "[0-9a-fA-F]";
  if (format == "date") return "^" + date() + "$";
  if (format == "time") return "^" + time() + "$";
  if (format == "date-time") return "^" + date() + "T" + time() + "$";
  if (format == "uuid") return "^" + hex + "{8}(?:-" + hex + "{4}){3}-" + hex + "{12}$";
  if (format == "ipv4") return "^" + ipv4() + "$";
  return std::nullopt;
}

}  // namespace hadal::runtime::grammar
