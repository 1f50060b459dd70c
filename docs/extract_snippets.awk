# awk -v language=cpp -f docs/extract_snippets.awk README.md docs/*.md: one source file of all ```cpp (or ```c) blocks,
# for a compiler to look at. What a reader need not see stands in a comment in front of a block:
#
#   <!-- compile
#   #include "hadal/fp8_gemm.h"
#   void example(hadal::Device& device) {
#   ...
#   }
#   -->
#
# Includes go to the top, the block to the three dots; without such a comment the block stands by itself. In C++ each
# block has a namespace of its own. Messages of the compiler name the page and the line.

function page() { return FILENAME }
function flush_snippet(    i, code) {
  code = ""
  if (before_count == 0) before[++before_count] = "..."
  for (i = 1; i <= before_count; ++i) {
    if (before[i] ~ /^#include/) {
      if (!(before[i] in seen)) { seen[before[i]] = 1; includes = includes before[i] "\n" }
    } else if (before[i] == "...") {
      code = code "#line " first " \"" page() "\"\n" body
    } else {
      code = code "#line " before_line[i] " \"" page() "\"\n" before[i] "\n"
    }
  }
  ++count
  sources = sources (language == "cpp" ? "namespace snippet_" count " {\n" code "}\n" : code)
  before_count = 0
}

FNR == 1 { mode = ""; before_count = 0 }
mode == "before" && /^-->/ { mode = ""; next }
mode == "before" { before[++before_count] = $0; before_line[before_count] = FNR; next }
mode == "block" && /^```/ { mode = ""; flush_snippet(); next }
mode == "block" && /^#include/ {
  if (!($0 in seen)) { seen[$0] = 1; includes = includes $0 "\n" }
  body = body "\n"
  next
}
mode == "block" { body = body $0 "\n"; next }
mode == "other" { if (/^```/) mode = ""; next }
/^<!-- compile/ { mode = "before"; before_count = 0; next }
/^```/ {
  if ($0 == "```" language) { mode = "block"; first = FNR + 1; body = "" }
  else { mode = "other"; if ($0 != "```c" && $0 != "```cpp") before_count = 0 }
}

END {
  if (!count) { print "no ```" language " block found" > "/dev/stderr"; exit 1 }
  printf "%s%s", includes, sources
}
