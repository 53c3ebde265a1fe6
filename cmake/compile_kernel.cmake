# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
#
# Runs a device compiler and keeps what it says about registers and spills:
#   cmake -DLOG=FILE -P compile_kernel.cmake -- COMPILER ARGUMENT...
# The report goes to LOG (tools/kernel_resources.py reads it); it is shown when the compiler fails, and
# warnings are shown always.
set(command "")
set(separator_seen FALSE)
math(EXPR last "${CMAKE_ARGC} - 1")
foreach(i RANGE ${last})
  if(separator_seen)
    list(APPEND command "${CMAKE_ARGV${i}}")
  elseif("${CMAKE_ARGV${i}}" STREQUAL "--")
    set(separator_seen TRUE)
  endif()
endforeach()

execute_process(COMMAND ${command} RESULT_VARIABLE status OUTPUT_VARIABLE out ERROR_VARIABLE err)
file(WRITE "${LOG}" "${out}${err}")
if(NOT status EQUAL 0)
  list(JOIN command " " shown)
  message(FATAL_ERROR "${shown}\n${out}${err}")
elseif("${out}${err}" MATCHES "warning[: ]")
  message("${out}${err}")
endif()
