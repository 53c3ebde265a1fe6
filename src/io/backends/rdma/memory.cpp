// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/io/backends/rdma/memory.hpp"

#include <future>

#include "src/core/errors.hpp"

namespace mori::io::rdma {
namespace {

/// Pinning costs about 0.1 s per GB; below this a thread is not worth it.
constexpr uint64_t kPinTogether = 64 << 20;

void append(std::string& list, const std::string& text) {
  if (!list.empty()) list += "; ";
  list += text;
}

}  // namespace

LocalMemory::~LocalMemory() {
  for (const Nic* nic : nics_) {
    if (verbs::Mr* mr = mrs_[nic->index()]; mr != nullptr) nic->v().dereg_mr(mr);
  }
}

verbs::Mr* Memory::register_with(Nic& nic, const Region& region, std::string* why) const {
  const verbs::Registrar registrar = nic.registrar();
  if (region.location != Location::gpu) return registrar.host(region.address, region.bytes, why);
  std::string refusal;
  const auto memory = config_.export_dmabuf
                          ? config_.export_dmabuf(region, &refusal)
                          : verbs::export_dmabuf(region.device, region.address, region.bytes, &refusal);
  return registrar.gpu(memory, refusal, region.address, region.bytes, why);
}

std::shared_ptr<const LocalMemory> Memory::attach(const Region& region) {
  if (auto known = find(region.id)) return known;
  auto memory = std::make_shared<LocalMemory>();
  memory->host_ = region.location != Location::gpu;
  const size_t wished = std::min<size_t>(config_.nics_per_transfer + config_.spare_nics, kMaxNics);
  std::vector<Nic*> chosen;
  for (const std::string& name : nics_.order(region)) {
    if (chosen.size() == wished) break;
    std::string why;
    if (Nic* nic = nics_.get(name, &why); nic != nullptr && !nic->dead) {
      chosen.push_back(nic);
    } else {
      append(memory->reason_, why.empty() ? name + ": the NIC failed" : why);
    }
  }
  using Result = std::pair<verbs::Mr*, std::string>;
  const auto pin = [&](Nic* nic) -> Result {
    std::string why;
    verbs::Mr* mr = register_with(*nic, region, &why);
    return {mr, why};
  };
  const auto how = region.bytes >= kPinTogether ? std::launch::async : std::launch::deferred;
  std::vector<std::future<Result>> pins;
  for (Nic* nic : chosen) pins.push_back(std::async(how, pin, nic));
  for (size_t i = 0; i < pins.size(); ++i) {
    auto [mr, why] = pins[i].get();
    if (mr == nullptr) {
      append(memory->reason_, why);
      continue;
    }
    memory->mrs_[chosen[i]->index()] = mr;
    memory->nics_.push_back(chosen[i]);
  }
  std::lock_guard lock(mutex_);
  return regions_.emplace(region.id, std::move(memory)).first->second;
}

void Memory::detach(uint64_t region) {
  std::shared_ptr<const LocalMemory> gone;  // unpinned outside the lock
  std::lock_guard lock(mutex_);
  const auto at = regions_.find(region);
  if (at == regions_.end()) return;
  gone = std::move(at->second);
  regions_.erase(at);
}

std::shared_ptr<const LocalMemory> Memory::find(uint64_t region) const {
  std::lock_guard lock(mutex_);
  const auto at = regions_.find(region);
  return at == regions_.end() ? nullptr : at->second;
}

size_t Memory::count() const {
  std::lock_guard lock(mutex_);
  return regions_.size();
}

std::string Memory::attachment(const Region& region, const LocalMemory& memory) const {
  Attachment a;
  a.address = region.address;
  a.reason = memory.reason();
  for (Nic* nic : memory.nics()) {
    NicCard card;
    card.index = nic->index();
    card.rkey = memory.on(nic->index())->rkey;
    card.name = nic->name();
    bool software = false;
    card.gbit_per_s = uint32_t(nics_.rate(nic->name(), &software));
    try {
      card.address = nic->address();
    } catch (const core::TransportError& error) {
      append(a.reason, error.what());
      continue;
    }
    a.nics.push_back(card);
  }
  return encode(a);
}

}  // namespace mori::io::rdma
