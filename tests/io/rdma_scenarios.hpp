// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// What the scenarios of the rdma backend over the fake library share.
#pragma once
#include <functional>
#include <map>

#include "fake_verbs.hpp"
#include "rdma_pair.hpp"

using namespace pair;
namespace verbs = mori::verbs;

using Scenarios = std::map<std::string, std::function<void()>>;
Scenarios carrying();  ///< bytes, and ways that break
Scenarios ending();    ///< stopping, set-up, threads

inline std::string library;

inline mori::core::Topology machine(int nics) {
  mori::core::Topology t;
  t.host = "test";
  for (int i = 0; i < nics; ++i) {
    mori::core::Nic nic;
    nic.name = "fake" + std::to_string(i);
    nic.ports.push_back({1, true, 100, "Ethernet", "eth" + std::to_string(i)});
    t.nics.push_back(nic);
  }
  return t;
}

/// Side 0 has the even NICs, side 1 the odd ones.
inline Config settings(int side, int nics = 4) {
  Config c;
  c.library = library;
  c.topology = machine(nics);
  for (int i = side; i < nics; i += 2) c.devices.push_back("fake" + std::to_string(i));
  c.quiesce = 300ms;
  c.probe = 500ms;
  c.retry_after = 500ms;
  return c;
}

inline void orderly() {
  const char* words = "";
  const int n = fake_violations(&words);
  if (n != 0) std::fprintf(stderr, "%d violations: %s\n", n, words);
  CHECK(n == 0);
  CHECK(fake_open_objects() == 0);
}

inline void run(Pair& p, Op op, Buffer& mine, Buffer& theirs, std::vector<Segment> segments) {
  auto prepared = p.prepare(mine, theirs);
  if (!prepared.route) std::fprintf(stderr, "%s\n", prepared.reason.c_str());
  CHECK(prepared.route);
  const auto before = op == Op::write ? theirs.bytes : mine.bytes;
  auto job = p.job(op, mine, theirs, prepared.route, segments);
  p.back_a->submit(job);
  const Outcome outcome = job->wait();
  if (outcome.code != StatusCode::success) std::fprintf(stderr, "%s\n", outcome.message.c_str());
  CHECK(outcome.code == StatusCode::success && outcome.unfinished.empty());
  CHECK(job->told == job->bytes());
  verify(op, mine, theirs, before, segments);
}

inline constexpr Op kBoth[] = {Op::write, Op::read};
