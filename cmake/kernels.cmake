# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
#
# One kernel source, three code objects. Every src/**/NAME.kernel.cpp is the unit NAME and becomes
#   cpu_w1.so cpu_w32.so cpu_w64.so   all units, once per warp size
#   NAME.fatbin                       CUDA: machine code of MORI_CUDA_ARCHS and PTX of the last
#   NAME.<arch>.hsaco                 HIP: one per MORI_HIP_ARCHS
# beside manifest.json, which says what was built, with which compilers, and each kernel's registers.
# Device compilers run as custom commands: CMake's CUDA and HIP languages would make a broken toolchain an
# error of the whole build, and want host linking that we do not need.
file(GLOB_RECURSE kernel_sources CONFIGURE_DEPENDS RELATIVE "${CMAKE_SOURCE_DIR}" src/*.kernel.cpp)
set(units ${kernel_sources})
list(TRANSFORM units REPLACE "^.*/([^/]+)\\.kernel\\.cpp$" "\\1")
set(kernel_dir "${CMAKE_BINARY_DIR}/kernels")
file(MAKE_DIRECTORY "${kernel_dir}")
set(code_objects "")
set(manifest_options "")

# The flags are those of users' kernels too. Sums must be the same on every target, so no target may fuse a
# multiplication with an addition.
include("${CMAKE_SOURCE_DIR}/python/mori/cmake/kernel_flags.cmake")
foreach(kind IN ITEMS cpu cuda hip)
  mori_kernel_flags(${kind}_flags ${kind} flags)
endforeach()
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # g++ guesses wrongly about arrays that are filled and read under the same condition; clang reads them too
  list(APPEND cpu_flags -Wno-maybe-uninitialized)
endif()
list(APPEND cuda_flags "-I${CMAKE_SOURCE_DIR}")
list(APPEND hip_flags "-I${CMAKE_SOURCE_DIR}")
set(cuda_warnings "")
if(MORI_WERROR)
  list(APPEND cpu_flags -Werror)
  list(APPEND cuda_flags -Werror all-warnings)
  list(APPEND hip_flags -Werror)
endif()

# ---- CPU ---------------------------------------------------------------------------------------------
foreach(warp IN ITEMS 1 32 64)
  set(target cpu_w${warp})
  add_library(${target} MODULE ${kernel_sources} src/core/device/cpu_object.cpp)
  target_include_directories(${target} PRIVATE "${CMAKE_SOURCE_DIR}")
  target_compile_definitions(${target} PRIVATE MORI_CPU_WARP=${warp})
  target_compile_options(${target} PRIVATE ${cpu_flags})
  if(warp GREATER 1) # for tests: fibers take the time, and optimisation most of the compiler's
    mori_kernel_flags(fewer cpu many_lanes_flags)
    target_compile_options(${target} PRIVATE "$<$<CONFIG:Release>:${fewer}>")
  endif()
  set_target_properties(${target} PROPERTIES PREFIX "" SUFFIX ".so" LIBRARY_OUTPUT_DIRECTORY "${kernel_dir}")
  install(TARGETS ${target} DESTINATION mori/kernels)
endforeach()
list(APPEND manifest_options --target cpu "w1,w32,w64" "${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION}")

# mori_code_object(unit arch output source command...): one custom command, its report and dependencies.
function(mori_code_object label output source)
  add_custom_command(
    OUTPUT "${output}"
    COMMAND "${CMAKE_COMMAND}" "-DLOG=${output}.log" -P "${CMAKE_SOURCE_DIR}/cmake/compile_kernel.cmake" -- ${ARGN}
            -o "${output}" "${CMAKE_SOURCE_DIR}/${source}"
    DEPENDS "${source}" "${CMAKE_SOURCE_DIR}/cmake/compile_kernel.cmake"
    BYPRODUCTS "${output}.log"
    DEPFILE "${output}.d"
    COMMENT "${label}"
    VERBATIM)
  set(code_objects "${code_objects};${output}" PARENT_SCOPE)
endfunction()

# Compiles the probe; answers in `result`, and in `why` what the compiler said first.
function(mori_probe result why)
  execute_process(COMMAND ${ARGN} -o "${CMAKE_BINARY_DIR}/probe.out" "${CMAKE_SOURCE_DIR}/cmake/probe.kernel.cpp"
                  RESULT_VARIABLE status ERROR_VARIABLE err OUTPUT_VARIABLE out)
  set(${result} FALSE PARENT_SCOPE)
  if(status EQUAL 0)
    set(${result} TRUE PARENT_SCOPE)
  endif()
  string(REGEX MATCH "[^\n]*(error|fatal|cannot|not found)[^\n]*" first "${err}${out}")
  set(${why} "${first}" PARENT_SCOPE)
endfunction()

# A target that cannot be built is one line, or an error where it was asked for with ON.
function(mori_missing target setting reason remedy)
  if("${setting}" STREQUAL "ON")
    message(FATAL_ERROR "MORI_${target}=ON, but ${reason}; ${remedy}")
  endif()
  message(STATUS "mori: ${target} not built: ${reason}; ${remedy}")
  string(TOLOWER "${target}" name)
  set(manifest_options ${manifest_options} --missing "${name}" "${reason}" "${remedy}" PARENT_SCOPE)
endfunction()

foreach(target IN ITEMS CUDA HIP)
  if(NOT "${MORI_${target}}" MATCHES "^(AUTO|ON|OFF)$")
    message(FATAL_ERROR "MORI_${target}=${MORI_${target}}: allowed are AUTO, ON and OFF")
  endif()
endforeach()

# ---- CUDA --------------------------------------------------------------------------------------------
mori_kernel_flags(remedy cuda remedy)
string(APPEND remedy ", then install again")
if(MORI_CUDA STREQUAL "OFF")
  mori_missing(CUDA OFF "MORI_CUDA=OFF" "install again without it")
else()
  find_program(MORI_NVCC nvcc HINTS ENV CUDA_HOME ENV CUDA_PATH PATHS /usr/local/cuda PATH_SUFFIXES bin)
  set(archs "")
  if(NOT MORI_NVCC)
    set(reason "no nvcc found")
  else()
    execute_process(COMMAND "${MORI_NVCC}" --list-gpu-code OUTPUT_VARIABLE known ERROR_QUIET)
    foreach(arch IN LISTS MORI_CUDA_ARCHS)
      if("${known}" MATCHES "sm_${arch}([^0-9]|$)")
        list(APPEND archs ${arch})
      endif()
    endforeach()
    set(reason "${MORI_NVCC} knows none of ${MORI_CUDA_ARCHS}")
  endif()
  if(archs)
    list(GET archs 0 first)
    mori_probe(works why "${MORI_NVCC}" ${cuda_flags} -fatbin -gencode "arch=compute_${first},code=sm_${first}")
    if(NOT works)
      set(archs "")
      set(reason "${MORI_NVCC} fails: ${why}")
    endif()
  endif()
  if(archs)
    set(gencode "")
    foreach(arch IN LISTS archs)
      list(APPEND gencode -gencode "arch=compute_${arch},code=sm_${arch}")
    endforeach()
    list(GET archs -1 last)
    list(APPEND gencode -gencode "arch=compute_${last},code=compute_${last}")
    foreach(source unit IN ZIP_LISTS kernel_sources units)
      set(output "${kernel_dir}/${unit}.fatbin")
      mori_code_object("CUDA ${unit}" "${output}" "${source}" "${MORI_NVCC}" ${cuda_flags} -fatbin ${gencode} -Xptxas -v
                       -MD -MF "${output}.d" -MT "${output}")
    endforeach()
    execute_process(COMMAND "${MORI_NVCC}" --version OUTPUT_VARIABLE version)
    string(REGEX MATCH "V([0-9.]+)" version "${version}")
    list(TRANSFORM archs PREPEND "sm_" OUTPUT_VARIABLE names)
    list(JOIN names "," names)
    list(APPEND manifest_options --target cuda "${names},compute_${last}" "nvcc ${CMAKE_MATCH_1}")
    message(STATUS "mori: CUDA ${names},compute_${last} with ${MORI_NVCC}")
  else()
    mori_missing(CUDA "${MORI_CUDA}" "${reason}" "${remedy}")
  endif()
endif()

# ---- HIP ---------------------------------------------------------------------------------------------
mori_kernel_flags(remedy hip remedy)
string(APPEND remedy ", then install again")
if(MORI_HIP STREQUAL "OFF")
  mori_missing(HIP OFF "MORI_HIP=OFF" "install again without it")
else()
  mori_kernel_flags(names hip compilers)
  find_program(MORI_HIP_CLANG NAMES ${names}
               HINTS ENV ROCM_PATH PATHS /opt/rocm PATH_SUFFIXES bin llvm/bin)
  set(archs "")
  if(NOT MORI_HIP_CLANG)
    set(reason "no clang found")
  else()
    foreach(arch IN LISTS MORI_HIP_ARCHS)
      mori_probe(works why "${MORI_HIP_CLANG}" ${hip_flags} "--offload-arch=${arch}" -c)
      if(works)
        list(APPEND archs ${arch})
      else()
        set(reason "${MORI_HIP_CLANG} cannot build ${arch}: ${why}")
        message(STATUS "mori: ${reason}")
      endif()
    endforeach()
  endif()
  if(archs)
    foreach(source unit IN ZIP_LISTS kernel_sources units)
      foreach(arch IN LISTS archs)
        set(output "${kernel_dir}/${unit}.${arch}.hsaco")
        # clang ignores -MD here: without the front end's own option ninja would rebuild every time
        mori_code_object("HIP ${unit} ${arch}" "${output}" "${source}" "${MORI_HIP_CLANG}" ${hip_flags}
                         "--offload-arch=${arch}" -Rpass-analysis=kernel-resource-usage
                         -Xclang -dependency-file -Xclang "${output}.d" -Xclang -MT -Xclang "${output}" -c)
      endforeach()
    endforeach()
    execute_process(COMMAND "${MORI_HIP_CLANG}" --version OUTPUT_VARIABLE version)
    string(REGEX MATCH "version ([0-9.]+)" version "${version}")
    list(JOIN archs "," names)
    list(APPEND manifest_options --target hip "${names}" "clang ${CMAKE_MATCH_1}")
    message(STATUS "mori: HIP ${names} with ${MORI_HIP_CLANG}")
  else()
    mori_missing(HIP "${MORI_HIP}" "${reason}" "${remedy}")
  endif()
endif()

# ---- manifest ----------------------------------------------------------------------------------------
set(manifest "${kernel_dir}/manifest.json")
list(JOIN units "," unit_names)
add_custom_command(
  OUTPUT "${manifest}"
  COMMAND "${Python_EXECUTABLE}" "${CMAKE_SOURCE_DIR}/tools/kernel_resources.py" manifest "${manifest}"
          --version "${PROJECT_VERSION}" --source "${CMAKE_SOURCE_DIR}" --units "${unit_names}" ${manifest_options}
  DEPENDS ${code_objects} tools/kernel_resources.py
  COMMENT "manifest.json"
  VERBATIM)
add_custom_target(code_objects ALL DEPENDS ${code_objects} "${manifest}")
install(FILES ${code_objects} "${manifest}" DESTINATION mori/kernels)
