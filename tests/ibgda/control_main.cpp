// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The control path of real NICs over the vendors' installed libraries and a pretended kernel
// (tools/provider_oracle/preload.c):
//   control_main twins            what ibv_post_send writes into one queue's ring, our encoder writes into
//   another's control_main open [DIRECT]    opens the NIC and makes a queue, prints "ok" or the sentence why
//   not control_main depth NUMBER     the depths that come out
// Prints what was wrong; exit status 1 when something was.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "src/core/errors.hpp"
#include "src/transport/ibgda/control/nic.hpp"
#include "src/transport/ibgda/providers/table.hpp"
#include "src/transport/ibgda/softnic/softnic.hpp"

using namespace mori;
using namespace mori::ibgda;

namespace {

int mistakes = 0;
void complain(const std::string& what) {
  ++mistakes;
  printf("%s\n", what.c_str());
}
void expect_equal(const std::string& what, uint64_t ours, uint64_t theirs) {
  if (ours == theirs) return;
  char words[200];
  snprintf(words, sizeof words, "%s: ours %#llx, theirs %#llx", what.c_str(), (unsigned long long)ours,
           (unsigned long long)theirs);
  complain(words);
}

template <class T>
T* at(uint64_t address) {
  return reinterpret_cast<T*>(address);
}

unsigned char* at_local(const Request& r) { return at<unsigned char>(r.local); }
uint64_t* at_word(uint64_t address) { return at<uint64_t>(address); }

/// As ibv_send_wr has it behind remote_addr.
struct AtomicWr {
  uint64_t remote, compare_add, swap;
  uint32_t rkey;
};

void post_by_verbs(verbs::Qp* qp, const Request& r) {
  verbs::Sge piece{r.local, r.length, r.lkey};
  verbs::SendWr wr{}, *bad = nullptr;
  wr.sg_list = &piece;
  wr.num_sge = 1;
  wr.send_flags =
      ((r.flags & kSignaled) != 0 ? verbs::kSignaled : 0u) | ((r.flags & kInline) != 0 ? verbs::kInline : 0u);
  switch (r.op) {
    case Op::read:
      wr.opcode = verbs::kRead;
      break;
    case Op::fetch_add:
      wr.opcode = verbs::kFetchAdd;
      break;
    case Op::compare_swap:
      wr.opcode = verbs::kCompareSwap;
      break;
    default:
      wr.opcode = verbs::kWrite;
  }
  if (r.op == Op::fetch_add || r.op == Op::compare_swap) {
    const AtomicWr atomic{r.remote, r.op == Op::compare_swap ? r.compare : r.value, r.value, r.rkey};
    memcpy(static_cast<void*>(&wr.rdma), &atomic, sizeof atomic);
  } else {
    wr.rdma.remote_addr = r.remote;
    wr.rdma.rkey = r.rkey;
  }
  if (const int error = verbs::post_send(qp, &wr, &bad)) complain("ibv_post_send: " + std::to_string(error));
}

/// A completion of one entry, as the NIC writes it: the index of its first block, the lap's owner bit.
void complete(const Queue& q, uint64_t count, uint64_t block, uint32_t opcode, uint32_t syndrome) {
  auto* entry = at<unsigned char>(q.cq) + (count & (q.cq_depth - 1)) * 64;
  memset(entry, 0, 63);
  entry[0x36] = 0x77;
  entry[0x37] = (unsigned char)syndrome;
  const uint32_t who = __builtin_bswap32(q.qpn);
  memcpy(entry + 0x38, &who, 4);
  entry[0x3c] = (unsigned char)(block >> 8);
  entry[0x3d] = (unsigned char)block;
  entry[0x3f] = (unsigned char)(opcode << 4 | ((count & q.cq_depth) != 0 ? 1 : 0));
}

void join(HardwareNic& nic, Queue& a, Queue& b) {
  nic.connect(&a, nic.end(&b));
  nic.connect(&b, nic.end(&a));
}

Request request(uint64_t number, uint64_t buffer, const RegionKeys& keys) {
  Request r;
  r.remote = 0x1122334455667000 + number * 8;
  r.rkey = 0xcafebabe;
  r.local = buffer + number % 64;
  r.lkey = keys.local;
  r.length = 1 + uint32_t(number * 977 % 100'000);
  switch (number % 5) {
    case 0:
      r.op = Op::write;
      break;
    case 1:
      r.op = Op::write;
      r.length = 1 + uint32_t(number % 28);
      r.flags |= kInline;
      break;
    case 2:
      r.op = Op::read;
      break;
    case 3:
      r.op = Op::compare_swap;
      r.compare = 0xf1f2f3f4f5f6f7f8 + number;
      break;
    default:
      r.op = Op::fetch_add;
  }
  if (number % 5 >= 3) {
    r.length = 8;
    r.value = 0x0102030405060708 + number;
  }
  if (number % 3 == 0) r.flags &= ~uint32_t(kSignaled);
  return r;
}

int twins(const NicOptions& options, bool wrong) {
  HardwareNic nic(std::make_unique<Mapper>(), options);
  alignas(64) static unsigned char buffer[4096];
  for (size_t i = 0; i < sizeof buffer; ++i) buffer[i] = (unsigned char)(i * 7);
  const auto begin = reinterpret_cast<uint64_t>(buffer);
  const RegionKeys keys = nic.add_region(begin, sizeof buffer, false);
  Queue mine{}, theirs{};
  nic.create_queue(&theirs, {.depth = 128, .peer = 0});  // first: completions name it by its number, 0
  nic.create_queue(&mine, {.depth = 128, .peer = 1});
  join(nic, mine, theirs);
  expect_equal("mtu", mine.mtu, 4096);
  expect_equal("depth", mine.depth, theirs.depth);
  expect_equal("max_inline", mine.max_inline, 28);
  if (mine.sq == theirs.sq || mine.cq == theirs.cq || mine.record == theirs.record ||
      mine.qpn == theirs.qpn) {
    complain("two queues share what is each one's own");
  }
  Queue as_theirs = mine;  // entries name their queue: ours is written as if it were the other one
  as_theirs.qpn = theirs.qpn;
  verbs::Qp* qp = nic.pair(&theirs);
  uint64_t counts = 0;
  for (uint64_t p = 0; p < 3 * 65536 / 2 + 40; ++p) {
    Request r = request(p, begin, keys);
    post_by_verbs(qp, r);
    if (wrong && p == 1000) r.rkey ^= 1;
    Mlx5::encode(as_theirs, p, r);
    Mlx5::ring(as_theirs, p + 1);
    const auto* ours = at<unsigned char>(mine.sq + p % mine.depth * 64);
    const auto* vendors = at<unsigned char>(theirs.sq + p % theirs.depth * 64);
    // The driver leaves what the ring held behind an entry's segments, and in the compare field of FETCH_ADD.
    uint32_t used = Mlx5::segments(r) * 16;
    if ((r.flags & kInline) != 0) used = 36 + r.length;
    for (uint32_t i = 0; i < used; ++i) {
      if (r.op == Op::fetch_add && i >= 40 && i < 48) continue;
      if (ours[i] != vendors[i]) {
        expect_equal("entry " + std::to_string(p) + ", byte " + std::to_string(i), ours[i], vendors[i]);
        break;
      }
    }
    expect_equal("record after " + std::to_string(p), at<uint32_t>(mine.record)[1],
                 at<uint32_t>(theirs.record)[1]);
    const uint64_t other = as_theirs.blueflame != 0 && (p & 1) != 0 ? as_theirs.blueflame : 0;
    expect_equal("register after " + std::to_string(p), *at<uint64_t>(mine.doorbell + other),
                 *at<uint64_t>(theirs.doorbell + other));
    if ((r.flags & kSignaled) != 0) {
      as_theirs.published = p + 1;
      complete(as_theirs, counts, p, 0, 0);
      complete(theirs, counts, p, 0, 0);
      ++counts;
      Completion done;
      if (!Mlx5::take(as_theirs, done) || done.failed || done.completed != p + 1) {
        complain("completion " + std::to_string(p) + " is not what we read");
      }
      as_theirs.completed = done.completed;
      verbs::Wc wc{};
      if (verbs::poll_cq(qp->send_cq, 1, &wc) != 1 || wc.status != 0) {
        complain("completion " + std::to_string(p) + " is not what the driver reads");
      }
      expect_equal("completion record", *at<uint32_t>(mine.cq_doorbell), *at<uint32_t>(theirs.cq_doorbell));
    }
    if (mistakes > 5) return 1;
  }
  // and one that failed
  as_theirs.published += 1;
  complete(as_theirs, counts, 7, 13, 0x13);
  Completion done;
  if (!Mlx5::take(as_theirs, done) || !done.failed || done.status != 0x13 || done.vendor != 0x77) {
    complain("a failed completion is not what we read");
  }
  expect_equal("region", nic.region_bytes(keys.local), sizeof buffer);
  nic.remove_region(keys.local);
  expect_equal("region that is gone", nic.region_bytes(keys.local), 0);
  nic.stop();
  return mistakes != 0;
}

/// Until the software NIC has done what was rung.
template <class Done>
bool step_until(SoftNic& nic, Done&& done) {
  for (int i = 0; i < 1000; ++i) {
    if (done()) return true;
    nic.step();
  }
  return false;
}

/// The software NIC serves rings that the vendor's library made: one queue is posted to by the library, which
/// reads the NIC's completions, one by our encoders.
int served(const NicOptions& options, bool wrong) {
  HardwareNic hardware(std::make_unique<Mapper>(), options);
  Queue made[2]{}, queues[2]{};
  std::vector<std::unique_ptr<uint64_t[]>> words;
  SoftNic nic([&](uint64_t bytes) {
    words.push_back(std::make_unique<uint64_t[]>(bytes / 8 + 8));
    return (reinterpret_cast<uint64_t>(words.back().get()) + 63) / 64 * 64;
  });
  alignas(64) static unsigned char here[4096], there[4096];
  const auto local = reinterpret_cast<uint64_t>(here), remote = reinterpret_cast<uint64_t>(there);
  const uint32_t lkey = nic.add_region(local, sizeof here).local;
  const uint32_t rkey = nic.add_region(remote, sizeof there).remote;
  for (int i = 0; i < 2; ++i) {
    hardware.create_queue(&made[i], {.depth = 128});
    made[i].mtu = 4096;
    nic.create_queue(&queues[i], {.family = Family::mlx5, .rings = &made[i]});
    nic.connect(&queues[i], {remote, sizeof there, rkey, remote});
  }
  join(hardware, made[0], made[1]);
  verbs::Qp* qp = hardware.pair(&made[0]);
  for (uint64_t p = 0; p < 70'000; ++p) {
    for (int i = 0; i < 2; ++i) {
      Queue& q = queues[i];
      Request r = request(p, local, {lkey, rkey});
      const uint64_t at = r.length == 8 && r.op != Op::write ? p % 256 * 8 : p % 1000;
      r.flags |= kSignaled;
      r.length = std::min(r.length, 1024u);
      r.local = local + 2048 + (r.length == 8 ? 0 : p % 64);
      r.remote = remote + at;
      r.rkey = wrong && i == 1 && p == 1000 ? rkey ^ 0x100 : rkey;
      for (int j = 0; j < 8; ++j) here[2048 + (p * 5 + j * 131) % 1024] = (unsigned char)(p + j);
      uint64_t before;
      memcpy(&before, there + at, 8);
      std::vector<unsigned char> source;
      if (r.op == Op::compare_swap && p % 2 == 0) r.compare = before;
      if (r.op == Op::write) source.assign(at_local(r), at_local(r) + r.length);
      if (r.op == Op::read) source.assign(there + at, there + at + r.length);
      verbs::Wc wc{};
      Completion done;
      bool came = false;
      if (i == 0) {
        // the library leaves what a slot held behind an entry, and the NIC wants every byte
        memset(at_word(q.sq + p % q.depth * 64), 0, 64);
        post_by_verbs(qp, r);
        const uint64_t other = made[0].blueflame != 0 && (p & 1) != 0 ? made[0].blueflame : 0;
        __atomic_store_n(at_word(q.doorbell), *at_word(made[0].doorbell + other), __ATOMIC_RELEASE);
        came = step_until(nic, [&] { return verbs::poll_cq(qp->send_cq, 1, &wc) == 1; }) && wc.status == 0;
      } else {
        Mlx5::encode(q, p, r);
        q.published = p + 1;
        Mlx5::ring(q, p + 1);
        came =
            step_until(nic, [&] { return Mlx5::take(q, done); }) && !done.failed && done.completed == p + 1;
        q.completed = p + 1;
      }
      const std::string who = (i == 0 ? "the library's request " : "our request ") + std::to_string(p);
      if (!came)
        complain(who + " is not done: status " + std::to_string(i == 0 ? wc.status : int(done.status)));
      uint64_t after, fetched;
      memcpy(&after, there + at, 8);
      memcpy(&fetched, at_local(r), 8);
      if (r.op == Op::write && memcmp(there + at, source.data(), r.length) != 0)
        complain(who + ": not written");
      if (r.op == Op::read && memcmp(at_local(r), source.data(), r.length) != 0) complain(who + ": not read");
      if (r.op == Op::fetch_add) expect_equal(who + ", sum", after, before + r.value);
      if (r.op == Op::compare_swap)
        expect_equal(who + ", swap", after, before == r.compare ? r.value : before);
      if (r.op == Op::fetch_add || r.op == Op::compare_swap) expect_equal(who + ", fetched", fetched, before);
      if (mistakes > 5) return 1;
    }
  }
  for (const std::string& violation : nic.violations()) complain(violation);
  return mistakes != 0;
}

int open_one(const NicOptions& options) {
  HardwareNic nic(std::make_unique<Mapper>(), options);
  Queue a{}, b{};
  nic.create_queue(&a, {.depth = 64});
  nic.create_queue(&b, {.depth = 64});
  join(nic, a, b);
  alignas(64) static char buffer[4096];
  nic.add_region(reinterpret_cast<uint64_t>(buffer), sizeof buffer, false);
  return 0;
}

int depths(const NicOptions& options) {
  HardwareNic nic(std::make_unique<Mapper>(), options);
  std::vector<std::unique_ptr<Queue>> queues;
  for (const uint32_t wished : {64u, 100u, 1024u, 4096u, 32768u}) {
    queues.push_back(std::make_unique<Queue>());
    nic.create_queue(queues.back().get(), {.depth = wished});
    const Queue& q = *queues.back();
    if (q.depth < wished || q.cq_depth < q.depth || q.depth > 4 * wished) {
      complain("depth " + std::to_string(wished) + " became " + std::to_string(q.depth) + " blocks and " +
               std::to_string(q.cq_depth) + " completions");
    }
  }
  for (const uint32_t wrong : {0u, 63u, 32769u}) {
    try {
      Queue q{};
      nic.create_queue(&q, {.depth = wrong});
      complain("depth " + std::to_string(wrong) + " was not refused");
    } catch (const core::ConfigError&) {
    }
  }
  return mistakes != 0;
}

}  // namespace

int main(int count, char** arguments) {
  const std::string what = count > 1 ? arguments[1] : "";
  NicOptions options;
  options.name = "fake0";
  if (count > 2) options.direct_library = arguments[2];
  if (count > 3) options.verbs_library = arguments[3];
  if (const char* name = std::getenv("FAKE_NAME")) options.name = name;
  const bool wrong_bit = std::getenv("FAKE_WRONG") != nullptr;
  try {
    const int wrong = what == "twins"    ? twins(options, wrong_bit)
                      : what == "served" ? served(options, wrong_bit)
                      : what == "depth"  ? depths(options)
                                         : open_one(options);
    if (wrong == 0) printf("ok\n");
    return wrong;
  } catch (const core::Error& error) {
    printf("%s\n", error.what());
    return 3;
  }
}
