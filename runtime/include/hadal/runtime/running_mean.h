// A mean that forgets in about 10 values.
#pragma once

namespace hadal::runtime {

class RunningMean {
 public:
  void add(double value) {
    value_ = known_ ? value_ + (value - value_) * 0.1 : value;
    known_ = true;
  }
  [[nodiscard]] bool known() const { return known_; }
  [[nodiscard]] double value() const { return value_; }

 private:
  double value_ = 0.0;
  bool known_ = false;
};

}  // namespace hadal::runtime
