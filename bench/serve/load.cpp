#include "serve/load.h"

#include <algorithm>
#include <cmath>
#include <random>

namespace hadal::bench {

std::vector<LoadRequest> make_load(uint32_t count, uint32_t least, uint32_t most, uint32_t seed) {
  static constexpr const char* kWords[] = {"king",  "wolf",  "forest", "princess", "bread", "river",
                                           "stone", "witch", "golden", "night",    "horse", "sea"};
  std::mt19937 random(seed);
  std::vector<LoadRequest> load(count);
  for (LoadRequest& request : load) {
    request.prompt = "Once";
    for (int word = 0; word < 7; ++word) {
      request.prompt += std::string(" ") + kWords[random() % std::size(kWords)];
    }
    request.tokens = least + uint32_t(random() % (most - least + 1));
  }
  return load;
}

double percentile(std::vector<double> values, double percent) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const double at = percent / 100 * double(values.size() - 1);
  return values[size_t(std::llround(at))];
}

}  // namespace hadal::bench
