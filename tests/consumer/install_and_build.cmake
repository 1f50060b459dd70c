# cmake -DHADAL_BUILD=... -DWORK=... -DGLSLC=... -DVULKAN_INCLUDE=... -DGENERATOR=... -P: installs what a host of the
# kernels wants into WORK/prefix, from nothing, and builds the hosts against it in WORK/build.
include("${CMAKE_CURRENT_LIST_DIR}/../../cmake/Run.cmake")

file(REMOVE_RECURSE "${WORK}/prefix")
foreach(component IN ITEMS c c_development kernels)
  run("${CMAKE_COMMAND}" --install "${HADAL_BUILD}" --prefix "${WORK}/prefix" --component ${component})
endforeach()
file(GLOB_RECURSE strangers "${WORK}/prefix/*model*" "${WORK}/prefix/*runtime*" "${WORK}/prefix/*tokenizer*"
     "${WORK}/prefix/*engine*")
if(strangers)
  message(FATAL_ERROR "a host of the kernels gets ${strangers}")
endif()

foreach(component IN ITEMS engine engine_development)
  run("${CMAKE_COMMAND}" --install "${HADAL_BUILD}" --prefix "${WORK}/prefix" --component ${component})
endforeach()

run("${CMAKE_COMMAND}" --fresh -G "${GENERATOR}" -S "${CMAKE_CURRENT_LIST_DIR}" -B "${WORK}/build"
    "-DCMAKE_PREFIX_PATH=${WORK}/prefix" "-DCONSUMER_GLSLC=${GLSLC}" "-Dhadal_VULKAN_INCLUDE=${VULKAN_INCLUDE}"
    "-DCMAKE_C_COMPILER_LAUNCHER=${LAUNCHER}" "-DCMAKE_CXX_COMPILER_LAUNCHER=${LAUNCHER}")
run("${CMAKE_COMMAND}" --build "${WORK}/build")
find_library(ggml_base ggml-base)
if(ggml_base)
  run("${CMAKE_COMMAND}" --fresh -G "${GENERATOR}" -S "${CMAKE_CURRENT_LIST_DIR}/host_ggml" -B "${WORK}/build-ggml"
      -DHOST_GGML_REQUIRED=ON "-DCMAKE_PREFIX_PATH=${WORK}/prefix" "-Dhadal_VULKAN_INCLUDE=${VULKAN_INCLUDE}"
      "-DCMAKE_CXX_COMPILER_LAUNCHER=${LAUNCHER}")
  run("${CMAKE_COMMAND}" --build "${WORK}/build-ggml")
endif()

# pkg-config finds the same libraries: a C compiler, and nothing of CMake.
find_program(pkg_config pkg-config)
find_program(cc cc)
if(pkg_config AND cc)
  set(ENV{PKG_CONFIG_PATH} "${WORK}/prefix/lib/pkgconfig:${WORK}/prefix/${LIBDIR}/pkgconfig")
  foreach(host IN ITEMS hadal:host_c hadal-engine:host_engine)
    string(REPLACE ":" ";" host "${host}")
    list(GET host 0 package)
    list(GET host 1 source)
    execute_process(COMMAND "${pkg_config}" --cflags --libs ${package} OUTPUT_VARIABLE flags
                    COMMAND_ERROR_IS_FATAL ANY OUTPUT_STRIP_TRAILING_WHITESPACE)
    separate_arguments(flags)
    run("${cc}" -std=c99 -D_POSIX_C_SOURCE=200809L "-I${VULKAN_INCLUDE}" "${CMAKE_CURRENT_LIST_DIR}/${source}.c"
        -o "${WORK}/${source}_pkg_config" ${flags} -lm -ldl)
  endforeach()
endif()
