// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The control plane of one engine: a listener, one authenticated connection per pair of engines, one epoll
// thread. It carries small messages and no payload. docs/io_security.md has the protocol and its limits.
//
//   engine A                                             engine B
//   connect(B's address)  -- handshake: both prove the secret -->
//   open(peer, id, key)   ------------------------------>  Handler::open -> attachments
//   Peer::ask / tell      ------------------------------>  Handler::answer / told
//   Peer::open_stream     -- one more authenticated socket ->  Handler::accepted
//   notify                ------------------------------>  Handler::notified, exactly once
//   Handler::revoked      <------------------------------  revoke(id): waits for the acknowledgement
//
// The listener and the thread start in the constructor; the thread sleeps in epoll_wait while nothing happens
// (no CPU at all). Calls block only with a deadline and come from any thread but the control thread.
#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "src/io/backend.hpp"
#include "src/io/errors.hpp"

namespace mori::io::control {

struct Options {
  std::string engine;        ///< key: 1 to 255 bytes
  uint64_t incarnation = 0;  ///< random, not 0
  std::string host;          ///< numeric address or name to listen on; empty = 127.0.0.1
  uint16_t port = 0;         ///< 0 = the kernel chooses
  /// Shared by all engines that may talk to each other; at least 16 bytes. Without one only loopback
  /// addresses are taken, listening and connecting, unless `allow_insecure`.
  std::optional<std::string> secret;
  bool allow_insecure = false;
  bool same_host = true;  ///< false: act as if no peer were on this host (tests of the network path)
  std::chrono::milliseconds handshake_timeout{5000};
};

/// What a region's owner gives to who opened it: backend name -> what its attach() returned.
using Attachments = std::vector<std::pair<std::string, std::string>>;

/// Implemented by the engine. Everything runs on the control thread: it must not block and not call what
/// waits (connect, open, ask, revoke, alive). Throwing from open() or answer() sends the words to the peer.
class Handler {
 public:
  virtual ~Handler() = default;
  /// The peer presents a region's id and key; the incarnation was checked before. Throws Refused
  /// {err_not_found | err_denied}.
  virtual Attachments open(Peer& by, uint64_t id, const RegionKey& key) = 0;
  virtual std::string answer(Peer& from, std::string_view backend, std::string_view request,
                             std::vector<Fd>& pass) = 0;
  virtual void told(Peer& from, std::string_view backend, std::string_view message) = 0;
  virtual void accepted(Peer& from, std::string_view backend, Stream stream) = 0;
  /// The owner takes the region back: call `acknowledge` (from any thread) once nothing of this engine uses
  /// it.
  virtual void revoked(Peer& owner, uint64_t id, std::function<void()> acknowledge) = 0;
  virtual void notified(Peer& from, uint64_t uid, StatusCode code, std::string message) = 0;
  /// Its connections are down: regions that it opened count as let go. The same incarnation may come back.
  virtual void lost(Peer& peer, const std::string& reason) = 0;
};

/// Where an engine is, as its descriptor says.
struct Address {
  std::string engine;
  uint64_t incarnation = 0;  ///< 0 = whichever lives there
  std::string host;
  uint16_t port = 0;
};

class Control {
 public:
  /// Throws ConfigError for the options, TransportError when the address cannot be listened on.
  Control(Options options, Handler& handler);
  /// Tells peers goodbye, joins the thread. No call of Handler follows. Peers handed out stay valid: every
  /// call on them throws PeerLost.
  ~Control();
  Control(const Control&) = delete;
  Control& operator=(const Control&) = delete;

  const std::string& host() const;  ///< numeric, as bound
  uint16_t port() const;

  /// The peer, connected: an existing connection or one more. Throws PeerLost (nobody there), TimeoutError,
  /// Refused {err_denied: secret | err_bad_state: another incarnation lives there | err_not_found: another
  /// engine lives there}.
  std::shared_ptr<Peer> connect(const Address& address, Deadline deadline);

  /// Throws Refused, PeerLost, TimeoutError.
  Attachments open(Peer& owner, uint64_t id, const RegionKey& key, uint64_t incarnation, Deadline deadline);
  /// This engine stops using a region that it opened: revoke() at the owner need not wait for it.
  void let_go(Peer& owner, uint64_t id);
  /// Tells every peer that opened the region and waits for their acknowledgements. Whoever has not answered
  /// at the deadline is cut off; its name is in the answer.
  std::vector<std::string> revoke(uint64_t id, Deadline deadline);

  /// Queues a message for the peer, in order, delivered exactly once even if the connection breaks and comes
  /// back. Call it when the transfer's bytes are in place. At most 1 MiB; throws CapacityError when 64 MiB of
  /// them await a peer that does not take them.
  void notify(Peer& peer, uint64_t uid, StatusCode code, std::string_view message);
  /// True only if the peer answered before the deadline. Connects if need be (to an address known before).
  bool alive(Peer& peer, Deadline deadline);
  /// Says goodbye and closes the connections; Handler::lost is called on both sides.
  void disconnect(Peer& peer);

  std::vector<std::pair<std::string, double>> counters() const;

 private:
  class Impl;
  std::shared_ptr<Impl> impl_;
};

/// Whether `host` (numeric or a name) is this machine's loopback: what may be used without a secret.
bool is_loopback(const std::string& host);

}  // namespace mori::io::control
