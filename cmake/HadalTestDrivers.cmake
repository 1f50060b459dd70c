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

# hadal_add_program_tests(PROGRAM): the same for a test that starts the built programs: the children go through
# the sysroot's loader (HADAL_TEST_LAUNCHER), the test itself does not need to. Suites in ...Slow are labelled.
function(hadal_add_program_tests program)
  set(drivers system)
  if(HADAL_SYSROOT)
    list(PREPEND drivers lavapipe)
  endif()
  foreach(driver IN LISTS drivers)
    set(environment "")
    if(driver STREQUAL lavapipe)
      set(environment "HADAL_TEST_LAUNCHER=${HADAL_SYSROOT}/run")
    endif()
    add_test(NAME ${program}/${driver} COMMAND ${program} --gtest_filter=ProgramsGpu.*)
    set_tests_properties(${program}/${driver} PROPERTIES LABELS vulkan ENVIRONMENT "${environment}")
  endforeach()
  list(GET drivers 0 driver)  # the newest driver only: memory, not numbers, is what it measures
  set(environment "")
  if(HADAL_SYSROOT)
    set(environment "HADAL_TEST_LAUNCHER=${HADAL_SYSROOT}/run")
  endif()
  add_test(NAME ${program}_slow/${driver} COMMAND ${program} --gtest_filter=ProgramsSlow.*)
  set_tests_properties(${program}_slow/${driver} PROPERTIES LABELS slow ENVIRONMENT "${environment}")
endfunction()
