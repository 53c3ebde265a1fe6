// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/io/transfer.hpp"

#include <algorithm>
#include <utility>

#include "src/io/core.hpp"
#include "src/io/errors.hpp"

namespace mori::io {
namespace {

/// What a status shows for an exception on the way to a route.
std::pair<StatusCode, std::string> explain_error(std::exception_ptr error) {
  try {
    std::rethrow_exception(std::move(error));
  } catch (const Refused& e) {
    return {e.code, e.what()};
  } catch (const TimeoutError& e) {
    return {StatusCode::err_timeout, e.what()};
  } catch (const PeerLost& e) {
    return {StatusCode::err_peer_lost, e.what()};
  } catch (const core::ConfigError& e) {
    return {StatusCode::err_invalid_args, e.what()};
  } catch (const std::exception& e) {
    return {StatusCode::err_transport, e.what()};
  }
}

}  // namespace

// ---- Attempt -----------------------------------------------------------------------------------------

Op Attempt::op() const { return transfer_.request_.op; }
const Region& Attempt::local() const { return transfer_.request_.local->pin->region; }
Deadline Attempt::deadline() const { return transfer_.request_.deadline; }
bool Attempt::stopping() const { return transfer_.stop_requested(); }

void Attempt::progressed(uint64_t bytes) { transfer_.done_.fetch_add(bytes, std::memory_order_relaxed); }

void Attempt::finish(Outcome outcome) { transfer_.attempt_finished(*this, std::move(outcome)); }

/// Keeps the current attempt's route while a thread is inside its backend; made under mutex_.
class Transfer::Visit {
 public:
  explicit Visit(Transfer& transfer) : transfer_(transfer) { ++transfer_.visits_; }
  ~Visit() {
    const std::lock_guard lock(transfer_.mutex_);
    --transfer_.visits_;
    transfer_.drop_routes_if_unused();
  }
  Visit(const Visit&) = delete;
  Visit& operator=(const Visit&) = delete;

