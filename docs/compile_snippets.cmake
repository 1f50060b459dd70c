# cmake -DSOURCE=... -DWORK=... -DAWK=... -DCXX=... -DINCLUDES=a,b -P: every ```cpp and ```c block of README.md and docs/
# compiles against the public headers.
file(GLOB pages "${SOURCE}/README.md" "${SOURCE}/docs/*.md")
file(MAKE_DIRECTORY "${WORK}")
string(REPLACE "," ";" flags "${INCLUDES}")
list(REMOVE_DUPLICATES flags)
list(TRANSFORM flags PREPEND -I)
list(APPEND flags -fsyntax-only -Wall -Wextra -Werror -Wno-missing-field-initializers -Wno-unused-variable
     -Wno-unused-parameter -Wno-unused-function -Wno-unused-but-set-variable
     -Wno-unused-but-set-parameter -Wno-unused-result)
foreach(language IN ITEMS cpp c)
  set(file "${WORK}/snippets.${language}")
  execute_process(COMMAND "${AWK}" -v language=${language} -f "${SOURCE}/docs/extract_snippets.awk" ${pages}
                  OUTPUT_FILE "${file}" COMMAND_ERROR_IS_FATAL ANY)
endforeach()
execute_process(COMMAND "${CXX}" -std=c++20 ${flags} "${WORK}/snippets.cpp" COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND "${CXX}" -x c -std=c99 ${flags} "${WORK}/snippets.c" COMMAND_ERROR_IS_FATAL ANY)
