# cmake -DHADAL_BUILD=... -DSOURCE=... -DWORK=... -DPYTHON=... -P: installs the built libraries into WORK/prefix and the
# package over them, by pip, into a fresh virtual environment WORK/venv that sees the system's NumPy.
function(run)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE failed OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(failed)
    message(FATAL_ERROR "${ARGN}\n${output}")
  endif()
endfunction()

file(REMOVE_RECURSE "${WORK}")
foreach(component IN ITEMS c engine python)
  run("${CMAKE_COMMAND}" --install "${HADAL_BUILD}" --prefix "${WORK}/prefix" --component ${component})
endforeach()
run("${PYTHON}" -m venv --system-site-packages "${WORK}/venv")
run("${CMAKE_COMMAND}" -E env "HADAL_PREFIX=${WORK}/prefix" "HADAL_PYTHON_BUILD=${WORK}/build"
    "${WORK}/venv/bin/pip" install --no-build-isolation --no-deps --no-cache-dir --disable-pip-version-check "${SOURCE}")
