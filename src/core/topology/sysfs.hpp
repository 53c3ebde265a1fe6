// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Reading sysfs without surprises: a file may be missing, forbidden, empty or vanish between two calls
// (hot plug, containers), and none of that is an error here. Private to this folder.
#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace mori::core::sysfs {

namespace fs = std::filesystem;

/// A file's text without surrounding blanks, printable, at most 64 KiB of it.
std::optional<std::string> read(const fs::path& file);
std::string read_or_empty(const fs::path& file);

/// With '?' for every byte that is neither printable ASCII nor a blank: what is read ends up in messages, XML
/// and Python strings, and names of devices may hold anything.
std::string printable(std::string text);

/// First number of a file: "0x10de", "16", "-1", "400 Gb/sec (4X NDR)", "32.0 GT/s PCIe". Reals
/// are finite and not negative.
std::optional<long long> read_integer(const fs::path& file);
std::optional<double> read_real(const fs::path& file);

/// "key value" lines, as in KFD's properties.
std::map<std::string, long long> parse_properties(std::string_view text);

/// Names in a folder, in natural order (node2 before node10). On failure empty, with the reason in `why`.
std::vector<std::string> list(const fs::path& folder, std::string* why = nullptr);
bool natural_less(std::string_view a, std::string_view b);

/// Where a link leads, as an absolute path; empty if nowhere.
fs::path resolve(const fs::path& link);

/// "0000:1b:00.0" as a number that orders addresses. Domains have four to eight digits.
std::optional<uint64_t> parse_address(std::string_view text);
bool address_less(std::string_view a, std::string_view b);
/// The last component of a resolved path that is a PCI address; empty if there is none.
std::string address_in(const fs::path& resolved);

/// CPUs of "0-3,8,10-11", in order; none if any part is malformed.
std::vector<int> parse_cpulist(std::string_view text);

}  // namespace mori::core::sysfs
