// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The software NIC over TCP.
//   tcp_main mixed|refused|strangers|peers|guests FAMILY NUMBER
// mixed: NUMBER bursts of random requests; both memories as a model has them. refused: requests that the
// target refuses. strangers: connections that are turned away. peers: a peer that is silent, gone, or lies.
// guests: a peer that sends what is no request; NUMBER of them send random bytes.
#include <thread>

#include "src/core/errors.hpp"
#include "src/transport/ibgda/softnic/effects.hpp"
#include "tests/ibgda/tcp_ends.hpp"

namespace {

constexpr std::chrono::seconds kLong{20};
constexpr std::chrono::milliseconds kShort{400};
constexpr uint64_t kHalf = kRoom / 2;  // of the near room: sources in front, results behind

uint32_t random_length() {
  const uint64_t kind = next_random() % 8;
  if (kind < 3) return uint32_t(1 + next_random() % 32);
  if (kind < 7) return uint32_t(1 + next_random() % 6000);
  return uint32_t(1 + next_random() % 200'000);
}

/// A random request; does the same to the model's memories.
Request random_request(const Near& near, const Far& far, std::vector<unsigned char>& here,
                       std::vector<unsigned char>& there) {
  const bool masked = near.bench.queue.family == Family::mlx5;
  const uint64_t kind = next_random() % 8;
  if (kind < 4) {
    const uint32_t length = random_length();
    const uint64_t from = next_random() % (kHalf - length), to = next_random() % (kRoom - length);
    Request r = near.request(Op::write, from, far.at(to), length, far.keys.remote);
    if (length <= near.bench.queue.max_inline && next_random() % 2 == 0) r.flags |= kInline;
    std::memcpy(&there[to], &here[from], length);
    return r;
  }
  if (kind < 6) {
    const uint32_t length = random_length();
    const uint64_t to = kHalf + next_random() % (kHalf - length), from = next_random() % (kRoom - length);
    std::memcpy(&here[to], &there[from], length);
    return near.request(Op::read, to, far.at(from), length, far.keys.remote);
  }
  const uint32_t length = masked && next_random() % 2 == 0 ? 4 : 8;
  const uint64_t at = next_random() % (kRoom / 8) * 8, to = kHalf + next_random() % (kHalf / 8) * 8;
  const Op plain = next_random() % 2 == 0 ? Op::fetch_add : Op::compare_swap;
  const Op op = length == 8 ? plain : plain == Op::fetch_add ? Op::masked_fetch_add : Op::masked_compare_swap;
  Request r = near.request(op, to, far.at(at), length, far.keys.remote);
  r.value = next_random() >> (length == 8 ? 0 : 32);
  if (op == Op::masked_compare_swap) r.value_mask = 0xffffffff;
  if (op == Op::masked_compare_swap) r.compare_mask = 0xf;
  uint64_t seen = 0;
  std::memcpy(&seen, &there[at], length);
  if (plain == Op::compare_swap) r.compare = next_random() % 4 != 0 ? seen : seen ^ 1;
  deliver_word(address(&here[to]), change_word(address(&there[at]), r), length);
  return r;
}

void mixed(Family family, uint64_t bursts) {
  Near near(family, kLong);
  Far far(family);
  for (auto* room : {&near.room, &far.room}) {
    for (unsigned char& byte : *room) byte = static_cast<unsigned char>(next_random());
  }
  std::vector<unsigned char> here = near.room, there = far.room;
  join(near, far);
  for (uint64_t i = 0; i < bursts && mistakes == 0; ++i) {
    const uint64_t count = 1 + next_random() % 24;
    uint32_t units = 0;
    const uint64_t begin = near.bench.position;
    for (uint64_t k = 0; k < count; ++k) {
      Request r = random_request(near, far, here, there);
      if (k + 1 != count) r.flags &= ~uint32_t(kSignaled);
      const uint32_t taken = near.bench.encode(r);
      near.bench.position += taken;
      units += taken;
    }
    near.bench.position = begin;
    near.bench.ring(units);
    near.expect("burst " + std::to_string(i), Fault::none);
  }
  if (near.room != here) complain("the near memory is not the model's");
  if (far.room != there) complain("the far memory is not the model's");
  near.bench.nic.stop();
  for (const std::string& said : near.bench.nic.violations()) complain(said);
  if (!near.mover.trouble(1).empty()) complain(near.mover.trouble(1));
}

/// A bad request between two good ones: status, nothing of it or behind it executed, and another queue to the
/// same peer goes on.
void refused(Family family) {
  struct Case {
    const char* name;
    std::function<void(Request&, const Far&)> spoil;
    Fault fault;
  };
  const Case cases[] = {
      {"key", [](Request& r, const Far&) { r.rkey ^= 0x100; }, Fault::remote_access},
      {"local key", [](Request& r, const Far& f) { r.rkey = f.keys.local; }, Fault::remote_access},
      {"in front", [](Request& r, const Far& f) { r.remote = f.at(0) - 1; }, Fault::remote_access},
      {"behind", [](Request& r, const Far& f) { r.remote = f.at(kRoom) - r.length + 1; },
       Fault::remote_access},
      {"far away", [](Request& r, const Far&) { r.remote = ~uint64_t(0) - 3; }, Fault::remote_access},
      {"read", [](Request& r, const Far&) { r.op = Op::read, r.rkey ^= 0x100; }, Fault::remote_access},
      {"large", [](Request& r, const Far&) { r.length = 300'000, r.rkey ^= 0x100; }, Fault::remote_access},
      {"unaligned", [](Request& r, const Far& f) { r.op = Op::fetch_add, r.length = 8, r.remote = f.at(4); },
       Fault::remote_invalid},
      {"my own key", [](Request& r, const Far&) { r.lkey ^= 0x100; }, Fault::local_protection},
  };
  for (const Case& c : cases) {
    Near near(family, kLong);
    Far far(family);
    Queue other{};
    near.mover.add_queue(near.bench.nic.create_queue(&other, {.family = family, .mover = &near.mover}), 1);
    uint64_t other_position = other.first_position;
    std::fill(near.room.begin(), near.room.end(), 0x5a);
    join(near, far);
    near.bench.post(near.request(Op::write, 0, far.at(64), 64, far.keys.remote));
    Request bad = near.request(Op::write, 0, far.at(256), 64, far.keys.remote);
    c.spoil(bad, far);
    near.bench.post(bad);
    near.bench.post(near.request(Op::write, 0, far.at(512), 64, far.keys.remote));
    near.expect(c.name, Fault::none);
    near.expect(c.name, c.fault);
    near.expect(c.name, Fault::flushed);
    std::swap(near.bench.queue, other);
    std::swap(near.bench.position, other_position);
    near.bench.post(near.request(Op::write, 0, far.at(1024), 64, far.keys.remote));
    near.expect(std::string(c.name) + ", other queue", Fault::none);
    far.nic.stop();
    for (uint64_t at = 0; at < 2048; ++at) {
      const bool written = (at >= 64 && at < 128) || (at >= 1024 && at < 1088);
      if (far.room[at] != (written ? 0x5a : 0)) {
        complain(std::string(c.name) + ": byte " + std::to_string(at));
        break;
      }
    }
  }
}

void strangers(Family family) {
  Near near(family, kLong);
  Far far(family);
  join(near, far);
  const auto works = [&] {
    near.bench.post(near.request(Op::write, 0, far.at(0), 64, far.keys.remote));
    near.expect("a put", Fault::none);
  };
  works();
  const tcp::Hello good{.rank = 0, .world = 2, .secret = far.mover.door().secret};
  const auto turned_away = [&](const char* words, const tcp::Hello& hello) {
    const Raw raw = Raw::dial(far.mover.door());
    raw.say(hello);
    if (!raw.closed()) complain(std::string(words) + ": it was answered");
    const std::vector<std::string> said = far.mover.turned_away();
    if (said.empty() || said.back().find(words) == std::string::npos)
      complain(std::string(words) + ": " + (said.empty() ? "nothing was said" : said.back()));
  };
  tcp::Hello hello = good;
  hello.magic ^= 1;
  turned_away("no hello of this version", hello);
  hello = good;
  hello.secret[15] ^= 0x80;
  turned_away("does not know the secret", hello);
  hello = good;
  hello.rank = 7;
  turned_away("rank 7 of 2", hello);
  hello.rank = 1;
  turned_away("rank 1 of 2", hello);
  hello = good;
  hello.world = 3;
  turned_away("rank 0 of 3", hello);
  turned_away("connected already", good);
  for (int i = 0; i < 50; ++i) {
    const Raw raw = Raw::dial(far.mover.door());
    unsigned char noise[64];
    for (unsigned char& byte : noise) byte = static_cast<unsigned char>(next_random());
    raw.say(noise, next_random() % sizeof noise);  // and hangs up
  }
  works();
  near.mover.connect(1, far.mover.door());  // again: nothing
  try {
    Near lonely(family, kLong);
    uint16_t port = 0;
    tcp::Door nobody = far.mover.door();
    tcp::listen_at("127.0.0.1", port).reset();
    nobody.port = port;
    lonely.mover.connect(1, nobody);
    complain("a port where nobody listens was dialled");
  } catch (const core::TransportError& error) {
    if (std::string(error.what()).find("rank 1 at 127.0.0.1 port ") != 0) complain(error.what());
  }
}

/// A peer that ends, or is, otherwise than a NIC should.
void peers(Family family) {
  const auto lost = [&](const char* who, const char* words, std::chrono::milliseconds timeout, uint32_t bytes,
                        const std::function<void(const Raw&)>& act, bool knows_secret = true) {
    Near near(family, timeout);
    Pretender peer(near, knows_secret);
    std::fill(near.room.begin(), near.room.end(), 0x5a);
    for (int i = 0; i < 12; ++i)
      near.bench.post(near.request(i % 2 == 0 ? Op::write : Op::read, 0, 0x1000, bytes, 0x77));
    act(peer.raw);
    near.expect(who, Fault::retry_exceeded);
    for (int i = 1; i < 12; ++i) near.expect(who, Fault::flushed);
    near.bench.post(near.request(Op::write, 0, 0x1000, 8, 0x77));
    near.expect(who, Fault::flushed);
    near.expect_trouble(who, words);
    near.bench.nic.stop();
    for (const unsigned char byte : near.room) {
      if (byte != 0x5a) return complain(std::string(who) + ": memory was written");
    }
  };
  const auto answers = [](tcp::Answer kind, uint8_t fault, uint32_t count) {
    return [=](const Raw& raw) {
      raw.say(tcp::AnswerHead{.kind = kind, .fault = fault, .zero = 0, .count = count, .word = 0});
    };
  };
  const auto nothing = [](const Raw&) {};
  lost("silent", "has not answered for 400 ms", kShort, 64, nothing);
  lost("does not read", "", kShort, kRoom, nothing);
  lost("hangs up", "clos", kLong, 64, [](const Raw& raw) { ::shutdown(raw.fd.get(), SHUT_RDWR); });
  lost("somebody else", "is not the rank's NIC", kLong, 64, nothing, false);
  constexpr const char* kNo = "what is no answer";
  lost("a word", kNo, kLong, 64, answers(tcp::Answer::word, 0, 0));
  lost("data", kNo, kLong, 64, answers(tcp::Answer::data, 0, 64));
  lost("nothing done", kNo, kLong, 64, answers(tcp::Answer::done, 0, 0));
  lost("too much done", kNo, kLong, 64, answers(tcp::Answer::done, 0, 1 << 30));
  lost("no fault", kNo, kLong, 64, answers(tcp::Answer::no, 0, 0));
  lost("a fault that there is not", kNo, kLong, 64, answers(tcp::Answer::no, 200, 0));
  lost("an answer that there is not", kNo, kLong, 64, answers(tcp::Answer(99), 0, 0));

  {  // data of another length than was asked for
    Near near(family, kLong);
    Pretender peer(near);
    near.bench.post(near.request(Op::read, 0, 0x1000, 64, 0x77));
    answers(tcp::Answer::data, 0, 65)(peer.raw);
    near.expect("another length", Fault::retry_exceeded);
  }
  {  // a region that goes while bytes for it come
    Near near(family, kLong);
    Pretender peer(near);
    near.bench.post(near.request(Op::read, 0, 0x1000, 60'000, 0x77));
    tcp::RequestHead head;
    if (!peer.raw.hear(&head, sizeof head) || head.length != 60'000) complain("no request came");
    const std::vector<unsigned char> bytes(60'000, 0x5a);
    answers(tcp::Answer::data, 0, 60'000)(peer.raw);
    peer.raw.say(bytes.data(), 20'000);
    near.bench.nic.remove_region(near.keys.local);
    const std::vector<unsigned char> then = near.room;
    peer.raw.say(bytes.data(), 40'000);
    near.expect("a region that went", Fault::local_protection);
    if (near.room != then) complain("a region that went was written");
    if (!near.mover.trouble(1).empty()) complain(near.mover.trouble(1));
  }
}

/// A peer that knows the secret and sends what is no request, or half of one.
void guests(Family family, uint64_t count) {
  const auto guest = [&](const char* who, const std::function<void(const Raw&, const Near&)>& act,
                         bool closes) {
    Near near(family, kLong);
    Far far(family);
    near.mover.connect(1, far.mover.door());
    near.bench.nic.start();
    const Raw raw = Raw::dial(near.mover.door());
    raw.say(tcp::Hello{.rank = 1, .world = 2, .secret = near.mover.door().secret});
    tcp::Hello hello;
    if (!raw.hear(&hello, sizeof hello)) return complain(std::string(who) + ": no hello");
    if (hello.secret != far.mover.door().secret) complain(std::string(who) + ": it does not know my secret");
    act(raw, near);
    if (closes && !raw.closed()) complain(std::string(who) + ": it was answered");
    near.bench.nic.stop();
    for (const unsigned char byte : near.room) {
      if (byte != 0) return complain(std::string(who) + ": memory was written");
    }
  };
  const auto head = [](Op op, uint8_t lane, uint32_t length) {
    return tcp::RequestHead{.op = uint8_t(op),
                            .lane = lane,
                            .zero = 0,
                            .length = length,
                            .remote = 0x1000,
                            .rkey = 0x77,
                            .zero_too = 0};
  };
  const auto sends = [&](const tcp::RequestHead& what) {
    return [=](const Raw& raw, const Near&) { raw.say(what); };
  };
  guest("operation", sends(head(Op(99), 0, 8)), true);
  guest("send", sends(head(Op::send, 0, 8)), true);
  guest("queue", sends(head(Op::write, 64, 8)), true);
  guest("no bytes", sends(head(Op::write, 0, 0)), true);
  tcp::RequestHead reserved = head(Op::write, 0, 8);
  reserved.zero_too = 1;
  guest("reserved", sends(reserved), true);
  guest("half of a head", [&](const Raw& raw, const Near&) { raw.say("abc", 3); }, false);
  guest(
      "half of a write",
      [&](const Raw& raw, const Near& near) {
        tcp::RequestHead r = head(Op::write, 0, 60'000);
        r.remote = address(near.room.data());
        r.rkey = near.keys.remote;
        const unsigned char zeros[100] = {};
        raw.say(r);
        raw.say(zeros, sizeof zeros);
      },
      false);
  for (uint64_t i = 0; i < count; ++i) {
    guest(
        "noise",
        [](const Raw& raw, const Near&) {
          for (int k = 0; k < 20; ++k) {
            tcp::RequestHead r{};
            auto* bytes = reinterpret_cast<unsigned char*>(&r);
            for (size_t b = 0; b < sizeof r; ++b) bytes[b] = static_cast<unsigned char>(next_random());
            if (k < 15) r.op = uint8_t(1 + next_random() % 7);
            r.lane %= 64;
            r.zero = 0;
            r.zero_too = 0;
            r.length = uint32_t(1 + next_random() % 5000);
            raw.say(r);
          }
        },
        false);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  const std::string what = argv[1], name = argv[2];
  const Family family = name == "mlx5" ? Family::mlx5 : name == "bnxt_re" ? Family::bnxt_re : Family::ionic;
  const uint64_t number = strtoull(argv[3], nullptr, 0);
  if (what == "mixed") mixed(family, number);
  if (what == "refused") refused(family);
  if (what == "strangers") strangers(family);
  if (what == "peers") peers(family);
  if (what == "guests") guests(family, number);
  printf("%s\n", mistakes == 0 ? "ok" : "WRONG");
  return mistakes == 0 ? 0 : 1;
}
