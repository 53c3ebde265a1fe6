// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/io/core.hpp"

#include <unistd.h>

#include <algorithm>
#include <thread>
#include <utility>

#include "src/io/errors.hpp"

namespace mori::io {
namespace {

constexpr size_t kNotificationBytes = 64u << 20;  // that wait to be popped; more are dropped and counted
constexpr size_t kInboundStatuses = 1u << 20;     // the same for uids; the oldest go

}  // namespace

/// The engine as its own peer: files and memories of one process.
class Core::SelfPeer final : public Peer {
 public:
  explicit SelfPeer(Core& core) : core_(core) {}
  const std::string& engine() const override { return core_.options_.key; }
  uint64_t incarnation() const override { return core_.incarnation_; }
  bool same_host() const override { return true; }
  int64_t pid() const override { return getpid(); }
  const std::string& address() const override { return address_; }
  std::string ask(std::string_view backend, std::string_view request, Deadline,
                  std::vector<Fd>* fds) override {
    std::vector<Fd> pass;
    std::string answer = core_.known_backend(backend).answer(*this, request, pass);
    if (fds) *fds = std::move(pass);
    return answer;
  }
  bool tell(std::string_view backend, std::string_view message) override {
    core_.known_backend(backend).told(*this, message);
    return true;
  }
  Stream open_stream(std::string_view, Deadline) override {
    throw core::TransportError("an engine opens no streams to itself");
  }

 private:
  Core& core_;
  const std::string address_ = "127.0.0.1";
};

Core::Core(EngineOptions options)
    : options_(std::move(options)),
      incarnation_(random_word()),
      trace_(options_.trace_events),
      self_(std::make_shared<SelfPeer>(*this)) {
  engines_[options_.key] =
      std::make_shared<RemoteEngine>(*this, control::Address{options_.key, incarnation_, {}, 0});
}

Core::~Core() = default;

void Core::open() {
  control_ =
      std::make_unique<control::Control>(control::Options{.engine = options_.key,
                                                          .incarnation = incarnation_,
                                                          .host = options_.host,
                                                          .port = options_.port,
                                                          .secret = options_.secret,
                                                          .allow_insecure = options_.allow_insecure,
                                                          .same_host = options_.same_host,
                                                          .handshake_timeout = options_.connect_timeout},
                                         static_cast<control::Handler&>(*this));
}

bool Core::close() {
  const Deadline deadline = Clock::now() + options_.close_timeout;
  closing_.store(true);
  const bool quiet = quiesce([](const Transfer&) { return true; }, StatusCode::err_bad_state,
                             "the engine was closed", deadline);
  while (uses_.load() > 0 && Clock::now() < deadline)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  rerouter_.stop();
  revoker_.stop();
  if (!quiet || uses_.load() > 0) return false;
  for (const auto& engine : remote_engines())
    for (auto& [backend, route] : engine->take_routes()) backend->revoke(*route);
  for (const LocalMemoryPtr& memory : registry_.all()) {
    try {
      deregister(memory, deadline);
    } catch (const TimeoutError&) {  // who still uses it is cut off below
    }
  }
  control_.reset();
  const std::lock_guard lock(mutex_);
  engines_.clear();
  backends_.clear();
  leaving_.clear();
  retired_.clear();
  made_with_.clear();
  return true;
}

Deadline Core::route_deadline(Deadline transfer) const {
  return std::min(transfer, Clock::now() + options_.connect_timeout);
}

control::Control& Core::control() {
  if (!control_ || closing()) throw Refused(StatusCode::err_bad_state, "the engine is closed");
  return *control_;
}

// ---- transfers ---------------------------------------------------------------------------------------

void Core::began(Transfer& transfer) {
  const auto op = size_t(transfer.request().op);
  metrics_.transfers[op].fetch_add(1, std::memory_order_relaxed);
  metrics_.segments[op].fetch_add(transfer.segments(), std::memory_order_relaxed);
  if (trace_.on())
    trace_.add({.transfer = transfer.id(),
                .bytes = transfer.bytes_total(),
                .segments = transfer.segments(),
                .kind = TraceEvent::Kind::started,
                .op = transfer.request().op});
}

void Core::carried(Transfer& transfer, Attempt& attempt) {
  if (trace_.on())
    trace_.add({.transfer = transfer.id(),
                .bytes = attempt.bytes(),
                .segments = attempt.segments().size(),
                .kind = TraceEvent::Kind::carried,
                .op = attempt.op(),
                .backend = attempt.choice().backend->name().data()});
}

void Core::attempt_ended(Transfer& transfer, Attempt& attempt, StatusCode code) {
  if (trace_.on())
    trace_.add({.transfer = transfer.id(),
                .bytes = attempt.bytes(),
                .segments = attempt.segments().size(),
                .kind = TraceEvent::Kind::attempt_ended,
                .op = attempt.op(),
                .code = code,
                .backend = attempt.choice().backend->name().data()});
}

void Core::ended(Transfer& transfer, StatusCode code) {
  const uint64_t ns = now_ns() - transfer.started_ns();
  metrics_.ended[std::min(size_t(code), Metrics::kCodes - 1)].fetch_add(1, std::memory_order_relaxed);
  metrics_.duration[Metrics::bucket(ns)].fetch_add(1, std::memory_order_relaxed);
  metrics_.duration_ns.fetch_add(ns, std::memory_order_relaxed);
  if (code == StatusCode::success)
    metrics_.bytes[size_t(transfer.request().op)].fetch_add(transfer.bytes_total(),
                                                            std::memory_order_relaxed);
  if (trace_.on())
    trace_.add({.transfer = transfer.id(),
                .bytes = transfer.bytes_done(),
                .segments = transfer.segments(),
                .kind = TraceEvent::Kind::ended,
                .op = transfer.request().op,
                .code = code});
}

void Core::reroute(std::shared_ptr<Transfer> transfer, const Choice& choice, StatusCode) {
  metrics_.reroutes.fetch_add(1);
  metrics_.resent_bytes.fetch_add(transfer->bytes_total() - transfer->bytes_done());
  const auto& request = transfer->request();
  request.remote->engine->failed(*choice.pin, request.local->pin->region, *choice.backend);
  if (!rerouter_.post([transfer] { transfer->resume(); }))
    transfer->stop(StatusCode::err_bad_state, "the engine was closed");
}

void Core::announce(Transfer& transfer) {
  const auto& request = transfer.request();
  metrics_.notifications_sent.fetch_add(1);
  if (request.remote->region.engine == options_.key)
    return notified(*self_, request.uid, StatusCode::success, request.notify);
  control_->notify(*request.remote->engine->peer(route_deadline(request.deadline)), request.uid,
                   StatusCode::success, request.notify);
}

bool Core::quiesce(const std::function<bool(const Transfer&)>& concerns, StatusCode code,
                   const std::string& message, Deadline deadline) {
  inflight_.each([&](InflightNode& node) {
    auto& transfer = static_cast<Transfer&>(node);
    if (concerns(transfer)) transfer.stop(code, message);
  });
  return inflight_.wait_until_none(
      [&](const InflightNode& node) { return concerns(static_cast<const Transfer&>(node)); }, deadline);
}

// ---- other engines -----------------------------------------------------------------------------------

std::shared_ptr<RemoteEngine> Core::remote_engine(const std::string& engine) const {
  const std::lock_guard lock(mutex_);
  const auto found = engines_.find(engine);
  return found == engines_.end() ? nullptr : found->second;
}

std::vector<std::shared_ptr<RemoteEngine>> Core::remote_engines() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::shared_ptr<RemoteEngine>> engines;
  for (const auto& [key, engine] : engines_) engines.push_back(engine);
  return engines;
}

