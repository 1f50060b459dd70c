# hadal_add_driver_tests(PROGRAM): registers PROGRAM with ctest once per driver set-up.
#   PROGRAM/lavapipe-W   the sysroot's lavapipe, through the sysroot's own loader, with vectors of W bits:
#                        subgroups of 4, 8 and 16. Only where there is a sysroot.
#   PROGRAM/system       the system's own drivers. Beside a sysroot these are old (lavapipe 22.3): then only
#                        the quicker suites run, each kernel's once.
# Every entry is one process, so a kernel's pipelines are compiled once for all its cases.
function(hadal_add_driver_tests program)
  if(HADAL_SYSROOT)
    foreach(width IN ITEMS 128 256 512)
      add_test(NAME ${program}/lavapipe-${width}
               COMMAND "${HADAL_SYSROOT}/run" $<TARGET_FILE:${program}>)
      set_tests_properties(${program}/lavapipe-${width} PROPERTIES LABELS vulkan TIMEOUT 900
          ENVIRONMENT "LP_NATIVE_VECTOR_WIDTH=${width};LP_NUM_THREADS=0")
    endforeach()
    add_test(NAME ${program}/system
             COMMAND $<TARGET_FILE:${program}> --gtest_filter=-ModelGpu.EveryLayer*:ModelGpu.Chunks*:LongContextGpu.Guesses*:WarmUpGpu.EveryPipeline*:CapiEngineTokens*Guesses)
  else()
    add_test(NAME ${program}/system COMMAND $<TARGET_FILE:${program}>)
  endif()
  set_tests_properties(${program}/system PROPERTIES LABELS vulkan TIMEOUT 900)
endfunction()

# hadal_add_capi_tests(PROGRAM): as hadal_add_driver_tests at one width; on the old driver without what compiles long
# there. capi_two_drivers is one process with the sysroot's driver and the system's own, where there are both.
function(hadal_add_capi_tests program)
  if(NOT HADAL_SYSROOT)
    add_test(NAME ${program}/system COMMAND ${program})
    set_tests_properties(${program}/system PROPERTIES LABELS vulkan TIMEOUT 900)
    return()
  endif()
  add_test(NAME ${program}/lavapipe-512 COMMAND "${HADAL_SYSROOT}/run" $<TARGET_FILE:${program}>)
  set_tests_properties(${program}/lavapipe-512 PROPERTIES LABELS vulkan TIMEOUT 1800
      ENVIRONMENT "LP_NATIVE_VECTOR_WIDTH=512;LP_NUM_THREADS=0")
  add_test(NAME ${program}/system COMMAND ${program} --gtest_filter=-CapiFuzz*:CapiEngineFuzzGpu*:CapiKernelsGpu.Mla*:CapiKernelsGpu.Tiles*)
  set_tests_properties(${program}/system PROPERTIES LABELS vulkan TIMEOUT 900)

  file(GLOB system_icds /usr/share/vulkan/icd.d/lvp_icd*.json)
  if(NOT system_icds)
    return()
  endif()
  list(GET system_icds 0 system_icd)
  set(lib "${HADAL_SYSROOT}/usr/lib/x86_64-linux-gnu")
  set(icds "${HADAL_SYSROOT}/lvp_icd.json:${system_icd}")
  add_test(NAME capi_two_drivers COMMAND "${lib}/ld-linux-x86-64.so.2"
           --library-path "${lib}:/usr/lib/x86_64-linux-gnu:/lib/x86_64-linux-gnu"
           $<TARGET_FILE:${program}> --gtest_filter=CapiGpu.TwoDrivers*)
  set_tests_properties(capi_two_drivers PROPERTIES LABELS vulkan TIMEOUT 300
      FAIL_REGULAR_EXPRESSION "one Vulkan device only"
      ENVIRONMENT "VK_DRIVER_FILES=${icds};VK_ICD_FILENAMES=${icds};VK_LAYER_PATH=${HADAL_SYSROOT}/usr/share/vulkan/explicit_layer.d;LP_NUM_THREADS=0")
endfunction()

# hadal_add_sanitized_test(NAME PROGRAM): PROGRAM, built with sanitizers, on the sysroot's driver; of the old one beside
# a sysroot and of its validation layer the leaks are known, so nothing is run there.
function(hadal_add_sanitized_test name program)
  if(NOT HADAL_SYSROOT)
    return()
  endif()
  add_test(NAME ${name} COMMAND "${HADAL_SYSROOT}/run" "${program}")
  set_tests_properties(${name} PROPERTIES LABELS vulkan TIMEOUT 900
      ENVIRONMENT "LSAN_OPTIONS=suppressions=${PROJECT_SOURCE_DIR}/tests/leaks.txt;LP_NATIVE_VECTOR_WIDTH=512;LP_NUM_THREADS=0")
endfunction()

