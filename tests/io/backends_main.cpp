// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The shm and file backends under a sanitizer: threads that submit, wait, stop and revoke at the same time.
//   backends_main FOLDER   exits 0 if every job finished once, with a code that fits
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <cstdio>
#include <string>

#include "tests/io/backend_lab.cpp"

namespace {

constexpr uint64_t kBytes = 1 << 20;
std::atomic<int> wrong{0};

void expect(bool fact, const char* words) {
  if (fact) return;
  fprintf(stderr, "wrong: %s\n", words);
  ++wrong;
}

/// Threads write and read the same disjoint parts over one route, which is revoked in the middle.
void crowd(Lab* lab, std::shared_ptr<Pair>* pair, const char* what) {
  std::vector<std::thread> threads;
  std::atomic<int> succeeded{0}, refused{0};
  for (uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (uint64_t round = 0; refused < 40; ++round) {
        const uint64_t part = kBytes / 4;
        const uint64_t segments[] = {t * part, t * part, part / 2, t * part + part / 2, t * part + part / 2,
                                     part / 2};
        auto* job = lab_submit(lab, pair, round % 2 == 0, segments, 2, round % 7 == 6);
        if (round % 5 == 4) lab_stop(lab, job);
        lab_help(lab, job);
        const int code = job_wait(job, 60);
        expect((*job)->finishes == 1, what);
        if (code == 0) ++succeeded;
        if (code == int(StatusCode::err_not_found)) ++refused;
        expect(code == 0 || code == int(StatusCode::err_not_found) || code == int(StatusCode::err_cancelled),
               what);
        job_free(job);
        if (round == 30 && t == 0) lab_revoke(lab, pair);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  expect(succeeded > 0, what);
}

void check(Lab* lab, int64_t pid, int location, uint64_t address, const std::string& attachment,
           const char* what) {
  std::vector<uint8_t> local(kBytes);
  char reason[2000] = {};
  auto* pair = lab_prepare(lab, nullptr, pid, 1, int(Location::cpu), reinterpret_cast<uint64_t>(local.data()),
                           kBytes, -1, 1, location, address, kBytes, attachment.data(), attachment.size(),
                           reason, sizeof reason);
  if (pair == nullptr) {
    fprintf(stderr, "skipped %s: %s\n", what, reason);
  } else {
    crowd(lab, pair, what);
    pair_free(pair);
  }
  lab_free(lab);
}

}  // namespace

int main(int, char** arguments) {
  // Another process with one memory, before there are threads.
  char why[2000] = {};
  auto* memory = memory_new(kBytes, 1, why, sizeof why);
  Lab* owner = lab_shm(1, 1, 0, -1);
  std::string attachment(4096, '\0');
  const uint64_t address = memory_address(memory);
  attachment.resize(
      size_t(lab_attach(owner, 1, 1, address, kBytes, -1, "", attachment.data(), attachment.size())));
  const pid_t child = fork();
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;) pause();
  }
  check(lab_shm(1, 0, 0, -1), child, 1, address, attachment, "mapped, queued");
  check(lab_shm(1, 0, 1 << 30, 1), child, 1, address, attachment, "mapped, inline, streaming");
  check(lab_shm(0, 1, 0, -1), child, 1, address, attachment, "process_vm, queued");
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  lab_free(owner);
  memory_free(memory);

  for (int direct = 0; direct < 2; ++direct) {
    for (int ring = 0; ring < 2; ++ring) {
      const std::string path = std::string(arguments[1]) + "/data";
      uint64_t size = 0;
      const int fd = file_open(path.c_str(), kBytes, 1, direct ? -1 : 0, 0, &size, why, sizeof why);
      expect(fd >= 0, why);
      Lab* lab = lab_file(ring, 3, 4, 65536, 0, 0);
      attachment.assign(4096, '\0');
      attachment.resize(
          size_t(lab_attach(lab, 1, 3, 0, kBytes, fd, path.c_str(), attachment.data(), attachment.size())));
      check(lab, getpid(), 3, 0, attachment, ring ? "file, ring" : "file, threads");
      close(fd);
    }
  }
  return wrong == 0 ? 0 : 1;
}
