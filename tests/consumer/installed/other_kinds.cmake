# cmake ... -DSOURCE=... -DSYSROOT=... -DLAUNCHER=... -P: the kinds of library that the build of the tests does not
# make, in a build of their own: the C++ libraries shared (BUILD_SHARED_LIBS=ON), those of the C ABIs static
# (HADAL_C_SHARED=OFF); installed, moved, and hosts of both built and run.
include("${CMAKE_CURRENT_LIST_DIR}/checks.cmake")
file(REMOVE_RECURSE "${WORK}/prefix")
run("${CMAKE_COMMAND}" -G "${GENERATOR}" -S "${SOURCE}" -B "${WORK}/hadal" -DBUILD_SHARED_LIBS=ON -DHADAL_C_SHARED=OFF
    -DHADAL_BUILD_TESTS=OFF -DHADAL_BUILD_BENCH=OFF -DHADAL_BUILD_EXAMPLES=ON -DHADAL_BUILD_PYTHON=OFF
    "-DHADAL_SYSROOT=${SYSROOT}" "-DCMAKE_CXX_COMPILER_LAUNCHER=${LAUNCHER}")
run("${CMAKE_COMMAND}" --build "${WORK}/hadal")
run("${CMAKE_COMMAND}" --install "${WORK}/hadal" --prefix "${WORK}/first")
file(RENAME "${WORK}/first" "${WORK}/prefix")
set(lib "${WORK}/prefix/${LIBDIR}")
set(ours "libhadal_kernels|libhadal_reference|libhadal_model|libhadal_model_reference|libhadal_runtime")
foreach(name IN ITEMS kernels reference model model_reference runtime)
  dynamic(soname "${lib}/libhadal_${name}.so" SONAME)
  expect_equal("SONAME" "${soname}" libhadal_${name}.so.0.1.0)
  needs("${lib}/libhadal_${name}.so" "${ours}|libfmt|libpcre2-8")
endforeach()
needs("${lib}/libhadal_kernels.so" libfmt)
foreach(program IN ITEMS chat serve)
  needs("${WORK}/prefix/bin/hadal-${program}" "${ours}|libfmt|libpcre2-8|libedit")
  run("${WORK}/prefix/bin/hadal-${program}" --help)
endforeach()
build_hosts("${WORK}/build" "${WORK}/prefix" c,engine,kernels,runtime "$ORIGIN/../prefix/${LIBDIR}")
needs("${WORK}/build/host" libfmt)  # the C library is part of it
needs("${WORK}/build/host_engine" "libfmt|libpcre2-8")
needs("${WORK}/build/host_cpp" libhadal_kernels)
needs("${WORK}/build/host_runtime" "${ours}|libfmt")
set(HADAL_BUILD "${WORK}/hadal")
no_paths("${WORK}/prefix")
foreach(host IN ITEMS hadal:subproject/host.c hadal-engine:host_engine.c)
  string(REGEX MATCH "(.*):(.*)" unused "${host}")
  set(file "${CMAKE_MATCH_2}")
  pkg_config(flags "${WORK}/prefix" --cflags --libs ${CMAKE_MATCH_1})
  separate_arguments(flags)
  run("${CC}" -std=c99 -D_POSIX_C_SOURCE=200809L "-I${VULKAN_INCLUDE}" "${CMAKE_CURRENT_LIST_DIR}/../${file}"
      -o "${WORK}/build/pkg_config_host" ${flags})
endforeach()
pkg_config(flags "${WORK}/prefix" --cflags --libs hadal-kernels)
separate_arguments(flags)
run("${CXX}" -std=c++20 "-I${VULKAN_INCLUDE}" "${CMAKE_CURRENT_LIST_DIR}/../host_cpp.cpp"
    -o "${WORK}/build/pkg_config_host_cpp" ${flags} "-Wl,-rpath,$ORIGIN/../prefix/${LIBDIR}")
run("${WORK}/build/pkg_config_host_cpp")
