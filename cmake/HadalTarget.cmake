# hadal_target_defaults(TARGET): what every target of the tree has in common.
function(hadal_target_defaults target)
  target_compile_features(${target} PUBLIC cxx_std_20)
  set_target_properties(${target} PROPERTIES CXX_EXTENSIONS OFF POSITION_INDEPENDENT_CODE ON)
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wshadow -Wpedantic
                         # GCC 12 sees overlapping copies in std::string that are not there (bug 105651).
                         $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>
                         # Bits are part of the contract: the compiler may not fuse a*b+c on its own.
                         -ffp-contract=off)
  if(HADAL_FUZZ)
    target_compile_options(${target} PRIVATE -fsanitize=fuzzer-no-link,address,undefined
                           -fno-sanitize-recover=all -fno-omit-frame-pointer -O1 -g1)
    target_link_options(${target} PUBLIC -fsanitize=address,undefined)
  endif()
  if(HADAL_SANITIZE)
    target_compile_options(${target} PRIVATE -fsanitize=address,undefined
                           -fno-sanitize-recover=all -fno-omit-frame-pointer -O1 -g1)
    target_link_options(${target} PUBLIC -fsanitize=address,undefined)
  endif()
endfunction()

# hadal_library(TARGET COMPONENT): what an installed C++ library of hadal has in common. STATIC or SHARED is
# BUILD_SHARED_LIBS' choice. Shared ones export all of namespace hadal and promise no ABI: their SOVERSION is the
# whole version. The C library is the one that promises (capi/).
function(hadal_library target component)
  set_target_properties(${target} PROPERTIES
      EXPORT_NAME ${component} VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION}
      INSTALL_RPATH "$ORIGIN")  # shared ones find each other wherever they are installed
endfunction()
