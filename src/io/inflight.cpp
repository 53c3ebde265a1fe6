// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/io/inflight.hpp"

#include <algorithm>
#include <vector>

#include "src/io/threads.hpp"

namespace mori::io {

Inflight::~Inflight() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
    wake_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
}

void Inflight::add(InflightNode& node, Deadline deadline) {
  const std::lock_guard lock(mutex_);
  node.deadline_ = deadline;
  node.next_ = first_;
  node.link_ = &first_;
  if (first_) first_->link_ = &node.next_;
  first_ = &node;
  ++size_;
  if (deadline >= next_look_) return;
  next_look_ = deadline;
  if (!std::exchange(started_, true)) thread_ = start_thread("mori-io-timer", [this] { run(); });
  wake_.notify_one();
}

void Inflight::remove(InflightNode& node) {
  const std::lock_guard lock(mutex_);
  if (node.next_) node.next_->link_ = node.link_;
  *node.link_ = node.next_;
  node.link_ = nullptr;
  --size_;
  if (waiting_ > 0) removed_.notify_all();
}

void Inflight::each(const std::function<void(InflightNode&)>& visit) {
  std::vector<std::shared_ptr<InflightNode>> members;
  {
    const std::lock_guard lock(mutex_);
    for (InflightNode* node = first_; node; node = node->next_)
      if (auto held = node->hold()) members.push_back(std::move(held));
  }
  for (const auto& member : members) visit(*member);
}

bool Inflight::wait_until_none(const std::function<bool(const InflightNode&)>& concerns, Deadline deadline) {
  std::unique_lock lock(mutex_);
  ++waiting_;
  const auto none = [&] {
    for (InflightNode* node = first_; node; node = node->next_)
      if (concerns(*node)) return false;
    return true;
  };
  bool done = true;
  if (deadline == Deadline::max())
    removed_.wait(lock, none);
  else
    done = removed_.wait_until(lock, deadline, none);
  --waiting_;
  return done;
}

size_t Inflight::size() const {
  const std::lock_guard lock(mutex_);
  return size_;
}

void Inflight::run() {
  std::unique_lock lock(mutex_);
  while (!stop_) {
    if (next_look_ == Deadline::max())
      wake_.wait(lock);
    else
      wake_.wait_until(lock, next_look_);
    const Deadline now = Clock::now();
    if (stop_ || now < next_look_) continue;
    std::vector<std::shared_ptr<InflightNode>> late;
    next_look_ = Deadline::max();
    for (InflightNode* node = first_; node; node = node->next_) {
      if (node->deadline_ > now) {
        next_look_ = std::min(next_look_, node->deadline_);
      } else if (auto held = node->hold()) {
        node->deadline_ = Deadline::max();
        late.push_back(std::move(held));
      }
    }
    lock.unlock();
    for (const auto& node : late) node->expired();
    late.clear();
    lock.lock();
  }
}

}  // namespace mori::io
