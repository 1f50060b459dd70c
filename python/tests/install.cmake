# cmake -DHADAL_BUILD=... -DSOURCE=... -DWORK=... -DPYTHON=... -P: installs the built libraries into WORK/prefix and the
# package over them, by pip, into a fresh virtual environment WORK/venv that sees the system's NumPy.
include("${CMAKE_CURRENT_LIST_DIR}/../../cmake/Run.cmake")

file(REMOVE_RECURSE "${WORK}")
foreach(component IN ITEMS c engine python)
  run("${CMAKE_COMMAND}" --install "${HADAL_BUILD}" --prefix "${WORK}/prefix" --component ${component})
endforeach()
run("${PYTHON}" -m venv --system-site-packages "${WORK}/venv")
run("${CMAKE_COMMAND}" -E env "HADAL_PREFIX=${WORK}/prefix" "HADAL_PYTHON_BUILD=${WORK}/build"
    "${WORK}/venv/bin/pip" install --no-build-isolation --no-deps --no-cache-dir --disable-pip-version-check "${SOURCE}")
