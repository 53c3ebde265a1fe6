// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include <mori/version.hpp>

static_assert(sizeof(mori::kVersion) > 1);

int main() {}
