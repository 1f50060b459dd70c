# Every library that hadal uses, found once. setup.sh installs them on Debian and Ubuntu.
find_package(fmt REQUIRED)
find_package(Threads REQUIRED)
if(HADAL_BUILD_REFERENCE OR HADAL_BUILD_RUNTIME)
  find_package(Eigen3 REQUIRED NO_MODULE)
endif()
if(HADAL_BUILD_RUNTIME)
  find_package(nlohmann_json REQUIRED)
  find_package(PkgConfig REQUIRED)
  pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8)
endif()
if(HADAL_BUILD_EXAMPLES OR HADAL_BUILD_BENCH)
  find_package(CLI11 REQUIRED)
endif()

# Boost.Asio and Boost.Beast, headers only; awaitables complete with tuples from 1.81 on.
if((HADAL_BUILD_EXAMPLES OR HADAL_BUILD_TESTS OR HADAL_FUZZ) AND HADAL_BUILD_SERVE)
  find_package(Boost 1.81)
  if(NOT Boost_FOUND)
    message(STATUS "hadal-serve is left out: no Boost 1.81 or newer (libboost1.81-dev or libboost-dev)")
    set(HADAL_BUILD_SERVE OFF)
  endif()
else()
  set(HADAL_BUILD_SERVE OFF)
endif()

# Line editing of hadal-chat.
if(HADAL_BUILD_EXAMPLES)
  pkg_check_modules(LIBEDIT IMPORTED_TARGET libedit)
  if(NOT LIBEDIT_FOUND)
    message(STATUS "hadal-chat reads lines without editing and history: no libedit (libedit-dev)")
  endif()
endif()

# Vulkan: headers only, the loader is opened at run time. The sysroot's are newer where there is one.
find_path(HADAL_VULKAN_INCLUDE vulkan/vulkan_core.h
          HINTS "${HADAL_SYSROOT}/include" NO_CACHE REQUIRED)
find_path(HADAL_VMA_INCLUDE NAMES vk_mem_alloc.h vma/vk_mem_alloc.h
          HINTS "${HADAL_SYSROOT}/include" NO_CACHE REQUIRED)
add_library(hadal_vulkan_headers INTERFACE)
target_include_directories(hadal_vulkan_headers SYSTEM INTERFACE
                           $<BUILD_INTERFACE:${HADAL_VULKAN_INCLUDE}>)
add_library(hadal_vma_headers INTERFACE)
target_include_directories(hadal_vma_headers SYSTEM INTERFACE
                           $<BUILD_INTERFACE:${HADAL_VMA_INCLUDE}>)

# Shader tools.
find_program(HADAL_GLSLC glslc HINTS "${HADAL_SYSROOT}/bin" NO_DEFAULT_PATH)
find_program(HADAL_GLSLC glslc REQUIRED)
find_program(HADAL_SPIRV_VAL spirv-val HINTS "${HADAL_SYSROOT}/bin" NO_DEFAULT_PATH)
find_program(HADAL_SPIRV_VAL spirv-val REQUIRED)
