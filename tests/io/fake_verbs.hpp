// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// What a test may order from the pretended libibverbs (fake_verbs.cpp). NICs are numbered from 0 in the order
// of their names fake0, fake1, ...; the two of a pair (0 and 1, 2 and 3) are on one network.
#pragma once
#include <cstdint>

extern "C" {
/// Forgets everything and makes `nics` NICs. Nothing may be open.
void fake_reset(int nics);
/// Time that a work request takes; a queue pair does one after the other.
void fake_latency(int us);
/// The work request number `after` from now on NIC `nic` (as initiator) completes with `status`; once.
void fake_fail(int nic, int after, int status);
/// Packets to and from the NIC vanish: its requests end with RETRY_EXC after `retry_ms`; the port stays up.
void fake_unplug(int nic, int retry_ms);
void fake_plug(int nic);
/// The port's state changes, with its event.
void fake_port(int nic, int up);
/// The NIC reports that it failed.
void fake_die(int nic);
/// From now on, what a broken queue pair had under way arrives `ms` later all the same, as a packet stuck in
/// a switch would; if `through_closed`, even when the target's queue pair is gone (no network does that).
void fake_ghosts(int ms, int through_closed);
uint64_t fake_ghosts_landed();
/// Limits, before the NIC is opened.
void fake_limits(int max_send_wr, int max_sge, int max_inline, int dmabuf);
/// post_send fails with ENOMEM at the `after`th call from now, once.
void fake_refuse_post(int after);
/// Completes something that was never posted on the next poll.
void fake_garbage_completion();
/// Rules that the caller broke so far (a full queue overrun, a foreign key, ...); the last in words.
int fake_violations(const char** last);
/// Objects that are open.
int fake_open_objects();
uint64_t fake_doorbells();
uint64_t fake_requests();
uint64_t fake_inline_requests();
uint64_t fake_gathers();       ///< requests of several local pieces
uint64_t fake_bytes(int nic);  ///< moved by requests of this NIC
/// Status of the retry count and traffic class of the last queue pair made ready.
int fake_last_retry();
int fake_last_traffic_class();
}
