# What the tests of installed trees share; with HADAL_BUILD, WORK, VULKAN_INCLUDE, GENERATOR and LIBDIR set.
include("${CMAKE_CURRENT_LIST_DIR}/../../../cmake/Run.cmake")
find_program(READELF readelf REQUIRED)
find_program(NM nm REQUIRED)
find_program(PKG_CONFIG pkg-config REQUIRED)
find_program(CC cc REQUIRED)
find_program(CXX c++ REQUIRED)

function(install_components build prefix)
  foreach(component IN LISTS ARGN)
    run("${CMAKE_COMMAND}" --install "${build}" --prefix "${prefix}" --component ${component})
  endforeach()
endfunction()

# build_hosts(DIR PREFIX COMPONENTS,WITH,COMMAS RPATH MORE...): the hosts of CMakeLists.txt against PREFIX, built in DIR, the
# programs without a device run.
function(build_hosts dir prefix components rpath)
  run("${CMAKE_COMMAND}" --fresh -G "${GENERATOR}" -S "${CMAKE_CURRENT_FUNCTION_LIST_DIR}" -B "${dir}"
      "-DCMAKE_PREFIX_PATH=${prefix}" "-Dhadal_VULKAN_INCLUDE=${VULKAN_INCLUDE}"
      "-DINSTALLED_COMPONENTS=${components}" "-DINSTALLED_RPATH=${rpath}" ${ARGN})
  run("${CMAKE_COMMAND}" --build "${dir}")
  foreach(program IN ITEMS host host_cpp host_runtime)
    if(EXISTS "${dir}/${program}")
      run("${dir}/${program}")
    endif()
  endforeach()
endfunction()

# dynamic(OUT FILE TAG): the values of a tag of FILE's dynamic section.
function(dynamic out file tag)
  execute_process(COMMAND "${READELF}" -dW "${file}" OUTPUT_VARIABLE text COMMAND_ERROR_IS_FATAL ANY)
  string(REGEX MATCHALL "\\((${tag})\\)[^\n]*" lines "${text}")
  set(values "")
  foreach(line IN LISTS lines)
    string(REGEX REPLACE ".*\\[(.*)\\]" "\\1" value "${line}")
    list(APPEND values "${value}")
  endforeach()
  set(${out} "${values}" PARENT_SCOPE)
endfunction()

# needs(FILE MAY): FILE needs libraries of the pattern MAY and of the C and C++ runtime only, and looks for them beside
# itself or where the system does.
function(needs file may)
  dynamic(needed "${file}" NEEDED)
  foreach(library IN LISTS needed)
    if(NOT library MATCHES "^(libc|libm|libdl|libpthread|libgcc_s|libstdc\\+\\+|ld-linux-x86-64)\\.so" AND NOT library MATCHES "^(${may})\\.so")
      message(FATAL_ERROR "${file} needs ${library}")
    endif()
  endforeach()
  dynamic(paths "${file}" "RUNPATH|RPATH")
  string(REPLACE ":" ";" paths "${paths}")
  foreach(path IN LISTS paths)
    if(NOT path MATCHES "^\\$ORIGIN(/|$)")
      message(FATAL_ERROR "${file} looks for libraries in ${path}")
    endif()
  endforeach()
endfunction()

function(expect_equal what got expected)
  if(NOT "${got}" STREQUAL "${expected}")
    message(FATAL_ERROR "${what}: '${got}', not '${expected}'")
  endif()
endfunction()

# c_library(FILE SONAME MAY): a shared library of a C ABI: its name, its needs, and no symbol but hadal_*.
function(c_library file soname may)
  dynamic(got "${file}" SONAME)
  expect_equal("SONAME of ${file}" "${got}" "${soname}")
  needs("${file}" "${may}")
  execute_process(COMMAND "${NM}" -D --defined-only "${file}" OUTPUT_VARIABLE text COMMAND_ERROR_IS_FATAL ANY)
  string(REGEX MATCHALL "[^\n]+" lines "${text}")
  list(LENGTH lines count)
  list(FILTER lines EXCLUDE REGEX " [A-Z] (hadal_[a-z0-9_]+@@HADAL_[0-9.]+|HADAL_[0-9.]+(@@HADAL_[0-9.]+)?)$")
  if(lines OR count LESS 10)
    message(FATAL_ERROR "${file} exports ${count} symbols, among them ${lines}")
  endif()
endfunction()

# no_paths(DIR): no file of DIR names the source or the build tree, none can be written by everyone.
function(no_paths dir)
  get_filename_component(source "${CMAKE_CURRENT_FUNCTION_LIST_DIR}/../../.." ABSOLUTE)
  execute_process(COMMAND grep -rlF -e "${source}/" -e "${HADAL_BUILD}" "${dir}" OUTPUT_VARIABLE named)
  execute_process(COMMAND find "${dir}" -perm /o+w -not -type l OUTPUT_VARIABLE open COMMAND_ERROR_IS_FATAL ANY)
  if(named OR open)
    message(FATAL_ERROR "build paths in: ${named}; writable by everyone: ${open}")
  endif()
endfunction()

# pkg_config(OUT PREFIX ARGUMENTS...): pkg-config's answer where hadal's files are PREFIX's.
function(pkg_config out prefix)
  set(ENV{PKG_CONFIG_PATH} "${prefix}/${LIBDIR}/pkgconfig")
  execute_process(COMMAND "${PKG_CONFIG}" ${ARGN} OUTPUT_VARIABLE text COMMAND_ERROR_IS_FATAL ANY
                  OUTPUT_STRIP_TRAILING_WHITESPACE)
  string(STRIP "${text}" text)
  set(${out} "${text}" PARENT_SCOPE)
endfunction()
