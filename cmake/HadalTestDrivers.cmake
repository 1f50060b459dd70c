# hadal_add_driver_tests(PROGRAM): registers PROGRAM with ctest once per driver set-up.
# With a sysroot: its lavapipe at subgroups of 4, 8 and 16, through the sysroot's own loader; always: the
# system's drivers, with the suites of the smaller set only when a sysroot's driver did the rest.
function(hadal_add_driver_tests program)
  if(HADAL_SYSROOT)
    foreach(width IN ITEMS 128 256 512)
      add_test(NAME ${program}/lavapipe-${width}
               COMMAND "${HADAL_SYSROOT}/run" $<TARGET_FILE:${program}>)
      set_tests_properties(${program}/lavapipe-${width} PROPERTIES LABELS vulkan
                           ENVIRONMENT "LP_NATIVE_VECTOR_WIDTH=${width}" SKIP_RETURN_CODE 77)
    endforeach()
  endif()
  add_test(NAME ${program}/system COMMAND $<TARGET_FILE:${program}>)
  set_tests_properties(${program}/system PROPERTIES LABELS vulkan)
endfunction()