RemoteMemoryPtr Core::remote_memory(const RemoteRegion& region) {
  auto engine = remote_engine(region.engine);
  if (!engine)
    throw Refused(StatusCode::err_not_found,
                  "engine '" + region.engine +
                      "' is not known here; call register_remote_engine() with its descriptor");
  const uint64_t known = engine->address().incarnation;
  if (known != 0 && region.incarnation != known)
    throw Refused(StatusCode::err_bad_state, "the descriptor of memory " + std::to_string(region.id) +
                                                 " of '" + region.engine +
                                                 "' is of another run of that engine than the one "
                                                 "registered here; exchange descriptors again");
  return engine->memory(region);
}

void Core::introduce(const control::Address& address) {
  if (address.engine == options_.key) {
    if (address.incarnation == incarnation_) return;
    throw core::ConfigError("engine key '" + address.engine + "' is this engine's own; keys must differ");
  }
  {
    const std::lock_guard lock(mutex_);
    auto& known = engines_[address.engine];
    if (!known) {
      known = std::make_shared<RemoteEngine>(*this, address);
      return;
    }
    if (known->address().incarnation == address.incarnation) return known->move_to(address);
  }
  forget(address.engine);  // it restarted: whatever is known of its earlier run is void
  const std::lock_guard lock(mutex_);
  engines_[address.engine] = std::make_shared<RemoteEngine>(*this, address);
}

void Core::forget(const std::string& engine) {
  auto known = remote_engine(engine);
  if (!known || engine == options_.key) return;
  const Deadline deadline = Clock::now() + options_.close_timeout;
  {
    const std::lock_guard lock(mutex_);
    engines_.erase(engine);
  }
  known->retire();
  const bool quiet =
      quiesce([&](const Transfer& t) { return t.request().remote->engine == known; },
              StatusCode::err_bad_state, "engine '" + engine + "' was deregistered here", deadline);
  auto peer = known->connected();
  for (auto& [backend, route] : known->take_routes()) backend->revoke(*route);
  if (peer && control_) control_->disconnect(*peer);
  if (!quiet) throw TimeoutError("transfers to '" + engine + "' did not end within the close timeout");
}

std::shared_ptr<Peer> Core::connect(const control::Address& address, Deadline deadline) {
  if (address.engine == options_.key) return self_;
  return control().connect(address, deadline);
}