 private:
  Transfer& transfer_;
};

/// A status may be kept for long; what its transfer used is not kept with it.
void Transfer::drop_routes_if_unused() {
  if (!concluded_ || visits_ > 0) return;
  if (first_) first_->choice_ = {};
  for (auto& attempt : later_) attempt->choice_ = {};
}

// ---- Transfer ----------------------------------------------------------------------------------------

Transfer::Transfer(Core& core, uint64_t id, TransferRequest request)
    : core_(core), id_(id), request_(std::move(request)), started_ns_(now_ns()) {}

void Transfer::update(StatusCode, std::string) {
  throw core::ConfigError("this status belongs to a transfer; only its engine ends it (cancel() asks it to)");
}

std::string Transfer::route() const {
  const std::lock_guard lock(mutex_);
  return route_;
}

void Transfer::check_process() const { core_.guard().check(); }

bool Transfer::cancel() {
  if (terminal()) return false;
  check_process();
  return stop(StatusCode::err_cancelled, "cancelled");
}

void Transfer::expired() { stop(StatusCode::err_timeout, "the transfer's deadline passed"); }

bool Transfer::stop(StatusCode reason, const std::string& message) {
  std::unique_lock lock(mutex_);
  if (concluded_) return false;
  if (!stopping_.load(std::memory_order_relaxed)) {
    stop_code_ = reason;
    stop_message_ = message;
    stopping_.store(true, std::memory_order_release);
  }
  if (!current_) {
    const StatusCode code = stop_code_;
    lock.unlock();
    conclude(code, stop_message_);
    return true;
  }
  const Core::Use use(core_);
  const std::shared_ptr<Job> job(shared_from_this(), current_);
  Backend* backend = current_->choice_.backend;
  const Visit visit(*this);
  lock.unlock();
  backend->nudge(*job);
  return true;
}

bool Transfer::help() {
  std::unique_lock lock(mutex_);
  if (!current_) return false;
  const Core::Use use(core_);  // not concluded, so the engine is there; this keeps its backends
  const std::shared_ptr<Job> job(shared_from_this(), current_);
  Backend* backend = current_->choice_.backend;
  const Visit visit(*this);
  lock.unlock();
  return backend->help(*job);
}

void Transfer::start() {
  const Core::Use use(core_);
  const auto self = shared_from_this();
  set(StatusCode::in_progress, {});
  core_.inflight().add(*this, request_.deadline);
  core_.began(*this);
  // Looked at after add(): whoever sets these looks through the list afterwards.
  if (core_.closing()) return conclude(StatusCode::err_bad_state, "the engine is closed");
  if (request_.local->closing.load())
    return conclude(StatusCode::err_not_found,
                    "the local memory " + std::to_string(request_.local->id) + " was deregistered");
  if (request_.plan->bytes == 0) return conclude(StatusCode::success, {});
  carry({});
}

void Transfer::carry(const std::vector<Backend*>& without) {
  Choice choice;
  try {
    choice =
        request_.remote->engine->choose(*request_.remote, request_.local->pin->region, request_.plan->bytes,
                                        without, core_.route_deadline(request_.deadline));
  } catch (...) {
    auto [code, message] = explain_error(std::current_exception());
    return conclude(code, std::move(message));
  }
  begin(std::move(choice));
}

void Transfer::begin(Choice choice) {
  std::unique_lock lock(mutex_);
  if (concluded_) return;
  const uint64_t offset = choice.offset;
  Backend* backend = choice.backend;
  const auto rebased = [offset](std::vector<Segment> segments) {
    for (Segment& s : segments) s.remote += offset;
    return segments;
  };
  if (has_rest_) {
    later_.push_back(std::make_unique<Attempt>(*this, std::move(choice), rebased(std::exchange(rest_, {}))));
    has_rest_ = false;
    current_ = later_.back().get();
  } else if (offset != 0) {
    current_ = &first_.emplace(*this, std::move(choice), rebased(request_.plan->segments));
  } else {
    current_ = &first_.emplace(*this, std::move(choice), request_.plan->segments, request_.plan->bytes);
  }
  route_ = backend->name().data();
  done_.store(request_.plan->bytes - current_->bytes_, std::memory_order_relaxed);
  const std::shared_ptr<Attempt> job(shared_from_this(), current_);
  const Visit visit(*this);
  lock.unlock();
  core_.carried(*this, *job);
  try {
    backend->submit(job);
  } catch (const std::exception& error) {
    job->finish(
        {StatusCode::err_transport, error.what(), false, {job->segments_.begin(), job->segments_.end()}});
  }
}

void Transfer::attempt_finished(Attempt& attempt, Outcome outcome) {
  if (attempt.finished_.exchange(true)) return core_.metrics().backend_faults.fetch_add(1), void();
  const auto self = shared_from_this();
  Backend* backend = attempt.choice_.backend;
  const std::string name(backend->name());
  const uint64_t unfinished = total_bytes(outcome.unfinished);
  const bool complete = outcome.code == StatusCode::success && unfinished == 0;
  done_.store(request_.plan->bytes - (complete ? 0 : std::min(unfinished, attempt.bytes_)),
              std::memory_order_relaxed);
  core_.attempt_ended(*this, attempt, outcome.code);
  if (complete) {
    {
      const std::lock_guard lock(mutex_);
      current_ = nullptr;
    }
    return conclude(StatusCode::success, {});
  }
  if (outcome.code == StatusCode::success) {
    core_.metrics().backend_faults.fetch_add(1);
    outcome = {StatusCode::err_transport, "reported success with bytes unfinished", false, {}};
  }
  if (outcome.reroutable &&
      (unfinished == 0 ||
       !is_part_of(request_.op, outcome.unfinished, {attempt.segments_.begin(), attempt.segments_.end()}))) {
    core_.metrics().backend_faults.fetch_add(1);
    outcome.reroutable = false;
    outcome.message += " (and what it handed back is not part of its job)";
  }
  std::unique_lock lock(mutex_);
  current_ = nullptr;
  if (stopping_.load(std::memory_order_relaxed)) {
    const StatusCode code = stop_code_;
    lock.unlock();
    return conclude(code, stop_message_ + " with " + std::to_string(request_.plan->bytes - bytes_done()) +
                              " of " + std::to_string(request_.plan->bytes) + " bytes not confirmed");
  }
  if (!outcome.reroutable) {
    lock.unlock();
    return conclude(outcome.code, name + ": " + outcome.message);
  }
  for (Segment& s : outcome.unfinished) s.remote -= attempt.choice_.offset;
  rest_ = std::move(outcome.unfinished);
  sort_by_remote(rest_);
  has_rest_ = true;
  tried_.push_back(backend);
  last_failure_ = name + ": " + outcome.message;
  const Choice choice = attempt.choice_;
  lock.unlock();
  core_.reroute(std::static_pointer_cast<Transfer>(self), choice, outcome.code);
}

void Transfer::resume() {
  const Core::Use use(core_);
  {
    const std::lock_guard lock(mutex_);
    if (concluded_) return;
  }
  auto& remote = *request_.remote;
  const Region& local = request_.local->pin->region;
  const Deadline deadline = core_.route_deadline(request_.deadline);
  if (++retries_ > core_.retry_budget())
    return conclude(StatusCode::err_transport, "gave up after " + std::to_string(retries_) +
                                                   " failed routes; the last: " + last_failure_);
  Choice choice;
  try {
    try {
      choice = remote.engine->choose(remote, local, total_bytes(rest_), tried_, deadline);
    } catch (const core::TransportError&) {
      tried_.clear();  // all others tried: those that failed are prepared again
      choice = remote.engine->choose(remote, local, total_bytes(rest_), tried_, deadline);
    }
  } catch (...) {
    auto [code, message] = explain_error(std::current_exception());
    return conclude(code, last_failure_ + "; then " + message);
  }
  begin(std::move(choice));
}

void Transfer::conclude(StatusCode code, std::string message) {
  const auto self = shared_from_this();
  {
    const std::lock_guard lock(mutex_);
    if (std::exchange(concluded_, true)) return;
  }
  if (code == StatusCode::success && (request_.announce || !request_.notify.empty())) {
    try {
      core_.announce(*this);
    } catch (const std::exception& error) {
      code = StatusCode::err_transport;
      message = std::string("the bytes are in place, but the peer could not be notified: ") + error.what();
    }
  }
  core_.ended(*this, code);
  {
    const std::lock_guard lock(mutex_);
    drop_routes_if_unused();
  }
  set(code, std::move(message));
  core_.inflight().remove(*this);
}

}  // namespace mori::io
