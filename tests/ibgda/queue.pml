/* SPDX-FileCopyrightText: 2026 The MoRI authors
 * SPDX-License-Identifier: MIT
 *
 * The queue algorithm (src/transport/ibgda/queue.hpp) with three posters (or two that post twice), one NIC and a small ring:
 * reserve, room, encode, publish, ring, complete. test_queue_model.py runs it, and runs it with each rule
 * taken away by one of the names below; then an assertion fails or somebody waits for ever.
 *
 * A slot holds 0 (nothing the NIC may fetch) or 1 + the position that was encoded into it. Positions are small
 * numbers: that they are 64 bits wide on one side and 16 on the other is the stress program's business.
 */
#ifndef POSTERS
#define POSTERS 3
#define POSTS 1
#define DEPTH 2
#endif
#define ALL (POSTERS * POSTS)

byte reserved, published, rung, completed; /* the words of Queue */
bit ring_lock, poll_lock;
byte slot[DEPTH];
byte doorbell;    /* the NIC's register */
byte fetched;     /* the NIC: executed entries */
byte completions; /* the NIC: valid entries of the completion ring */
byte taken;       /* entries of the completion ring that were taken */
bit executed[ALL];

inline poll() {
  if
  :: atomic { poll_lock == 0 -> poll_lock = 1 };
     do
     :: taken < completions -> taken++; completed = taken
     :: else -> break
     od;
     poll_lock = 0
  :: else -> skip
  fi
}

inline ring_published() {
#ifdef READ_BEFORE_LOCK
  end = published;
#endif
#ifndef NO_RING_LOCK
  if
  :: atomic { ring_lock == 0 -> ring_lock = 1 };
#endif
#ifndef READ_BEFORE_LOCK
     end = published;
#endif
     if
     :: end != rung ->
        assert(end > doorbell); /* a doorbell never goes back */
        doorbell = end;
        rung = end
     :: else -> skip
     fi;
#ifndef NO_RING_LOCK
     ring_lock = 0
  :: else -> skip
  fi
#endif
}

active [POSTERS] proctype poster() {
  byte base, end, k;
  for (k : 1 .. POSTS) {
    d_step { base = reserved; reserved++ };
#ifndef NO_ROOM
    do
    :: completed + DEPTH >= base + 1 -> break
    :: completed + DEPTH < base + 1 && taken < completions -> poll()
    od;
#endif
#ifdef RING_BEFORE_ENCODE
    do
    :: published == base -> break
    od;
    published = base + 1;
#endif
    assert(slot[base % DEPTH] == 0); /* no entry is overwritten before the NIC has done it */
    slot[base % DEPTH] = base + 1;
#ifndef RING_BEFORE_ENCODE
#ifdef NO_ORDER
    published = base + 1;
#else
    published == base; /* the turn */
    published = base + 1;
#endif
#endif
#ifdef RING_ONCE
    ring_published(); /* and trusts whoever holds the lock */
#else
    do
    :: rung >= base + 1 -> break
    :: rung < base + 1 && ring_lock == 0 -> ring_published()
    od;
#endif
    if /* some wait for what they posted */
    :: skip
    :: do
       :: completed >= base + 1 -> break
       :: completed < base + 1 && taken < completions -> poll()
       od;
       assert(executed[base]) /* no early completion */
    fi
  }
  /* quiet */
#ifdef QUIET_READS_COMPLETED
  end = completed;
#else
  end = published;
#endif
  do
  :: completed >= end -> break
  :: completed < end && taken < completions -> poll()
  od;
  assert(executed[base])
}

active proctype nic() {
  byte at;
end: /* idle is no deadlock */
  do
  :: fetched < doorbell ->
     at = fetched;
     assert(slot[at % DEPTH] == at + 1); /* nothing is rung that is not whole */
#ifdef EARLY_COMPLETION
     completions++;
#endif
     assert(!executed[at]);
     executed[at] = 1;
     slot[at % DEPTH] = 0;
     fetched++;
#ifndef EARLY_COMPLETION
     completions++
#endif
  od
}
