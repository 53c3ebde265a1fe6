// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The C++ side of the one error family. The bindings translate each class to its namesake in
// python/mori/errors.py; messages name the argument or peer, the value and what is allowed.
#pragma once
#include <cstdint>
#include <stdexcept>
#include <string>

namespace mori::core {

struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};
/// Refused before anything ran. Python: ConfigError, also a ValueError.
struct ConfigError : Error {
  using Error::Error;
};
/// A driver, a NIC or a socket failed.
struct TransportError : Error {
  using Error::Error;
};
/// More data or memory than was provided for.
struct CapacityError : Error {
  using Error::Error;
};

}  // namespace mori::core
