# Target docs: the reference as HTML in build/docs/html, from the comments of the public headers and docs/*.md, without
# a warning. Target docs_complete: everything in hadal's C headers is documented. Both only where there is Doxygen.
find_program(HADAL_DOXYGEN doxygen)
find_program(HADAL_AWK awk)
if(NOT HADAL_DOXYGEN OR NOT HADAL_AWK)
  message(STATUS "Target docs is left out: it needs doxygen and awk")
  return()
endif()

set(docs_c "${PROJECT_SOURCE_DIR}/capi/include" "${PROJECT_SOURCE_DIR}/capi/engine/include")
set(docs_roots ${docs_c} "${PROJECT_SOURCE_DIR}/kernels/include" "${PROJECT_SOURCE_DIR}/model/include"
    "${PROJECT_SOURCE_DIR}/runtime/include")
set(docs_strip "")
foreach(root IN LISTS docs_roots)
  string(APPEND docs_strip "\"${root}\" ")
endforeach()

# The code blocks of the pages, where there is awk.
if(HADAL_BUILD_TESTS AND NOT HADAL_SANITIZE)
  set(include_dirs "${HADAL_VULKAN_INCLUDE}")
  foreach(target IN ITEMS hadal_c hadal_engine hadal_kernels hadal_reference hadal_model hadal_runtime)
    list(APPEND include_dirs "$<TARGET_PROPERTY:${target},INTERFACE_INCLUDE_DIRECTORIES>")
  endforeach()
  add_test(NAME docs_snippets COMMAND "${CMAKE_COMMAND}" -DSOURCE=${PROJECT_SOURCE_DIR} -DAWK=${HADAL_AWK}
           -DWORK=${PROJECT_BINARY_DIR}/docs_snippets -DCXX=${CMAKE_CXX_COMPILER} "-DINCLUDES=$<JOIN:${include_dirs},$<COMMA>>"
           -P "${PROJECT_SOURCE_DIR}/docs/compile_snippets.cmake")
  set_tests_properties(docs_snippets PROPERTIES LABELS host)
endif()

# hadal_docs(TARGET OUT EXTRACT_ALL COMPLETE INPUT...)
function(hadal_docs target docs_out docs_extract_all docs_complete)
  list(TRANSFORM ARGN REPLACE "(.+)" "\"\\1\"")
  list(JOIN ARGN " " docs_input)
  set(file "${PROJECT_BINARY_DIR}/Doxyfile.${target}")
  configure_file("${PROJECT_SOURCE_DIR}/docs/Doxyfile.in" "${file}" @ONLY)
  file(MAKE_DIRECTORY "${docs_out}")
  add_custom_target(${target} COMMAND "${HADAL_DOXYGEN}" "${file}" VERBATIM)
  if(HADAL_BUILD_TESTS)
    add_test(NAME ${target} COMMAND "${HADAL_DOXYGEN}" "${file}")
    set_tests_properties(${target} PROPERTIES LABELS host)
  endif()
endfunction()
hadal_docs(docs "${PROJECT_BINARY_DIR}/docs" YES NO ${docs_roots} "${PROJECT_SOURCE_DIR}/docs")
hadal_docs(docs_complete "${PROJECT_BINARY_DIR}/docs_complete" NO YES ${docs_c})
