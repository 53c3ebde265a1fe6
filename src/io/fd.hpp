// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#pragma once
#include "src/core/fd.hpp"

namespace mori::io {
using core::Fd;
}  // namespace mori::io
