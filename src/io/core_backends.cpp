// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The part of Core that owns backends and this engine's memories.
#include <algorithm>

#include "src/io/core.hpp"
#include "src/io/errors.hpp"

namespace mori::io {

void Core::add_backend(const std::string& name, const BackendOptions& options) {
  const BackendRow* row = find_backend(name);
  if (!row) {
    std::string names;
    for (const BackendRow& known : backend_table())
      names += (names.empty() ? "" : ", ") + std::string(known.name);
    throw core::ConfigError("backend='" + name + "' does not exist; there are " + names);
  }
  if (backend(name))
    throw core::ConfigError("backend='" + name + "' is there already; remove_backend() first");
  const auto index = size_t(row - backend_table().data());
  std::shared_ptr<Backend> made = take_retired(index, options);
  try {
    if (!made) made = row->make(*this, options);
  } catch (const core::TransportError& error) {
    const std::lock_guard lock(mutex_);
    backend_notes_[name] = error.what();
    throw;
  }
  {
    const std::lock_guard lock(mutex_);
    backend_notes_.erase(name);
    made_with_.insert_or_assign(made.get(), options);
    backends_.emplace_back(index, made);
    std::sort(backends_.begin(), backends_.end(),
              [](const auto& a, const auto& b) { return a.first < b.first; });
    backends_version_.fetch_add(1);
  }
  if (made->eager_attach()) registry_.attach_all({made.get()});
}

std::shared_ptr<Backend> Core::take_retired(size_t row, const BackendOptions& options) {
  const std::lock_guard lock(mutex_);
  const auto same = std::find_if(retired_.begin(), retired_.end(), [&](const auto& entry) {
    return entry.first == row && made_with_.at(entry.second.get()) == options;
  });
  if (same == retired_.end()) return nullptr;
  std::shared_ptr<Backend> back = std::move(same->second);
  retired_.erase(same);
  return back;
}

void Core::remove_backend(const std::string& name, Deadline deadline) {
  std::shared_ptr<Backend> gone;
  size_t row = 0;
  {
    const std::lock_guard lock(mutex_);
    const auto at = std::find_if(backends_.begin(), backends_.end(),
                                 [&](const auto& entry) { return entry.second->name() == name; });
    if (at == backends_.end()) throw core::ConfigError("backend='" + name + "' is not one of this engine's");
    gone = at->second;
    row = at->first;
    backends_.erase(at);
    leaving_.push_back(gone);
    backends_version_.fetch_add(1);
  }
  // No transfer finds it any more; those that it carries end.
  const bool quiet = quiesce([&](const Transfer& t) { return t.route() == name; }, StatusCode::err_bad_state,
                             "backend '" + name + "' was removed", deadline);
  for (const auto& engine : remote_engines())
    for (auto& route : engine->take_routes(gone.get())) gone->revoke(*route);
  for (const LocalMemoryPtr& memory : registry_.all()) memory->pin->detach(*gone);
  if (quiet) {  // else it still has jobs, and stays where it is until the engine closes
    const std::lock_guard lock(mutex_);
    std::erase(leaving_, gone);
    retired_.emplace_back(row, gone);
  }
  if (!quiet) throw TimeoutError("transfers of backend '" + name + "' did not end before the deadline");
}

std::vector<std::pair<std::string, std::string>> Core::backend_notes() const {
  const std::lock_guard lock(mutex_);
  return {backend_notes_.begin(), backend_notes_.end()};
}

Backend* Core::backend(std::string_view name) const {
  const std::lock_guard lock(mutex_);
  for (const auto& [row, backend] : backends_)
    if (backend->name() == name) return backend.get();
  return nullptr;
}

Backend& Core::known_backend(std::string_view name) const {
  if (Backend* known = backend(name)) return *known;
  throw core::TransportError("engine '" + options_.key + "' has no backend '" + std::string(name) + "'");
}

std::vector<Backend*> Core::backends() const {
  const std::lock_guard lock(mutex_);
  std::vector<Backend*> all;
  for (const auto& [row, backend] : backends_) all.push_back(backend.get());
  return all;
}

std::vector<Backend*> Core::eager_backends() const {
  std::vector<Backend*> eager = backends();
  std::erase_if(eager, [](Backend* backend) { return !backend->eager_attach(); });
  return eager;
}

std::shared_ptr<const Region> Core::region(uint64_t id, const RegionKey& key) const {
  return registry_.region(id, key);
}

void Core::deregister(const LocalMemoryPtr& memory, Deadline deadline) {
  if (memory->closing.exchange(true)) return;  // someone else does it
  const auto what = "memory " + std::to_string(memory->id) + " was deregistered";
  const auto concerns = [&](const Transfer& t) {
    const TransferRequest& request = t.request();
    return request.local == memory ||
           (request.remote->region.engine == options_.key && request.remote->region.id == memory->id);
  };
  const bool quiet = quiesce(concerns, StatusCode::err_not_found, what, deadline);
  if (auto own = remote_engine(options_.key))
    for (auto& [backend, route] : own->revoked(memory->id)) backend->revoke(*route);
  if (control_) control_->revoke(memory->id, deadline);
  if (auto pin = registry_.remove(memory)) {
    if (!pin->wait_for_leases(deadline))
      throw TimeoutError(what + ", but a backend still moves bytes of it at the deadline");
    for (Backend* backend : backends()) pin->detach(*backend);
  }
  if (!quiet) throw TimeoutError(what + ", but a transfer that uses it did not end before the deadline");
}

}  // namespace mori::io
