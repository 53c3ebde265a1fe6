// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/io/planner.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <numeric>
#include <string>
#include <utility>

#include "src/core/errors.hpp"

namespace mori::io {
namespace {

using core::ConfigError;

[[noreturn]] void refuse(const Ranges& r, const Window& w, size_t i) {
  const int64_t bytes = r.bytes.size() == 1 ? r.bytes[0] : r.bytes[i];
  const auto at = [&](const char* name, int64_t value) {
    return std::string(name) + "[" + std::to_string(i) + "]=" + std::to_string(value);
  };
  if (bytes < 0) throw ConfigError(at("sizes", bytes) + " is negative");
  if (r.local[i] < 0) throw ConfigError(at("local_offsets", r.local[i]) + " is negative");
  if (r.remote[i] < 0) throw ConfigError(at("remote_offsets", r.remote[i]) + " is negative");
  const bool local =
      uint64_t(r.local[i]) > w.local_bytes || uint64_t(bytes) > w.local_bytes - uint64_t(r.local[i]);
  throw ConfigError((local ? at("local_offsets", r.local[i]) : at("remote_offsets", r.remote[i])) + " and " +
                    at("sizes", bytes) + " leave the " + (local ? "local" : "remote") + " memory of " +
                    std::to_string(local ? w.local_bytes : w.remote_bytes) + " bytes");
}

constexpr unsigned kDigitBits = 11;
constexpr size_t kDigits = size_t(1) << kDigitBits;
constexpr size_t kSmall = 24;  // below this many, inserting beats counting 2048 digits

void insertion_sort(std::vector<Segment>& s) {
  for (size_t i = 1; i < s.size(); ++i) {
    const Segment moving = s[i];
    size_t j = i;
    for (; j > 0 && s[j - 1].remote > moving.remote; --j) s[j] = s[j - 1];
    s[j] = moving;
  }
}

void radix_sort(std::vector<Segment>& s) {
  uint64_t lowest = UINT64_MAX, highest = 0;
  for (const Segment& x : s) {
    lowest = std::min(lowest, x.remote);
    highest = std::max(highest, x.remote);
  }
  uint64_t differ = 0;
  for (const Segment& x : s) differ |= x.remote - lowest;
  // Blocks of pages differ in few bits: the page's number. The rest need not be looked at.
  const unsigned shift = unsigned(std::countr_zero(differ));
  const unsigned bits = unsigned(std::bit_width((highest - lowest) >> shift));
  std::vector<Segment> other(s.size());
  for (unsigned done = 0; done < bits; done += kDigitBits) {
    std::array<size_t, kDigits> place{};
    const auto digit = [&](const Segment& x) {
      return size_t((x.remote - lowest) >> (shift + done)) & (kDigits - 1);
    };
    for (const Segment& x : s) ++place[digit(x)];
    size_t sum = 0;
    for (size_t& p : place) sum += std::exchange(p, sum);
    for (const Segment& x : s) other[place[digit(x)]++] = x;
    s.swap(other);
  }
}

}  // namespace

Plan make_plan(const Ranges& r, const Window& w) {
  const size_t n = r.local.size();
  if (r.remote.size() != n)
    throw ConfigError("remote_offsets has " + std::to_string(r.remote.size()) + " entries, local_offsets " +
                      std::to_string(n) + "; they must be as many");
  if (r.bytes.size() != n && r.bytes.size() != 1)
    throw ConfigError("sizes has " + std::to_string(r.bytes.size()) + " entries for " + std::to_string(n) +
                      " offsets; give one for each, or one for all");
  Plan plan;
  plan.segments.reserve(n);
  const bool same_size = r.bytes.size() == 1;
  for (size_t i = 0; i < n; ++i) {
    const uint64_t bytes = uint64_t(same_size ? r.bytes[0] : r.bytes[i]);
    const uint64_t local = uint64_t(r.local[i]), remote = uint64_t(r.remote[i]);
    // Negative values are huge here, so these comparisons refuse them, too.
    if (bytes > w.local_bytes || local > w.local_bytes - bytes || bytes > w.remote_bytes ||
        remote > w.remote_bytes - bytes)
      refuse(r, w, i);
    if (bytes == 0) continue;
    plan.bytes += bytes;
    if (!plan.segments.empty()) {  // the usual case of consecutive pages shrinks before it is sorted
      Segment& last = plan.segments.back();
      if (last.local + last.bytes == w.local_base + local &&
          last.remote + last.bytes == w.remote_base + remote) {
        last.bytes += bytes;
        continue;
      }
    }
    plan.segments.push_back({w.local_base + local, w.remote_base + remote, bytes});
  }
  sort_by_remote(plan.segments);
  merge_neighbours(plan.segments);
  return plan;
}

void sort_by_remote(std::vector<Segment>& s) {
  if (std::is_sorted(s.begin(), s.end(),
                     [](const Segment& a, const Segment& b) { return a.remote < b.remote; }))
    return;
  if (s.size() <= kSmall)
    insertion_sort(s);
  else
    radix_sort(s);
}

void merge_neighbours(std::vector<Segment>& s) {
  if (s.empty()) return;
  size_t kept = 0;
  for (size_t i = 1; i < s.size(); ++i) {
    Segment& last = s[kept];
    if (last.local + last.bytes == s[i].local && last.remote + last.bytes == s[i].remote)
      last.bytes += s[i].bytes;
    else
      s[++kept] = s[i];
  }
  s.resize(kept + 1);
}

std::vector<Segment> cut(std::span<const Segment> segments, uint64_t max_bytes) {
  if (max_bytes == 0) throw ConfigError("max_bytes=0 cannot hold anything; give at least 1");
  std::vector<Segment> pieces;
  pieces.reserve(segments.size());
  for (Segment rest : segments) {
    while (rest.bytes > 0) {
      const uint64_t bytes = std::min(rest.bytes, max_bytes);
      pieces.push_back({rest.local, rest.remote, bytes});
      rest = {rest.local + bytes, rest.remote + bytes, rest.bytes - bytes};
    }
  }
  return pieces;
}

std::vector<std::vector<Segment>> split(std::span<const Segment> segments, std::span<const double> weights,
                                        uint64_t granule) {
  if (granule == 0) throw ConfigError("granule=0 cannot hold anything; give at least 1");
  double weight = 0;
  for (const double w : weights) {
    if (!(w >= 0) || std::isinf(w)) throw ConfigError("weights must be finite and not negative");
    weight += w;
  }
  if (!(weight > 0)) throw ConfigError("weights need at least one rail above 0");
  const double all = double(total_bytes(segments));
  std::vector<std::vector<Segment>> rails(weights.size());
  size_t i = 0;
  Segment rest = segments.empty() ? Segment{} : segments[0];
  uint64_t dealt = 0;
  double due = 0;  // bytes that this rail and those before it should have got
  size_t last = weights.size();
  while (!(weights[--last] > 0)) {
  }
  for (size_t rail = 0; rail <= last; ++rail) {
    due += all * (weights[rail] / weight);
    while (i < segments.size() && (rail == last || double(dealt) < due) && weights[rail] > 0) {
      uint64_t take = rest.bytes;
      if (rail != last && double(dealt) + double(take) > due) {
        const uint64_t wanted = uint64_t(std::max(1.0, due - double(dealt)));
        const uint64_t granules = (wanted + granule - 1) / granule;
        if (granules < (take + granule - 1) / granule) take = granules * granule;
      }
      rails[rail].push_back({rest.local, rest.remote, take});
      dealt += take;
      rest = {rest.local + take, rest.remote + take, rest.bytes - take};
      if (rest.bytes == 0 && ++i < segments.size()) rest = segments[i];
    }
  }
  return rails;
}

bool is_part_of(Op op, std::vector<Segment> part, std::vector<Segment> whole) {
  if (op == Op::read) {  // one source may go to several places; destinations are what must be told apart
    for (auto* list : {&part, &whole})
      for (Segment& s : *list) std::swap(s.local, s.remote);
  }
  sort_by_remote(part);
  sort_by_remote(whole);
  merge_neighbours(whole);
  size_t w = 0;
  uint64_t end = 0;  // of what was seen of `part`
  for (const Segment& p : part) {
    if (p.bytes == 0 || p.remote < end) return false;
    end = p.remote + p.bytes;
    while (w < whole.size() && whole[w].remote + whole[w].bytes <= p.remote) ++w;
    if (w == whole.size() || p.remote < whole[w].remote || end > whole[w].remote + whole[w].bytes)
      return false;
    if (p.local - whole[w].local != p.remote - whole[w].remote) return false;
  }
  return true;
}

uint64_t total_bytes(std::span<const Segment> segments) {
  return std::accumulate(segments.begin(), segments.end(), uint64_t(0),
                         [](uint64_t sum, const Segment& s) { return sum + s.bytes; });
}

}  // namespace mori::io
