// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The software NIC over verbs, between the two NICs of a pretended network (tests/io/fake_verbs.hpp).
//   verbs_main LIBRARY mixed|refused|network
// mixed: random requests; both memories as a model has them. refused: requests that cannot be. network: each
// way in which the network or a NIC fails.
#include <dlfcn.h>

#include <algorithm>
#include <functional>

#include "src/core/errors.hpp"
#include "src/transport/ibgda/rdma/verbs_mover.hpp"
#include "src/transport/ibgda/softnic/effects.hpp"
#include "tests/ibgda/softnic_bench.hpp"
#include "tests/io/fake_verbs.hpp"

namespace {

constexpr uint64_t kRoom = 1 << 18, kHalf = kRoom / 2;
constexpr std::chrono::seconds kLong{20};
std::string library;

/// A call of the pretended library, which the mover loads too.
template <class F>
F* order(const char* name) {
  static void* const loaded = ::dlopen(library.c_str(), RTLD_NOW);
  return reinterpret_cast<F*>(::dlsym(loaded, name));
}

uint64_t address(const void* p) { return reinterpret_cast<uint64_t>(p); }

/// One rank: its mover, NIC, a queue to the other one and memory that both may touch.
struct End {
  ibgda::rdma::VerbsMover mover;
  std::vector<unsigned char> room = std::vector<unsigned char>(kRoom);
  Bench bench;
  RegionKeys keys;

