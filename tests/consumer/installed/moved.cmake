# cmake -DHADAL_BUILD=... -DWORK=... -DVULKAN_INCLUDE=... -DGENERATOR=... -DLIBDIR=... -P: two installed trees of this
# build, moved after the installation. One has the kernels only, and its host none of hadal's other dependencies; one
# has the C libraries, found by $ORIGIN.
include("${CMAKE_CURRENT_LIST_DIR}/checks.cmake")
file(REMOVE_RECURSE "${WORK}")

install_components("${HADAL_BUILD}" "${WORK}/first" kernels)
file(RENAME "${WORK}/first" "${WORK}/kernels")
set(absent "")
foreach(package IN ITEMS Eigen3 nlohmann_json PkgConfig PCRE2 CLI11 GTest Vulkan)
  list(APPEND absent -DCMAKE_DISABLE_FIND_PACKAGE_${package}=ON)
endforeach()
build_hosts("${WORK}/build-kernels" "${WORK}/kernels" kernels "" ${absent})
needs("${WORK}/build-kernels/host_cpp" "libfmt")
pkg_config(requires "${WORK}/kernels" --print-requires --print-requires-private hadal-kernels)
expect_equal("what hadal-kernels requires" "${requires}" fmt)
file(GLOB_RECURSE strangers "${WORK}/kernels/*model*" "${WORK}/kernels/*runtime*" "${WORK}/kernels/*engine*"
     "${WORK}/kernels/*reference*")
if(strangers)
  message(FATAL_ERROR "a host of the kernels gets ${strangers}")
endif()
no_paths("${WORK}/kernels")

install_components("${HADAL_BUILD}" "${WORK}/first" c c_development engine engine_development)
file(RENAME "${WORK}/first" "${WORK}/c")
set(lib "${WORK}/c/${LIBDIR}")
c_library("${lib}/libhadal.so" libhadal.so.0.1 libfmt)
c_library("${lib}/libhadal_engine.so" libhadal_engine.so.0.1 "libfmt|libpcre2-8|libhadal")
build_hosts("${WORK}/build-c" "${WORK}/c" c,engine "$ORIGIN/../c/${LIBDIR}")
needs("${WORK}/build-c/host" libhadal)
needs("${WORK}/build-c/host_engine" "libhadal|libhadal_engine")
no_paths("${WORK}/c")
pkg_config(flags "${WORK}/c" --cflags --libs hadal)
separate_arguments(flags)
run("${CC}" "-I${VULKAN_INCLUDE}" "${CMAKE_CURRENT_LIST_DIR}/../subproject/host.c" -o "${WORK}/build-c/host_pkg_config"
    ${flags} "-Wl,-rpath,$ORIGIN/../c/${LIBDIR}")
needs("${WORK}/build-c/host_pkg_config" libhadal)
run("${WORK}/build-c/host_pkg_config")
