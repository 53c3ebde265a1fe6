// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/io/engine.hpp"

#include "src/io/errors.hpp"

namespace mori::io {
namespace {

class FailedStatus final : public Status {
 public:
  FailedStatus(StatusCode code, std::string message) { set(code, std::move(message)); }
};

std::shared_ptr<Status> post(Core& core, TransferRequest request, SubmitOptions options) {
  request.deadline = options.deadline.value_or(core.default_deadline());
  request.uid = options.uid;
  request.announce = options.announce;
  request.notify = std::move(options.notify);
  const auto transfer = std::make_shared<Transfer>(core, core.next_transfer_id(), std::move(request));
  transfer->start();
  return transfer;
}

}  // namespace

// ---- PreparedTransfer, Session -----------------------------------------------------------------------

std::shared_ptr<Status> PreparedTransfer::post(SubmitOptions options) const {
  core_->guard().check();
  return io::post(*core_, request_, std::move(options));
}

std::shared_ptr<Status> Session::submit(Op op, const Ranges& ranges, SubmitOptions options) const {
  core_->guard().check();
  std::shared_ptr<Plan> plan;
  try {
    plan = std::make_shared<Plan>(make_plan(ranges, window()));
  } catch (const core::ConfigError& error) {
    core_->metrics().ended[size_t(StatusCode::err_invalid_args)].fetch_add(1);
    return std::make_shared<FailedStatus>(StatusCode::err_invalid_args, error.what());
  }
  return io::post(*core_, request(op, std::move(plan)), std::move(options));
}

TransferRequest Session::request(Op op, std::shared_ptr<const Plan> plan) const {
  TransferRequest request;
  request.op = op;
  request.local = local_;
  request.remote = remote_;
  request.plan = std::move(plan);
  return request;
}

std::shared_ptr<PreparedTransfer> Session::prepare(Op op, const Ranges& ranges) const {
  core_->guard().check();
  auto plan = std::make_shared<Plan>(make_plan(ranges, window()));
  return std::make_shared<PreparedTransfer>(core_, request(op, std::move(plan)));
}

bool Session::alive(Deadline deadline) const {
  core_->guard().check();
  if (core_->closing()) return false;
  const Core::Use use(*core_);
  if (remote_->region.engine == core_->engine()) return true;
  try {
    return core_->control().alive(*remote_->engine->peer(deadline), deadline);
  } catch (const core::TransportError&) {
    return false;
  }
}

void Session::open(Deadline deadline) const {
  core_->guard().check();
  const Core::Use use(*core_);
  if (core_->closing()) throw Refused(StatusCode::err_bad_state, "the engine is closed");
  remote_->engine->choose(*remote_, local_->pin->region, 1, {}, deadline);
}

std::vector<Candidate> Session::explain(Deadline deadline) const {
  core_->guard().check();
  const Core::Use use(*core_);
  if (core_->closing()) throw Refused(StatusCode::err_bad_state, "the engine is closed");
  return remote_->engine->explain(*remote_, local_->pin->region, deadline);
}

// ---- Engine ------------------------------------------------------------------------------------------

Engine::Engine(EngineOptions options) : core_(std::make_shared<Core>(std::move(options))) {
  core_->open();
  host_ = core_->control().host();
  port_ = core_->control().port();
}

Engine::~Engine() {
  if (core_->guard().in_child()) {
    // Its threads are the parent's and its locks may be held: it stays as it is until the child ends.
    new std::shared_ptr<Core>(core_);
    return;
  }
  close();
}

void Engine::check() const {
  core_->guard().check();
  if (core_->closing()) throw Refused(StatusCode::err_bad_state, "the engine is closed");
}

void Engine::close() {
  core_->guard().check();
  const std::lock_guard lock(close_mutex_);
  if (closed_) return;
  closed_ = true;
  // Memory under a job that did not end must stay, and so must what carries it.
  if (!core_->close()) new std::shared_ptr<Core>(core_);
}

void Engine::add_backend(const std::string& name, const BackendOptions& options) {
  check();
  const Core::Use use(*core_);
  core_->add_backend(name, options);
}

void Engine::remove_backend(const std::string& name) {
  check();
  const Core::Use use(*core_);
  core_->remove_backend(name, Clock::now() + core_->options().close_timeout);
}

std::vector<std::string> Engine::backends() const {
  check();
  std::vector<std::string> names;
  for (Backend* backend : core_->backends()) names.emplace_back(backend->name());
  return names;
}

std::vector<std::pair<std::string, std::string>> Engine::missing_backends() const {
  check();
  return core_->backend_notes();
}

std::vector<LocalMemoryPtr> Engine::register_memory(std::vector<Region> regions) {
  check();
  for (const Region& region : regions) {
    if (region.bytes == 0) throw core::ConfigError("size=0; a memory has at least 1 byte");
    if (region.location == Location::file) continue;
    if (region.address == 0) throw core::ConfigError("ptr=0 is no memory");
    if (region.bytes > UINT64_MAX - region.address)
      throw core::ConfigError("size=" + std::to_string(region.bytes) +
                              " goes beyond the end of the address space");
  }
  const Core::Use use(*core_);
  return core_->registry().add(std::move(regions), core_->eager_backends());
}

void Engine::deregister_memory(uint64_t id) {
  check();
  const auto memory = core_->registry().find(id);
  if (!memory)
    throw core::ConfigError("memory " + std::to_string(id) + " is not registered with this engine");
  const Core::Use use(*core_);
  core_->deregister(memory, Clock::now() + core_->options().close_timeout);
}

void Engine::introduce(const control::Address& address) {
  check();
  const Core::Use use(*core_);
  core_->introduce(address);
}

void Engine::forget(const std::string& engine) {
  check();
  const Core::Use use(*core_);
  core_->forget(engine);
}

bool Engine::alive(const std::string& engine, Deadline deadline) {
  check();
  const Core::Use use(*core_);
  if (engine == key()) return true;
  const auto known = core_->remote_engine(engine);
  if (!known) throw core::ConfigError("engine '" + engine + "' is not known; call register_remote_engine()");
  try {
    return core_->control().alive(*known->peer(deadline), deadline);
  } catch (const core::TransportError&) {
    return false;
  }
}

std::shared_ptr<Session> Engine::session(uint64_t local_id, const RemoteRegion& remote) {
  check();
  auto local = core_->registry().find(local_id);
  if (!local)
    throw core::ConfigError("local memory " + std::to_string(local_id) +
                            " is not registered with this engine");
  return std::make_shared<Session>(core_, std::move(local), core_->remote_memory(remote));
}

void Engine::notify(const std::string& engine, uint64_t uid, const std::string& message, Deadline deadline) {
  check();
  const Core::Use use(*core_);
  core_->notify(engine, uid, message, deadline);
}

std::vector<Notification> Engine::take_notifications(uint64_t& dropped) {
  check();
  return core_->take_notifications(dropped);
}

std::optional<std::pair<StatusCode, std::string>> Engine::take_inbound(const std::string& engine,
                                                                       uint64_t uid) {
  check();
  return core_->take_inbound(engine, uid);
}

std::vector<std::pair<std::string, std::vector<std::pair<std::string, double>>>> Engine::counters() const {
  check();
  const Core::Use use(*core_);
  std::vector<std::pair<std::string, std::vector<std::pair<std::string, double>>>> all;
  for (Backend* backend : core_->backends()) all.emplace_back(backend->name(), backend->counters());
  all.emplace_back("control", core_->control().counters());
  return all;
}

}  // namespace mori::io
