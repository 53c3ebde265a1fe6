// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The translation unit of the library's own CPU code objects that defines what all their units share.
#include "src/core/device/cpu_object.hpp"
