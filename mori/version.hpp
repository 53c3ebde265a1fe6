// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The one place that states MoRI's version; the build and the Python package read it from here.
#pragma once

namespace mori {
inline constexpr char kVersion[] = "0.1.0";
}  // namespace mori