# hadal_add_host_test(NAME PROGRAM FIXTURE ARGUMENTS...): a host of tests/consumer on the sysroot's driver and the system's own.
function(hadal_add_host_test name program fixture)
  set(leaks "${PROJECT_SOURCE_DIR}/tests/leaks.txt")
  set(tests consumer/${name}/system)
  add_test(NAME consumer/${name}/system COMMAND "${program}" ${ARGN})
  # The system's validation layer leaks, and is gone before its frames could be named.
  set_tests_properties(consumer/${name}/system PROPERTIES ENVIRONMENT "ASAN_OPTIONS=detect_leaks=0;LP_NUM_THREADS=0")
  if(HADAL_SYSROOT)
    list(APPEND tests consumer/${name}/lavapipe)
    add_test(NAME consumer/${name}/lavapipe COMMAND "${HADAL_SYSROOT}/run" "${program}" ${ARGN})
    set_tests_properties(consumer/${name}/lavapipe PROPERTIES
        ENVIRONMENT "LSAN_OPTIONS=suppressions=${leaks};LP_NUM_THREADS=0")
  endif()
  set_tests_properties(${tests} PROPERTIES LABELS vulkan FIXTURES_REQUIRED ${fixture} TIMEOUT 300 SKIP_RETURN_CODE 77)
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
    set(filter "ProgramsGpu.*")
    if(HADAL_SYSROOT AND driver STREQUAL system)  # old and slow; a chat is the same on any driver
      string(APPEND filter "-ProgramsGpu.Chat*")
    endif()
    add_test(NAME ${program}/${driver} COMMAND ${program} --gtest_filter=${filter})
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

# hadal_add_serve_tests(): hadal-serve with the clients of tests/serve, on the newest driver. The long forms, with
# HADAL_TEST_ALL, take some minutes.
function(hadal_add_serve_tests)
  find_program(HADAL_PYTHON3 python3 REQUIRED)
  set(environment "HADAL_SERVE=$<TARGET_FILE:hadal-serve>" "HADAL_FABLES=${PROJECT_SOURCE_DIR}/examples/models/fables"
      "HADAL_SERVE_NODE_MODULES=${PROJECT_SOURCE_DIR}/.cache/serve-client/node_modules"
      "HADAL_SERVE_CACHE=${PROJECT_BINARY_DIR}/serve-cache" "PYTHONDONTWRITEBYTECODE=1")
  if(HADAL_SYSROOT)
    list(APPEND environment "HADAL_TEST_LAUNCHER=${HADAL_SYSROOT}/run")
  endif()
  set(folder "${CMAKE_CURRENT_SOURCE_DIR}/serve")
  foreach(test IN ITEMS clients hostile load)
    add_test(NAME serve_${test} COMMAND "${HADAL_PYTHON3}" "${folder}/${test}_test.py")
  endforeach()
  foreach(language IN ITEMS npm python)  # the second one in a Debian testing root
    add_test(NAME serve_${language}_client
             COMMAND "${HADAL_PYTHON3}" "${folder}/published_clients_test.py" the_${language}_package)
  endforeach()
  set_tests_properties(serve_clients serve_hostile serve_load serve_npm_client serve_python_client PROPERTIES LABELS vulkan
      TIMEOUT 900 SKIP_RETURN_CODE 77 ENVIRONMENT "${environment}")
  set_tests_properties(serve_python_client PROPERTIES LABELS slow)
  # The page in headless Chromium; what it looks like is left beside the test's cache.
  file(MAKE_DIRECTORY "${PROJECT_BINARY_DIR}/serve-screenshots")
  add_test(NAME serve_page COMMAND "${HADAL_PYTHON3}" "${folder}/page_test.py")
  set_tests_properties(serve_page PROPERTIES LABELS slow TIMEOUT 900
      ENVIRONMENT "${environment};HADAL_SERVE_SCREENSHOTS=${PROJECT_BINARY_DIR}/serve-screenshots")
endfunction()

# hadal_add_chat_tests(): hadal-chat on a terminal, on the newest driver.
function(hadal_add_chat_tests)
  find_program(HADAL_PYTHON3 python3 REQUIRED)
  set(environment "HADAL_CHAT=$<TARGET_FILE:hadal-chat>" "HADAL_FABLES=${PROJECT_SOURCE_DIR}/examples/models/fables"
      "HADAL_CHAT_CACHE=${PROJECT_BINARY_DIR}/chat-cache" "PYTHONDONTWRITEBYTECODE=1")
  if(HADAL_SYSROOT)
    list(APPEND environment "HADAL_TEST_LAUNCHER=${HADAL_SYSROOT}/run")
  endif()
  add_test(NAME chat_tmux COMMAND "${HADAL_PYTHON3}" "${CMAKE_CURRENT_SOURCE_DIR}/chat/tmux_test.py")
  set_tests_properties(chat_tmux PROPERTIES LABELS vulkan TIMEOUT 900 SKIP_RETURN_CODE 77 ENVIRONMENT "${environment}")
endfunction()
