# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
#
# kernel_flags.json for CMake: MoRI's own build and projects with mori_add_kernel() call compilers alike.
set(MORI_KERNEL_FLAGS_FILE "${CMAKE_CURRENT_LIST_DIR}/kernel_flags.json")
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${MORI_KERNEL_FLAGS_FILE}")

# mori_kernel_flags(result cpu|cuda|hip key): a list, or a string where the value is one.
function(mori_kernel_flags result kind key)
  file(READ "${MORI_KERNEL_FLAGS_FILE}" table)
  string(JSON type TYPE "${table}" ${kind} ${key})
  if(type STREQUAL "STRING")
    string(JSON values GET "${table}" ${kind} ${key})
  else()
    string(JSON count LENGTH "${table}" ${kind} ${key})
    set(values "")
    math(EXPR last "${count} - 1")
    foreach(i RANGE ${last})
      string(JSON value GET "${table}" ${kind} ${key} ${i})
      list(APPEND values "${value}")
    endforeach()
  endif()
  set(${result} "${values}" PARENT_SCOPE)
endfunction()