control::Attachments Core::open(Peer& owner, uint64_t id, const RegionKey& key, uint64_t incarnation,
                                Deadline deadline) {
  if (&owner == self_.get()) return open(owner, id, key);
  return control().open(owner, id, key, incarnation, deadline);
}

bool Core::notify(const std::string& engine, uint64_t uid, const std::string& message, Deadline deadline) {
  metrics_.notifications_sent.fetch_add(1);
  if (engine == options_.key) {
    notified(*self_, uid, StatusCode::success, message);
    return true;
  }
  auto known = remote_engine(engine);
  if (!known) throw Refused(StatusCode::err_not_found, "engine '" + engine + "' is not known here");
  control().notify(*known->peer(route_deadline(deadline)), uid, StatusCode::success, message);
  return true;
}

std::vector<Notification> Core::take_notifications(uint64_t& dropped) {
  const std::lock_guard lock(mutex_);
  std::vector<Notification> taken(std::make_move_iterator(notifications_.begin()),
                                  std::make_move_iterator(notifications_.end()));
  notifications_.clear();
  notification_bytes_ = 0;
  dropped = std::exchange(notifications_dropped_, 0);
  return taken;
}

std::optional<std::pair<StatusCode, std::string>> Core::take_inbound(const std::string& engine,
                                                                     uint64_t uid) {
  const std::lock_guard lock(mutex_);
  const auto found = inbound_.find({engine, uid});
  if (found == inbound_.end()) return std::nullopt;
  auto taken = std::move(found->second);
  inbound_.erase(found);
  return taken;
}

// ---- control::Handler --------------------------------------------------------------------------------

control::Attachments Core::open(Peer& by, uint64_t id, const RegionKey& key) {
  const auto memory = registry_.find(id);
  if (!memory || memory->closing.load())
    throw Refused(StatusCode::err_not_found,
                  "memory " + std::to_string(id) + " of '" + options_.key + "' is not registered (any more)");
  if (!same_key(memory->key, key))
    throw Refused(StatusCode::err_denied,
                  "wrong key for memory " + std::to_string(id) + " of '" + options_.key + "'");
  (void)by;
  const Region& region = memory->pin->region;
  control::Attachments attachments;
  attachments.emplace_back(kPinNote,
                           encode({region.id, region.key, region.address, region.bytes, memory->offset}));
  for (Backend* backend : backends())
    if (auto bytes = memory->pin->attachment(*backend))
      attachments.emplace_back(backend->name(), std::move(*bytes));
  return attachments;
}

std::string Core::answer(Peer& from, std::string_view backend, std::string_view request,
                         std::vector<Fd>& pass) {
  return known_backend(backend).answer(from, request, pass);
}

void Core::told(Peer& from, std::string_view name, std::string_view message) {
  if (Backend* known = backend(name)) known->told(from, message);
}

void Core::accepted(Peer& from, std::string_view name, Stream stream) {
  if (Backend* known = backend(name)) known->accepted(from, std::move(stream));
}

void Core::revoked(Peer& owner, uint64_t id, std::function<void()> acknowledge) {
  metrics_.revoked.fetch_add(1);
  auto known = remote_engine(owner.engine());
  if (!known || known->address().incarnation != owner.incarnation()) return acknowledge();
  const std::string name = owner.engine();
  revoker_.post([this, known, id, name, acknowledge = std::move(acknowledge)] {
    const bool quiet = quiesce(
        [&](const Transfer& t) {
          return t.request().remote->engine == known && t.request().remote->region.id == id;
        },
        StatusCode::err_not_found, "'" + name + "' deregistered memory " + std::to_string(id),
        Clock::now() + options_.close_timeout);
    for (auto& [backend, route] : known->revoked(id)) backend->revoke(*route);
    if (quiet) acknowledge();  // else the owner cuts the connection at its deadline
  });
}

void Core::notified(Peer& from, uint64_t uid, StatusCode code, std::string message) {
  metrics_.notifications_received.fetch_add(1);
  const std::lock_guard lock(mutex_);
  if (uid != 0) {
    std::pair<std::string, uint64_t> name{from.engine(), uid};
    if (inbound_.insert_or_assign(name, std::pair{code, std::string()}).second)
      inbound_order_.push_back(std::move(name));
    while (inbound_order_.size() > kInboundStatuses) {
      inbound_.erase(inbound_order_.front());
      inbound_order_.pop_front();
    }
  }
  if (message.empty()) return;
  if (notification_bytes_ + message.size() > kNotificationBytes) {
    ++notifications_dropped_;
    metrics_.notifications_dropped.fetch_add(1);
    return;
  }
  notification_bytes_ += message.size();
  notifications_.push_back({from.engine(), uid, std::move(message)});
}

void Core::lost(Peer& peer, const std::string&) {
  metrics_.peers_lost.fetch_add(1);
  for (Backend* backend : backends()) backend->lost(peer);
  auto known = remote_engine(peer.engine());
  if (known && known->address().incarnation == peer.incarnation()) known->lost();
}

}  // namespace mori::io
