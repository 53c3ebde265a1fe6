// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// A mutational fuzzer of everything that parses bytes of a peer, to be built with AddressSanitizer:
//
//   fuzz_main handshake|frames|requests|replies SEED ITERATIONS    pure parsers
//   fuzz_main inlet SEED ITERATIONS        an owner's end of a tcp stream against a peer that holds the key
//   fuzz_main vectors                      digests of what comes on stdin (for test_control_vectors.py)
//
// Inputs are valid messages with bytes flipped, numbers replaced by edges, pieces cut, doubled and joined;
// half of the frames get a right MAC afterwards, so that what lies behind the check is reached. A parser may
// throw Malformed and nothing else. Runs with one seed are the same; a failure prints seed and iteration.
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <cstring>
#include <iostream>
#include <random>
#include <sstream>

#include "src/io/backends/tcp/inlet.hpp"
#include "src/io/control/frame.hpp"
#include "src/io/control/handshake.hpp"

using namespace mori::io;
using namespace mori::io::control;

namespace {

struct Fuzz {
  explicit Fuzz(uint64_t seed) : random(seed) {}
  std::mt19937_64 random;

  uint64_t below(uint64_t limit) { return random() % limit; }
  uint64_t edge() {
    constexpr uint64_t kEdges[] = {
        0,          1,     2,           3,    15,         16,         17,         255,
        256,        4095,  4096,        4097, 0x7fffffff, 0x80000000, 0xffffffff, (1ull << 32) + 1,
        1ull << 63, ~0ull, ~0ull - 4095};
    return below(3) == 0 ? random() : kEdges[below(std::size(kEdges))];
  }
  std::string mutate(std::string data) {
    for (uint64_t turns = below(5); turns > 0 && !data.empty(); --turns) {
      const size_t at = below(data.size());
      switch (below(6)) {
        case 0:
          data[at] = static_cast<char>(random());
          break;
        case 1: {
          const uint64_t value = edge();
          std::memcpy(data.data() + at, &value, std::min<size_t>(8, data.size() - at));
          break;
        }
        case 2:
          data.erase(at, below(20));
          break;
        case 3:
          data.insert(at, std::string(below(40), static_cast<char>(random())));
          break;
        case 4:
          data.insert(at, data.substr(below(data.size()), 64));
          break;
        default:
          data.resize(at);
      }
    }
    return data;
  }
};

template <class F>
void tolerate(F&& parse) {
  try {
    parse();
  } catch (const Malformed&) {
  }
}

void fuzz_handshake(Fuzz& fuzz) {
  Hello hello;
  hello.engine = "engine";
  hello.target = std::string(fuzz.below(256), 't');
  Challenge challenge;
  challenge.engine = "engine";
  challenge.unix_name = "name";
  const std::string all[] = {encode(hello), encode(challenge), encode_proof(Step::proof, {}),
                             encode(Refusal{StatusCode::err_denied, "words"})};
  const std::string data = fuzz.mutate(all[fuzz.below(4)]);
  tolerate([&] {
    const size_t bytes = message_bytes(data);
    if (bytes == 0 || bytes > data.size()) return;
    split(std::string_view(data).substr(0, bytes));
  });
  const std::string_view body = std::string_view(data).substr(std::min(data.size(), kHandshakeHeader));
  tolerate([&] { parse_hello(body); });
  tolerate([&] { parse_challenge(body); });
  tolerate([&] { parse_proof(body); });
  tolerate([&] { parse_refusal(body); });
}

void fuzz_frames(Fuzz& fuzz) {
  const MacKey key{1, 2, 3};
  Parser parser(key);
  std::string stream;
  for (uint64_t i = 0, count = fuzz.below(4); i <= count; ++i) {
    const std::string payload = fuzz.mutate(std::string(fuzz.below(300), 'p'));
    stream += seal(key, i, static_cast<Type>(1 + fuzz.below(kTypes)), fuzz.below(8) == 0, payload);
  }
  if (fuzz.below(2)) stream = fuzz.mutate(stream);
  tolerate([&] {
    while (!stream.empty()) {
      const size_t piece = 1 + fuzz.below(stream.size());
      parser.feed(std::string_view(stream).substr(0, piece));
      stream.erase(0, piece);
      while (parser.next()) {
      }
    }
  });
}

tcp::Request some_request(Fuzz& fuzz, uint64_t region_bytes) {
  tcp::Request request;
  request.op = fuzz.below(2) ? Op::read : Op::write;
  request.region = fuzz.below(8) ? 1 : fuzz.edge();
  request.uniform = fuzz.below(2) == 1;
  const uint64_t bytes = 1 + fuzz.below(64);
  for (uint64_t i = fuzz.below(20); i + 1 > 0; --i) {
    const uint64_t length = request.uniform ? bytes : 1 + fuzz.below(200);
    const uint64_t offset = fuzz.below(16) ? fuzz.below(region_bytes - length) : fuzz.edge();
    request.segments.push_back({0, offset, length});
    request.bytes += length;
    if (i == 0) break;
  }
  request.pieces = static_cast<uint32_t>(request.segments.size());
  request.uniform_bytes = request.uniform ? bytes : 0;
  return request;
}

/// A right MAC for whatever the head and table say.
void seal_again(const MacKey& key, std::string& data) {
  if (data.size() < tcp::kHeadBytes) return;
  const Mac mac = SipMac(key).update(data.data(), 64).update(data.data() + 80, data.size() - 80).finish();
  std::memcpy(data.data() + 64, mac.data(), mac.size());
}

void fuzz_requests(Fuzz& fuzz) {
  const MacKey key{4, 5, 6};
  std::string data = fuzz.mutate(encode(key, some_request(fuzz, 4096)));
  if (fuzz.below(2)) seal_again(key, data);
  tolerate([&] {
    const std::string_view all(data);
    if (all.size() < tcp::kHeadBytes) return;
    tcp::Request request = tcp::parse_head(all.substr(0, tcp::kHeadBytes));
    tcp::parse_table(key, all.substr(0, tcp::kHeadBytes), all.substr(tcp::kHeadBytes), 0, request);
    uint64_t sum = 0;
    for (const Segment& segment : request.segments) sum += segment.bytes;
    if (sum != request.bytes || request.segments.size() != request.pieces)
      throw std::runtime_error("wrong sums");
  });
}

void fuzz_replies(Fuzz& fuzz) {
  const MacKey key{7};
  tcp::Reply reply{static_cast<tcp::ReplyKind>(1 + fuzz.below(3)), StatusCode::err_denied, fuzz.below(2),
                   fuzz.edge()};
  const std::string data = fuzz.mutate(encode(key, reply, std::string(fuzz.below(100), 'w')));
  tolerate([&] {
    const std::string_view all(data);
    tcp::parse_reply(all);
    if (all.size() >= tcp::kReplyBytes)
      tcp::check_reply(key, all.substr(0, tcp::kReplyBytes), all.substr(tcp::kReplyBytes), 0);
  });
}

/// Serves one region, with pages before and after it that nobody may touch.
struct Memory : Host {
  static constexpr uint64_t kBytes = 4096;
  std::string name = "owner";
  std::shared_ptr<Region> memory = std::make_shared<Region>();
  uint8_t* pages;
  Memory() {
    pages = static_cast<uint8_t*>(
        ::mmap(nullptr, 3 * kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    ::mprotect(pages, kBytes, PROT_NONE);
    ::mprotect(pages + 2 * kBytes, kBytes, PROT_NONE);
    memory->id = 1;
    memory->location = Location::cpu;
    memory->address = reinterpret_cast<uint64_t>(pages + kBytes);
    memory->bytes = kBytes;
  }
  ~Memory() override { ::munmap(pages, 3 * kBytes); }
  std::shared_ptr<const Region> region(uint64_t id, const RegionKey&) const override {
    return id == 1 ? memory : nullptr;
  }
  const std::string& engine() const override { return name; }
  uint64_t incarnation() const override { return 1; }
};

/// Requests over a socket pair, with right MACs and mostly wrong contents. A system call on a forbidden page
/// fails with EFAULT, which ends the stream: seen as fewer answers than there were good requests.
void fuzz_inlet(Fuzz& fuzz, Memory& memory, tcp::Loop& loop, tcp::Counters& counters) {
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) != 0)
    throw std::runtime_error("socketpair");
  Fd ours(pair[0]);
  Stream stream;
  stream.fd.reset(pair[1]);
  const MacKey key{9, 9};
  stream.receive_key = key;
  static Staging no_gpus;
  auto inlet = std::make_shared<tcp::Inlet>(memory, std::move(stream), loop, no_gpus, counters, "fuzz", 1);
  inlet->enter(inlet);
  uint64_t expected = 0;
  bool good = true;
  for (uint64_t i = 0; i < 4 && good; ++i) {
    tcp::Request request = some_request(fuzz, Memory::kBytes);
    request.number = i;
    std::string data = encode(key, request);
    if (fuzz.below(3) == 0) {
      const std::string changed = fuzz.mutate(data);
      good = changed == data;
      data = changed;
      if (fuzz.below(2)) seal_again(key, data);
    }
    if (request.op == Op::write) data += std::string(request.bytes, 'w');
    for (size_t at = 0; at < data.size();) {
      const size_t piece = 1 + fuzz.below(data.size() - at);
      const ssize_t sent = ::send(ours.get(), data.data() + at, piece, MSG_NOSIGNAL);
      if (sent <= 0) break;
      at += static_cast<size_t>(sent);
    }
    if (!good) break;
    ++expected;
    // Its answer, whole.
    std::string in;
    size_t wanted = tcp::kReplyBytes;
    while (in.size() < wanted) {
      pollfd waiting{ours.get(), POLLIN, 0};
      if (::poll(&waiting, 1, 5000) <= 0) throw std::runtime_error("no answer to a good request");
      char buffer[4096];
      const ssize_t got = ::recv(ours.get(), buffer, std::min(sizeof buffer, wanted - in.size()), 0);
      if (got <= 0) throw std::runtime_error("a good request ended the stream");
      in.append(buffer, static_cast<size_t>(got));
      if (in.size() == tcp::kReplyBytes) {
        const tcp::Reply reply = tcp::parse_reply(in);
        if (reply.number != i) throw std::runtime_error("an answer out of order");
        wanted += reply.bytes;
      }
    }
  }
  inlet->kill();
}

std::string unhex(const std::string& text) {
  std::string out;
  for (size_t i = 0; text != "-" && i + 1 < text.size(); i += 2)
    out.push_back(static_cast<char>(std::stoi(text.substr(i, 2), nullptr, 16)));
  return out;
}

template <size_t N>
std::string hex(const std::array<uint8_t, N>& bytes) {
  std::string out;
  for (uint8_t byte : bytes) {
    out += "0123456789abcdef"[byte >> 4];
    out += "0123456789abcdef"[byte & 15];
  }
  return out;
}

int vectors() {
  std::cout << "ok" << std::endl;
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream in(line);
    std::string what, first, second;
    in >> what >> first >> second;
    if (what == "sha256") std::cout << "ok\t" << hex(sha256(unhex(first))) << std::endl;
    if (what == "hmac") std::cout << "ok\t" << hex(hmac_sha256(unhex(first), unhex(second))) << std::endl;
    if (what == "sip") {
      MacKey key;
      std::memcpy(key.data(), unhex(first).data(), key.size());
      const std::string data = unhex(second);
      const size_t cut = data.size() / 3;  // in two pieces, to try that too
      std::cout
          << "ok\t"
          << hex(SipMac(key).update(data.data(), cut).update(data.data() + cut, data.size() - cut).finish())
          << std::endl;
    }
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  if (what == "vectors") return vectors();
  if (argc < 4) return 2;
  const uint64_t seed = std::stoull(argv[2]), iterations = std::stoull(argv[3]);
  Memory memory;
  tcp::Loop loop;
  tcp::Counters counters;
  for (uint64_t i = 0; i < iterations; ++i) {
    Fuzz fuzz(seed * 1'000'003 + i);
    try {
      if (what == "handshake") fuzz_handshake(fuzz);
      if (what == "frames") fuzz_frames(fuzz);
      if (what == "requests") fuzz_requests(fuzz);
      if (what == "replies") fuzz_replies(fuzz);
      if (what == "inlet") fuzz_inlet(fuzz, memory, loop, counters);
    } catch (const std::exception& error) {
      std::cerr << what << " seed " << seed << " iteration " << i << ": " << error.what() << std::endl;
      return 1;
    }
  }
  std::cout << "ok\t" << iterations << std::endl;
  return 0;
}
