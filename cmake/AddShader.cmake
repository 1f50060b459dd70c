# hadal_add_shader(NAME SOURCE [DEFINES a=b ...] [TARGET_ENV vulkan1.2])
# Compiles SOURCE to the SPIR-V module NAME, validates it, and embeds it in hadal::kernels under that
# name (vk/pipeline.h, embedded_modules). The readable form is NAME.spv in the build folder:
# `spirv-dis shaders/NAME.spv`.
function(hadal_add_shader name source)
  cmake_parse_arguments(ARG "" "TARGET_ENV" "DEFINES" ${ARGN})
  if(NOT ARG_TARGET_ENV)
    set(ARG_TARGET_ENV vulkan1.2)
  endif()
  list(TRANSFORM ARG_DEFINES PREPEND -D)
  set(spv "${CMAKE_CURRENT_BINARY_DIR}/${name}.spv")
  set(inc "${CMAKE_CURRENT_BINARY_DIR}/${name}.inc")
  add_custom_command(
    OUTPUT "${spv}" "${inc}"
    COMMAND "${HADAL_GLSLC}" --target-env=${ARG_TARGET_ENV} -Werror -O ${ARG_DEFINES}
            -I "${CMAKE_CURRENT_SOURCE_DIR}" -MD -MF "${spv}.d" -o "${spv}"
            "${CMAKE_CURRENT_SOURCE_DIR}/${source}"
    COMMAND "${HADAL_SPIRV_VAL}" --target-env ${ARG_TARGET_ENV} --scalar-block-layout "${spv}"
    COMMAND "${CMAKE_COMMAND}" -DIN=${spv} -DOUT=${inc} -P "${PROJECT_SOURCE_DIR}/cmake/EmbedSpirv.cmake"
    DEPENDS "${source}" "${PROJECT_SOURCE_DIR}/cmake/EmbedSpirv.cmake"
    DEPFILE "${spv}.d"
    COMMENT "Shader ${name}" VERBATIM)
  set_property(GLOBAL APPEND PROPERTY HADAL_SHADER_MODULES ${name})
  set_property(GLOBAL APPEND PROPERTY HADAL_SHADER_INCLUDES "${inc}")
endfunction()

# hadal_glslc_accepts(NAME OUT_VAR): whether glslc compiles, and spirv-val takes, feature_tests/NAME.comp. Modules
# of newer extensions are added only then; without one the library says kUnsupported, and choose() says why.
function(hadal_glslc_accepts name out_var)
  set(source "${PROJECT_SOURCE_DIR}/cmake/feature_tests/${name}.comp")
  set(spv "${CMAKE_CURRENT_BINARY_DIR}/feature_${name}.spv")
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${source}")
  execute_process(COMMAND "${HADAL_GLSLC}" --target-env=vulkan1.2 -Werror -O -o "${spv}" "${source}"
                  RESULT_VARIABLE failed OUTPUT_QUIET ERROR_QUIET)
  if(NOT failed)
    execute_process(COMMAND "${HADAL_SPIRV_VAL}" --target-env vulkan1.2 "${spv}"
                    RESULT_VARIABLE failed OUTPUT_QUIET ERROR_QUIET)
  endif()
  if(failed)
    set(${out_var} OFF PARENT_SCOPE)
    message(STATUS "Shaders of ${name} are left out: ${HADAL_GLSLC} does not compile cmake/feature_tests/${name}.comp")
  else()
    set(${out_var} ON PARENT_SCOPE)
  endif()
endfunction()

# Writes embedded_modules.cpp for all modules added so far; OUT_VAR gets its path.
function(hadal_embed_shaders out_var)
  get_property(modules GLOBAL PROPERTY HADAL_SHADER_MODULES)
  set(arrays "")
  set(table "")
  foreach(module IN LISTS modules)
    string(APPEND arrays "constexpr uint32_t k_${module}[] = {\n#include \"${module}.inc\"\n};\n")
    string(APPEND table "    {\"${module}\", k_${module}},\n")
  endforeach()
  set(file "${CMAKE_CURRENT_BINARY_DIR}/embedded_modules.cpp")
  file(CONFIGURE OUTPUT "${file}" CONTENT
"// Made by cmake/AddShader.cmake.
#include \"vk/pipeline.h\"
namespace hadal::vk {
namespace {
@arrays@
constexpr EmbeddedModule kModules[] = {
@table@};
}  // namespace
std::span<const EmbeddedModule> embedded_modules() { return kModules; }
}  // namespace hadal::vk
" @ONLY)
  set(${out_var} "${file}" PARENT_SCOPE)
endfunction()
