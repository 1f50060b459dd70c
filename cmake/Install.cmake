# What `cmake --install` puts where: a component per library, so that a host of the kernels gets nothing of the
# model's. Components: c (libhadal) and c_development (hadal/hadal.h, CMake and pkg-config files), kernels, reference,
# model (with model_reference), runtime, engine (libhadal_engine) and engine_development (hadal/hadal_engine.h; it
# needs c_development), programs.
#   cmake --install build --component kernels      libhadal_kernels, its headers, CMake and pkg-config files
#   find_package(hadal REQUIRED COMPONENTS c)      hadal::c
include(CMakePackageConfigHelpers)
set(hadal_cmake_dir "${CMAKE_INSTALL_LIBDIR}/cmake/hadal")

# hadal_install(COMPONENT LIBS... INCLUDES... PC_REQUIRES... PC_PRIVATE...): targets, headers, export, NAME.pc.
#   PC_REQUIRES  pkg-config packages whose headers its own include
#   PC_PRIVATE   those that only its code needs: a static library's users need them as well
function(hadal_install component)
  cmake_parse_arguments(ARG "" "PC_NAME;DEVELOPMENT" "TARGETS;INCLUDES;PC_REQUIRES;PC_PRIVATE" ${ARGN})
  set(development ${component})  # where what only compiling needs goes
  if(ARG_DEVELOPMENT)
    set(development ${ARG_DEVELOPMENT})
  endif()
  install(TARGETS ${ARG_TARGETS} EXPORT hadal-${component}
          LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}" COMPONENT ${component}
                  NAMELINK_COMPONENT ${development}
          ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}" COMPONENT ${development})
  foreach(dir IN LISTS ARG_INCLUDES)
    install(DIRECTORY "${dir}" DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}" COMPONENT ${development})
  endforeach()
  install(EXPORT hadal-${component} NAMESPACE hadal:: DESTINATION "${hadal_cmake_dir}"
          COMPONENT ${development})
  install(FILES "${PROJECT_BINARY_DIR}/hadalConfig.cmake" "${PROJECT_BINARY_DIR}/hadalConfigVersion.cmake"
          DESTINATION "${hadal_cmake_dir}" COMPONENT ${development})

  set(libs "")
  set(static_only OFF)
  foreach(target IN LISTS ARG_TARGETS)
    get_target_property(type ${target} TYPE)
    if(type STREQUAL INTERFACE_LIBRARY)
      continue()
    endif()
    get_target_property(name ${target} OUTPUT_NAME)
    if(NOT name)
      set(name ${target})
    endif()
    string(PREPEND libs "-l${name} ")
    if(type STREQUAL STATIC_LIBRARY)
      set(static_only ON)
    endif()
  endforeach()
  set(requires ${ARG_PC_REQUIRES})
  set(private ${ARG_PC_PRIVATE})
  if(static_only)  # there is no shared form that brings them
    list(APPEND requires ${private})
    string(APPEND libs "-lstdc++ -lm -ldl -lpthread")
    set(private "")
  endif()
  list(JOIN requires " " requires)
  list(JOIN private " " private)
  file(RELATIVE_PATH up "/prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/prefix")
  set(pc "${PROJECT_BINARY_DIR}/${ARG_PC_NAME}.pc")
  file(CONFIGURE OUTPUT "${pc}" @ONLY CONTENT
"prefix=\${pcfiledir}/${up}
includedir=\${prefix}/${CMAKE_INSTALL_INCLUDEDIR}
libdir=\${pcfiledir}/..

Name: ${ARG_PC_NAME}
Description: ${PROJECT_DESCRIPTION} (${component})
Version: ${PROJECT_VERSION}
Requires: ${requires}
Requires.private: ${private}
Libs: -L\${libdir} ${libs}
Cflags: -I\${includedir}
")
  install(FILES "${pc}" DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig" COMPONENT ${development})
endfunction()

set(kernel_headers "${PROJECT_SOURCE_DIR}/kernels/include/")
hadal_install(c DEVELOPMENT c_development TARGETS hadal_c INCLUDES "${PROJECT_SOURCE_DIR}/capi/include/"
              PC_NAME hadal PC_PRIVATE fmt)
hadal_install(kernels TARGETS hadal_kernels INCLUDES "${kernel_headers}" PC_NAME hadal-kernels PC_PRIVATE fmt)
if(HADAL_BUILD_REFERENCE)
  hadal_install(reference TARGETS hadal_reference INCLUDES "${kernel_headers}" PC_NAME hadal-reference)
endif()
if(HADAL_BUILD_RUNTIME)
  hadal_install(model TARGETS hadal_model hadal_model_reference INCLUDES "${PROJECT_SOURCE_DIR}/model/include/"
                PC_NAME hadal-model PC_REQUIRES hadal-kernels PC_PRIVATE hadal-reference fmt libpcre2-8)
  hadal_install(runtime TARGETS hadal_runtime INCLUDES "${PROJECT_SOURCE_DIR}/runtime/include/"
                PC_NAME hadal-runtime PC_REQUIRES hadal-model PC_PRIVATE fmt)
  hadal_install(engine DEVELOPMENT engine_development TARGETS hadal_engine
                INCLUDES "${PROJECT_SOURCE_DIR}/capi/engine/include/"
                PC_NAME hadal-engine PC_REQUIRES hadal PC_PRIVATE fmt libpcre2-8)
endif()

if(HADAL_BUILD_EXAMPLES)
  set(programs chat disaggregated eval generate info serve tokenize tune)
  list(TRANSFORM programs PREPEND hadal-)
  if(NOT TARGET hadal-serve)
    list(REMOVE_ITEM programs hadal-serve)
  endif()
  if(BUILD_SHARED_LIBS)
    file(RELATIVE_PATH libraries "/prefix/${CMAKE_INSTALL_BINDIR}" "/prefix/${CMAKE_INSTALL_LIBDIR}")
    set_target_properties(${programs} PROPERTIES INSTALL_RPATH "$ORIGIN/${libraries}")
  endif()
  install(TARGETS ${programs} RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}" COMPONENT programs)
endif()

configure_package_config_file("${PROJECT_SOURCE_DIR}/cmake/hadalConfig.cmake.in"
                              "${PROJECT_BINARY_DIR}/hadalConfig.cmake"
                              INSTALL_DESTINATION "${hadal_cmake_dir}")
write_basic_package_version_file("${PROJECT_BINARY_DIR}/hadalConfigVersion.cmake"
                                 COMPATIBILITY SameMinorVersion)

# Debian packages: `cpack -G DEB`. libhadalX.Y and libhadal-engineX.Y have a C library each, libhadal-dev what hosts are
# built with, hadal the programs.
if(PROJECT_IS_TOP_LEVEL)
  include(Packaging)
endif()
