# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
#
# Versions of one major and minor number are compatible, later ones with earlier ones.
set(header "${CMAKE_CURRENT_LIST_DIR}/../include/mori/version.hpp")
if(NOT EXISTS "${header}")
  set(header "${CMAKE_CURRENT_LIST_DIR}/../../../mori/version.hpp")
endif()
file(STRINGS "${header}" PACKAGE_VERSION REGEX "kVersion\\[\\]")
string(REGEX MATCH "([0-9]+\\.[0-9]+)\\.[0-9]+" PACKAGE_VERSION "${PACKAGE_VERSION}")
set(series "${CMAKE_MATCH_1}")
if("${PACKAGE_FIND_VERSION}" VERSION_EQUAL "${PACKAGE_VERSION}")
  set(PACKAGE_VERSION_EXACT TRUE)
endif()
if("${PACKAGE_FIND_VERSION}" VERSION_LESS_EQUAL "${PACKAGE_VERSION}"
   AND "${PACKAGE_FIND_VERSION_MAJOR}.${PACKAGE_FIND_VERSION_MINOR}" MATCHES "^${series}$|^[0-9]+\\.$")
  set(PACKAGE_VERSION_COMPATIBLE TRUE)
endif()
