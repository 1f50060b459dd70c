// The C++ libraries up to the runtime, without a device: its own part, the model's and the
// kernels'.
#include <hadal/model/chat_template.h>
#include <hadal/runtime/sequence_state.h>
#include <hadal/version.h>

#include <cstdio>

int main() {
  const auto chat = hadal::model::ChatTemplate::parse("{{ 1 + 1 }}", "t", "", "");
  if (!chat.ok() || chat->render({}).value() != "2") return 1;
  if (hadal::runtime::parse_sequence_state({}).ok()) return 1;
  std::printf("hadal %s\n", HADAL_VERSION_STRING);
  return 0;
}
