# cmake -DHADAL_BUILD=... -DWORK=... -DVULKAN_INCLUDE=... -DGENERATOR=... -DVERSION=... -P: the Debian packages of this
# build, unpacked into a root of their own: what they depend on, what is in them, and hosts that build and run with
# them. LIBDIR follows the build's. run_in_root.sh installs them.
include("${CMAKE_CURRENT_LIST_DIR}/checks.cmake")
file(REMOVE_RECURSE "${WORK}")
get_filename_component(bin "${CMAKE_COMMAND}" DIRECTORY)
execute_process(COMMAND "${bin}/cpack" -G DEB -B "${WORK}/packages" WORKING_DIRECTORY "${HADAL_BUILD}"
                OUTPUT_VARIABLE output ERROR_VARIABLE output RESULT_VARIABLE failed)
if(failed)
  message(FATAL_ERROR "${output}")
endif()

# depends(PACKAGE VERSIONED-NAMES...): PACKAGE depends on these, in any order and version, and on nothing else.
function(depends package)
  file(GLOB deb "${WORK}/packages/${package}_${VERSION}_*.deb")
  execute_process(COMMAND dpkg-deb --field "${deb}" Depends OUTPUT_VARIABLE text COMMAND_ERROR_IS_FATAL ANY
                  OUTPUT_STRIP_TRAILING_WHITESPACE)
  string(REGEX REPLACE " *\\([^)]*\\)" "" text "${text}")
  string(REGEX REPLACE ", *" ";" got "${text}")
  # The soname of libfmt is the distribution's.
  list(TRANSFORM got REPLACE "^libfmt[0-9]+$" libfmt)
  list(SORT got)
  set(expected ${ARGN})
  list(SORT expected)
  expect_equal("what ${package} depends on" "${got}" "${expected}")
  run(dpkg-deb --extract "${deb}" "${WORK}/root")
endfunction()
depends(libhadal0.1 libc6 libfmt libgcc-s1 libstdc++6)
depends(libhadal-engine0.1 libc6 libfmt libgcc-s1 libpcre2-8-0 libstdc++6)
depends(libhadal-dev libhadal0.1 libhadal-engine0.1 libvulkan-dev libfmt-dev libpcre2-dev)
depends(hadal libc6 libedit2 libfmt libgcc-s1 libpcre2-8-0 libstdc++6 libvulkan1)
file(GLOB debs "${WORK}/packages/*.deb")
list(LENGTH debs count)
expect_equal("number of packages" ${count} 4)

no_paths("${WORK}/root")
set(lib "${WORK}/root/usr/${LIBDIR}")
c_library("${lib}/libhadal.so.0.1" libhadal.so.0.1 libfmt)
c_library("${lib}/libhadal_engine.so.0.1" libhadal_engine.so.0.1 "libfmt|libpcre2-8")
foreach(program IN ITEMS chat disaggregated eval generate info serve tokenize tune)
  needs("${WORK}/root/usr/bin/hadal-${program}" "libfmt|libpcre2-8|libedit")
  run("${WORK}/root/usr/bin/hadal-${program}" --help)
endforeach()
build_hosts("${WORK}/build" "${WORK}/root/usr" c,engine,kernels,runtime "$ORIGIN/../root/usr/${LIBDIR}")
needs("${WORK}/build/host" libhadal)
pkg_config(flags "${WORK}/root/usr" --cflags --libs hadal)
separate_arguments(flags)
run("${CC}" "-I${VULKAN_INCLUDE}" "${CMAKE_CURRENT_LIST_DIR}/../subproject/host.c" -o "${WORK}/build/host_pkg_config" ${flags})
