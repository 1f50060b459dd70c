#include "serve/page.h"

#include <string_view>

namespace hadal::serve {
namespace {

constexpr std::string_view kPage =
#include "page_html.inc"
    ;
constexpr std::string_view kPlace = "{{NONCE}}";

}  // namespace

Page page_with_nonce(const std::string& nonce) {
  Page page;
  for (size_t begin = 0; begin < kPage.size();) {
    const size_t place = kPage.find(kPlace, begin);
    page.html += kPage.substr(begin, place - begin);
    if (place == kPage.npos) break;
    page.html += nonce;
    begin = place + kPlace.size();
  }
  page.policy = "default-src 'none'; script-src 'nonce-" + nonce + "'; style-src 'nonce-" + nonce +
                "'; img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
                "frame-ancestors 'none'";
  return page;
}

}  // namespace hadal::serve
