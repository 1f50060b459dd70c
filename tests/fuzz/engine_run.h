// What the targets of requests and states do with an engine, and what they ask of every entry that
// it gives.
#pragma once

#include <hadal/hadal_engine.h>

#include <deque>
#include <initializer_list>
#include <map>
#include <string>
#include <vector>

#include "fuzz/abi.h"
#include "fuzz/bytes.h"

namespace hadal::fuzz {

// A mask as hosts may write it, wrong ones among them.
enum class Mask : uint32_t { kAll, kNothing, kSome, kEveryBit, kAnswer, kThrows, kCount };

// A request and what it points to, each array of exactly its bytes.
struct Asked {
  hadal_engine_request request = sized<hadal_engine_request>();
  std::vector<uint32_t> prompt, stop_ids;
  std::vector<hadal_logit_bias> bias;
  std::vector<const char*> stop;
  std::string text;
  Mask mask = Mask::kAll;
};

// An engine under test: what it has of this run, and what it did wrong.
class Run {
 public:
  Run(hadal_engine* engine, ByteSource& random) : engine_(engine), random_(&random) {}

  // The first thing that was wrong; empty: nothing.
  [[nodiscard]] const std::string& fault() const { return fault_; }
  void fail(const std::string& text);  // the first one counts; empty: nothing
  [[nodiscard]] int taken() const { return taken_; }

  void add();
  void step();
  void cancel();
  void move();  // a request from the engine to itself
  // A state as it comes from elsewhere; `mask` may be null.
  bool import(const std::vector<unsigned char>& state, Mask* mask);
  void end();  // cancels all, and looks at what is left

 private:
  // A request; unless it was added here, little is known about it.
  struct Live {
    uint32_t tokens = 0, most = UINT32_MAX;
    bool logprobs = true;
    uint32_t top = 20;
    Mask* mask = nullptr;
    bool finite = false;  // its rows are hadal's
  };
  // `status` of a call, which may have found one of `also`; whether it is HADAL_OK.
  bool expect(hadal_status status, std::initializer_list<hadal_status> also = {});
  [[nodiscard]] hadal_request_id some_id();  // a live one's, mostly
  void take(const hadal_engine_token& token);
  [[nodiscard]] std::vector<unsigned char> exported(hadal_request_id id);
  bool import(const std::vector<unsigned char>& state, const Live& live);

  hadal_engine* engine_;
  ByteSource* random_;
  std::deque<Asked> asked_;                              // masks outlive their requests
  std::map<hadal_request_id, Live> live_, handed_over_;  // handed over: EXPORTED, not fetched yet
  hadal_error error_ = HADAL_ERROR_INIT;
  std::string fault_, refused_;  // refused_: why the last state was
  int taken_ = 0;
};

}  // namespace hadal::fuzz
