// The fields that only chats have: messages and tools.
#pragma once

#include "serve/generate_request.h"

namespace hadal::serve {

// "messages", with contents of text parts made one text and empty ones beside calls null,
// "chat_template_kwargs" and "add_generation_prompt". Whatever else a message has goes to the
// template as it is.
void read_messages(Fields& fields, GenerateRequest& request);

// "tools", "parallel_tool_calls" and "tool_choice": "auto" gives the tools to the template and
// tells calls from the answer, "none" does neither; "required" and a function's name make the model
// call.
void read_tools(Fields& fields, const RequestLimits& limits, GenerateRequest& request);

}  // namespace hadal::serve
