// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/core/runtime/step_stream.hpp"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "src/core/runtime/copy_queue.hpp"
#include "src/core/runtime/gpu_device_class.hpp"

namespace mori::core {
namespace {

class GpuSteps final : public StepStream {
 public:
  explicit GpuSteps(std::shared_ptr<Device> device)
      : device_(std::move(device)), on_(static_cast<GpuDevice&>(*device_)), aside_(device_) {
    const GpuDriver& driver = on_.driver();
    if (driver.stream_write_value == nullptr || driver.stream_wait_value == nullptr) {
      throw ConfigError(std::string(driver.library) + " has no stream memory operations: no zero_cu");
    }
    word_ = device_->allocate_host(64);
  }
  ~GpuSteps() override {
    try {
      device_->free_host(word_);
    } catch (...) {  // a device that failed cannot be tidied up; the process's end does it
    }
  }

  void begin(uint64_t stream) override { stream_ = stream; }
  void copy(uint64_t to, uint64_t from, size_t bytes) override {
    const Current current = on_.activate();
    check(on_.driver().memcpy_async(to, from, bytes, stream_), "queueing a copy");
  }
  void write(uint64_t to, uint32_t value) override {
    const Current current = on_.activate();
    check(on_.driver().stream_write_value(stream_, to, value), "queueing a word");
  }
  void signal(uint64_t to, uint64_t from) override { copy(to, from, sizeof(uint32_t)); }
  void wait(uint64_t address, uint32_t value) override {
    const Current current = on_.activate();
    check(on_.driver().stream_wait_value(stream_, address, value), "queueing a wait");
  }

  uint32_t peek(uint64_t address) override {
    const std::lock_guard<std::mutex> guard(mutex_);
    aside(word_.device, address);
    return __atomic_load_n(static_cast<uint32_t*>(word_.host), __ATOMIC_RELAXED);
  }
  void poke(uint64_t address, uint32_t value) override {
    const std::lock_guard<std::mutex> guard(mutex_);
    __atomic_store_n(static_cast<uint32_t*>(word_.host), value, __ATOMIC_RELAXED);
    aside(address, word_.device);
  }

 private:
  void check(Status status, const char* action) const {
    if (status != 0) gpu_fail(on_.driver(), status, action);
  }
  void aside(uint64_t to, uint64_t from) {
    aside_.copy(to, from, sizeof(uint32_t));
    aside_.mark();
    while (!aside_.reached()) std::this_thread::sleep_for(std::chrono::microseconds(50));
  }

  std::shared_ptr<Device> device_;
  GpuDevice& on_;
  uint64_t stream_ = 0;
  std::mutex mutex_;  ///< of what follows
  CopyQueue aside_;   ///< a stream that waits for no other
  HostMemory word_;
};

uint32_t* word_at(uint64_t address) { return reinterpret_cast<uint32_t*>(address); }

class CpuSteps final : public StepStream {
 public:
  explicit CpuSteps(std::shared_ptr<Device> device)
      : device_(std::move(device)), thread_([this] { work(); }) {}
  ~CpuSteps() override {
    {
      const std::lock_guard<std::mutex> guard(mutex_);
      quit_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

  void begin(uint64_t) override { steps_.clear(); }
  void copy(uint64_t to, uint64_t from, size_t bytes) override {
    steps_.push_back({Step::copy, 0, to, from, bytes});
  }
  void write(uint64_t to, uint32_t value) override { steps_.push_back({Step::write, value, to, 0, 0}); }
  void signal(uint64_t to, uint64_t from) override { steps_.push_back({Step::signal, 0, to, from, 0}); }
  void wait(uint64_t address, uint32_t value) override {
    steps_.push_back({Step::wait, value, address, 0, 0});
  }
  void submit() override {
    {
      const std::lock_guard<std::mutex> guard(mutex_);
      busy_ = true;
    }
    changed_.notify_all();
  }
  bool wait_some(uint32_t milliseconds) override {
    std::unique_lock<std::mutex> guard(mutex_);
    return changed_.wait_for(guard, std::chrono::milliseconds(milliseconds), [&] { return !busy_; });
  }

  uint32_t peek(uint64_t address) override { return __atomic_load_n(word_at(address), __ATOMIC_ACQUIRE); }
  void poke(uint64_t address, uint32_t value) override {
    __atomic_store_n(word_at(address), value, __ATOMIC_RELEASE);
  }

 private:
  struct Step {
    enum Kind { copy, write, signal, wait } kind;
    uint32_t value;
    uint64_t to, from;
    size_t bytes;
  };

  void work() {
    std::unique_lock<std::mutex> guard(mutex_);
    for (;;) {
      changed_.wait(guard, [&] { return quit_ || busy_; });
      if (quit_) return;
      guard.unlock();
      for (const Step& step : steps_) {
        if (!run(step)) return;
      }
      guard.lock();
      busy_ = false;
      changed_.notify_all();
    }
  }
  /// False if the object is being destroyed.
  bool run(const Step& step) {
    switch (step.kind) {
      case Step::copy:
        device_->copy(step.to, step.from, step.bytes);
        return true;
      case Step::write:
        poke(step.to, step.value);
        return true;
      case Step::signal:
        poke(step.to, peek(step.from));
        return true;
      case Step::wait:
        return poll(step);
    }
    return true;
  }
  bool poll(const Step& step) {
    for (uint32_t turn = 0; peek(step.to) != step.value; ++turn) {
      if (turn < kSpins) continue;
      if (turn < 2 * kSpins) {
        std::this_thread::yield();
        continue;
      }
      if (quit_) return false;
      std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
    return true;
  }

  static constexpr uint32_t kSpins = 64;

  std::shared_ptr<Device> device_;
  std::vector<Step> steps_;  ///< of the thread while busy_
  std::mutex mutex_;         ///< of what follows
  std::condition_variable changed_;
  bool busy_ = false;
  std::atomic<bool> quit_ = false;
  std::thread thread_;
};

}  // namespace

std::unique_ptr<StepStream> StepStream::open(std::shared_ptr<Device> device) {
  if (device->kind() == Kind::cpu) return std::make_unique<CpuSteps>(std::move(device));
  return std::make_unique<GpuSteps>(std::move(device));
}

}  // namespace mori::core
