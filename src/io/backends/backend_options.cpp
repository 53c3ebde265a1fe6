// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Reading a backend's settings: apart from the table, so that a backend can be linked without all the others.
#include <charconv>

#include "src/core/errors.hpp"
#include "src/io/backends/table.hpp"

namespace mori::io {

std::string BackendOptions::text(const std::string& name, const std::string& otherwise) const {
  const auto found = values_.find(name);
  return found == values_.end() ? otherwise : found->second;
}

int64_t BackendOptions::integer(const std::string& name, int64_t otherwise, int64_t least,
                                int64_t most) const {
  const auto found = values_.find(name);
  if (found == values_.end()) return otherwise;
  const std::string& word = found->second;
  int64_t value = 0;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
  if (error != std::errc{} || end != word.data() + word.size() || value < least || value > most)
    throw core::ConfigError(name + "=" + word + " is not a whole number from " + std::to_string(least) +
                            " to " + std::to_string(most));
  return value;
}

bool BackendOptions::flag(const std::string& name, bool otherwise) const {
  return integer(name, otherwise ? 1 : 0, 0, 1) != 0;
}

}  // namespace mori::io
