// The page at /: page.html, embedded at build.
#pragma once

#include <string>

namespace hadal::serve {

struct Page {
  std::string html;
  std::string policy;  // Content-Security-Policy: nothing but the page's own script and style
};

// `nonce`: letters, digits and '-', another one each time.
[[nodiscard]] Page page_with_nonce(const std::string& nonce);

}  // namespace hadal::serve
