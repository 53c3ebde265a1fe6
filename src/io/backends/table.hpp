// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The backends that exist. Adding one is a folder with a make_backend() and a row in table.cpp.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>

#include "src/io/backend.hpp"

namespace mori::io {

/// Settings of one backend, as the user gave them: name -> text. A name that is absent has its default.
class BackendOptions {
 public:
  BackendOptions() = default;
  explicit BackendOptions(std::map<std::string, std::string> values) : values_(std::move(values)) {}

  std::string text(const std::string& name, const std::string& otherwise) const;
  /// Throws core::ConfigError that names the option if it is not a whole number between the limits.
  int64_t integer(const std::string& name, int64_t otherwise, int64_t least, int64_t most) const;
  bool flag(const std::string& name, bool otherwise) const;  ///< "0" or "1"

  bool operator==(const BackendOptions&) const = default;

 private:
  std::map<std::string, std::string> values_;
};

struct BackendRow {
  const char* name;
  /// Throws core::TransportError that says why when this machine cannot have it, ConfigError for the options.
  std::unique_ptr<Backend> (*make)(Host& host, const BackendOptions& options);
  bool automatic;  ///< made by engines that were not told which backends to have
};

/// In the order of preference among backends that reach the same memory.
std::span<const BackendRow> backend_table();
const BackendRow* find_backend(const std::string& name);  ///< null: there is none

}  // namespace mori::io
