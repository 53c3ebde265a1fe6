// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// See sysfs.hpp.
#include "src/core/topology/sysfs.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fstream>
#include <system_error>

namespace mori::core::sysfs {

namespace {

constexpr std::string_view kBlanks = " \t\r\n";
constexpr size_t kMaxBytes = 64 << 10;
constexpr int kMaxCpu = 1 << 16;

bool is_digit(char c) { return c >= '0' && c <= '9'; }

std::string_view trim(std::string_view text) {
  const size_t first = text.find_first_not_of(kBlanks);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kBlanks) - first + 1);
}

template <class T>
std::optional<T> parse_number(std::string_view text, int base) {
  T value{};
  std::from_chars_result result{};
  if constexpr (std::is_floating_point_v<T>) {
    result = std::from_chars(text.data(), text.data() + text.size(), value);
  } else {
    result = std::from_chars(text.data(), text.data() + text.size(), value, base);
  }
  if (result.ec != std::errc{}) return std::nullopt;
  return value;
}

/// Digits only: what surrounds a rate is its unit, what surrounds a CPU's number is an error.
std::optional<int> parse_cpu(std::string_view text) {
  if (text.find_first_not_of("0123456789") != std::string_view::npos) return std::nullopt;
  return parse_number<int>(text, 10);
}

/// Eats `least` to `most` hexadecimal digits and the character `end` behind them.
std::optional<uint64_t> eat_hex(std::string_view& text, size_t least, size_t most, char end) {
  const size_t n = std::min(text.find_first_not_of("0123456789abcdefABCDEF"), text.size());
  if (n < least || n > most) return std::nullopt;
  if (end ? (n >= text.size() || text[n] != end) : n != text.size()) return std::nullopt;
  const auto value = parse_number<uint64_t>(text.substr(0, n), 16);
  text.remove_prefix(end ? n + 1 : n);
  return value;
}

}  // namespace

std::optional<std::string> read(const fs::path& file) {
  std::error_code error;
  if (!fs::is_regular_file(file, error)) return std::nullopt;
  std::ifstream stream(file, std::ios::binary);
  if (!stream) return std::nullopt;
  std::string text(kMaxBytes, '\0');
  stream.read(text.data(), static_cast<std::streamsize>(text.size()));
  // Some attributes open but fail to be read (EINVAL of a down port, EPERM of a device cgroup).
  if (stream.bad()) return std::nullopt;
  text.resize(static_cast<size_t>(stream.gcount()));
  return printable(std::string(trim(text)));
}

std::string printable(std::string text) {
  for (char& c : text) {
    if ((c < ' ' && c != '\n' && c != '\t') || c > '~') c = '?';
  }
  return text;
}

std::string read_or_empty(const fs::path& file) { return read(file).value_or(std::string()); }

std::optional<long long> read_integer(const fs::path& file) {
  const std::string text = read_or_empty(file);
  if (text.starts_with("0x")) return parse_number<long long>(std::string_view(text).substr(2), 16);
  return parse_number<long long>(text, 10);
}

std::optional<double> read_real(const fs::path& file) {
  const auto value = parse_number<double>(read_or_empty(file), 10);
  return value && std::isfinite(*value) && *value >= 0 ? value : std::nullopt;
}

std::map<std::string, long long> parse_properties(std::string_view text) {
  std::map<std::string, long long> values;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = trim(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    const size_t blank = line.find(' ');
    if (blank == std::string_view::npos) continue;
    // Some values (hive_id, unique_id) fill 64 bits without a sign.
    if (const auto value = parse_number<uint64_t>(trim(line.substr(blank)), 10)) {
      values[std::string(line.substr(0, blank))] = static_cast<long long>(*value);
    }
  }
  return values;
}

bool natural_less(std::string_view a, std::string_view b) {
  size_t i = 0, j = 0;
  while (i < a.size() && j < b.size()) {
    if (is_digit(a[i]) && is_digit(b[j])) {
      size_t m = i, n = j;
      while (m < a.size() && is_digit(a[m])) ++m;
      while (n < b.size() && is_digit(b[n])) ++n;
      std::string_view x = a.substr(i, m - i), y = b.substr(j, n - j);
      x.remove_prefix(std::min(x.find_first_not_of('0'), x.size()));
      y.remove_prefix(std::min(y.find_first_not_of('0'), y.size()));
      if (x.size() != y.size()) return x.size() < y.size();
      if (x != y) return x < y;
      i = m, j = n;
    } else if (a[i] != b[j]) {
      return a[i] < b[j];
    } else {
      ++i, ++j;
    }
  }
  if (a.size() - i != b.size() - j) return a.size() - i < b.size() - j;
  return a < b;  // "a01" and "a1" differ, so that the order is total
}

std::vector<std::string> list(const fs::path& folder, std::string* why) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    names.push_back(it->path().filename().string());
  }
  if (error && why) *why = error.message();
  std::sort(names.begin(), names.end(), natural_less);
  return names;
}

fs::path resolve(const fs::path& link) {
  std::error_code error;
  fs::path resolved = fs::canonical(link, error);
  return error ? fs::path() : resolved;
}

std::optional<uint64_t> parse_address(std::string_view text) {
  const auto domain = eat_hex(text, 4, 8, ':');
  if (!domain) return std::nullopt;
  const auto bus = eat_hex(text, 2, 2, ':');
  if (!bus) return std::nullopt;
  const auto slot = eat_hex(text, 2, 2, '.');
  if (!slot || *slot > 31) return std::nullopt;
  const auto function = eat_hex(text, 1, 1, '\0');
  if (!function || *function > 7) return std::nullopt;
  return *domain << 16 | *bus << 8 | *slot << 3 | *function;
}

bool address_less(std::string_view a, std::string_view b) {
  return parse_address(a).value_or(0) < parse_address(b).value_or(0);
}

std::string address_in(const fs::path& resolved) {
  std::string found;
  for (const fs::path& part : resolved) {
    if (parse_address(part.native())) found = part.native();
  }
  return found;
}

std::vector<int> parse_cpulist(std::string_view text) {
  std::vector<int> cpus;
  while (!text.empty()) {
    const size_t end = std::min(text.find(','), text.size());
    const std::string_view range = trim(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    const size_t dash = range.find('-');
    const auto first = parse_cpu(range.substr(0, dash));
    const auto last = dash == std::string_view::npos ? first : parse_cpu(range.substr(dash + 1));
    if (!first || !last || *last > kMaxCpu || cpus.size() > size_t{kMaxCpu}) return {};
    for (int cpu = *first; cpu <= *last; ++cpu) cpus.push_back(cpu);
  }
  std::sort(cpus.begin(), cpus.end());
  return cpus;
}

}  // namespace mori::core::sysfs