  End(const char* device, uint32_t peer)
      : mover({.device = device, .library = library, .timeout = kLong}),
        bench(Family::ionic, {.peer = peer, .mover = &mover}) {
    mover.add_queue(0, peer);
    keys = bench.nic.add_region(address(room.data()), kRoom);
    mover.add_region(keys.local, address(room.data()), kRoom);
  }
  ~End() { bench.nic.stop(); }
  void join(const End& other) {
    mover.connect(0, other.mover.door(0));
    mover.point(0, {address(other.room.data()), kRoom, other.keys.remote, 0});
    bench.nic.start();
  }
  uint64_t at(uint64_t offset) const { return address(room.data()) + offset; }
  Request request(Op op, uint64_t local, const End& far, uint64_t remote, uint32_t length) const {
    Request r;
    r.op = op;
    r.length = length;
    r.local = at(local);
    r.lkey = keys.local;
    r.remote = far.at(remote);
    r.rkey = far.keys.remote;
    return r;
  }
  void expect(const std::string& who, Fault fault) {
    Completion c;
    const uint32_t wanted = status_of(Family::ionic, fault);
    if (!bench.wait(c)) return complain(who + ": no completion");
    if (c.failed != (fault != Fault::none) || (c.failed && c.status != wanted))
      complain(who + ": status " + std::to_string(c.failed ? c.status : 0) + " instead of " +
               std::to_string(wanted));
  }
};

void mixed() {
  End near("fake0", 1), far("fake1", 0);
  for (End* end : {&near, &far}) {
    for (unsigned char& byte : end->room) byte = static_cast<unsigned char>(next_random());
  }
  std::vector<unsigned char> here = near.room, there = far.room;
  near.join(far);
  far.join(near);
  for (int burst = 0; burst < 150 && mistakes == 0; ++burst) {
    const uint64_t count = 1 + next_random() % 16;
    for (uint64_t k = 0; k < count; ++k) {
      const uint64_t kind = next_random() % 8;
      const uint32_t length = uint32_t(1 + next_random() % (kind % 2 == 0 ? 32 : 20'000));
      Request r;
      if (kind < 4) {
        const uint64_t from = next_random() % (kHalf - length), to = next_random() % (kRoom - length);
        r = near.request(Op::write, from, far, to, length);
        if (length <= near.bench.queue.max_inline) r.flags |= kInline;
        std::memcpy(&there[to], &here[from], length);
      } else if (kind < 6) {
        const uint64_t to = kHalf + next_random() % (kHalf - length), from = next_random() % (kRoom - length);
        r = near.request(Op::read, to, far, from, length);
        std::memcpy(&here[to], &there[from], length);
      } else {
        const uint64_t at = next_random() % (kRoom / 8) * 8, to = kHalf + next_random() % (kHalf / 8) * 8;
        r = near.request(kind == 6 ? Op::fetch_add : Op::compare_swap, to, far, at, 8);
        r.value = next_random();
        if (kind == 7) std::memcpy(&r.compare, &there[at], 8);
        if (kind == 7 && next_random() % 4 == 0) ++r.compare;
        deliver_word(address(&here[to]), change_word(address(&there[at]), r), 8);
      }
      near.bench.post(r);
    }
    for (uint64_t k = 0; k < count; ++k) near.expect("burst " + std::to_string(burst), Fault::none);
  }
  if (near.room != here) complain("the near memory is not the model's");
  if (far.room != there) complain("the far memory is not the model's");
  if (!near.mover.trouble(1).empty()) complain(near.mover.trouble(1));
}

/// A bad request between two good ones.
void failing(const char* who, Fault fault, const char* words,
             const std::function<void(End&, Request&)>& spoil) {
  order<decltype(fake_reset)>("fake_reset")(2);
  End near("fake0", 1), far("fake1", 0);
  near.join(far);
  far.join(near);
  std::fill(near.room.begin(), near.room.end(), 0x5a);
  near.bench.post(near.request(Op::write, 0, far, 64, 64));
  near.expect(who, Fault::none);
  Request bad = near.request(Op::write, 0, far, 256, 64);
  spoil(near, bad);
  near.bench.post(bad);
  near.bench.post(near.request(Op::write, 0, far, 512, 64));
  near.expect(who, fault);
  near.expect(who, Fault::flushed);
  near.bench.post(near.request(Op::write, 0, far, 512, 64));
  near.expect(who, Fault::flushed);
  near.bench.nic.stop();
  far.bench.nic.stop();
  for (uint64_t at = 0; at < 2048; ++at) {
    if (far.room[at] != (at >= 64 && at < 128 ? 0x5a : 0)) {
      complain(std::string(who) + ": byte " + std::to_string(at));
      break;
    }
  }
  const std::string said = near.mover.trouble(1);
  const bool named = said.find("rank 1 at 10.0.0.2 by NIC fake0: ") == 0;
  if (said.find(words) == std::string::npos || named != (words[0] != 0))
    complain(std::string(who) + ": the trouble is '" + said + "'");
}

void refused() {
  failing("key", Fault::remote_access, "", [](End&, Request& r) { r.rkey ^= 0x100; });
  failing("behind", Fault::remote_access, "", [](End&, Request& r) { r.remote += kRoom - 256 - 63; });
  failing("in front", Fault::remote_access, "", [](End&, Request& r) { r.remote -= 257; });
  failing("local key", Fault::local_protection, "", [](End&, Request& r) { r.lkey ^= 0x100; });
  failing("unaligned", Fault::remote_invalid, "",
          [](End&, Request& r) { r.op = Op::fetch_add, r.length = 8, r.remote += 4; });
  failing("a region the NIC of hardware does not know", Fault::local_protection, "",
          [](End& near, Request&) { near.mover.remove_region(near.keys.local); });
  try {
    const ibgda::rdma::VerbsMover none({.device = "fake7", .library = library});
    complain("a device that there is not was opened");
  } catch (const core::TransportError& error) {
    if (std::string(error.what()).find("mover verbs: fake7") != 0) complain(error.what());
  }
  try {
    const ibgda::rdma::VerbsMover none({.device = "", .library = "/no/such/library.so"});
    complain("a library that there is not was loaded");
  } catch (const core::TransportError& error) {
    if (std::string(error.what()).find("mover verbs: ") != 0) complain(error.what());
  }
}

void network() {
  const struct {
    int status;
    Fault fault;
  } kStatuses[] = {{1, Fault::local_length},      {2, Fault::bad_entry},       {4, Fault::local_protection},
                   {7, Fault::bad_response},      {9, Fault::remote_invalid},  {10, Fault::remote_access},
                   {11, Fault::remote_operation}, {12, Fault::retry_exceeded}, {13, Fault::rnr_exceeded},
                   {19, Fault::retry_exceeded}};
  for (const auto& s : kStatuses) {
    failing(("status " + std::to_string(s.status)).c_str(), s.fault, ":",
            [&](End&, Request&) { order<decltype(fake_fail)>("fake_fail")(0, 0, s.status); });
  }
  failing("unplugged", Fault::retry_exceeded, ":",
          [](End&, Request&) { order<decltype(fake_unplug)>("fake_unplug")(1, 50); });
  failing("post", Fault::bad_entry, "takes no request",
          [](End&, Request&) { order<decltype(fake_refuse_post)>("fake_refuse_post")(0); });
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  library = argv[1];
  const std::string what = argv[2];
  order<decltype(fake_reset)>("fake_reset")(2);
  if (what == "mixed") mixed();
  if (what == "refused") refused();
  if (what == "network") network();
  const char* last = "";
  if (order<decltype(fake_violations)>("fake_violations")(&last) != 0)
    complain(std::string("libibverbs was used wrongly: ") + last);
  if (order<decltype(fake_open_objects)>("fake_open_objects")() != 0)
    complain(std::to_string(order<decltype(fake_open_objects)>("fake_open_objects")()) +
             " objects of verbs are left");
  printf("%s\n", mistakes == 0 ? "ok" : "WRONG");
  return mistakes == 0 ? 0 : 1;
}
